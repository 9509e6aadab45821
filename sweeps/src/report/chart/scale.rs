//! Axes: from data to drawing units, with ticks at round numbers and powers of ten.

/// One axis of a plot.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    /// What it shows, with its unit.
    pub title: String,
    pub log: bool,
    pub low: f64,
    pub high: f64,
}

/// A place on an axis; without text it is a minor tick.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    pub at: f64,
    /// In the markup of [`super::text::rich`].
    pub text: Option<String>,
}

impl Axis {
    /// An axis around the finite values (above 0 for a logarithmic one), widened by a share of its length at both ends.
    /// Without values it shows 1 to 10.
    pub fn around(title: &str, log: bool, values: impl Iterator<Item = f64>, pad: f64) -> Axis {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values.filter(|v| v.is_finite() && (!log || *v > 0.0)) {
            low = low.min(v);
            high = high.max(v);
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if log {
            let room = ((high / low).ln() * pad).max(0.02);
            (low, high) = (low * (-room).exp(), high * room.exp());
        } else {
            let room = ((high - low) * pad).max(1e-3 * high.abs().max(1e-9));
            (low, high) = (low - room, high + room);
        }
        Axis { title: title.into(), log, low, high }
    }

    /// Where a value lies, 0 at the low end and 1 at the high end.
    pub fn share(&self, value: f64) -> f64 {
        if self.log {
            (value.max(1e-300) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// The value at a share of the axis.
    pub fn at(&self, share: f64) -> f64 {
        if self.log {
            self.low * (self.high / self.low).powf(share)
        } else {
            self.low + (self.high - self.low) * share
        }
    }

    pub fn ticks(&self) -> Vec<Tick> {
        let decades = (self.high / self.low).log10();
        if self.log && decades >= 1.7 {
            return self.decades(decades);
        }
        if self.log && self.high >= 2e3 {
            return if decades > 0.4 { self.multiples() } else { self.mantissas() };
        }
        self.round_numbers()
    }

    /// Powers of ten, every second or third where there are many, with minor ticks at 2 to 9 where there are few.
    fn decades(&self, decades: f64) -> Vec<Tick> {
        let every = (decades / 7.0).ceil() as i32;
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let mut ticks = Vec::new();
        for k in first..=last {
            let power = 10f64.powi(k);
            let text = (k.rem_euclid(every) == 0).then(|| format!("10^{{{k}}}"));
            ticks.push(Tick { at: power, text });
            if decades <= 6.0 {
                ticks.extend((2..=9).map(|m| Tick { at: power * f64::from(m), text: None }));
            }
        }
        self.inside(ticks)
    }

    /// 1, 2 and 5 times powers of ten on a logarithmic axis of less than two decades.
    fn multiples(&self) -> Vec<Tick> {
        let decades = (self.high / self.low).log10();
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let mut ticks = Vec::new();
        for k in first..=last {
            for m in 1..=9 {
                let labelled = match m {
                    1 => true,
                    3 => decades > 0.9,
                    2 | 5 => decades <= 0.9,
                    _ => decades <= 0.3,
                };
                let text = match m {
                    1 => format!("10^{{{k}}}"),
                    _ => format!("{m}×10^{{{k}}}"),
                };
                ticks.push(Tick { at: f64::from(m) * 10f64.powi(k), text: labelled.then_some(text) });
            }
        }
        self.inside(ticks)
    }

    /// Round multiples of one power of ten, on a short logarithmic axis.
    fn mantissas(&self) -> Vec<Tick> {
        let exponent = self.high.log10().floor();
        let unit = 10f64.powf(exponent);
        let short = Axis { title: String::new(), log: false, low: self.low / unit, high: self.high / unit };
        let scaled =
            |t: Tick| Tick { at: t.at * unit, text: t.text.map(|m| format!("{m}×10^{{{exponent}}}")) };
        let ticks: Vec<Tick> = short.round_numbers().into_iter().map(scaled).collect();
        // Labels are long: every second where there are many.
        let every = if ticks.len() > 4 { 2 } else { 1 };
        let thinned = |(i, t): (usize, Tick)| if i % every == 0 { t } else { Tick { text: None, ..t } };
        ticks.into_iter().enumerate().map(thinned).collect()
    }

    /// Multiples of 1, 2, 2.5 or 5 times a power of ten, about five of them.
    fn round_numbers(&self) -> Vec<Tick> {
        let raw = (self.high - self.low) / 5.0;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|m| m * power).find(|s| *s >= raw * 0.999);
        let step = step.unwrap_or(raw);
        let mut decimals = (-step.log10().floor()).max(0.0) as usize;
        if ((step * 10f64.powi(decimals as i32)).fract() - 0.5).abs() < 0.1 {
            decimals += 1;
        }
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last.min(first + 20))
            .map(|k| {
                let at = k as f64 * step;
                let text = format!("{at:.decimals$}").replace('-', "\u{2212}");
                Tick { at, text: Some(text) }
            })
            .collect()
    }

    fn inside(&self, ticks: Vec<Tick>) -> Vec<Tick> {
        ticks.into_iter().filter(|t| t.at >= self.low * 0.999_999 && t.at <= self.high * 1.000_001).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().filter_map(|t| t.text).collect()
    }

    #[test]
    fn decades_multiples_and_round_numbers_are_chosen_by_length() {
        let axis = |log, low, high| Axis { title: String::new(), log, low, high };
        assert_eq!(labels(&axis(true, 5e9, 2e12)), ["10^{10}", "10^{11}", "10^{12}"]);
        assert_eq!(labels(&axis(true, 1e3, 1e21)).len(), 7);
        assert_eq!(labels(&axis(true, 1e6, 6e6)), ["10^{6}", "2×10^{6}", "5×10^{6}"]);
        assert_eq!(labels(&axis(true, 4.1e9, 5.9e9)), ["4.5×10^{9}", "5.0×10^{9}", "5.5×10^{9}"]);
        assert_eq!(labels(&axis(true, 1.5, 4.0)), ["1.5", "2.0", "2.5", "3.0", "3.5", "4.0"]);
        assert_eq!(labels(&axis(false, 0.0, 1.2)), ["0.00", "0.25", "0.50", "0.75", "1.00"]);
    }

    #[test]
    fn an_axis_without_or_with_one_value_is_still_an_axis() {
        for values in [vec![], vec![3.0], vec![f64::NAN, -1.0]] {
            let axis = Axis::around("x", true, values.into_iter(), 0.1);
            assert!(axis.low < axis.high && axis.share(axis.low).abs() < 1e-12);
        }
    }
}
