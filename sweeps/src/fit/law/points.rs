//! Runs as the minimisers see them: centred logarithms, and the measure of how far a law is from them.

use nalgebra::{SMatrix, SVector};

pub(crate) type Vec5 = SVector<f64, 5>;
pub(crate) type Mat5 = SMatrix<f64, 5, 5>;

/// Runs as centred logarithms. How often each counts is given beside them, so that resamples copy nothing.
#[derive(Debug, Clone)]
pub(crate) struct Points {
    /// ln N - x_mean.
    pub x: Vec<f64>,
    /// ln D - y_mean.
    pub y: Vec<f64>,
    /// ln L.
    pub z: Vec<f64>,
    /// L.
    pub loss: Vec<f64>,
    pub x_mean: f64,
    pub y_mean: f64,
}

impl Points {
    pub fn new(rows: impl Iterator<Item = (f64, f64, f64)>) -> Points {
        let (mut x, mut y, mut z, mut l) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (params, tokens, loss) in rows {
            x.push(params.ln());
            y.push(tokens.ln());
            z.push(loss.ln());
            l.push(loss);
        }
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
        let (x_mean, y_mean) = (mean(&x), mean(&y));
        x.iter_mut().for_each(|v| *v -= x_mean);
        y.iter_mut().for_each(|v| *v -= y_mean);
        Points { x, y, z, loss: l, x_mean, y_mean }
    }

    /// Every so many runs of these, about the same means.
    pub fn every(&self, step: usize) -> Points {
        let of = |v: &[f64]| v.iter().step_by(step).copied().collect();
        Points { x: of(&self.x), y: of(&self.y), z: of(&self.z), loss: of(&self.loss), ..*self }
    }

    pub fn len(&self) -> usize {
        self.z.len()
    }
}

/// What is summed over the runs: Huber terms of the residual of the log loss or of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measure {
    /// Residuals of the loss rather than of its logarithm.
    pub linear: bool,
    /// Width of the quadratic part; infinite for squares.
    pub delta: f64,
}

impl Measure {
    /// The same with another width.
    pub fn wider(self, factor: f64) -> Measure {
        Measure { delta: self.delta * factor, ..self }
    }
}

/// An objective near one theta.
#[derive(Debug, Clone)]
pub(crate) struct Derivatives {
    pub value: f64,
    pub gradient: Vec5,
    pub hessian: Mat5,
    /// The Hessian of the quadratic that lies above the Huber terms (weights min(1, delta / |r|), Gauss-Newton): it is
    /// positive semidefinite and serves as the metric of the damping.
    pub metric: Mat5,
    /// Sum of the absolute slopes that add up to the gradient: what the gradient is small beside at a minimum.
    pub scale: f64,
}

impl Derivatives {
    pub fn zero() -> Derivatives {
        Derivatives {
            value: 0.0,
            gradient: Vec5::zeros(),
            hessian: Mat5::zeros(),
            metric: Mat5::zeros(),
            scale: 0.0,
        }
    }

    /// Copies the lower triangles to the upper ones.
    pub fn mirror(&mut self) {
        for row in 0..5 {
            for col in 0..row {
                self.hessian[(col, row)] = self.hessian[(row, col)];
                self.metric[(col, row)] = self.metric[(row, col)];
            }
        }
    }
}
