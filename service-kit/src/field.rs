//! Values of requests that more than one service reads. What is out of its bounds is refused by its field;
//! nothing is cut to fit.

use std::{ops::RangeInclusive, time::Duration};

use tonic::{Code, Status};

use crate::{
    clock::Timestamp,
    error::{Error, Reason},
};

/// A span of time, held to its bounds; absent is none.
///
/// Strict (google/protobuf/duration.proto): nanoseconds are under a second and have the sign of the seconds.
///
/// # Errors
/// `INVALID_FIELD` for what is no duration, and outside of `bounds`; `accepted` says what they are.
pub fn span(
    field: &str,
    value: Option<prost_types::Duration>,
    bounds: &RangeInclusive<Duration>,
    accepted: &str,
) -> Result<Option<Duration>, Error> {
    let Some(value) = value else { return Ok(None) };
    let read = || {
        let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        Some(Duration::new(u64::try_from(value.seconds).ok()?, nanos))
    };
    match read().filter(|span| bounds.contains(span)) {
        Some(span) => Ok(Some(span)),
        None => Err(Error::invalid_field(field, accepted)),
    }
}

/// An instant, in whole microseconds: what is finer is cut off.
///
/// Strict (google/protobuf/timestamp.proto): the years 1 to 9999, and nanoseconds from 0 to 999,999,999.
///
/// # Errors
/// `INVALID_FIELD` for what is no instant.
pub fn instant(field: &str, value: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, Error> {
    const SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let Some(value) = value else { return Ok(None) };
    let micros = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match micros.filter(|_| SECONDS.contains(&value.seconds)) {
        Some(nanos) => Ok(Some(Timestamp::from_micros(value.seconds * 1_000_000 + i64::from(nanos / 1_000)))),
        None => Err(Error::invalid_field(field, "an instant of the years 1 to 9999")),
    }
}

/// What a message on a stream is refused with that the library could not read; `None`: the stream is gone, and
/// nobody is there to be told. Unary calls get the same from the outermost layer.
#[must_use]
pub fn unreadable(status: &Status) -> Option<Error> {
    match status.code() {
        // The codec's own; a connection that broke is another code.
        Code::Internal => Some(Error::new(Reason::Internal, MALFORMED)),
        Code::OutOfRange => Some(Error::new(Reason::LimitReached, TOO_LARGE)),
        Code::Unimplemented => Some(Error::new(Reason::Unimplemented, "not supported here")),
        _ => None,
    }
}

/// What a caller reads whose message cannot be decoded.
pub(crate) const MALFORMED: &str = "malformed request";
/// What a caller reads whose message is over the bound.
pub(crate) const TOO_LARGE: &str = "message too large";

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);

    fn read(seconds: i64, nanos: i32) -> Option<Duration> {
        let asked = Some(prost_types::Duration { seconds, nanos });
        match span("wait", asked, &BOUNDS, "0 to 60 s") {
            Ok(span) => span,
            Err(error) => {
                assert_eq!(
                    (error.reason(), error.to_string().as_str()),
                    (Reason::InvalidField, "wait: 0 to 60 s")
                );
                None
            }
        }
    }

    #[test]
    fn a_span_is_bounded_and_never_normalized() {
        assert_eq!(span("wait", None, &BOUNDS, "").expect("absent"), None);
        assert_eq!(read(60, 0), Some(Duration::from_secs(60)));
        assert_eq!(read(0, 999_999_999), Some(Duration::from_nanos(999_999_999)));
        for (seconds, nanos) in [
            (60, 1),
            (61, 0),
            (-1, 0),
            (0, -1),
            (1, -1),
            (0, 1_000_000_000),
            (i64::MAX, i32::MAX),
            (i64::MIN, i32::MIN),
        ] {
            assert_eq!(read(seconds, nanos), None, "{seconds} s {nanos} ns");
        }
    }

    #[test]
    fn a_broken_stream_is_told_nothing() {
        let told = |code| unreadable(&Status::new(code, "x")).map(|error| error.to_string());
        assert_eq!(told(Code::Internal).as_deref(), Some(MALFORMED));
        assert_eq!(told(Code::OutOfRange).as_deref(), Some(TOO_LARGE));
        assert_eq!(told(Code::Unknown), None);
        assert_eq!(told(Code::Cancelled), None);
    }
}
