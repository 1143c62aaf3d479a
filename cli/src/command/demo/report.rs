//! What each act did, expected and saw.

use std::{process::ExitCode, time::Instant};

use serde_json::json;

use crate::{
    failure::{FAILED, Failure},
    output::Format,
};

/// What an act saw, and whether that is what it should be.
pub(crate) struct Seen {
    /// For people.
    pub(crate) saw: String,
    /// Whether it held.
    pub(crate) held: bool,
}

impl Seen {
    /// It held if `held`.
    pub(crate) fn that(held: bool, saw: impl Into<String>) -> Self {
        Self { saw: saw.into(), held }
    }
}

/// Prints acts as they end, and counts.
pub(crate) struct Report {
    format: Format,
    acts: usize,
    done: usize,
    held: usize,
    start: Instant,
}

impl Report {
    /// For so many acts.
    pub(crate) fn new(format: Format, acts: usize) -> Self {
        Self { format, acts, done: 0, held: 0, start: now() }
    }

    /// Plays one act.
    ///
    /// # Errors
    /// Where it could not be played, or did not hold: the later ones stand on it.
    pub(crate) async fn act(
        &mut self,
        did: &str,
        expected: &str,
        act: impl Future<Output = Result<Seen, Failure>>,
    ) -> Result<(), Failure> {
        let start = now();
        let outcome = act.await;
        let millis = start.elapsed().as_millis();
        self.done += 1;
        let (seen, failure) = match outcome {
            Ok(seen) => (seen, None),
            Err(failure) => (Seen::that(false, "an error, below"), Some(failure)),
        };
        self.held += usize::from(seen.held);
        let mark = if seen.held { "held" } else { "DID NOT HOLD" };
        let text = format!(
            "[{:>2}/{}] {did}\n        expected  {expected}\n        saw       {}\n        {mark} after {millis} ms",
            self.done, self.acts, seen.saw
        );
        let json = json!({
            "act": self.done, "of": self.acts, "did": did, "expected": expected, "saw": seen.saw, "held": seen.held,
            "millis": u64::try_from(millis).unwrap_or(u64::MAX),
        });
        self.format.print(&text, &json)?;
        match failure {
            Some(failure) => Err(failure),
            None if seen.held => Ok(()),
            None => Err(Failure::local(format!("act {} did not hold", self.done))),
        }
    }

    /// The last line and the exit code.
    ///
    /// # Errors
    /// What standard output says.
    pub(crate) fn close(self, played: &Result<(), Failure>) -> Result<ExitCode, Failure> {
        let all = played.is_ok() && self.held == self.acts;
        if let Err(failure) = played {
            let _ = failure.report(self.format);
        }
        let seconds = self.start.elapsed().as_secs_f64();
        if self.format == Format::Text {
            anstream::println!("took {seconds:.1} s");
        }
        let text = format!("{} of {} held", self.held, self.acts);
        self.format.print(&text, &json!({ "held": self.held, "of": self.acts, "seconds": seconds }))?;
        Ok(ExitCode::from(if all { 0 } else { FAILED }))
    }
}

/// Spans are measured here and nowhere else in the demo.
pub(crate) fn now() -> Instant {
    Instant::now()
}
