//! Log lines, metrics, and the two ids that tie them to a call: request id and trace context.
//!
//! Nothing that holds a secret shows it in `Debug` or `Display`; should something do so all the same, or a library
//! at level trace, what looks like a credential is cut out of each line as it is written, panics included.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt, io, panic,
    sync::OnceLock,
};

use interlock_proto::{credential, text};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::{config::LogFormat, random};

/// Why telemetry could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something in this process was there first.
    #[error("log lines or metrics go elsewhere already: {0}")]
    Taken(String),
}

/// Sends log lines to stderr, and panics to the log. Once a process.
///
/// # Errors
/// [`TelemetryError`]
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    // A log in a folder that is watched for changes would feed on itself: each line a change, each change a line.
    let filter = EnvFilter::try_new(filter)?.add_directive("notify=warn".parse()?);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || Lines(format));
    // Who closed stderr wants no lines; telling them so on stderr would panic.
    let lines = lines.log_internal_errors(false);
    match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|e| TelemetryError::Taken(e.to_string()))?;
    panic::set_hook(Box::new(|panicked| {
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(trace, "{panicked}");
    }));
    Ok(())
}

/// Standard error, one line for each record: without what looks like a credential, and with all that others put
/// into it shown. Nobody forges a line or steers the terminal that a log is read on.
#[derive(Clone, Copy, Debug)]
struct Lines(LogFormat);

impl io::Write for Lines {
    /// Gets each record whole.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let masked = credential::masked(record);
        let text = String::from_utf8_lossy(&masked);
        io::stderr().write_all(one_line(self.0, &text).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn one_line(format: LogFormat, record: &str) -> String {
    let record = record.strip_suffix('\n').unwrap_or(record);
    let shown = match format {
        LogFormat::Text => text::escaped(record),
        LogFormat::Json => text::escaped_json(record),
    };
    format!("{shown}\n")
}

/// The metrics of this process. The first call installs the recorder; every call gives the same one.
///
/// # Errors
/// [`TelemetryError::Taken`] where another recorder was installed before.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let installed =
        HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().map_err(|e| e.to_string()));
    installed.clone().map_err(TelemetryError::Taken)
}

/// Names one call in logs, errors and audit rows: 1 to 64 of letters, digits, `.`, `_`, `-`, and no credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(random::id("req"))
    }

    /// A caller's, if it is well formed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text::is_mark(text).then(|| Self(text.to_owned()))
    }

    /// The caller's where it is well formed, else a new one.
    #[must_use]
    pub fn given_or_new(text: Option<&str>) -> Self {
        text.and_then(Self::parse).unwrap_or_else(Self::generate)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place of a call in a trace: header `traceparent` of W3C Trace Context, level 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never zero.
    pub trace_id: u128,
    /// The caller's span; never zero.
    pub parent_id: u64,
    /// Bit 0: sampled.
    pub flags: u8,
}

impl TraceParent {
    /// Reads the header; `None` where it is malformed, which the standard says to ignore.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let parent_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        // Later versions may say more; version 0 may not, and 255 is none.
        let more = parts.next().is_some();
        if version == 0xff || version == 0 && more || trace_id == 0 || parent_id == 0 {
            return None;
        }
        Some(Self { trace_id, parent_id, flags })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

/// Exactly so many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let good = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if good { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        let forged = "refused name=\u{1b}[2J\n2026-01-01T00:00:00Z INFO all is well\u{202e}\n";
        let line = one_line(LogFormat::Text, forged);
        assert!(line.ends_with("well\\u{202e}\n") && !line.trim_end().chars().any(text::is_hidden), "{line}");
        assert_eq!(one_line(LogFormat::Json, "{\"a\":\"\u{9b}é\"}\n"), "{\"a\":\"\\u009bé\"}\n");
    }

    #[test]
    fn request_ids_are_short_and_plain() {
        assert_eq!(RequestId::given_or_new(Some("a.B-9_")).as_str(), "a.B-9_");
        let long = "x".repeat(text::NAME_BYTES_MAX + 1);
        let secret = credential::Credential::new(credential::Kind::User, &[3; 32]);
        for bad in ["", "a b", "a\n", "ä", long.as_str(), secret.expose()] {
            let id = RequestId::given_or_new(Some(bad));
            assert!(id.as_str().starts_with("req_"), "{id}");
            assert_eq!(RequestId::parse(id.as_str()), Some(id));
        }
        assert_ne!(RequestId::given_or_new(None), RequestId::given_or_new(None));
    }

    #[test]
    fn traceparent_is_read_strictly() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parsed = TraceParent::parse(text).expect("the standard's example");
        assert_eq!((parsed.flags, parsed.to_string().as_str()), (1, text));
        assert!(TraceParent::parse(&format!("cc{}-more", &text[2..])).is_some());
        for bad in [
            "",
            "00",
            &text.to_uppercase(),
            &format!("{text}-more"),
            &format!("ff{}", &text[2..]),
            &text[..54],
            &text.replace("b7ad6b7169203331", "0000000000000000"),
            &text.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &text.replace("0af", "+af"),
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
