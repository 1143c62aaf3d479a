//! This run beside an earlier one, by their ratios: both were made with the yardstick in the same run, so they can
//! be compared though the machine was another, or busier.

use std::{fmt, fs, path::Path};

use serde_json::Value;

use crate::report::Report;

/// An earlier run's JSON.
///
/// # Errors
/// What is wrong with the file, and which.
pub(crate) fn read(path: &Path) -> Result<Value, String> {
    let wrong = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let text = fs::read(path).map_err(|error| wrong(&error))?;
    let run: Value = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    if run["yardsticks"].is_array() { Ok(run) } else { Err(wrong(&"not the JSON of an earlier run")) }
}

/// What has changed.
pub(crate) struct Against {
    date: String,
    commit: String,
    rows: Vec<Row>,
}

struct Row {
    yardstick: String,
    what: String,
    earlier: [f64; 3],
    now: [f64; 3],
}

impl Against {
    /// The ratios that both runs have.
    pub(crate) fn of(earlier: &Value, now: &Report) -> Self {
        let now = serde_json::to_value(now).expect("JSON");
        let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
        let mut rows = Vec::new();
        for (yardstick, what, now) in ratios(&now) {
            let before = ratios(earlier).find(|(y, w, _)| (y, w) == (&yardstick, &what));
            if let Some((.., earlier)) = before {
                rows.push(Row { yardstick, what, earlier, now });
            }
        }
        let circumstances = &earlier["circumstances"];
        Self { date: text(&circumstances["date"]), commit: text(&circumstances["commit"]), rows }
    }
}

/// Each ratio: of which yardstick, of what, its median and bounds.
fn ratios(run: &Value) -> impl Iterator<Item = (String, String, [f64; 3])> + '_ {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    list(&run["yardsticks"]).into_iter().flat_map(move |yardstick| {
        let name = yardstick["name"].as_str().unwrap_or_default().to_owned();
        list(&yardstick["figures"]).into_iter().filter_map(move |figure| {
            let of = |key| figure["ratio"][key].as_f64();
            let ratio = [of("median")?, of("least")?, of("most")?];
            Some((name.clone(), figure["what"].as_str()?.to_owned(), ratio))
        })
    })
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nratios beside those of {}, commit {}; `*`: the spreads do not touch",
            self.date, self.commit
        )?;
        let width = self.rows.iter().map(|row| row.yardstick.len()).max().unwrap_or(0);
        for Row { yardstick, what, earlier, now } in &self.rows {
            let apart = earlier[2] < now[1] || now[2] < earlier[1];
            let change = 100.0 * (now[0] / earlier[0] - 1.0);
            let mark = if apart { " *" } else { "" };
            writeln!(
                f,
                "  {yardstick:<width$}  {what:<24} {:>7.3} -> {:>7.3}  {change:>+6.1} %{mark}",
                earlier[0], now[0]
            )?;
        }
        Ok(())
    }
}
