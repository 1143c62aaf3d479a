//! What the calls of `every_rpc` are made on: for each cell a session of alice's, bound, with a job in its
//! queue, so that no call rests on what another one did.

use std::sync::atomic::{AtomicU64, Ordering};

use interlock_client::{ClientRole, Cookie, FilesOf, OwnerSession, PutFile, SetAgent, SetOwner, TokenGrant};
use interlock_proto::{
    auth::v1 as auth,
    credential::{Credential, Kind},
    gateway::v1 as gateway,
    policy::{MethodPolicy, Policies},
};
use interlock_tests::{
    Pair, Setup, audit,
    wire::{self, Metadata, Outcome},
};
use prost::Message as _;
use tonic::{Streaming, transport::Channel};

use crate::{Proof, Who};

/// With jobs in its queue.
pub(crate) const AGENT: &str = "alice-agent";
/// With none, for workers.
pub(crate) const IDLE_AGENT: &str = "alice-idle";
const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";

/// The vector of the acceptance table.
const IMPORTED: &str =
    "pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o=";

/// Of a session that is joined.
pub(crate) const PASSWORD: &str = "correct horse";
pub(crate) const PROJECT: &str = "x-interlock-project";

/// One call of the table.
pub(crate) struct Cell {
    pub(crate) service: &'static str,
    pub(crate) policy: &'static MethodPolicy,
    pub(crate) who: Who,
}

/// The pair, and who is signed in.
pub(crate) struct Stage {
    pub(crate) pair: Pair,
    auth: Channel,
    gateway: Channel,
    pub(crate) alice: OwnerSession,
    pub(crate) bob: OwnerSession,
    root: OwnerSession,
    pub(crate) project: String,
    /// Another one of alice's.
    elsewhere: String,
    next: AtomicU64,
}

/// What one cell's call is about.
pub(crate) struct Props {
    pub(crate) session: String,
    cookie: Cookie,
    pub(crate) job: String,
    pub(crate) stream_id: String,
    /// To be removed: an owner, or an agent.
    pub(crate) owner: String,
    /// A token of alice's in the project, or the next one of a rotation, where the method is about one.
    pub(crate) token_id: String,
    /// Held open: a stream that has ended cannot be renewed.
    _stream: Option<Streaming<bytes::Bytes>>,
}

/// Every method that a service serves, health and reflection of each included.
pub(crate) fn served() -> Vec<(&'static str, &'static MethodPolicy)> {
    let of = |service: &'static str| {
        let theirs = move |path: &str| is_everybodys(path) || path.contains(&format!(".{service}.v1."));
        Policies::all().iter().filter(move |p| theirs(&p.path)).map(move |p| (service, p))
    };
    of("auth").chain(of("gateway")).collect()
}

/// Whether both services serve it.
pub(crate) fn is_everybodys(path: &str) -> bool {
    !path.starts_with("/interlock.") || path.starts_with("/interlock.audit.")
}

impl Stage {
    pub(crate) async fn make() -> Self {
        Self::make_with(Setup::default()).await
    }

    /// With settings of its own.
    pub(crate) async fn make_with(setup: Setup) -> Self {
        let setup = setup.root().gateway("jobs_in_flight_per_owner", "100000");
        let setup = setup.gateway("join_tries", "1000").gateway("argon2.m_kib", "8").gateway("argon2.t", "1");
        let pair = Pair::start_with(setup).await;
        let (alice, bob, root) =
            (pair.login("alice").await, pair.login("bob").await, pair.login("root").await);
        let project = pair.project(&alice, "matrix").await;
        let elsewhere = pair.project(&alice, "elsewhere").await;
        let agents = pair.sdk_gateway(&alice.access_token).agents();
        for agent in [AGENT, IDLE_AGENT] {
            agents.set(agent, SetAgent::default()).await.expect("an agent");
        }
        let (auth, gateway) = (pair.auth_public(), pair.gateway_public());
        Self { auth, gateway, alice, bob, root, project, elsewhere, next: AtomicU64::new(0), pair }
    }

    /// Makes one call of the table.
    pub(crate) async fn call(&self, cell: &Cell) -> Outcome {
        let props = self.props(cell.policy).await;
        let message = self.message(&cell.policy.path, &props, cell.who);
        let metadata = self.metadata(cell, &props).await;
        wire::call(self.channel(cell.service), &cell.policy.path, message, &metadata).await.outcome
    }

    /// The public listener of a service.
    pub(crate) fn channel(&self, service: &str) -> &Channel {
        if service == "auth" { &self.auth } else { &self.gateway }
    }

    /// Makes a call on an internal listener, on a connection of its own.
    pub(crate) async fn call_internal(
        &self,
        service: &'static str,
        policy: &'static MethodPolicy,
        proof: Proof,
    ) -> Outcome {
        let channel = match service {
            "auth" => self.pair.auth_internal(proof.peer),
            _ => self.pair.gateway_internal(proof.peer),
        };
        let mut metadata = match proof.forwarded {
            true => Metadata::bearer(&self.alice.access_token),
            false => Metadata::none(),
        };
        if let Some(right) = proof.token {
            let wrong = Credential::new(Kind::Internal, &[7; 32]);
            let token = if right { self.pair.world.internal_token() } else { wrong.expose() };
            metadata = metadata.with("x-internal-token", token);
        }
        let props = self.props(policy).await;
        let message = self.message(&policy.path, &props, Who::Owner);
        wire::call(&channel, &policy.path, message, &metadata).await.outcome
    }

    /// Drains both; how many rows their audit chains have.
    pub(crate) async fn end(mut self) -> usize {
        assert!(
            self.pair.gateway.drain().await.success() && self.pair.auth.drain().await.success(),
            "they drain"
        );
        let mut rows = 0;
        for (store, key) in
            [("auth/auth.db", "auth/audit.key"), ("gateway/gateway.db", "gateway/gateway.chain-key")]
        {
            let (damage, found) = audit::damage(&self.pair.world.path(store), &self.pair.world.path(key));
            assert!(damage.is_empty(), "{store}: {damage:?}");
            rows += found;
        }
        rows
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) async fn props(&self, policy: &MethodPolicy) -> Props {
        let sdk = self.pair.sdk_gateway(&self.alice.access_token);
        let created = sdk.sessions().create("").await.expect("a session");
        let session = created.session.session_id;
        sdk.sessions().attach(&session, AGENT, &self.project).await.expect("attached");
        let job = sdk.jobs().submit(&session, "work").await.expect("a job").job_id;
        let cookie = created.cookie.expect("the first answer has the cookie");
        if policy.path.ends_with("/JoinSession") {
            let sessions = sdk.sessions();
            sessions.set_password(&session, PASSWORD, ClientRole::Operator, false).await.expect("set");
        }
        if policy.path.ends_with("/GetFile") {
            let (of, known) = (FilesOf::Session(&session), PutFile::default());
            sdk.files().put(of, "notes", known, &b"kept"[..]).await.expect("stored");
        }
        let mut props = Props {
            session,
            cookie,
            job,
            stream_id: String::new(),
            owner: String::new(),
            token_id: String::new(),
            _stream: None,
        };
        if policy.path.ends_with("/RemoveOwner") {
            props.owner = format!("gone{}", self.number());
            let auth = self.pair.sdk_auth_as(&self.pair.admin());
            let set = auth.owners().set(&props.owner, Some("longer than twelve"), SetOwner::default()).await;
            set.expect("an owner");
        }
        if policy.path.ends_with("/RemoveAgent") {
            props.owner = format!("gone{}", self.number());
            sdk.agents().set(&props.owner, SetAgent::default()).await.expect("an agent");
        }
        if ["/RotateToken", "/RevokeToken"].iter().any(|method| policy.path.ends_with(method)) {
            let alice = self.pair.sdk_auth_as(&self.alice.access_token);
            let grant = TokenGrant { scopes: vec!["jobs:read".to_owned()], ..TokenGrant::default() };
            props.token_id = alice.issue_token(&self.project, grant).await.expect("a token").token.token_id;
        }
        match policy.path.rsplit_once('/').map(|(_, method)| method) {
            Some("CommitRotation" | "AbortRotation") => props.token_id = self.rotation(true).await,
            Some("BeginRotation" | "Rotate") => drop(self.rotation(false).await),
            _ => {}
        }
        if policy.path.ends_with("/RenewStream") {
            let request =
                gateway::StreamEventsRequest { session_id: props.session.clone(), ..Default::default() };
            let alice = Metadata::bearer(&self.alice.access_token);
            let opened = wire::open(&self.gateway, STREAM_EVENTS, request.encode_to_vec(), &alice).await;
            let (_, mut stream) = opened.expect("a stream");
            let first = stream.message().await.expect("living").expect("a first message");
            let first = gateway::StreamEventsResponse::decode(first).expect("a message");
            let Some(gateway::stream_events_response::Message::Opened(opened)) = first.message else {
                panic!("a stream says first that it is open: {first:?}");
            };
            props.stream_id = opened.stream_id;
            props._stream = Some(stream);
        }
        props
    }

    /// Has a rotation of the role `user` open, or none of any. The next token's handle.
    async fn rotation(&self, open: bool) -> String {
        let admin = self.pair.sdk_auth_as(&self.pair.admin());
        let status = admin.role_tokens(false).await.expect("admin may");
        let mut found = String::new();
        for token in status.tokens.into_iter().filter(|token| token.candidate) {
            if open && token.role == "user" {
                found = token.credential_id;
            } else {
                admin.abort_rotation(&token.role, &token.credential_id).await.expect("aborted");
            }
        }
        match open && found.is_empty() {
            true => admin.begin_rotation("user").await.expect("begun").credential_id,
            false => found,
        }
    }

    async fn metadata(&self, cell: &Cell, props: &Props) -> Metadata {
        // What ends a credential ends one of its own, and what raises one raises none of the others'.
        let fresh = ["/Logout", "/Unlock"].iter().any(|method| cell.policy.path.ends_with(method));
        let signed_in = async |owner: &str, lasting: &OwnerSession| match fresh {
            true => Metadata::bearer(&self.pair.login(owner).await.access_token),
            false => Metadata::bearer(&lasting.access_token),
        };
        match cell.who {
            Who::None => Metadata::none(),
            Who::Garbage => Metadata::none().with("authorization", "Bearer let-me-in"),
            Who::Unknown => Metadata::bearer(&Credential::new(Kind::Owner, &[9; 32])),
            Who::User => Metadata::bearer(&self.pair.user()),
            Who::Admin => Metadata::bearer(&self.pair.admin()),
            Who::Stranger => signed_in("bob", &self.bob).await,
            Who::Root => signed_in("root", &self.root).await,
            Who::Cookie => Metadata::none().with("cookie", props.cookie.expose()),
            Who::Owner if cell.policy.path.ends_with("/Refresh") => {
                Metadata::bearer(&self.pair.login("w0").await.refresh_token)
            }
            Who::Owner => signed_in("alice", &self.alice).await,
            Who::Named if cell.policy.path.ends_with("/Refresh") => {
                Metadata::bearer(&self.pair.login("w0").await.refresh_token).with(PROJECT, &self.elsewhere)
            }
            Who::Named => signed_in("alice", &self.alice).await.with(PROJECT, &self.elsewhere),
        }
    }

    /// A good request of the method: it would succeed for who may make it.
    pub(crate) fn message(&self, path: &str, props: &Props, who: Who) -> Vec<u8> {
        let (session_id, job_id) = (props.session.clone(), props.job.clone());
        let (project_id, request_id) = (self.project.clone(), format!("r{:031}", self.number()));
        let (service, method) = path.rsplit_once('/').expect("a path");
        match (service.rsplit_once('.').expect("a package").1, method) {
            ("OwnerSessionService", "Login") => {
                // Each owner has a budget of tries.
                let username = format!("w{}", 1 + self.number() % 5);
                let password = self.pair.world.password(&username).to_owned();
                auth::LoginRequest { username, password }.encode_to_vec()
            }
            ("OwnerSessionService", "ListOwnerSessions") => {
                let owner_id = "alice".to_owned();
                auth::ListOwnerSessionsRequest { owner_id, ..Default::default() }.encode_to_vec()
            }
            ("OwnerSessionService", "RevokeOwnerSessions") => {
                // None of hers began so early: who comes next is signed in as before.
                let issued_before = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
                let owner_id = "alice".to_owned();
                auth::RevokeOwnerSessionsRequest { owner_id, issued_before, ..Default::default() }
                    .encode_to_vec()
            }
            ("OwnerService", "ChangePassword") => {
                let current = match who {
                    Who::Stranger => "bob",
                    Who::Root => "root",
                    _ => "alice",
                };
                let current_password = self.pair.world.password(current).to_owned();
                // The same again, and no session ends: who comes next signs in as before.
                let new_password = current_password.clone();
                auth::ChangePasswordRequest { current_password, new_password, keep_sessions: true }
                    .encode_to_vec()
            }
            ("OwnerService", "GetOwner") => {
                auth::GetOwnerRequest { owner_id: "bob".to_owned() }.encode_to_vec()
            }
            ("OwnerService", "RemoveOwner") => {
                let owner_id = props.owner.clone();
                auth::RemoveOwnerRequest { owner_id, ..Default::default() }.encode_to_vec()
            }
            ("OwnerService", "SetOwner") => {
                let (owner_id, password) = (format!("o{}", self.number()), "longer than twelve".to_owned());
                auth::SetOwnerRequest { owner_id, password, ..Default::default() }.encode_to_vec()
            }
            ("OwnerService", "ImportOwner") => {
                let (owner_id, password_hash) = (format!("o{}", self.number()), IMPORTED.to_owned());
                auth::ImportOwnerRequest { owner_id, password_hash, ..Default::default() }.encode_to_vec()
            }
            ("ElevationService", "Unlock") => {
                let password = self.pair.world.root_password().to_owned();
                auth::UnlockRequest { password, ttl: None }.encode_to_vec()
            }
            ("ProjectService", "AddMember") => {
                auth::AddMemberRequest { project_id, owner_id: "w5".to_owned() }.encode_to_vec()
            }
            ("ProjectService", "RemoveMember") => {
                auth::RemoveMemberRequest { project_id, owner_id: "w5".to_owned(), ..Default::default() }
                    .encode_to_vec()
            }
            ("ProjectService", "IssueToken") => {
                let scopes = vec!["jobs:read".to_owned()];
                auth::IssueTokenRequest { project_id, scopes, request_id, ..Default::default() }
                    .encode_to_vec()
            }
            ("ProjectService", "ListTokens") => {
                auth::ListTokensRequest { project_id, ..Default::default() }.encode_to_vec()
            }
            ("ProjectService", "RotateToken") => {
                let token_id = props.token_id.clone();
                auth::RotateTokenRequest { project_id, token_id, request_id, ..Default::default() }
                    .encode_to_vec()
            }
            ("ProjectService", "RevokeToken") => {
                auth::RevokeTokenRequest { project_id, token_id: props.token_id.clone() }.encode_to_vec()
            }
            ("ProjectService", "CreateProject") => {
                auth::CreateProjectRequest { name: format!("p{}", self.number()), request_id }.encode_to_vec()
            }
            ("RoleTokenService", "Rotate") => {
                auth::RotateRequest { role: "user".to_owned(), grace: None, request_id }.encode_to_vec()
            }
            ("RoleTokenService", "BeginRotation") => {
                auth::BeginRotationRequest { role: "user".to_owned(), request_id }.encode_to_vec()
            }
            ("RoleTokenService", "CommitRotation") => {
                let (role, credential_id) = ("user".to_owned(), props.token_id.clone());
                auth::CommitRotationRequest { role, credential_id, force: true, request_id }.encode_to_vec()
            }
            ("RoleTokenService", "AbortRotation") => {
                let (role, credential_id) = ("user".to_owned(), props.token_id.clone());
                auth::AbortRotationRequest { role, credential_id, request_id }.encode_to_vec()
            }
            ("TrustService", "Validate") => {
                auth::ValidateRequest { credential_sha256: self.alice.access_token.hash().to_vec().into() }
                    .encode_to_vec()
            }
            ("TrustService", "CheckMembership") => {
                auth::CheckMembershipRequest { owner_id: "alice".to_owned(), project_id }.encode_to_vec()
            }
            ("TrustService", "DescribeOwner") => {
                auth::DescribeOwnerRequest { owner_id: "alice".to_owned() }.encode_to_vec()
            }
            ("TrustService", "HoldLease") => hello().encode_to_vec(),
            ("AgentService", "SetAgent") => {
                let description = Some("changed".to_owned());
                gateway::SetAgentRequest { agent_id: IDLE_AGENT.to_owned(), shared: None, description }
                    .encode_to_vec()
            }
            ("AgentService", "RemoveAgent") => {
                gateway::RemoveAgentRequest { agent_id: props.owner.clone() }.encode_to_vec()
            }
            ("AgentService", "GetAgent") => {
                gateway::GetAgentRequest { agent_id: IDLE_AGENT.to_owned() }.encode_to_vec()
            }
            ("JobService", "SubmitJob") => {
                gateway::SubmitJobRequest { session_id, request_id, payload: "more".into() }.encode_to_vec()
            }
            ("JobService", "GetJob") => gateway::GetJobRequest { job_id }.encode_to_vec(),
            ("JobService", "ForceFailJob") => {
                gateway::ForceFailJobRequest { job_id, cause: "stuck".to_owned() }.encode_to_vec()
            }
            ("JobService", "CancelJob") => gateway::CancelJobRequest { job_id }.encode_to_vec(),
            ("JobService", "WaitJob") => {
                let wait = Some(prost_types::Duration::default());
                gateway::WaitJobRequest { job_id, wait }.encode_to_vec()
            }
            ("JobService", "ListJobs") => {
                gateway::ListJobsRequest { session_id, ..Default::default() }.encode_to_vec()
            }
            ("FileService", "PutFile") => {
                let (name, data) = ("notes".to_owned(), "kept".into());
                gateway::PutFileRequest { session_id, name, data, ..Default::default() }.encode_to_vec()
            }
            ("FileService", "GetFile") => {
                gateway::GetFileRequest { session_id, name: "notes".to_owned(), ..Default::default() }
                    .encode_to_vec()
            }
            ("FileService", "ListFiles") => {
                gateway::ListFilesRequest { session_id, ..Default::default() }.encode_to_vec()
            }
            ("FileService", "DeleteFile") => {
                gateway::DeleteFileRequest { session_id, name: "notes".to_owned(), ..Default::default() }
                    .encode_to_vec()
            }
            ("SessionService", "CreateSession") => {
                gateway::CreateSessionRequest { request_id, ..Default::default() }.encode_to_vec()
            }
            ("SessionService", "GetSession") => gateway::GetSessionRequest { session_id }.encode_to_vec(),
            ("SessionService", "ListSessions") => {
                gateway::ListSessionsRequest { owner_id: "alice".to_owned(), ..Default::default() }
                    .encode_to_vec()
            }
            ("SessionService", "AttachSession") => {
                let agent_id = AGENT.to_owned();
                gateway::AttachSessionRequest { session_id, agent_id, project_id, ..Default::default() }
                    .encode_to_vec()
            }
            ("SessionService", "AdoptSession") => {
                // Whose it is: nothing is left to be done.
                gateway::AdoptSessionRequest { session_id, owner_id: "alice".to_owned() }.encode_to_vec()
            }
            ("SessionService", "CloseSession") => {
                gateway::CloseSessionRequest { session_id, force: true }.encode_to_vec()
            }
            ("SessionService", "StreamEvents") => {
                gateway::StreamEventsRequest { session_id, ..Default::default() }.encode_to_vec()
            }
            ("SessionService", "RenewStream") => {
                gateway::RenewStreamRequest { stream_id: props.stream_id.clone() }.encode_to_vec()
            }
            ("SessionService", "Ack") => gateway::AckRequest { session_id, sequence: 1 }.encode_to_vec(),
            ("SessionService", "SetSessionPassword") => {
                let password = PASSWORD.to_owned();
                gateway::SetSessionPasswordRequest { session_id, password, ..Default::default() }
                    .encode_to_vec()
            }
            ("SessionService", "JoinSession") => {
                let password = PASSWORD.to_owned();
                gateway::JoinSessionRequest { session_id, password, request_id, ..Default::default() }
                    .encode_to_vec()
            }
            ("SessionService", "ListClients") => gateway::ListClientsRequest { session_id }.encode_to_vec(),
            ("SessionService", "EvictClient") => {
                gateway::EvictClientRequest { session_id, client_id: "clt_1".to_owned() }.encode_to_vec()
            }
            ("SessionService", "Quit") => gateway::QuitRequest { session_id }.encode_to_vec(),
            ("SessionService", "PostMessage") => {
                let data = "hello".into();
                gateway::PostMessageRequest { session_id, request_id, data, ..Default::default() }
                    .encode_to_vec()
            }
            ("WorkerService", "Work") => work().encode_to_vec(),
            // `list_services`, field 7.
            ("ServerReflection", "ServerReflectionInfo") => vec![0x3a, 0x00],
            (
                "IdentityService"
                | "ElevationService"
                | "OwnerService"
                | "OwnerSessionService"
                | "ProjectService"
                | "RoleTokenService"
                | "AgentService"
                | "AuditService"
                | "Health",
                _,
            ) => Vec::new(),
            _ => panic!("{path}: a good request of it is not known here; add one"),
        }
    }
}

fn hello() -> auth::HoldLeaseRequest {
    use auth::hold_lease_request::{Hello, Message};
    let hello = Hello { verifier_id: "every-rpc-0123456789".to_owned(), nonce: 1, ..Default::default() };
    auth::HoldLeaseRequest { message: Some(Message::Hello(hello)) }
}

fn work() -> gateway::WorkRequest {
    use gateway::work_request::{Hello, Message};
    let agent_ids = vec![IDLE_AGENT.to_owned()];
    let hello = Hello { worker: "every-rpc".to_owned(), agent_ids, capacity: 1, held: Vec::new() };
    gateway::WorkRequest { message: Some(Message::Hello(hello)) }
}
