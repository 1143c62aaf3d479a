//! StreamEvents as it is served: an event is encoded once for all who follow its session.
//!
//! The generated service encodes each message for each stream, from a copy of its own: of a burst to a thousand
//! followers that is a quarter. So this one method has a codec that writes what is encoded already; all other
//! methods are the generated service's.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes};
use interlock_proto::gateway::v1::{
    StreamEventsRequest, StreamEventsResponse, session_service_server::SessionServiceServer,
    stream_events_response::Message,
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
    server::{Grpc, NamedService, ServerStreamingService},
};
use tonic_prost::ProstDecoder;

use super::{session::Rpc, wire};
use crate::{event::SharedEvent, outlet::Answers};

const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";

/// One message to a follower.
#[derive(Debug)]
pub(crate) enum StreamMessage {
    /// An event, which all followers of its session share.
    Event(SharedEvent),
    /// What is told to this one alone.
    Other(Box<Message>),
}

impl StreamMessage {
    /// The message by itself.
    pub(super) fn into_message(self) -> StreamEventsResponse {
        let message = match self {
            Self::Event(event) => Message::Event(wire::event(&event)),
            Self::Other(message) => *message,
        };
        StreamEventsResponse { message: Some(message) }
    }
}

/// SessionService on the wire.
#[derive(Clone)]
pub(super) struct Sessions {
    rpc: Rpc,
    generated: SessionServiceServer<Rpc>,
    message_bytes: usize,
}

impl Sessions {
    /// No request is longer than `message_bytes`.
    pub(super) fn new(rpc: Rpc, message_bytes: usize) -> Self {
        let generated = SessionServiceServer::new(rpc.clone()).max_decoding_message_size(message_bytes);
        Self { rpc, generated, message_bytes }
    }
}

impl NamedService for Sessions {
    const NAME: &'static str = <SessionServiceServer<Rpc> as NamedService>::NAME;
}

impl Service<Request<Body>> for Sessions {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != STREAM_EVENTS {
            return self.generated.call(request);
        }
        let mut grpc = Grpc::new(StreamEventsCodec).max_decoding_message_size(self.message_bytes);
        let follow = Follow(self.rpc.clone());
        Box::pin(async move { Ok(grpc.server_streaming(follow, request).await) })
    }
}

struct Follow(Rpc);

impl ServerStreamingService<StreamEventsRequest> for Follow {
    type Response = StreamMessage;
    type ResponseStream = Answers<StreamMessage>;
    type Future = BoxFuture<tonic::Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: tonic::Request<StreamEventsRequest>) -> Self::Future {
        let rpc = self.0.clone();
        Box::pin(async move { rpc.follow(request).await })
    }
}

/// Requests by prost, answers by [`StreamMessageEncoder`].
struct StreamEventsCodec;

impl Codec for StreamEventsCodec {
    type Encode = StreamMessage;
    type Decode = StreamEventsRequest;
    type Encoder = StreamMessageEncoder;
    type Decoder = ProstDecoder<StreamEventsRequest>;

    fn encoder(&mut self) -> StreamMessageEncoder {
        StreamMessageEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

struct StreamMessageEncoder;

impl Encoder for StreamMessageEncoder {
    type Item = StreamMessage;
    type Error = Status;

    fn encode(&mut self, message: StreamMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match message {
            StreamMessage::Event(event) => out.put_slice(event.wire(|| encoded(&event))),
            other @ StreamMessage::Other(_) => {
                other.into_message().encode(out).expect("the buffer grows as it is written");
            }
        }
        Ok(())
    }
}

fn encoded(event: &SharedEvent) -> Bytes {
    StreamMessage::Event(event.clone()).into_message().encode_to_vec().into()
}
