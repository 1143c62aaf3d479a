//! An auth service's TrustService that does what a test tells it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use interlock_client::{
    Clock, Credential, Kind, Reason,
    verifier::{Verifier, VerifierOptions},
};
use interlock_proto::{
    auth::v1::{
        CheckMembershipRequest, CheckMembershipResponse, CredentialKind, DescribeOwnerRequest,
        DescribeOwnerResponse, HoldLeaseRequest, HoldLeaseResponse, Principal, Revoked, ValidateRequest,
        ValidateResponse,
        hold_lease_request::{Applied, Hello, Message as Ask},
        hold_lease_response::{Granted, Message as Say},
        revoked::Subject,
        trust_service_server::{TrustService, TrustServiceServer},
    },
    credential::Hash,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};

use crate::{connection, refusal, serve, until};

pub(crate) const LEASE: Duration = Duration::from_secs(3);

type Out = mpsc::Sender<Result<HoldLeaseResponse, Status>>;

pub(crate) struct FakeTrust {
    pub(crate) known: Mutex<HashMap<Hash, Principal>>,
    pub(crate) members: Mutex<Vec<(String, String)>>,
    /// Owners who may act, and their roles.
    pub(crate) owners: Mutex<HashMap<String, String>>,
    log: Mutex<Vec<Revoked>>,
    /// Grants nothing while set, and answers nothing.
    pub(crate) frozen: AtomicBool,
    /// Answers the next hello with `reset`.
    pub(crate) reset: AtomicBool,
    pub(crate) refuse_with: Mutex<Option<Reason>>,
    pub(crate) questions: AtomicU32,
    pub(crate) membership_questions: AtomicU32,
    pub(crate) owner_questions: AtomicU32,
    /// Questions read the store, then take one permit, then answer.
    pub(crate) answers: Semaphore,
    pub(crate) hellos: Mutex<Vec<Hello>>,
    pub(crate) applied: Mutex<Vec<Applied>>,
    /// Of the newest ask for the lease, answered or not.
    pub(crate) asked: AtomicU64,
    pub(crate) epoch: AtomicU64,
    link: Mutex<Option<Out>>,
}

/// What a test holds: the fake, a verifier on it, and the verifier's clock.
pub(crate) struct Stage {
    pub(crate) auth: Arc<FakeTrust>,
    pub(crate) verifier: Verifier,
    pub(crate) clock: Clock,
    pub(crate) address: std::net::SocketAddr,
}

/// A fake with a verifier that holds its lease.
pub(crate) async fn stage() -> Stage {
    let stage = stage_without_lease(false).await;
    stage.verifier.ready().await;
    stage
}

pub(crate) async fn stage_without_lease(frozen: bool) -> Stage {
    stage_with(frozen, |_| {}).await
}

pub(crate) async fn stage_with(frozen: bool, set: impl FnOnce(&mut VerifierOptions)) -> Stage {
    let auth = Arc::new(FakeTrust {
        known: Mutex::default(),
        members: Mutex::default(),
        owners: Mutex::default(),
        log: Mutex::default(),
        frozen: AtomicBool::new(frozen),
        reset: AtomicBool::new(false),
        refuse_with: Mutex::default(),
        questions: AtomicU32::new(0),
        membership_questions: AtomicU32::new(0),
        owner_questions: AtomicU32::new(0),
        answers: Semaphore::new(10_000),
        hellos: Mutex::default(),
        applied: Mutex::default(),
        asked: AtomicU64::new(0),
        epoch: AtomicU64::new(1),
        link: Mutex::default(),
    });
    let service = TrustServiceServer::from_arc(Arc::new(Service(Arc::clone(&auth))));
    let address = serve(Server::builder().add_service(service)).await;
    let clock = Clock::manual(std::time::SystemTime::now());
    let mut options = VerifierOptions::named("test");
    options.clock = clock.clone();
    options.renew_every = Duration::from_millis(20);
    set(&mut options);
    let verifier = Verifier::start(connection(address), options);
    Stage { auth, verifier, clock, address }
}

impl Stage {
    /// An owner's access token that auth knows.
    pub(crate) fn owner(&self, n: u8, owner_id: &str) -> Credential {
        self.owner_until(n, owner_id, None)
    }

    pub(crate) fn owner_until(
        &self,
        n: u8,
        owner_id: &str,
        ends: Option<std::time::SystemTime>,
    ) -> Credential {
        let credential = Credential::new(Kind::Owner, &[n; 32]);
        let principal = Principal {
            kind: CredentialKind::OwnerSession.into(),
            credential_id: format!("crd_{n}"),
            owner_id: owner_id.to_owned(),
            role: "user".to_owned(),
            owner_session_id: format!("ows_{n}"),
            issuance: u64::from(n),
            expires_at: ends.map(Into::into),
            ..Principal::default()
        };
        self.auth.known.lock().unwrap().insert(credential.hash(), principal);
        credential
    }
}

impl FakeTrust {
    pub(crate) fn sequence(&self) -> u64 {
        self.log.lock().unwrap().last().map_or(0, |row| row.sequence)
    }

    /// As if its store had been put back to an empty copy: the log begins anew.
    pub(crate) fn forget_the_log(&self) {
        self.log.lock().unwrap().clear();
    }

    /// Forgets a credential and logs the row; pushes it if a verifier is connected.
    pub(crate) async fn revoke(&self, credential: &Credential) -> u64 {
        let principal = self.known.lock().unwrap().remove(&credential.hash()).unwrap();
        self.push(Subject::CredentialId(principal.credential_id), u64::MAX).await
    }

    pub(crate) async fn push(&self, subject: Subject, issued_before: u64) -> u64 {
        self.push_row(Revoked { issued_before, subject: Some(subject), ..Revoked::default() }).await
    }

    /// Something has ended, and not only changed.
    pub(crate) async fn push_ended(&self, subject: Subject, cancel_jobs: bool) -> u64 {
        let issued_before = 100 + self.sequence();
        self.push_row(Revoked {
            issued_before,
            subject: Some(subject),
            ended: true,
            cancel_jobs,
            sequence: 0,
        })
        .await
    }

    async fn push_row(&self, row: Revoked) -> u64 {
        let sequence = self.sequence() + 1;
        let row = Revoked { sequence, ..row };
        self.log.lock().unwrap().push(row.clone());
        let link = self.link.lock().unwrap().clone();
        if let Some(link) = link {
            let _ = link.send(Ok(HoldLeaseResponse { message: Some(Say::Revoked(row)) })).await;
        }
        sequence
    }

    /// Waits for the acknowledgement of a row.
    pub(crate) async fn acknowledged(&self, sequence: u64) -> Applied {
        let find = || self.applied.lock().unwrap().iter().find(|a| a.sequence == sequence).copied();
        until("the acknowledgement", || find().is_some()).await;
        find().unwrap()
    }

    /// Ends the present stream, as a broken connection would.
    pub(crate) async fn cut(&self) {
        let link = self.link.lock().unwrap().take();
        if let Some(link) = link {
            let _ = link.send(Err(Status::unavailable("cut"))).await;
        }
    }

    async fn hear(&self, ask: Ask, out: &Out) {
        let mut reset = false;
        let nonce = match ask {
            Ask::Hello(hello) => {
                reset = self.reset.swap(false, Ordering::SeqCst);
                let missed: Vec<_> =
                    self.log.lock().unwrap().iter().filter(|r| r.sequence > hello.applied).cloned().collect();
                let (nonce, fresh) = (hello.nonce, hello.epoch.is_empty() && hello.applied == 0);
                self.hellos.lock().unwrap().push(hello);
                if !fresh && !reset {
                    for row in missed {
                        let _ = out.send(Ok(HoldLeaseResponse { message: Some(Say::Revoked(row)) })).await;
                    }
                }
                nonce
            }
            Ask::Renew(renew) => renew.nonce,
            Ask::Applied(applied) => {
                self.applied.lock().unwrap().push(applied);
                return;
            }
        };
        self.asked.store(nonce, Ordering::SeqCst);
        if self.frozen.load(Ordering::SeqCst) {
            return;
        }
        self.grant(nonce, reset, out).await;
    }

    async fn grant(&self, nonce: u64, reset: bool, out: &Out) {
        let granted = Granted {
            nonce,
            lease: Some(LEASE.try_into().unwrap()),
            epoch: format!("epoch-{}", self.epoch.load(Ordering::SeqCst)),
            sequence: self.sequence(),
            reset,
            ..Granted::default()
        };
        let _ = out.send(Ok(HoldLeaseResponse { message: Some(Say::Granted(granted)) })).await;
    }

    /// Answers an ask that came while it was frozen, at last.
    pub(crate) async fn answer_late(&self, nonce: u64) {
        let link = self.link.lock().unwrap().clone().unwrap();
        self.grant(nonce, false, &link).await;
    }
}

struct Service(Arc<FakeTrust>);

#[tonic::async_trait]
impl TrustService for Service {
    type HoldLeaseStream = ReceiverStream<Result<HoldLeaseResponse, Status>>;

    async fn hold_lease(
        &self,
        request: Request<Streaming<HoldLeaseRequest>>,
    ) -> Result<Response<Self::HoldLeaseStream>, Status> {
        let (out, rows) = mpsc::channel(64);
        *self.0.link.lock().unwrap() = Some(out.clone());
        let auth = Arc::clone(&self.0);
        let mut asks = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(HoldLeaseRequest { message: Some(ask) })) = asks.next().await {
                auth.hear(ask, &out).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(rows)))
    }

    async fn validate(
        &self,
        request: Request<ValidateRequest>,
    ) -> Result<Response<ValidateResponse>, Status> {
        let auth = &self.0;
        let hash: Hash = request.into_inner().credential_sha256.as_ref().try_into().unwrap();
        let (principal, sequence) = (auth.known.lock().unwrap().get(&hash).cloned(), auth.sequence());
        auth.questions.fetch_add(1, Ordering::SeqCst);
        auth.answers.acquire().await.unwrap().forget();
        if let Some(reason) = *auth.refuse_with.lock().unwrap() {
            return Err(refusal(Code::Unauthenticated, reason));
        }
        match principal {
            Some(principal) => Ok(Response::new(ValidateResponse {
                principal: Some(principal),
                sequence,
                epoch: String::new(),
                now: None,
            })),
            None => Err(refusal(Code::Unauthenticated, Reason::ProviderAuthFailed)),
        }
    }

    async fn describe_owner(
        &self,
        request: Request<DescribeOwnerRequest>,
    ) -> Result<Response<DescribeOwnerResponse>, Status> {
        self.0.owner_questions.fetch_add(1, Ordering::SeqCst);
        let role = self.0.owners.lock().unwrap().get(&request.into_inner().owner_id).cloned();
        let (known, sequence) = (role.is_some(), self.0.sequence());
        let role = role.unwrap_or_default();
        let (session_root, roles) = (role == "admin", vec![role.clone()]);
        let epoch = String::new();
        Ok(Response::new(DescribeOwnerResponse {
            known,
            active: known,
            role,
            roles,
            session_root,
            sequence,
            epoch,
            ended_before: 0,
        }))
    }

    async fn check_membership(
        &self,
        request: Request<CheckMembershipRequest>,
    ) -> Result<Response<CheckMembershipResponse>, Status> {
        let asked = request.into_inner();
        self.0.membership_questions.fetch_add(1, Ordering::SeqCst);
        let member = self.0.members.lock().unwrap().contains(&(asked.owner_id, asked.project_id));
        let sequence = self.0.sequence();
        Ok(Response::new(CheckMembershipResponse { member, sequence, epoch: String::new() }))
    }
}
