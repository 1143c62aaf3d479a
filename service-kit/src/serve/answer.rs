//! What leaves: every status that is not OK carries `google.rpc.ErrorInfo`.
//!
//! Refusals of ours already do. A status without details was made by the library (a message that
//! cannot be decoded, one too large, an unknown method): it is rebuilt here, since its text may name
//! fields and its code may be another than ours. Statuses stand in the headers of an answer with no
//! message, else in its trailers.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use super::caps::Permit;
use crate::{
    error::{Error, Reason},
    field,
};

/// The answer to a refused call: headers only.
pub(crate) fn refusal(error: &Error, request_id: &str) -> Response<Body> {
    error.to_status(request_id).into_http()
}

/// The answer as it leaves, of a method that answers once: whatever went wrong stands in its headers, since behind
/// a whole message the library's trailers say OK.
pub(super) fn finished(mut answer: Response<Body>, request_id: &str) -> Response<Body> {
    rebuild(answer.headers_mut(), request_id);
    super::strict::mark_sensitive(answer.headers_mut());
    answer
}

/// The answer as it leaves, with a status that may come later. `held` is released when its last message has left.
pub(super) fn finished_later(
    answer: Response<Body>,
    request_id: &str,
    held: Option<Permit>,
) -> Response<Body> {
    finished(answer, request_id)
        .map(|body| Body::new(Finished { body, request_id: request_id.to_owned(), _held: held }))
}

/// The code of an answer, where its headers tell; `None`: its trailers will.
pub(super) fn code(answer: &Response<Body>) -> Option<Code> {
    answer.headers().get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

fn rebuild(headers: &mut HeaderMap, request_id: &str) {
    let Some(code) = headers.get(Status::GRPC_STATUS) else { return };
    let code = Code::from_bytes(code.as_bytes());
    if code == Code::Ok || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return;
    }
    headers.remove(Status::GRPC_MESSAGE);
    let status = of_the_library(code).to_status(request_id);
    if status.add_header(headers).is_err() {
        headers.insert(Status::GRPC_STATUS, i32::from(Code::Internal).into());
    }
}

/// What a status that we did not make means.
fn of_the_library(code: Code) -> Error {
    let (reason, message) = match code {
        Code::OutOfRange => (Reason::LimitReached, field::TOO_LARGE),
        Code::ResourceExhausted => (Reason::LimitReached, "too much at once"),
        Code::Internal => (Reason::Internal, field::MALFORMED),
        Code::Unimplemented => (Reason::Unimplemented, "not supported here"),
        Code::NotFound => (Reason::NotFound, "not found"),
        Code::InvalidArgument => (Reason::InvalidField, "not a valid request"),
        Code::DeadlineExceeded => (Reason::DeadlineExceeded, DEADLINE),
        Code::Unavailable => (Reason::Draining, "not available now"),
        Code::Unauthenticated => (Reason::ProviderAuthFailed, "login required"),
        Code::PermissionDenied => (Reason::Forbidden, "not allowed"),
        _ => (Reason::Internal, "internal fault; the request id finds it in the log"),
    };
    Error::new(reason, message)
}

/// What a caller reads whose time is up.
pub(super) const DEADLINE: &str = "the deadline passed";

/// A body whose trailers are rebuilt on the way.
struct Finished {
    body: Body,
    request_id: String,
    _held: Option<Permit>,
}

impl http_body::Body for Finished {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        Pin::new(&mut this.body).poll_frame(cx).map_ok(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                rebuild(trailers, &this.request_id);
            }
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn rebuilt(status: Status) -> Status {
        let mut headers = status.into_http::<()>().headers().clone();
        rebuild(&mut headers, "req-1");
        Status::from_header_map(&headers).expect("a status")
    }

    #[test]
    fn library_statuses_lose_their_text_and_gain_a_reason() {
        let decode = Status::internal("failed to decode Protobuf message: Job.payload: invalid wire type");
        let large = Status::out_of_range("decoded message length too large: found 4294967295 bytes");
        for (status, code, reason, message) in [
            (decode, Code::Internal, "INTERNAL", "malformed request"),
            (large, Code::ResourceExhausted, "LIMIT_REACHED", "message too large"),
            (Status::unimplemented(""), Code::Unimplemented, "UNIMPLEMENTED", "not supported here"),
            (
                Status::unknown("h2: x"),
                Code::Internal,
                "INTERNAL",
                "internal fault; the request id finds it in the log",
            ),
        ] {
            let status = rebuilt(status);
            assert_eq!((status.code(), status.message()), (code, message));
            let info = status.get_details_error_info().expect("always there");
            assert_eq!((info.reason.as_str(), info.metadata["request_id"].as_str()), (reason, "req-1"));
        }
    }

    #[test]
    fn ours_pass_untouched() {
        let ours = Error::new(Reason::SessionBusy, "busy").to_status("req-0");
        let passed = rebuilt(ours.clone());
        assert_eq!((passed.message(), passed.details()), (ours.message(), ours.details()));
    }
}
