//! Two classes of times, and whether they differ.

use std::{fmt, time::Duration};

/// Over the lines of results.
pub(crate) const HEADING: &str =
    "test                       samples     median near      median far   medians        t";

/// Of the samples, those slower than this share's slowest are left out: what the system did, not the code.
const KEPT: f64 = 0.9;
/// Beyond this the classes differ.
const DIFFERS: f64 = 4.5;

/// The times of both classes, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Result {
    name: &'static str,
    samples: usize,
    medians: [f64; 2],
    t: f64,
}

/// Compares the times of guesses that are nearly right with those of guesses that are not.
pub(crate) fn compare(name: &'static str, near: Vec<Duration>, far: Vec<Duration>) -> Result {
    let samples = near.len();
    let mut classes = [near, far].map(|class| {
        let mut times: Vec<f64> = class.into_iter().map(|time| time.as_nanos() as f64).collect();
        times.sort_by(f64::total_cmp);
        times
    });
    let medians = [0, 1].map(|class| classes[class][classes[class].len() / 2]);
    // One bound for both, so that a slow class is not cut to look like the other.
    let mut all = classes.concat();
    all.sort_by(f64::total_cmp);
    let bound = all[(all.len() as f64 * KEPT) as usize];
    for class in &mut classes {
        class.retain(|time| *time <= bound);
    }
    let [near, far] = classes.map(|class| Moments::of(&class));
    let t = (near.mean - far.mean) / (near.variance / near.count + far.variance / far.count).sqrt();
    Result { name, samples, medians, t: if t.is_nan() { 0.0 } else { t } }
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Moments {
    fn of(times: &[f64]) -> Self {
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { count, mean, variance }
    }
}

impl fmt::Display for Result {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [near, far] = self.medians;
        let apart = 100.0 * (near - far) / far;
        let said = if self.t.abs() > DIFFERS { "differ" } else { "no difference seen" };
        write!(
            f,
            "{:<24} {:>9} {near:>12.0} ns {far:>12.0} ns {apart:>+8.2} % {:>+8.2}  {said}",
            self.name, self.samples, self.t
        )
    }
}
