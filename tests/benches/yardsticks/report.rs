//! Figures to read: medians, spread, ratios; and all of it as JSON.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    duel::Duel,
    load::Slice,
    machine::Circumstances,
    measured::{Measured, OURS_AND_BARE},
    plan::Plan,
    verify::Comparison,
};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    circumstances: Circumstances,
    plan: Plan,
    yardsticks: Vec<Yardstick>,
    /// Every slice of the yardsticks over the wire.
    duels: Vec<Duel>,
    /// Every measurement of the verifier.
    comparisons: Vec<Comparison>,
    /// Every figure of those that answer no calls.
    measured: Vec<Measured>,
}

/// What one yardstick came to.
#[derive(Clone, Debug, Serialize)]
struct Yardstick {
    name: String,
    note: String,
    /// What the two columns are.
    sides: [&'static str; 2],
    figures: Vec<Figure>,
}

/// One kind of figure, of both sides.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    what: &'static str,
    /// Digits after the point that are worth showing.
    #[serde(skip)]
    digits: usize,
    ours: Spread,
    bare: Spread,
    /// Pair by pair; none where a quotient says nothing.
    ratio: Option<Spread>,
}

/// A median and what it lies between.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            circumstances: Circumstances::now(),
            plan: plan.clone(),
            yardsticks: Vec::new(),
            duels: Vec::new(),
            comparisons: Vec::new(),
            measured: Vec::new(),
        }
    }

    /// Takes in a yardstick over the wire.
    pub(crate) fn add(&mut self, duel: Duel) {
        let calls: usize = duel.ours.iter().chain(&duel.bare).map(|slice| slice.calls).sum();
        let figure = |what, digits, of: fn(&Slice) -> f64| {
            let (ours, bare): (Vec<_>, Vec<_>) =
                (duel.ours.iter().map(of).collect(), duel.bare.iter().map(of).collect());
            Figure::new(what, digits, &ours, &bare)
        };
        let others = figure("CPU of others, %", 1, |slice| 100.0 * slice.others_share);
        let figures = vec![
            figure("calls a second", 0, |slice| slice.per_second),
            figure("server CPU a call, us", 1, |slice| slice.server_cpu_us),
            figure("p50, us", 0, |slice| f64::from(slice.p50_us)),
            figure("p99, us", 0, |slice| f64::from(slice.p99_us)),
            Figure { ratio: None, ..others },
        ];
        let note = format!("{calls} calls{}", duel.note);
        let name = duel.name.to_owned();
        self.yardsticks.push(Yardstick { name, note, sides: duel.sides, figures });
        self.duels.push(duel);
    }

    /// Takes in a measurement of the verifier.
    pub(crate) fn compare(&mut self, comparison: Comparison) {
        let (ours, bare) = (&comparison.ours_ns, &comparison.bare_ns);
        let mut figures = vec![Figure::new("ns a call and thread", 0, ours, bare)];
        if comparison.threads > 1 {
            let scaling = |ns: &[f64], alone: &[f64]| -> Vec<f64> {
                ns.iter().zip(alone).map(|(ns, alone)| comparison.threads as f64 * alone / ns).collect()
            };
            let ours = scaling(ours, &comparison.ours_alone_ns);
            let bare = scaling(bare, &comparison.bare_alone_ns);
            figures.push(Figure { ratio: None, ..Figure::new("rate, of one thread's", 2, &ours, &bare) });
        }
        let name = format!("verify, {}", comparison.name);
        self.yardsticks.push(Yardstick { name, note: String::new(), sides: OURS_AND_BARE, figures });
        self.comparisons.push(comparison);
    }

    /// Takes in what answers no calls.
    pub(crate) fn take(&mut self, measured: Measured) {
        let figures = measured.figures.iter().map(|of| {
            let figure = Figure::new(of.what, of.digits, &of.ours, &of.bare);
            let ratio = figure.ratio.filter(|_| of.compared);
            Figure { ratio, ..figure }
        });
        let (name, note, figures) = (measured.name.clone(), measured.note.clone(), figures.collect());
        self.yardsticks.push(Yardstick { name, note, sides: measured.sides, figures });
        self.measured.push(measured);
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

impl Figure {
    fn new(what: &'static str, digits: usize, ours: &[f64], bare: &[f64]) -> Self {
        let ratio = Some(Spread::of(ours.iter().zip(bare).map(|(ours, bare)| ours / bare)));
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        Self { what, digits, ours: of(ours), bare: of(bare), ratio }
    }
}

impl Spread {
    /// Of these; zeros where there are none.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { median: f64::midpoint(low, high), least: *least, most: *most }
    }

    fn show(self, digits: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (c, plan) = (&self.circumstances, &self.plan);
        writeln!(f, "\n{}, commit {}, {}", c.date, c.commit, c.build)?;
        writeln!(f, "{} x {}, Linux {}", c.processors, c.processor, c.kernel)?;
        let Plan { pairs, seconds, callers, connections, .. } = plan;
        writeln!(f, "{pairs} pairs of {seconds} s a side, {callers} callers on {connections} connections")?;
        writeln!(f, "median (least to most)")?;
        self.yardsticks.iter().try_for_each(|yardstick| yardstick.fmt(f))
    }
}

impl fmt::Display for Yardstick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.name)?;
        if !self.note.is_empty() {
            writeln!(f, "  {}", self.note)?;
        }
        let [first, second] = self.sides;
        writeln!(f, "  {:<22} {first:<28} {second:<28} {first} / {second}", "")?;
        for figure in &self.figures {
            let (ours, bare) = (figure.ours.show(figure.digits), figure.bare.show(figure.digits));
            let ratio = figure.ratio.map(|ratio| ratio.show(3)).unwrap_or_default();
            writeln!(f, "  {}", format!("{:<22} {ours:<28} {bare:<28} {ratio}", figure.what).trim_end())?;
        }
        Ok(())
    }
}
