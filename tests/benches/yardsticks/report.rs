//! Figures to read: medians, spread, ratios; and all of it as JSON.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{duel::Duel, load::Slice, machine::Circumstances, plan::Plan, verify::Comparison};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    circumstances: Circumstances,
    plan: Plan,
    /// Yardsticks over the wire.
    pub(crate) duels: Vec<Duel>,
    /// The verifier, in this process.
    pub(crate) verify: Vec<Comparison>,
}

/// A median and what it lies between.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// Of these; zeros where there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
            return Self { median: 0.0, least: 0.0, most: 0.0 };
        };
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { median: f64::midpoint(low, high), least: *least, most: *most }
    }

    /// Of the quotients, pair by pair.
    pub(crate) fn of_ratios(ours: &[f64], bare: &[f64]) -> Self {
        Self::of(ours.iter().zip(bare).map(|(ours, bare)| ours / bare))
    }

    fn show(self, digits: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

impl Report {
    /// An empty one.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            circumstances: Circumstances::now(),
            plan: plan.clone(),
            duels: Vec::new(),
            verify: Vec::new(),
        }
    }

    /// Writes it as JSON into the target folder; says where.
    pub(crate) fn save(&self) -> PathBuf {
        let this = std::env::current_exe().expect("the path of this program");
        // target/<profile>/deps/<this>
        let target = this.ancestors().nth(3).unwrap_or(Path::new("."));
        let folder = target.join("bench");
        fs::create_dir_all(&folder).expect("a folder in target");
        let time: String = self.circumstances.date.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = folder.join(format!("yardsticks-{time}.json"));
        let text = serde_json::to_string_pretty(self).expect("JSON");
        fs::write(&path, text + "\n").expect("a file in target");
        path
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.circumstances;
        writeln!(f, "\n{}, commit {}, {}", c.date, c.commit, c.build)?;
        writeln!(f, "{} x {}, Linux {}", c.processors, c.processor, c.kernel)?;
        let plan = &self.plan;
        writeln!(
            f,
            "{} pairs of {} s each side, {} callers on {} connections; median (least to most)",
            plan.pairs, plan.seconds, plan.callers, plan.connections
        )?;
        self.duels.iter().try_for_each(|duel| show_duel(f, duel))?;
        self.verify.iter().try_for_each(|comparison| show_comparison(f, comparison))
    }
}

fn show_duel(f: &mut fmt::Formatter<'_>, duel: &Duel) -> fmt::Result {
    let calls = duel.ours.iter().chain(&duel.bare).map(|slice| slice.calls).sum::<usize>();
    writeln!(f, "\n{}  ({calls} calls in all{})", duel.name, duel.note)?;
    let head = ["", "ours", "bare", "ours / bare"];
    writeln!(f, "  {:<22} {:<28} {:<28} {}", head[0], head[1], head[2], head[3])?;
    let mut row = |name: &str, digits: usize, of: fn(&Slice) -> f64| {
        let (ours, bare): (Vec<f64>, Vec<f64>) =
            (duel.ours.iter().map(of).collect(), duel.bare.iter().map(of).collect());
        let ratio = Spread::of_ratios(&ours, &bare).show(3);
        let (ours, bare) = (Spread::of(ours).show(digits), Spread::of(bare).show(digits));
        writeln!(f, "  {name:<22} {ours:<28} {bare:<28} {ratio}")
    };
    row("calls per second", 0, |slice| slice.per_second)?;
    row("server CPU a call, us", 1, |slice| slice.server_cpu_us)?;
    row("p50, us", 0, |slice| f64::from(slice.p50_us))?;
    row("p99, us", 0, |slice| f64::from(slice.p99_us))?;
    let others = |slices: &[Slice]| Spread::of(slices.iter().map(|slice| 100.0 * slice.others_share)).show(1);
    writeln!(f, "  {:<22} {:<28} {}", "CPU of others, %", others(&duel.ours), others(&duel.bare))
}

fn show_comparison(f: &mut fmt::Formatter<'_>, comparison: &Comparison) -> fmt::Result {
    let (ours, bare) = (&comparison.ours_ns, &comparison.bare_ns);
    writeln!(f, "\nverify, {}", comparison.name)?;
    let ratio = Spread::of_ratios(ours, bare).show(3);
    let show = |values: &[f64]| Spread::of(values.iter().copied()).show(0);
    writeln!(f, "  {:<22} {:<28} {:<28} {ratio}", "ns a call and thread", show(ours), show(bare))?;
    let scaling = |ns: &[f64], alone: &[f64]| {
        let threads = comparison.threads as f64;
        Spread::of(ns.iter().zip(alone).map(|(ns, alone)| threads * alone / ns)).show(2)
    };
    if comparison.threads > 1 {
        let (ours, bare) =
            (scaling(ours, &comparison.ours_alone_ns), scaling(bare, &comparison.bare_alone_ns));
        writeln!(f, "  {:<22} {ours:<28} {bare}", "rate / one thread's")?;
    }
    Ok(())
}
