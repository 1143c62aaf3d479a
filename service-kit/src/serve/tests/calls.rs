//! What bounds a call: shape, deadline, room, statuses.

use std::time::Duration;

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode, Uri,
    uri::{Authority, Scheme},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use interlock_proto::{
    auth::v1::{WhoAmIRequest, identity_service_client::IdentityServiceClient},
    policy::Policies,
};
use tokio::net::TcpStream;
use tokio_stream as stream;
use tonic::{Code, Status, body::Body};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::fixture::{self, Fixture, TOKEN, asks, owner, reason};
use crate::serve::ServerLimits;

const WHO_AM_I: &str = "/interlock.auth.v1.IdentityService/WhoAmI";

/// Sends what no generated client would.
async fn raw(sender: &SendRequest<Body>, change: impl FnOnce(&mut Request<Body>)) -> Response<Incoming> {
    let empty = Full::new(Bytes::from_static(&[0; 5]));
    let mut request = Request::new(Body::new(empty));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = WHO_AM_I.parse().expect("a path");
    let headers = request.headers_mut();
    headers.insert("content-type", "application/grpc".parse().expect("visible"));
    headers.insert("authorization", owner().parse().expect("visible"));
    change(&mut request);
    let mut parts = request.uri().clone().into_parts();
    (parts.scheme, parts.authority) = (Some(Scheme::HTTPS), Some(Authority::from_static("localhost")));
    *request.uri_mut() = Uri::from_parts(parts).expect("whole");
    sender.clone().send_request(request).await.expect("answered")
}

async fn status(answer: Response<Incoming>) -> Status {
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    let collected = answer.into_body().collect().await.expect("a whole answer");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Status::from_header_map(&trailers).expect("a status somewhere")
}

#[tokio::test]
async fn only_grpc_requests_are_calls() {
    let fixture = Fixture::start().await;
    let sender = fixture.raw().await;
    let answer = raw(&sender, |r| *r.method_mut() = Method::GET).await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(answer.headers().contains_key("x-request-id"));
    for other in ["application/json", "application/grpc-web"] {
        let answer = raw(&sender, |r| {
            r.headers_mut().insert("content-type", other.parse().expect("visible"));
        });
        assert_eq!(answer.await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{other}");
    }
    let answer = raw(&sender, |r| drop(r.headers_mut().remove("content-type"))).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(fixture.runs(), 0);
    assert_eq!(status(raw(&sender, |_| {}).await).await.code(), Code::Ok);
}

#[tokio::test]
async fn unknown_methods_have_no_policy_and_no_handler() {
    let fixture = Fixture::start().await;
    let sender = fixture.raw().await;
    for path in [
        "/",
        "/interlock.auth.v1.IdentityService/whoami",
        "/interlock.auth.v1.IdentityService/WhoAmI/",
        "/interlock.auth.v1.IdentityService/%57hoAmI",
        "//interlock.auth.v1.IdentityService/WhoAmI",
        "/no.such.Service/Method",
    ] {
        let answer = raw(&sender, |r| *r.uri_mut() = path.parse().expect("a path")).await;
        let status = status(answer).await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unimplemented, "UNIMPLEMENTED"),
            "{path}"
        );
    }
    // Known to the policies, but of another service.
    let elsewhere = "/interlock.gateway.v1.JobService/SubmitJob";
    assert!(Policies::all().of(elsewhere).is_some());
    let answer = raw(&sender, |r| *r.uri_mut() = elsewhere.parse().expect("a path")).await;
    let status = status(answer).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "UNIMPLEMENTED"));
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_answered_without_its_field_names() {
    let fixture = Fixture::start().await;
    let sender = fixture.raw().await;
    let bodies: [(&'static [u8], Code, &str, &str); 6] = [
        (&[], Code::Internal, "INTERNAL", "malformed request"),
        (&[0, 0, 0, 0, 9, 1], Code::Internal, "INTERNAL", "malformed request"),
        (&[0, 0, 0, 0, 1, 0], Code::Internal, "INTERNAL", "malformed request"),
        (&[0, 0, 0, 0, 2, 0x0f, 0x01], Code::Internal, "INTERNAL", "malformed request"),
        (&[1, 0, 0, 0, 0], Code::Internal, "INTERNAL", "malformed request"),
        (&[0, 0xff, 0xff, 0xff, 0xff], Code::ResourceExhausted, "LIMIT_REACHED", "message too large"),
    ];
    for (body, code, expected, message) in bodies {
        let answer = raw(&sender, |r| *r.body_mut() = Body::new(Full::new(Bytes::from_static(body)))).await;
        let status = status(answer).await;
        assert_eq!((status.code(), status.message()), (code, message), "{body:?}");
        assert_eq!(reason(&status), expected);
    }
    let answer = raw(&sender, |r| {
        r.headers_mut().insert("grpc-encoding", "gzip".parse().expect("visible"));
    });
    let status = status(answer.await).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "UNIMPLEMENTED"));
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn a_timeout_that_cannot_be_read_is_an_invalid_argument() {
    let fixture = Fixture::start().await;
    let sender = fixture.raw().await;
    for text in ["1", "1s", "123456789S", "soon"] {
        let answer = raw(&sender, |r| {
            r.headers_mut().insert("grpc-timeout", text.parse().expect("visible"));
        });
        let status = status(answer.await).await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD"),
            "{text}"
        );
    }
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn a_call_ends_at_the_callers_or_the_servers_deadline() {
    let limits = ServerLimits { timeout: Duration::from_millis(50), ..ServerLimits::auth() };
    let fixture = Fixture::with(limits).await;
    let sender = fixture.raw().await;
    for asked in [None, Some("0n"), Some("20m"), Some("99999999H")] {
        let answer = raw(&sender, |r| {
            r.headers_mut().insert("x-interlock-project", "hang".parse().expect("visible"));
            if let Some(asked) = asked {
                r.headers_mut().insert("grpc-timeout", asked.parse().expect("visible"));
            }
        });
        let status = status(answer.await).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{asked:?}");
        assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
    }
    // A body that never ends.
    let answer = raw(&sender, |r| {
        let silent = stream::pending::<Result<http_body::Frame<Bytes>, Status>>();
        *r.body_mut() = Body::new(http_body_util::StreamBody::new(silent));
    });
    assert_eq!(status(answer.await).await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_question_of_a_parked_call_has_a_deadline_though_its_answer_has_none() {
    let limits = ServerLimits { timeout: Duration::from_millis(50), ..ServerLimits::auth() };
    let fixture = Fixture::with(limits).await;
    let sender = fixture.raw().await;
    let watch = "/grpc.health.v1.Health/Watch".parse::<Uri>().expect("a path");
    let answer = raw(&sender, |r| {
        let silent = stream::pending::<Result<http_body::Frame<Bytes>, Status>>();
        *r.uri_mut() = watch.clone();
        *r.body_mut() = Body::new(http_body_util::StreamBody::new(silent));
    });
    let status = status(answer.await).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    let mut answer = raw(&sender, |r| *r.uri_mut() = watch).await;
    answer.body_mut().frame().await.expect("a first message").expect("whole");
    let more = tokio::time::timeout(Duration::from_millis(200), answer.body_mut().frame()).await;
    assert!(more.is_err(), "a whole question is answered for as long as it takes");
}

#[tokio::test]
async fn strangers_that_watch_take_no_room_of_services() {
    let limits = ServerLimits { parked_calls: 8, ..ServerLimits::auth() };
    let fixture = Fixture::with(limits).await;
    let mut client = HealthClient::new(fixture.channel(fixture.public, None).await);
    let _watch = client.watch(HealthCheckRequest::default()).await.expect("one of eight");
    let status = client.watch(HealthCheckRequest::default()).await.expect_err("a second");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "LIMIT_REACHED"));
    client.check(HealthCheckRequest::default()).await.expect("no parked call");
    let gateway = fixture.issue("gateway");
    let mut services = HealthClient::new(fixture.channel(fixture.internal, Some(&gateway)).await);
    let request = asks(HealthCheckRequest::default(), &[("x-internal-token", TOKEN)]);
    services.watch(request).await.expect("each listener has its own");
}

#[tokio::test]
async fn the_excess_is_refused_at_once() {
    let limits = ServerLimits { calls: 1, calls_per_connection: 1, ..ServerLimits::auth() };
    let fixture = Fixture::with(limits).await;
    let channel = fixture.channel(fixture.public, None).await;
    let held = channel.clone();
    let hanging = tokio::spawn(async move {
        let mut client = IdentityServiceClient::new(held);
        let owner = owner();
        let metadata = [("authorization", owner.as_str()), ("x-interlock-project", "hang")];
        client.who_am_i(asks(WhoAmIRequest {}, &metadata)).await
    });
    fixture.until("the call runs", |f| f.runs() == 1).await;
    for channel in [channel, fixture.channel(fixture.public, None).await] {
        let mut client = IdentityServiceClient::new(channel);
        let request = asks(WhoAmIRequest {}, &[("authorization", &owner())]);
        let status = client.who_am_i(request).await.expect_err("no room");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "LIMIT_REACHED"));
    }
    hanging.abort();
}

#[tokio::test]
async fn a_connection_that_is_full_stays_so_however_often_it_is_tried_and_has_room_again() {
    let limits = ServerLimits { calls: 8, calls_per_connection: 1, ..ServerLimits::auth() };
    let fixture = Fixture::with(limits).await;
    let channel = fixture.channel(fixture.public, None).await;
    let held = channel.clone();
    let hanging = tokio::spawn(async move {
        let mut client = IdentityServiceClient::new(held);
        let owner = owner();
        let metadata = [("authorization", owner.as_str()), ("x-interlock-project", "hang")];
        client.who_am_i(asks(WhoAmIRequest {}, &metadata)).await
    });
    fixture.until("the call runs", |f| f.runs() == 1).await;
    let (mut full, mut other) = (
        IdentityServiceClient::new(channel),
        IdentityServiceClient::new(fixture.channel(fixture.public, None).await),
    );
    let request = || asks(WhoAmIRequest {}, &[("authorization", &owner())]);
    for _ in 0..3 {
        let status = full.who_am_i(request()).await.expect_err("no room on this one");
        assert_eq!(reason(&status), "LIMIT_REACHED");
        other.who_am_i(request()).await.expect("room on the one beside it");
    }
    hanging.abort();
    let again = async {
        while full.who_am_i(request()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("its place is given back");
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let fixture = Fixture::start().await;
    let channel = fixture.channel(fixture.public, None).await;
    let mut client = IdentityServiceClient::new(channel);
    let owner = owner();
    let metadata = [("authorization", owner.as_str()), ("x-request-id", "mine-1")];
    let answer = client.who_am_i(asks(WhoAmIRequest {}, &metadata)).await.expect("admitted");
    assert_eq!(answer.metadata().get("x-request-id").expect("always there"), "mine-1");
    let metadata = [("authorization", owner.as_str()), ("x-request-id", "not mine <")];
    let answer = client.who_am_i(asks(WhoAmIRequest {}, &metadata)).await.expect("admitted");
    let made = answer.metadata().get("x-request-id").expect("always there").to_str().expect("text");
    assert!(made.starts_with("req_"), "{made}");
    let status =
        client.who_am_i(asks(WhoAmIRequest {}, &[("x-request-id", "mine-2")])).await.expect_err("refused");
    assert_eq!(status.metadata().get("x-request-id").expect("always there"), "mine-2");
    let metadata = [("authorization", owner.as_str()), ("x-interlock-project", "busy")];
    let status = client.who_am_i(asks(WhoAmIRequest {}, &metadata)).await.expect_err("the fake says so");
    assert_eq!((reason(&status).as_str(), status.message()), ("SESSION_BUSY", "busy"), "ours pass untouched");
}

#[tokio::test]
async fn health_is_open_and_says_how_the_server_is() {
    // UA-15, UA-28
    let fixture = Fixture::start().await;
    let mut client = HealthClient::new(fixture.channel(fixture.public, None).await);
    let check = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let known = "interlock.auth.v1.IdentityService";
    for (ready, expected) in [(false, ServingStatus::NotServing), (true, ServingStatus::Serving)] {
        fixture.state.set("store", if ready { Ok(()) } else { Err("full".to_owned()) });
        for service in ["", known] {
            let answer = client.check(check(service)).await.expect("open to all").into_inner();
            assert_eq!(answer.status(), expected);
        }
    }
    let status = client.check(check("no.such.Service")).await.expect_err("unknown");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "NOT_FOUND"));

    let mut seen = client.watch(check(known)).await.expect("open to all").into_inner();
    let mut unknown = client.watch(check("no.such.Service")).await.expect("open to all").into_inner();
    assert_eq!(seen.message().await.expect("open").expect("first").status(), ServingStatus::Serving);
    let first = unknown.message().await.expect("open").expect("first");
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    fixture.state.set("store", Err("full".to_owned()));
    assert_eq!(seen.message().await.expect("open").expect("change").status(), ServingStatus::NotServing);
    fixture.shutdown.cancel();
    assert_eq!(seen.message().await.expect("open").expect("farewell").status(), ServingStatus::NotServing);
    assert!(seen.message().await.expect("an orderly end").is_none());
}

#[tokio::test]
async fn the_health_listener_has_health_and_nothing_else() {
    let fixture = Fixture::start().await;
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{}", fixture.health)).expect("a URL");
    let channel = endpoint.connect().await.expect("plain text");
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    assert_eq!(answer.expect("open").into_inner().status(), ServingStatus::NotServing);
    let sender = fixture::raw(TcpStream::connect(fixture.health).await.expect("accepted")).await;
    let status = status(raw(&sender, |_| {}).await).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "UNIMPLEMENTED"));
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn reflection_tells_what_is_served_to_who_may_know() {
    let fixture = Fixture::start().await;
    let mut client = ServerReflectionClient::new(fixture.channel(fixture.public, None).await);
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let status =
        client.server_reflection_info(asks(stream::once(list.clone()), &[])).await.expect_err("refused");
    assert_eq!(reason(&status), "PROVIDER_AUTH_FAILED");
    let request = asks(stream::once(list), &[("authorization", &owner())]);
    let mut answers = client.server_reflection_info(request).await.expect("admitted").into_inner();
    let answer = answers.message().await.expect("open").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "interlock.auth.v1.IdentityService",
            "interlock.auth.v1.TrustService",
        ]
    );
}

#[tokio::test]
async fn a_panic_is_a_fault_of_its_call_only() {
    let fixture = Fixture::start().await;
    let mut client = IdentityServiceClient::new(fixture.channel(fixture.public, None).await);
    let owner = owner();
    let metadata = [("authorization", owner.as_str()), ("x-interlock-project", "panic")];
    let status = client.who_am_i(asks(WhoAmIRequest {}, &metadata)).await.expect_err("the fake panics");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "INTERNAL"));
    client.who_am_i(asks(WhoAmIRequest {}, &metadata[..1])).await.expect("the connection lives");
}

#[tokio::test]
async fn large_metadata_is_refused_and_harms_nobody() {
    let fixture = Fixture::start().await;
    let mut neighbour = IdentityServiceClient::new(fixture.channel(fixture.public, None).await);
    for bytes in [24 * 1024, 64 * 1024] {
        let mut client = IdentityServiceClient::new(fixture.channel(fixture.public, None).await);
        let (owner, padding) = (owner(), "x".repeat(bytes));
        let metadata = [("authorization", owner.as_str()), ("x-padding", padding.as_str())];
        client.who_am_i(asks(WhoAmIRequest {}, &metadata)).await.expect_err("refused");
    }
    assert_eq!(fixture.runs(), 0);
    neighbour.who_am_i(asks(WhoAmIRequest {}, &[("authorization", &owner())])).await.expect("unharmed");
}
