//! Unary calls: what is repeated, what is not, and what an error says.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use interlock_client::{Auth, Code, Connection, Credential, Credentials, Kind, Reason};
use interlock_proto::auth::v1::{
    ListOwnerSessionsRequest, ListOwnerSessionsResponse, LoginRequest, LoginResponse, LogoutRequest,
    LogoutResponse, OwnerSessionServiceGetStatusRequest, OwnerSessionServiceGetStatusResponse,
    RefreshRequest, RefreshResponse, RevokeOwnerSessionsRequest, RevokeOwnerSessionsResponse,
    owner_session_service_server::{OwnerSessionService, OwnerSessionServiceServer},
};
use tonic::{Code as Wire, Request, Response, Status, metadata::MetadataMap, transport::Server};

use crate::{connection, refusal, serve};

/// Fails the first `failures` calls, then answers.
#[derive(Default)]
struct Flaky {
    failures: AtomicU32,
    calls: AtomicU32,
    hangs: bool,
    seen: Mutex<Vec<MetadataMap>>,
}

impl Flaky {
    async fn judge<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.seen.lock().unwrap().push(request.metadata().clone());
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let fails = self.failures.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if fails.is_ok() { Err(refusal(Wire::Unavailable, Reason::StoreUnavailable)) } else { Ok(()) }
    }
}

struct Service(Arc<Flaky>);

#[tonic::async_trait]
impl OwnerSessionService for Service {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        self.0.judge(&request).await?;
        Err(refusal(Wire::Unauthenticated, Reason::InvalidCredentials))
    }

    async fn refresh(&self, _: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        self.0.judge(&request).await?;
        Ok(Response::new(LogoutResponse::default()))
    }

    async fn list_owner_sessions(
        &self,
        _: Request<ListOwnerSessionsRequest>,
    ) -> Result<Response<ListOwnerSessionsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn revoke_owner_sessions(
        &self,
        _: Request<RevokeOwnerSessionsRequest>,
    ) -> Result<Response<RevokeOwnerSessionsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_status(
        &self,
        request: Request<OwnerSessionServiceGetStatusRequest>,
    ) -> Result<Response<OwnerSessionServiceGetStatusResponse>, Status> {
        self.0.judge(&request).await?;
        Ok(Response::new(OwnerSessionServiceGetStatusResponse { enabled: true, ..Default::default() }))
    }
}

async fn flaky(failures: u32, hangs: bool) -> (Arc<Flaky>, std::net::SocketAddr) {
    let state = Arc::new(Flaky { failures: AtomicU32::new(failures), hangs, ..Flaky::default() });
    let service = OwnerSessionServiceServer::new(Service(Arc::clone(&state)));
    (state, serve(Server::builder().add_service(service)).await)
}

#[tokio::test]
async fn an_idempotent_call_is_made_again_under_one_id() {
    let (state, address) = flaky(2, false).await;
    let bearer = Credential::new(Kind::User, &[1; 32]);
    let auth = Auth::new(connection(address)).with_credentials(Credentials::bearer(bearer.clone()));
    assert!(auth.sign_in_status().await.unwrap().enabled);
    assert_eq!(state.calls.load(Ordering::SeqCst), 3);
    let seen = state.seen.lock().unwrap();
    let ids: std::collections::HashSet<_> = seen.iter().map(|m| m.get("x-request-id").unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(seen[0].get("authorization").unwrap(), &format!("Bearer {}", bearer.expose()));
    assert!(seen[0].get("grpc-timeout").is_some());
}

#[tokio::test]
async fn a_login_is_never_made_again() {
    let (state, address) = flaky(1, false).await;
    let error = Auth::new(connection(address)).login("ann", "secret").await.unwrap_err();
    assert!(error.is_unavailable() && !error.is_transport());
    assert_eq!(error.reason(), Some(Reason::StoreUnavailable));
    assert_eq!(state.calls.load(Ordering::SeqCst), 1);
    let error = Auth::new(connection(address)).login("ann", "secret").await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unauthenticated, Some(Reason::InvalidCredentials)));
    assert!(error.request_id().is_some());
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_hangs() {
    let (_, address) = flaky(0, true).await;
    let connection =
        Connection::to(format!("http://{address}")).deadline(Duration::from_millis(100)).open().unwrap();
    let error = Auth::new(connection).sign_in_status().await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, Some(Reason::DeadlineExceeded)));
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let dead = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (_, address) = flaky(0, false).await;
    let both = Connection::to(format!("http://{dead}")).or(format!("http://{address}")).open().unwrap();
    assert!(Auth::new(both).sign_in_status().await.unwrap().enabled);

    let none = Connection::to(format!("http://{dead}")).deadline(Duration::from_millis(200)).open().unwrap();
    let error = Auth::new(none).sign_in_status().await.unwrap_err();
    assert!(error.is_transport() && error.is_unavailable(), "{error:?}");
}
