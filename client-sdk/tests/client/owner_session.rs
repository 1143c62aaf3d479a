//! An owner session that refreshes itself.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use interlock_client::{Auth, Credential, Credentials, Kind, OwnerSession, Reason, SessionStore};
use interlock_proto::auth::v1::{
    ListOwnerSessionsRequest, ListOwnerSessionsResponse, LoginRequest, LoginResponse, LogoutRequest,
    LogoutResponse, OwnerSessionServiceGetStatusRequest, OwnerSessionServiceGetStatusResponse,
    RefreshRequest, RefreshResponse, RevokeOwnerSessionsRequest, RevokeOwnerSessionsResponse,
    owner_session_service_server::{OwnerSessionService, OwnerSessionServiceServer},
};
use tonic::{Code, Request, Response, Status, transport::Server};

use crate::{connection, refusal, serve, soon, until};

/// Issues a new pair for each refresh; calls an access token expired when told to.
#[derive(Default)]
pub(crate) struct Issuer {
    refreshes: AtomicU32,
    down: AtomicBool,
    ended: AtomicBool,
    /// Refreshes answer once it may be locked.
    slow: tokio::sync::Mutex<()>,
    expired: Mutex<Option<Credential>>,
}

fn access(n: u8) -> Credential {
    Credential::new(Kind::Owner, &[n; 32])
}

fn refresh_token(n: u8) -> Credential {
    Credential::new(Kind::Refresh, &[n; 32])
}

struct Service(Arc<Issuer>);

#[tonic::async_trait]
impl OwnerSessionService for Service {
    async fn login(&self, _: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        if self.0.down.load(Ordering::SeqCst) {
            return Err(refusal(Code::Unavailable, Reason::StoreUnavailable));
        }
        if self.0.ended.load(Ordering::SeqCst) {
            return Err(refusal(Code::Unauthenticated, Reason::InvalidCredentials));
        }
        let n = u8::try_from(self.0.refreshes.fetch_add(1, Ordering::SeqCst)).unwrap();
        let presented = format!("Bearer {}", refresh_token(n + 1).expose());
        assert_eq!(request.metadata().get("authorization").unwrap(), &presented);
        let _answers = self.0.slow.lock().await;
        let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
        Ok(Response::new(RefreshResponse {
            access_token: access(n + 2).expose().to_owned(),
            refresh_token: refresh_token(n + 2).expose().to_owned(),
            access_expires_at: Some(in_an_hour.into()),
            expires_at: Some(in_an_hour.into()),
        }))
    }

    async fn logout(&self, _: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        Err(Status::unimplemented("not here"))
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
        let bearer = request.metadata().get("authorization").unwrap().to_str().unwrap();
        let expired = self.0.expired.lock().unwrap();
        if expired.as_ref().is_some_and(|c| bearer.ends_with(c.expose())) {
            return Err(refusal(Code::Unauthenticated, Reason::TokenExpired));
        }
        Ok(Response::new(OwnerSessionServiceGetStatusResponse { enabled: true, ..Default::default() }))
    }
}

/// A store that counts, and checks that a refresh happens in one's turn.
pub(crate) struct Kept {
    session: Mutex<Option<OwnerSession>>,
    turns: Arc<AtomicU8>,
}

struct Turn(Arc<AtomicU8>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SessionStore for Kept {
    fn load(&self) -> io::Result<Option<OwnerSession>> {
        Ok(self.session.lock().unwrap().clone())
    }

    fn store(&self, session: &OwnerSession) -> io::Result<()> {
        assert_eq!(self.turns.load(Ordering::SeqCst), 1, "stored in one's turn");
        *self.session.lock().unwrap() = Some(session.clone());
        Ok(())
    }

    fn lock(&self) -> io::Result<Box<dyn Send>> {
        self.turns.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Turn(Arc::clone(&self.turns))))
    }
}

/// An owner session whose access token lives for so long still.
pub(crate) async fn stage(access_left: Duration) -> (Arc<Issuer>, Arc<Kept>, Auth, Credentials) {
    let issuer = Arc::new(Issuer::default());
    let service = OwnerSessionServiceServer::new(Service(Arc::clone(&issuer)));
    let auth = Auth::new(connection(serve(Server::builder().add_service(service)).await));
    let now = SystemTime::now();
    let session = OwnerSession {
        access_token: access(1),
        refresh_token: refresh_token(1),
        owner_session_id: "ows_1".to_owned(),
        username: "ann".to_owned(),
        display_name: String::new(),
        role: "user".to_owned(),
        issued_at: now - Duration::from_secs(900),
        access_expires_at: now + access_left,
        expires_at: now + Duration::from_secs(3600),
    };
    let kept = Arc::new(Kept { session: Mutex::new(Some(session)), turns: Arc::default() });
    let credentials = Credentials::owner_session(auth.clone(), Arc::clone(&kept) as Arc<dyn SessionStore>);
    (issuer, kept, auth.with_credentials(credentials.clone()), credentials)
}

#[tokio::test]
async fn many_callers_refresh_once() {
    let (issuer, kept, _, credentials) = stage(Duration::from_secs(1)).await;
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let credentials = credentials.clone();
            tokio::spawn(async move { credentials.current().await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), Some(access(2)));
    }
    assert_eq!(issuer.refreshes.load(Ordering::SeqCst), 1);
    assert_eq!(kept.load().unwrap().unwrap().refresh_token, refresh_token(2));
    assert_eq!(kept.turns.load(Ordering::SeqCst), 0, "every turn has ended");
}

#[tokio::test]
async fn a_token_that_the_server_calls_expired_is_refreshed_and_the_call_made_again() {
    let (issuer, _, auth, _) = stage(Duration::from_secs(600)).await;
    *issuer.expired.lock().unwrap() = Some(access(1));
    assert!(auth.sign_in_status().await.unwrap().enabled);
    assert_eq!(issuer.refreshes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_another_program_refreshed_is_taken() {
    let (issuer, kept, _, credentials) = stage(Duration::from_secs(1)).await;
    assert!(kept.load().unwrap().is_some());
    let mut newer = kept.load().unwrap().unwrap();
    newer.access_token = access(7);
    newer.access_expires_at = SystemTime::now() + Duration::from_secs(900);
    newer.issued_at = SystemTime::now();
    *kept.session.lock().unwrap() = Some(newer);
    assert_eq!(credentials.current().await.unwrap(), Some(access(7)));
    assert_eq!(issuer.refreshes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_auth_that_is_down_signs_nobody_out() {
    let (issuer, _, _, credentials) = stage(Duration::from_secs(30)).await;
    issuer.down.store(true, Ordering::SeqCst);
    assert_eq!(credentials.current().await.unwrap(), Some(access(1)), "it has not ended yet");
}

#[tokio::test]
async fn an_ended_session_says_so() {
    let (issuer, kept, _, credentials) = stage(Duration::from_secs(1)).await;
    issuer.ended.store(true, Ordering::SeqCst);
    assert_eq!(credentials.current().await.unwrap_err().reason(), Some(Reason::InvalidCredentials));
    *kept.session.lock().unwrap() = None;
    assert_eq!(credentials.current().await.unwrap_err().reason(), Some(Reason::LoginRequired));
}

#[tokio::test]
async fn a_refresh_outlives_the_caller_that_began_it() {
    let (issuer, kept, _, credentials) = stage(Duration::from_millis(1)).await;
    let slow = issuer.slow.lock().await;
    let caller = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.current().await }
    });
    until("the refresh", || issuer.refreshes.load(Ordering::SeqCst) == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    drop(slow);
    // Whoever came later would present the old refresh token as a replay, and be signed out.
    until("the successor", || kept.load().unwrap().unwrap().refresh_token == refresh_token(2)).await;
    assert_eq!(credentials.current().await.unwrap(), Some(access(2)));
    assert_eq!(issuer.refreshes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_slow_refresh_holds_up_no_call_whose_token_lives() {
    let (issuer, kept, _, credentials) = stage(Duration::from_secs(30)).await;
    let slow = issuer.slow.lock().await;
    let callers: Vec<_> = (0..5)
        .map(|_| {
            let credentials = credentials.clone();
            tokio::spawn(async move { credentials.current().await })
        })
        .collect();
    for caller in callers {
        assert_eq!(soon("a token", caller).await.unwrap().unwrap(), Some(access(1)));
    }
    drop(slow);
    until("the successor", || kept.load().unwrap().unwrap().access_token == access(2)).await;
    // It is kept first and handed out then; callers of the moment between still have the old one.
    soon("the successor, handed out", async {
        while credentials.current().await.unwrap() != Some(access(2)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(issuer.refreshes.load(Ordering::SeqCst), 1);
}
