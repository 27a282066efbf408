//! A histogram of durations, in steps of at most 1/64 of their size.

/// Steps for each doubling.
const STEPS: u64 = 64;

/// Values and their counts, in a few kilobytes for any number of values.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        let step = step(value);
        if step >= self.counts.len() {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
        self.total += 1;
        self.most = self.most.max(value);
    }

    /// Number of values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The greatest value, exactly; `None` if there is none.
    pub fn most(&self) -> Option<u64> {
        (self.total > 0).then_some(self.most)
    }

    /// The value that `share` (0 to 1) of all values do not exceed: never too small, and at most 1/64 too
    /// great. `None` if there are no values.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut passed = 0;
        let step = self.counts.iter().position(|count| {
            passed += count;
            passed >= rank
        })?;
        Some(last_of(step).min(self.most))
    }
}

/// The step that counts a value. Below two doublings each value has its own.
fn step(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(STEPS.ilog2() + 1);
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// The greatest value that a step counts.
fn last_of(step: usize) -> u64 {
    let step = step as u64;
    if step < 2 * STEPS {
        return step;
    }
    let shift = step / STEPS - 1;
    let within = u128::from(step - shift * STEPS + 1);
    u64::try_from((within << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_few_and_of_no_values() {
        let mut times = Histogram::default();
        assert_eq!((times.quantile(0.5), times.most()), (None, None));
        for value in 1..=100 {
            times.record(value);
        }
        assert_eq!(
            [0.0, 0.5, 0.9, 0.99, 1.0].map(|share| times.quantile(share).unwrap()),
            [1, 50, 90, 99, 100]
        );
        times.record(1_000_003);
        assert_eq!(
            (times.quantile(1.0), times.most(), times.total()),
            (Some(1_000_003), Some(1_000_003), 101)
        );
    }

    proptest! {
        #[test]
        fn a_step_holds_its_value_and_is_narrow(value: u64) {
            let step = step(value);
            let last = last_of(step);
            prop_assert!(value <= last);
            prop_assert!(last - value <= value / STEPS);
            prop_assert!(step == 0 || last_of(step - 1) < value);
        }

        #[test]
        fn a_quantile_is_never_below_the_true_one(mut values in prop::collection::vec(0u64..10_000_000, 1..200)) {
            let mut times = Histogram::default();
            values.iter().for_each(|value| times.record(*value));
            values.sort_unstable();
            for percent in [1, 50, 90, 99, 100] {
                let rank = (percent * values.len()).div_ceil(100).max(1);
                let (truth, found) = (values[rank - 1], times.quantile(percent as f64 / 100.0).unwrap());
                prop_assert!(found >= truth && found - truth <= truth / STEPS, "{percent}: {found} for {truth}");
            }
        }
    }
}
