//! How a cost grows with a size.

/// Costs at growing sizes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve(pub Vec<(f64, f64)>);

impl Curve {
    /// The exponent of the power of the size that fits the costs best: 0 for what does not depend on the size, 1 for what
    /// doubles with it. The logarithm of a size gives something in between that falls as sizes grow.
    #[must_use]
    pub fn exponent(&self) -> f64 {
        let logs: Vec<_> = self.0.iter().map(|(size, cost)| (size.ln(), cost.ln())).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / logs.len() as f64;
        let (x_mean, y_mean) = (mean(|log| log.0), mean(|log| log.1));
        let covariance: f64 = logs.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
        let variance: f64 = logs.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
        covariance / variance
    }

    /// The exponent between two neighbouring sizes where it is the greatest.
    #[must_use]
    pub fn steepest(&self) -> f64 {
        let step = |pair: &[(f64, f64)]| (pair[1].1 / pair[0].1).ln() / (pair[1].0 / pair[0].0).ln();
        self.0.windows(2).map(step).fold(f64::NEG_INFINITY, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(cost: fn(f64) -> f64) -> Curve {
        Curve((0..6).map(|n| 10_f64.powi(n)).map(|size| (size, cost(size))).collect())
    }

    #[test]
    fn a_power_of_the_size_has_its_exponent() {
        for (exponent, curve) in [(0.0, curve(|_| 7.0)), (1.0, curve(|n| 3.0 * n)), (0.5, curve(f64::sqrt))] {
            assert!((curve.exponent() - exponent).abs() < 1e-9, "{exponent} {curve:?}");
            assert!((curve.steepest() - exponent).abs() < 1e-9, "{exponent} {curve:?}");
        }
    }

    #[test]
    fn the_steepest_step_shows_what_the_whole_hides() {
        let late = curve(|n| if n > 10_000.0 { 10.0 } else { 1.0 });
        assert!(late.exponent() < 0.4 && late.steepest() > 0.99, "{late:?}");
    }
}
