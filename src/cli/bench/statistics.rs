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

/// Between which of `values` the median of what they are drawn from lies, in 15 of 16 cases or more, whatever their
/// distribution (the range that the sign test leaves): the least and the greatest of five to eight, the second of either end
/// of nine to eleven. Of fewer than five, which are too few for that, the least and the greatest, too; `None` of nothing.
/// Sorts `values`.
fn median_range(values: &mut [f64]) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    if count > 1000 {
        // Where powers of a half vanish, but the normal distribution is as good.
        let outside = (count as f64 / 2.0 - 0.94 * (count as f64).sqrt()) as usize;
        return Some((values[outside], values[count - 1 - outside]));
    }
    // How likely it is that no more than so many of them are below the median, and as many above.
    let (mut outside, mut likely) = (0, 0.5f64.powi(count as i32));
    let mut all = likely;
    while outside + 1 < count / 2 {
        likely *= (count - outside) as f64 / (outside + 1) as f64;
        if 2.0 * (all + likely) > 1.0 / 16.0 {
            break;
        }
        all += likely;
        outside += 1;
    }
    Some((*values.get(outside)?, values[count - 1 - outside]))
}

/// How a value spread over the repetitions.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
    pub(crate) max: f64,
    /// See [`median_range`].
    pub(crate) range: (f64, f64),
    pub(crate) count: usize,
}

impl Spread {
    /// Of `values`; `None` of nothing.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        let range = median_range(&mut values)?;
        Some(Spread {
            range,
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

    /// How far apart, as a share of the lesser, two medians can be that both lie as far from the true one as this
    /// one may. Of positive values.
    pub(crate) fn relative_doubt(&self) -> f64 {
        let off = (self.range.1 / self.median).max(self.median / self.range.0);
        off * off - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_the_median_leaves_out_what_the_sign_test_does() {
        let of =
            |count: usize| median_range(&mut (1..=count).map(|i| i as f64).collect::<Vec<_>>());
        assert_eq!(of(0), None);
        assert_eq!(of(1), Some((1.0, 1.0)));
        // From tables of the sign test: n = 8 leaves out none at 93 %, n = 9 one at 96 %, n = 12 two at 96 %.
        let outside = [
            (4, 0),
            (5, 0),
            (8, 0),
            (9, 1),
            (11, 1),
            (12, 2),
            (20, 5),
            (2000, 957),
        ];
        for (count, outside) in outside {
            let range = (1 + outside, count - outside);
            assert_eq!(of(count), Some((range.0 as f64, range.1 as f64)), "{count}");
        }
    }

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

    #[test]
    fn two_medians_in_doubt_are_no_further_apart_than_the_doubt() {
        let of = |values: &[f64]| Spread::of(values.to_vec()).unwrap();
        let (low, high) = (
            of(&[100.0, 101.0, 107.0, 107.0, 107.0]),
            of(&[107.0, 107.0, 107.0, 114.0, 114.0]),
        );
        for spread in [low, high] {
            // The median of what both are drawn from may be at the other end of either range.
            let doubt = spread.relative_doubt();
            assert!((doubt - (1.07f64 * 1.07 - 1.0)).abs() < 0.01, "{doubt}");
        }
        assert_eq!(of(&[50.0; 5]).relative_doubt(), 0.0);
        assert_eq!(
            of(&[100.0, 101.0, 200.0, 201.0, 202.0]).relative_doubt(),
            3.0
        );
    }
}
