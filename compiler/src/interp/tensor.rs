//! A tensor of the interpreter: a type, and its elements as f64 in row-major order.

use super::Precision;
use super::numeric::{convert, stored};
use crate::graph::{Shape, TensorType};
use isoflop_kernels::DType;

/// Integers and bools are stored as whole numbers; f64 holds every i32.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub dtype: DType,
    pub shape: Shape,
    /// Row-major, one for each element.
    pub data: Vec<f64>,
}

impl Tensor {
    /// Elements are taken as they are. A count that does not fit the shape is found by `interpret`, as an error.
    pub fn new(ty: &TensorType, data: Vec<f64>) -> Self {
        Tensor { dtype: ty.dtype, shape: ty.shape.clone(), data }
    }

    pub fn f32(shape: &[usize], data: Vec<f64>) -> Self {
        Self::new(&TensorType::f32(shape), data)
    }

    pub fn i32(shape: &[usize], data: impl IntoIterator<Item = i32>) -> Self {
        Self::new(&TensorType::i32(shape), data.into_iter().map(f64::from).collect())
    }

    pub fn scalar(x: f64) -> Self {
        Self::f32(&[], vec![x])
    }

    pub fn splat(ty: &TensorType, value: f64) -> Self {
        Self::new(ty, vec![convert(value, ty.dtype); ty.elements()])
    }

    pub fn ty(&self) -> TensorType {
        TensorType { dtype: self.dtype, shape: self.shape.clone() }
    }

    pub(super) fn rounded(mut self, precision: Precision) -> Self {
        if precision == Precision::F32 && self.dtype.is_float() {
            self.data.iter_mut().for_each(|x| *x = stored(*x, self.dtype));
        }
        self
    }
}
