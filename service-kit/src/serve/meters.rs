//! What is measured of calls: how many of a method had which code, and how long they took.
//!
//! Each handle is looked up once: to build a metric's key and to find it costs a call more than to count it.

use std::{array, fmt, sync::OnceLock, time::Duration};

use http::Response;
use interlock_proto::policy::{MethodPolicy, Policies};
use metrics::{Counter, Histogram};
use tonic::{Code, body::Body};

use super::answer;

/// As the protocol's table of codes has them, in its order.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The metrics of all methods.
pub(super) struct Meters {
    /// By the number of a method's policy.
    by_method: Vec<Meter>,
    unknown: Meter,
}

/// Those of one method. What never happened is not shown as nought.
struct Meter {
    method: &'static str,
    calls: [OnceLock<Counter>; CODES.len()],
    no_grpc: OnceLock<Counter>,
    seconds: OnceLock<Histogram>,
}

impl Meters {
    pub(super) fn new() -> Self {
        let by_method = Policies::all().iter().map(|policy| Meter::of(&policy.path)).collect();
        Self { by_method, unknown: Meter::of("unknown") }
    }

    /// Counts an answered call.
    pub(super) fn measure(&self, policy: Option<&MethodPolicy>, answer: &Response<Body>, elapsed: Duration) {
        let meter = policy.and_then(|policy| self.by_method.get(policy.number));
        let code = match answer::code(answer) {
            None if !answer.status().is_success() => None,
            code => Some(code.unwrap_or(Code::Ok)),
        };
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(code = code.map_or(NO_GRPC, name_of), elapsed_us, "answered");
        meter.unwrap_or(&self.unknown).measure(code, elapsed);
    }
}

/// The code of what is no answer of the protocol's.
const NO_GRPC: &str = "no gRPC";

fn name_of(code: Code) -> &'static str {
    CODES[code as usize]
}

impl Meter {
    fn of(method: &'static str) -> Self {
        let calls = array::from_fn(|_| OnceLock::new());
        Self { method, calls, no_grpc: OnceLock::new(), seconds: OnceLock::new() }
    }

    fn measure(&self, code: Option<Code>, elapsed: Duration) {
        let (counter, name) = match code {
            Some(code) => (&self.calls[code as usize], name_of(code)),
            None => (&self.no_grpc, NO_GRPC),
        };
        let method = self.method;
        counter
            .get_or_init(|| metrics::counter!("calls_total", "method" => method, "code" => name))
            .increment(1);
        self.seconds
            .get_or_init(|| metrics::histogram!("call_seconds", "method" => method))
            .record(elapsed.as_secs_f64());
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").field("methods", &self.by_method.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_in_the_order_of_their_numbers() {
        for (number, name) in CODES.into_iter().enumerate() {
            let code = Code::from_i32(i32::try_from(number).expect("few"));
            assert_eq!(code as usize, number);
            let spelled: String =
                name.split('_').map(|part| part[..1].to_owned() + &part[1..].to_lowercase()).collect();
            assert_eq!(format!("{code:?}").to_lowercase(), spelled.to_lowercase());
        }
    }
}
