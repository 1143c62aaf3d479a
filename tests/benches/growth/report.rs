//! Figures to read, and all of it as JSON.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    load::Slice,
    logs::CaughtUp,
    machine::Circumstances,
    plan::{Plan, SMALL},
    sizes::Grown,
    stage::Standing,
    sweeps::Swept,
};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    circumstances: Circumstances,
    plan: Plan,
    /// Each service on each store.
    pub(crate) standing: Vec<Standing>,
    /// Each work in each store.
    pub(crate) grown: Vec<Grown>,
    /// Readers that were behind.
    pub(crate) caught_up: Vec<CaughtUp>,
    /// Works beside sweeps.
    pub(crate) swept: Vec<Swept>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            circumstances: Circumstances::now(),
            plan: plan.clone(),
            standing: Vec::new(),
            grown: Vec::new(),
            caught_up: Vec::new(),
            swept: Vec::new(),
        }
    }

    /// Writes it as JSON into the target folder; says where.
    pub(crate) fn save(&self) -> PathBuf {
        let this = std::env::current_exe().expect("the path of this program");
        // target/<profile>/deps/<this>
        let folder = this.ancestors().nth(3).unwrap_or(Path::new(".")).join("bench");
        fs::create_dir_all(&folder).expect("a folder in target");
        let time: String = self.circumstances.date.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = folder.join(format!("growth-{time}.json"));
        let text = serde_json::to_string_pretty(self).expect("JSON");
        fs::write(&path, text + "\n").expect("a file in target");
        path
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (c, plan) = (&self.circumstances, &self.plan);
        writeln!(f, "\n{}, commit {}, {}", c.date, c.commit, c.build)?;
        writeln!(f, "{} x {}, Linux {}", c.processors, c.processor, c.kernel)?;
        let Plan { pairs, seconds, callers, connections, .. } = plan;
        writeln!(f, "{pairs} pairs of {seconds} s a side, {callers} callers on {connections} connections")?;
        if !self.standing.is_empty() {
            writeln!(
                f,
                "\n{:<12} {:>9} {:>11} {:>10} {:>12} {:>11} {:>10}",
                "service", "rows", "store, MiB", "start, ms", "started, MiB", "after, MiB", "peak, MiB"
            )?;
            self.standing.iter().try_for_each(|standing| standing.fmt(f))?;
        }
        if !self.grown.is_empty() {
            writeln!(
                f,
                "\n{:<17} {:>9} {:>10} {:>24} {:>8} {:>24} {:>8}",
                "work", "rows", "calls/s", "of 10^3 rows", "p99, us", "of 10^3 rows", "others %"
            )?;
            self.grown.iter().try_for_each(|grown| grown.fmt(f))?;
        }
        self.caught_up.iter().try_for_each(|caught_up| caught_up.fmt(f))?;
        self.swept.iter().try_for_each(|swept| swept.fmt(f))
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = Spread::of(self.start_ms.iter().copied()).median;
        writeln!(
            f,
            "{:<12} {:>9} {:>11.1} {start:>10.0} {:>12.1} {:>11.1} {:>10.1}",
            format!("{}{}", self.service, self.engine.suffix()),
            self.rows,
            self.store_mib,
            self.started_mib,
            self.after_mib,
            self.peak_mib
        )
    }
}

impl fmt::Display for Grown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |figure: fn(&Slice) -> f64| {
            let median = Spread::of(self.large.iter().map(figure)).median;
            let pairs = self.large.iter().zip(&self.small);
            (
                median,
                Spread::of(pairs.map(|(large, small)| figure(large) / figure(small).max(f64::MIN_POSITIVE))),
            )
        };
        let (rate, rate_ratio) = of(|slice| slice.per_second);
        let (p99, p99_ratio) = of(p99);
        let others = Spread::of(self.large.iter().map(|slice| 100.0 * slice.others_share)).median;
        let (name, rows) = (format!("{}{}", self.work.name(), self.engine.suffix()), self.rows);
        let (rate_ratio, p99_ratio) = (rate_ratio.to_string(), p99_ratio.to_string());
        writeln!(
            f,
            "{name:<17} {rows:>9} {rate:>10.0} {rate_ratio:>24} {p99:>8.0} {p99_ratio:>24} {others:>8.1}"
        )
    }
}

impl fmt::Display for CaughtUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\ncatching up, {} events behind, beside {SMALL}", self.behind)?;
        let row = |f: &mut fmt::Formatter<'_>, what: &str, figure: &dyn Fn(&Slice, u64) -> f64| {
            let far = self.far.iter().map(|slice| figure(slice, self.behind));
            let near = self.near.iter().map(|slice| figure(slice, SMALL));
            let ratio = Spread::of(far.clone().zip(near.clone()).map(|(far, near)| far / near));
            let (far, near) = (Spread::of(far).median, Spread::of(near).median);
            let ratio = ratio.to_string();
            writeln!(f, "  {what:<24} {far:>10.2} far {near:>10.2} near {ratio:>24}")
        };
        row(f, "events a second", &|slice, events| slice.per_second * events as f64)?;
        row(f, "server CPU each, us", &|slice, events| slice.server_cpu_us / events as f64)
    }
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{} beside a sweep", self.work.name())?;
        for due in &self.due {
            writeln!(f, "  {} to remove: {} before, {} after", due.what, due.before, due.after)?;
        }
        let row = |f: &mut fmt::Formatter<'_>, what: &str, sweeping: f64, idle: f64| {
            let ratio = sweeping / idle.max(f64::MIN_POSITIVE);
            writeln!(f, "  {what:<24} {sweeping:>10.0} beside it {idle:>10.0} without {ratio:>8.3}")
        };
        let (with, without) = (&self.sweeping, &self.idle);
        let both = |figure: fn(&Slice) -> f64| {
            (Spread::of(with.iter().map(figure)), Spread::of(without.iter().map(figure)))
        };
        let (a, b) = both(|slice| slice.per_second);
        row(f, "calls a second", a.median, b.median)?;
        let (a, b) = both(p99);
        row(f, "p99, us, median slice", a.median, b.median)?;
        row(f, "p99, us, worst slice", a.most, b.most)
    }
}

fn p99(slice: &Slice) -> f64 {
    f64::from(slice.p99_us)
}

/// A median and what it lies between.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
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
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, most } = self;
        write!(f, "{median:.3} ({least:.3} to {most:.3})")
    }
}
