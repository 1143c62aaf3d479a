//! Validate as it is served: what every verifier asks about every credential that it has not seen lately.
//!
//! What is told of a principal is encoded once for as long as its verdict is kept, and the buffers are of the size of
//! a question and its answer: the generated service encodes each answer anew, from a copy of its own, into buffers of
//! 8 KiB. All other methods are the generated service's.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes};
use interlock_kit::clock::Timestamp;
use interlock_proto::auth::v1::{
    ValidateRequest, ValidateResponse, trust_service_server::TrustServiceServer,
};
use prost::Message as _;
use tonic::{
    Status,
    body::Body,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
    codegen::{
        BoxFuture, Service,
        http::{Request, Response},
    },
    server::{Grpc, NamedService, UnaryService},
};
use tonic_prost::ProstDecoder;

use super::{trust::Trust, wire};
use crate::trust::Verdict;

const VALIDATE: &str = "/interlock.auth.v1.TrustService/Validate";
/// Bytes of a buffer: room for a question, and for the answer on a principal with a few roles. It grows for more.
const BUFFER_BYTES: usize = 512;
/// Bytes after which an encoder gives others a turn: one answer is less.
const YIELD_BYTES: usize = 32 << 10;

/// The answer on a good credential, in two parts, which a reader merges:
/// <https://protobuf.dev/programming-guides/encoding/#last-one-wins>.
#[derive(Debug)]
pub(super) struct Validated {
    /// What is the same in each answer about this principal, encoded.
    lasting: Bytes,
    changing: ValidateResponse,
}

impl Validated {
    /// By the auth of this epoch, at `now`.
    pub(super) fn of(verdict: &Verdict, epoch: &str, now: Timestamp) -> Self {
        let lasting = verdict.wire(|| {
            let principal = Some(wire::principal(&verdict.principal));
            let lasting = ValidateResponse { principal, epoch: epoch.to_owned(), ..Default::default() };
            lasting.encode_to_vec().into()
        });
        let (sequence, now) = (verdict.sequence, Some(now.to_wire()));
        let changing = ValidateResponse { sequence, now, ..Default::default() };
        Self { lasting: lasting.clone(), changing }
    }

    /// The message by itself.
    pub(super) fn into_message(self) -> ValidateResponse {
        let mut message = self.changing;
        message.merge(self.lasting).expect("it was encoded here");
        message
    }
}

/// TrustService on the wire.
#[derive(Clone)]
pub(super) struct Trusts {
    trust: Arc<Trust>,
    generated: TrustServiceServer<Trust>,
    message_bytes: usize,
}

impl Trusts {
    /// No request is longer than `message_bytes`.
    pub(super) fn new(trust: Trust, message_bytes: usize) -> Self {
        let trust = Arc::new(trust);
        let generated = TrustServiceServer::from_arc(Arc::clone(&trust));
        Self { trust, generated: generated.max_decoding_message_size(message_bytes), message_bytes }
    }
}

impl NamedService for Trusts {
    const NAME: &'static str = <TrustServiceServer<Trust> as NamedService>::NAME;
}

impl Service<Request<Body>> for Trusts {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != VALIDATE {
            return self.generated.call(request);
        }
        let mut grpc = Grpc::new(ValidateCodec).max_decoding_message_size(self.message_bytes);
        let validate = Validate(Arc::clone(&self.trust));
        Box::pin(async move { Ok(grpc.unary(validate, request).await) })
    }
}

struct Validate(Arc<Trust>);

impl UnaryService<ValidateRequest> for Validate {
    type Response = Validated;
    type Future = BoxFuture<tonic::Response<Validated>, Status>;

    fn call(&mut self, request: tonic::Request<ValidateRequest>) -> Self::Future {
        let trust = Arc::clone(&self.0);
        Box::pin(async move { trust.validated(request).await })
    }
}

/// Requests by prost, answers by [`ValidatedEncoder`].
struct ValidateCodec;

impl Codec for ValidateCodec {
    type Encode = Validated;
    type Decode = ValidateRequest;
    type Encoder = ValidatedEncoder;
    type Decoder = ProstDecoder<ValidateRequest>;

    fn encoder(&mut self) -> ValidatedEncoder {
        ValidatedEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}

struct ValidatedEncoder;

impl Encoder for ValidatedEncoder {
    type Item = Validated;
    type Error = Status;

    fn encode(&mut self, answer: Validated, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&answer.lasting);
        answer.changing.encode(out).expect("the buffer grows as it is written");
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
