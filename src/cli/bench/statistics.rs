//! Medians, quartiles and percentiles.

/// The median; NaN of nothing. Sorts `values`.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which the share `at` of `values` lies, interpolated; NaN of nothing. Sorts
/// `values`.
pub(crate) fn quantile(values: &mut [f64], at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = at * last as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    values[low] + (values[high] - values[low]) * (place - low as f64)
}

/// How a value spread over the repetitions.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
    pub(crate) max: f64,
    pub(crate) count: usize,
}

impl Spread {
    /// Of `values`; `None` of nothing.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        if values.is_empty() {
            return None;
        }
        Some(Spread {
            lower: quantile(&mut values, 0.25),
            median: quantile(&mut values, 0.5),
            upper: quantile(&mut values, 0.75),
            min: values[0],
            max: values[values.len() - 1],
            count: values.len(),
        })
    }

    /// The middle half's width as a share of the median.
    pub(crate) fn relative_iqr(&self) -> f64 {
        (self.upper - self.lower) / self.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&mut []).is_nan());
        let spread = Spread::of((1..=5).map(f64::from).collect()).unwrap();
        assert_eq!(
            (
                spread.min,
                spread.lower,
                spread.median,
                spread.upper,
                spread.max
            ),
            (1.0, 2.0, 3.0, 4.0, 5.0)
        );
        assert!((spread.relative_iqr() - 2.0 / 3.0).abs() < 1e-12);
    }
}
