//! Histograms with fixed bounds, as a STATUS has them.

use serde::{Deserialize, Serialize};

/// How many values fell between which bounds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The upper bounds, rising. A value that is one of them belongs to it.
    pub le: Vec<f64>,
    /// How many values there were up to each bound and above the one before; the last, of which there is one more
    /// than bounds, has those above all of them.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: &[f64]) -> Self {
        Self { le: bounds.to_vec(), counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// One more value.
    pub fn observe(&mut self, value: f64) {
        let place = self.le.iter().position(|bound| value <= *bound).unwrap_or(self.le.len());
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum += value;
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Their mean, if there were any.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean of so many is not that precise")]
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum / count as f64)
    }

    /// The least bound that at least `percent` of the values keep; infinite where that is none of the bounds.
    #[must_use]
    pub fn bound_of(&self, percent: u8) -> Option<f64> {
        let count = u128::from(self.count());
        let mut upto = 0;
        let bounds = self.le.iter().copied().chain([f64::INFINITY]);
        bounds.zip(&self.counts).find_map(|(bound, count_here)| {
            upto += u128::from(*count_here);
            (count > 0 && upto * 100 >= count * u128::from(percent)).then_some(bound)
        })
    }

    /// What was added since `earlier`. All of it, where that one has more or has other bounds: whoever counts has begun
    /// anew.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let differences = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.checked_sub(*then));
        match differences.collect() {
            Some(counts) if self.le == earlier.le => {
                Self { le: self.le.clone(), counts, sum: self.sum - earlier.sum }
            }
            _ => self.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::new(&[1.0, 10.0]);
        for value in values {
            histogram.observe(*value);
        }
        histogram
    }

    #[test]
    fn a_value_that_is_a_bound_belongs_to_it() {
        let histogram = of(&[0.5, 1.0, 1.5, 10.0, 11.0]);
        assert_eq!(histogram.counts, [2, 2, 1]);
        assert_eq!((histogram.count(), histogram.mean()), (5, Some(4.8)));
    }

    #[test]
    fn a_share_of_the_values_keeps_a_bound() {
        let histogram = of(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!((histogram.bound_of(25), histogram.bound_of(26)), (Some(1.0), Some(10.0)));
        assert_eq!(of(&[100.0]).bound_of(50), Some(f64::INFINITY));
        assert_eq!((of(&[]).bound_of(50), of(&[]).mean()), (None, None));
    }

    #[test]
    fn what_was_added_is_the_difference_unless_it_began_anew() {
        let (before, after) = (of(&[1.0, 5.0]), of(&[1.0, 5.0, 5.0]));
        assert_eq!(after.since(&before).counts, [0, 1, 0]);
        assert_eq!(before.since(&after), before);
        assert_eq!(before.since(&Histogram::default()).counts, before.counts);
    }
}
