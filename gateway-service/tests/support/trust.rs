//! A small TrustService in this process: knows the credentials that a test gives it, holds leases,
//! revokes, and can be cut off. Plain text on loopback: what is tested here is behind the verifier.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use interlock_proto::{
    auth::v1::{
        CheckMembershipRequest, CheckMembershipResponse, CredentialKind, DescribeOwnerRequest,
        DescribeOwnerResponse, HoldLeaseRequest, HoldLeaseResponse, Membership, Principal, Revoked,
        ValidateRequest, ValidateResponse, hold_lease_request, hold_lease_response, revoked,
        trust_service_server,
    },
    credential::{Credential, Hash, Kind},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

const LEASE: Duration = Duration::from_secs(3);
const EPOCH: &str = "epoch-of-the-fake";

/// The fake and its handle. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FakeTrust {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    principals: HashMap<Hash, Principal>,
    members: HashSet<(String, String)>,
    /// Owners that are known, with their role; inactive ones without.
    owners: HashMap<String, Option<String>>,
    revoked: Vec<Revoked>,
    /// Streams that a verifier closed for a revocation, by its sequence.
    applied: HashMap<u64, u64>,
    dead: HashSet<Hash>,
    holders: Vec<mpsc::Sender<Result<HoldLeaseResponse, Status>>>,
    issued: u64,
    silent: bool,
    /// Questions about credentials.
    asked: u64,
}

/// A credential that the fake knows.
#[derive(Clone)]
pub(crate) struct Known {
    /// To present.
    pub(crate) credential: Credential,
    /// As the fake answers it.
    pub(crate) principal: Principal,
}

impl FakeTrust {
    /// Serves on a free loopback port.
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let fake = Self { state: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = tonic::transport::Server::builder()
            .add_service(trust_service_server::TrustServiceServer::new(fake.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        (fake, address)
    }

    /// An owner signed in.
    pub(crate) fn owner(&self, owner_id: &str) -> Known {
        self.know(
            Kind::Owner,
            Principal {
                kind: CredentialKind::OwnerSession.into(),
                owner_id: owner_id.to_owned(),
                role: "user".to_owned(),
                owner_session_id: format!("own_{owner_id}"),
                ..Principal::default()
            },
        )
    }

    /// As [`Self::owner`], until a time.
    pub(crate) fn owner_until(&self, owner_id: &str, expires_at: prost_types::Timestamp) -> Known {
        self.know(
            Kind::Owner,
            Principal {
                kind: CredentialKind::OwnerSession.into(),
                owner_id: owner_id.to_owned(),
                role: "user".to_owned(),
                owner_session_id: format!("own_{owner_id}"),
                expires_at: Some(expires_at),
                ..Principal::default()
            },
        )
    }

    /// The admin role token.
    pub(crate) fn admin(&self) -> Known {
        self.know(
            Kind::Admin,
            Principal {
                kind: CredentialKind::RoleToken.into(),
                owner_id: "admin".to_owned(),
                role: "admin".to_owned(),
                roles: vec!["admin".to_owned()],
                session_root: true,
                generation: 1,
                ..Principal::default()
            },
        )
    }

    /// A project token of an issuer.
    pub(crate) fn project_token(&self, issuer: &str, project: &str, scopes: &[&str]) -> Known {
        self.know(
            Kind::Project,
            Principal {
                kind: CredentialKind::ProjectToken.into(),
                owner_id: issuer.to_owned(),
                role: "user".to_owned(),
                project_id: project.to_owned(),
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
                ..Principal::default()
            },
        )
    }

    /// As [`Self::project_token`], until a time.
    pub(crate) fn project_token_until(
        &self,
        issuer: &str,
        project: &str,
        scopes: &[&str],
        expires_at: prost_types::Timestamp,
    ) -> Known {
        let Known { principal, .. } = self.project_token(issuer, project, scopes);
        self.know(Kind::Project, Principal { expires_at: Some(expires_at), ..principal })
    }

    fn know(&self, kind: Kind, mut principal: Principal) -> Known {
        let mut state = self.state.lock();
        state.owners.entry(principal.owner_id.clone()).or_insert_with(|| Some(principal.role.clone()));
        state.issued += 1;
        let mut random = [0; 32];
        random[..8].copy_from_slice(&state.issued.to_be_bytes());
        let credential = Credential::new(kind, &random);
        principal.credential_id = format!("crd_{}", state.issued);
        principal.issuance = state.issued;
        state.principals.insert(credential.hash(), principal.clone());
        Known { credential, principal }
    }

    /// Lets an owner into a project.
    pub(crate) fn enter(&self, owner_id: &str, project_id: &str) {
        self.state.lock().members.insert((owner_id.to_owned(), project_id.to_owned()));
    }

    /// Revokes one credential: from now on unknown, and told to every holder. Answers how many streams and
    /// parked calls the verifier closed for it.
    pub(crate) async fn revoke(&self, known: &Known) -> u64 {
        self.state.lock().dead.insert(known.credential.hash());
        let subject = revoked::Subject::CredentialId(known.principal.credential_id.clone());
        self.tell(subject, known.principal.issuance + 1, None).await
    }

    /// Ends a membership, likewise.
    pub(crate) async fn leave(&self, owner_id: &str, project_id: &str) -> u64 {
        let (owner_id, project_id) = (owner_id.to_owned(), project_id.to_owned());
        self.state.lock().members.remove(&(owner_id.clone(), project_id.clone()));
        self.tell(revoked::Subject::Membership(Membership { owner_id, project_id }), u64::MAX, Some(false))
            .await
    }

    /// Makes an owner known who may act, in a role.
    pub(crate) fn name(&self, owner_id: &str, role: &str) {
        self.state.lock().owners.insert(owner_id.to_owned(), Some(role.to_owned()));
    }

    /// Makes an owner known who may not act.
    pub(crate) fn name_inactive(&self, owner_id: &str) {
        self.state.lock().owners.insert(owner_id.to_owned(), None);
    }

    /// An owner who was named is one no longer: from now on unknown, and told to every holder.
    pub(crate) async fn forget(&self, owner_id: &str) -> u64 {
        self.forget_with(owner_id, false).await
    }

    /// The same, where no holder is there to be told.
    pub(crate) fn forget_unheard(&self, owner_id: &str) {
        let mut state = self.state.lock();
        state.owners.remove(owner_id);
        let sequence = state.revoked.len() as u64 + 1;
        let subject = Some(revoked::Subject::OwnerId(owner_id.to_owned()));
        state.revoked.push(Revoked {
            sequence,
            issued_before: u64::MAX,
            subject,
            ended: true,
            cancel_jobs: false,
        });
        state.holders.clear();
    }

    /// The same, and whether jobs are to be cancelled.
    pub(crate) async fn forget_with(&self, owner_id: &str, cancel_jobs: bool) -> u64 {
        self.state.lock().owners.remove(owner_id);
        let subject = revoked::Subject::OwnerId(owner_id.to_owned());
        self.tell(subject, u64::MAX, Some(cancel_jobs)).await
    }

    /// An owner has changed, and has not ended: told to every holder.
    pub(crate) async fn change(&self, owner_id: &str) -> u64 {
        self.tell(revoked::Subject::OwnerId(owner_id.to_owned()), u64::MAX, None).await
    }

    /// `ends`: the subject has ended, with its jobs or without.
    async fn tell(&self, subject: revoked::Subject, issued_before: u64, ends: Option<bool>) -> u64 {
        let (row, holders) = {
            let mut state = self.state.lock();
            let sequence = state.revoked.len() as u64 + 1;
            let (ended, cancel_jobs) = (ends.is_some(), ends == Some(true));
            let row = Revoked { sequence, issued_before, subject: Some(subject), ended, cancel_jobs };
            state.revoked.push(row.clone());
            (row, state.holders.clone())
        };
        let sequence = row.sequence;
        for holder in holders {
            let message = hold_lease_response::Message::Revoked(row.clone());
            let _ = holder.send(Ok(HoldLeaseResponse { message: Some(message) })).await;
        }
        super::eventually("the revocation is applied", || self.state.lock().applied.contains_key(&sequence))
            .await;
        self.state.lock().applied[&sequence]
    }

    /// Answers no renewal and no question until told otherwise.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.state.lock().silent = silent;
    }

    /// How many credentials were asked about.
    pub(crate) fn asked(&self) -> u64 {
        self.state.lock().asked
    }

    fn grant(&self, nonce: u64) -> Option<HoldLeaseResponse> {
        let state = self.state.lock();
        (!state.silent).then(|| HoldLeaseResponse {
            message: Some(hold_lease_response::Message::Granted(hold_lease_response::Granted {
                nonce,
                lease: Some(prost_types::Duration::try_from(LEASE).expect("three seconds")),
                epoch: EPOCH.to_owned(),
                sequence: state.revoked.len() as u64,
                reset: false,
                ..hold_lease_response::Granted::default()
            })),
        })
    }
}

/// As auth answers: a verifier believes no refusal without a reason.
fn unknown() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("PROVIDER_AUTH_FAILED", "interlock", HashMap::new());
    Status::with_error_details(tonic::Code::Unauthenticated, "login required", details)
}

#[tonic::async_trait]
impl trust_service_server::TrustService for FakeTrust {
    type HoldLeaseStream = ReceiverStream<Result<HoldLeaseResponse, Status>>;

    async fn hold_lease(
        &self,
        request: Request<Streaming<HoldLeaseRequest>>,
    ) -> Result<Response<Self::HoldLeaseStream>, Status> {
        let mut asked = request.into_inner();
        let (answers, stream) = mpsc::channel(64);
        self.state.lock().holders.push(answers.clone());
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = asked.message().await {
                let nonce = match message.message {
                    Some(hold_lease_request::Message::Hello(hello)) => hello.nonce,
                    Some(hold_lease_request::Message::Renew(renew)) => renew.nonce,
                    Some(hold_lease_request::Message::Applied(applied)) => {
                        fake.state.lock().applied.insert(applied.sequence, applied.streams_closed);
                        continue;
                    }
                    None => continue,
                };
                if let Some(granted) = fake.grant(nonce)
                    && answers.send(Ok(granted)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn validate(
        &self,
        request: Request<ValidateRequest>,
    ) -> Result<Response<ValidateResponse>, Status> {
        let mut state = self.state.lock();
        state.asked += 1;
        if state.silent {
            return Err(Status::unavailable("silent"));
        }
        let hash: Hash = request.into_inner().credential_sha256.as_ref().try_into().expect("32 bytes");
        let known = state.principals.get(&hash).filter(|_| !state.dead.contains(&hash));
        let principal = known.cloned().ok_or_else(unknown)?;
        let sequence = state.revoked.len() as u64;
        Ok(Response::new(ValidateResponse {
            principal: Some(principal),
            sequence,
            epoch: EPOCH.to_owned(),
            now: None,
        }))
    }

    async fn describe_owner(
        &self,
        request: Request<DescribeOwnerRequest>,
    ) -> Result<Response<DescribeOwnerResponse>, Status> {
        let state = self.state.lock();
        if state.silent {
            return Err(Status::unavailable("silent"));
        }
        let found = state.owners.get(&request.into_inner().owner_id).cloned();
        let (known, role) = (found.is_some(), found.flatten());
        let (sequence, epoch) = (state.revoked.len() as u64, EPOCH.to_owned());
        Ok(Response::new(DescribeOwnerResponse {
            known,
            active: role.is_some(),
            session_root: role.as_deref() == Some("admin"),
            roles: role.iter().cloned().collect(),
            role: role.unwrap_or_default(),
            sequence,
            epoch,
            ended_before: 0,
        }))
    }

    async fn check_membership(
        &self,
        request: Request<CheckMembershipRequest>,
    ) -> Result<Response<CheckMembershipResponse>, Status> {
        let state = self.state.lock();
        if state.silent {
            return Err(Status::unavailable("silent"));
        }
        let asked = request.into_inner();
        let member = state.members.contains(&(asked.owner_id, asked.project_id));
        let sequence = state.revoked.len() as u64;
        Ok(Response::new(CheckMembershipResponse { member, sequence, epoch: EPOCH.to_owned() }))
    }
}
