//! Numbers from a noisy machine: medians and how far they spread.

use std::fmt;

/// The same quantity measured several times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The middle one; 0 of none.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    /// The least and the most.
    pub(crate) fn range(&self) -> (f64, f64) {
        (quantile(&self.0, 0.0), quantile(&self.0, 1.0))
    }

    /// Round by round what this one has more than the other: rounds that lie next to each other in time meet the same
    /// noise.
    pub(crate) fn from_rounds(rounds: impl IntoIterator<Item = f64>) -> Self {
        let mut sample = Self::default();
        rounds.into_iter().for_each(|value| sample.add(value));
        sample
    }
}

/// Of sorted values, the one that this share of them lies below.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index, far below 2^52"
)]
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

/// `52 (48 to 61)`.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.range();
        let digits = if self.median().abs() < 10.0 { 2 } else { 0 };
        write!(
            f,
            "{:.digits$} ({least:.digits$} to {most:.digits$})",
            self.median()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        let sample = Sample::from_rounds([30.0, 10.0, 20.0]);
        assert_eq!(sample.to_string(), "20 (10 to 30)");
        assert_eq!(Sample::from_rounds([1.0]).to_string(), "1.00 (1.00 to 1.00)");
        let hundred: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert!((quantile(&hundred, 0.99) - 990.0).abs() < 1.5);
    }
}
