//! The pair, and a good request of every RPC: what hostile values are put into.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use interlock_client::{ClientRole, FilesOf, OwnerSession, PutFile, SetAgent, SetOwner, TokenGrant};
use interlock_proto::{audit::v1 as audit, auth::v1 as auth, gateway::v1 as gateway};
use interlock_tests::{
    Pair, Setup,
    pair::Peer,
    wire::{self, Metadata},
};
use prost::Message as _;
use tonic::{Streaming, transport::Channel};

use crate::{
    fields::Request,
    talk::{self, InHand, Reply},
};

/// Of each session.
const PASSWORD: &str = "correct horse";
const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";
/// Who changes her password.
const CHANGES: usize = 5;
/// The vector of the acceptance table.
const IMPORTED: &str =
    "pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o=";
/// Tries at one owner's password that are made at once; each has a budget.
const TRIES: u64 = 7;

/// The pair, and who is signed in.
pub(crate) struct Stage {
    pub(crate) pair: Pair,
    auth: Channel,
    auth_internal: Channel,
    pub(crate) gateway: Channel,
    alice: OwnerSession,
    /// Whose access and refresh tokens are used up.
    spent: [OwnerSession; 2],
    project: String,
    /// Who unlock root, in turn: each has a budget of tries.
    unlocking: Vec<OwnerSession>,
    /// Of the owner who changes her password: a change may end it.
    changing: Mutex<OwnerSession>,
    next: AtomicU64,
    /// Sign-ins so far.
    tries: AtomicU64,
}

/// What the requests of one RPC are about. Of its own, so that none is in another's way.
pub(crate) struct Props {
    pub(crate) session: String,
    cookie: String,
    agent: String,
    /// Has ended.
    job: String,
    /// A project token's id, or the handle of the next token of an open rotation.
    token: String,
    /// A rotation of a role token is open, or none is, as the method needs it.
    rotation_set: bool,
    /// Is in flight.
    running: String,
    stream_id: String,
    /// To be removed.
    owner: String,
    /// An agent to be removed.
    spare: String,
    hand: InHand,
    /// Held open: a stream that has ended cannot be renewed.
    _stream: Streaming<Bytes>,
}

/// Whether a method is about a rotation of the role tokens.
pub(crate) fn rotates(method: &str) -> bool {
    method == "Rotate" || method.ends_with("Rotation")
}

/// Whether a method is tried when no other one is: of a role one rotation is open at a time, and an agent that was made
/// under a hostile name must not be removed under the same one before it is read again.
pub(crate) fn alone(method: &str) -> bool {
    rotates(method) || method == "RemoveAgent"
}

impl Stage {
    pub(crate) async fn make() -> Self {
        let levels = "info,interlock_kit=debug,interlock_auth=debug,interlock_gateway=debug";
        let setup = Setup::default().auth("log.filter", levels).gateway("log.filter", levels);
        // A worker says much on many streams: its lease must not end on a machine that is busy with other things.
        let setup = setup.gateway("jobs_in_flight_per_owner", "10000").gateway("lease_ttl", "120s");
        // Each of them joins, and none of them is somebody who guesses.
        let setup = setup.gateway("join_tries", "100000").gateway("clients_per_session", "1000");
        let setup = setup.gateway("agents_per_owner", "10000");
        let setup = setup.gateway("argon2.m_kib", "8").gateway("argon2.t", "1");
        let pair = Pair::start_with(setup.root()).await;
        let alice = pair.login("alice").await;
        let spent = [pair.login("bob").await, pair.login("root").await];
        let project = pair.project(&alice, "values").await;
        let mut unlocking = Vec::new();
        for number in 0..6 {
            unlocking.push(pair.login(&format!("w{number}")).await);
        }
        let auth_internal = pair.auth_internal(Peer::Listed);
        let (auth, gateway) = (pair.auth_public(), pair.gateway_public());
        Self {
            auth,
            auth_internal,
            gateway,
            alice,
            spent,
            changing: Mutex::new(unlocking[CHANGES].clone()),
            unlocking,
            project,
            next: AtomicU64::new(0),
            tries: AtomicU64::new(0),
            pair,
        }
    }

    /// A number that no other request has.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The longest message that a service takes, bytes: HARDENING's settings.
    pub(crate) fn bound(request: &Request) -> usize {
        if request.service() == "auth" { 64 * 1024 } else { 1024 * 1024 }
    }

    pub(crate) fn channel(&self, request: &Request) -> &Channel {
        match (request.service(), request.internal()) {
            ("auth", false) => &self.auth,
            ("auth", true) => &self.auth_internal,
            _ => &self.gateway,
        }
    }

    pub(crate) async fn props(&self) -> Props {
        let agent = format!("agent-{}", self.number());
        let sdk = self.pair.sdk_gateway(&self.alice.access_token);
        sdk.agents().set(&agent, SetAgent::default()).await.expect("an agent");
        let created = sdk.sessions().create("").await.expect("a session");
        let session = created.session.session_id;
        sdk.sessions().attach(&session, &agent, &self.project).await.expect("attached");
        let job = sdk.jobs().submit(&session, "ends").await.expect("a job").job_id;
        sdk.jobs().cancel(&job).await.expect("cancelled");
        let running = sdk.jobs().submit(&session, "runs").await.expect("a job").job_id;
        let cookie = created.cookie.expect("the first answer has the cookie").expose().to_owned();
        let notes =
            sdk.files().put(FilesOf::Session(&session), "notes", PutFile::default(), &b"kept"[..]).await;
        notes.expect("a file");
        let sessions = sdk.sessions();
        sessions.set_password(&session, PASSWORD, ClientRole::Operator, false).await.expect("set");
        let request = gateway::StreamEventsRequest { session_id: session.clone(), ..Default::default() };
        let alice = Metadata::bearer(&self.alice.access_token);
        let opened = wire::open(&self.gateway, STREAM_EVENTS, request.encode_to_vec(), &alice).await;
        let (_, mut stream) = opened.expect("a stream");
        let first = stream.message().await.expect("living").expect("a first message");
        let first = gateway::StreamEventsResponse::decode(first).expect("a message");
        let Some(gateway::stream_events_response::Message::Opened(opened)) = first.message else {
            panic!("a stream says first that it is open: {first:?}");
        };
        let (stream_id, hand) = (opened.stream_id, InHand::default());
        let (token, owner, spare) = (self.token().await, self.owner().await, self.spare().await);
        Props {
            session,
            cookie,
            agent,
            job,
            running,
            token,
            rotation_set: false,
            stream_id,
            owner,
            spare,
            hand,
            _stream: stream,
        }
    }

    /// A project token of hers; its id.
    async fn token(&self) -> String {
        let auth = self.pair.sdk_auth_as(&self.alice.access_token);
        let grant = TokenGrant { scopes: vec!["jobs:read".to_owned()], ..TokenGrant::default() };
        auth.issue_token(&self.project, grant).await.expect("a member may").token.token_id
    }

    /// Makes the call, with the good request changed.
    pub(crate) async fn send(
        &self,
        request: &Request,
        props: &mut Props,
        change: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Reply {
        if rotates(request.method.name()) && !props.rotation_set {
            props.rotation_set = true;
            let ends = ["CommitRotation", "AbortRotation"].contains(&request.method.name());
            props.token = self.rotation(ends).await;
        }
        let (channel, metadata) = (self.channel(request), self.metadata(request, props));
        let reply = match request.method.name() {
            "Work" => {
                let hello = self.good(request, "hello", props);
                let mut hand = props.hand.clone();
                let of = |hand: &InHand| change(&self.good_with(request, &request.variant, props, hand));
                let reply = talk::work(channel, &metadata, &mut hand, &request.variant, hello, of).await;
                props.hand = hand;
                reply
            }
            "HoldLease" => {
                let (hello, good) =
                    (self.good(request, "hello", props), self.good(request, &request.variant, props));
                talk::hold_lease(channel, &metadata, &request.variant, hello, change(&good)).await
            }
            _ => {
                let good = self.good(request, &request.variant, props);
                talk::once(channel, &request.policy.path, change(&good), &metadata).await
            }
        };
        if reply.outcome.code == "OK" {
            self.renew(request, props).await;
        }
        reply
    }

    /// What the call has used up.
    async fn renew(&self, request: &Request, props: &mut Props) {
        match (request.method.name(), request.variant.as_str()) {
            ("RemoveOwner", _) => props.owner = self.owner().await,
            ("RemoveAgent", _) => props.spare = self.spare().await,
            ("ChangePassword", _) => {
                let (owner, set) =
                    (format!("w{CHANGES}"), SetOwner { keep_sessions: true, ..SetOwner::default() });
                let owners = self.pair.sdk_auth_as(&self.pair.admin()).owners();
                let again = owners.set(&owner, Some(self.pair.world.password(&owner)), set).await;
                again.expect("the password that she began with");
                let token = self.changing.lock().expect("nobody panics with it").access_token.clone();
                if self.pair.sdk_auth_as(&token).whoami().await.is_err() {
                    let anew = self.pair.login(&owner).await;
                    *self.changing.lock().expect("nobody panics with it") = anew;
                }
            }
            ("RotateToken" | "RevokeToken", _) => props.token = self.token().await,
            (method, _) if rotates(method) => props.rotation_set = false,
            ("ForceFailJob", _) => {
                let sdk = self.pair.sdk_gateway(&self.alice.access_token);
                props.running = sdk.jobs().submit(&props.session, "next").await.expect("a job").job_id;
            }
            ("CloseSession" | "Quit", _) => *props = self.props().await,
            ("Work", "finish") => {
                let sdk = self.pair.sdk_gateway(&self.alice.access_token);
                sdk.jobs().submit(&props.session, "next").await.expect("a job");
                props.hand = InHand::default();
            }
            ("Work", "goodbye") => props.hand = InHand::default(),
            _ => {}
        }
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

    /// One that nobody needs.
    async fn owner(&self) -> String {
        let owner = format!("gone{}", self.number());
        let auth = self.pair.sdk_auth_as(&self.pair.admin());
        let set = auth.owners().set(&owner, Some("longer than twelve"), SetOwner::default()).await;
        set.expect("an owner");
        owner
    }

    /// An agent that nobody needs.
    async fn spare(&self) -> String {
        let agent = format!("spare-{}", self.number());
        let sdk = self.pair.sdk_gateway(&self.alice.access_token);
        sdk.agents().set(&agent, SetAgent::default()).await.expect("an agent");
        agent
    }

    /// In her project.
    pub(crate) fn alice(&self) -> Metadata {
        Metadata::bearer(&self.alice.access_token).with("x-interlock-project", &self.project)
    }

    pub(crate) fn metadata(&self, request: &Request, props: &Props) -> Metadata {
        match (request.service(), request.method.name()) {
            ("auth", _) if request.internal() => {
                Metadata::none().with("x-internal-token", self.pair.world.internal_token())
            }
            (_, "Login") => Metadata::none(),
            (_, "Refresh") => Metadata::bearer(&self.spent[0].refresh_token),
            (_, "Logout") => Metadata::bearer(&self.spent[1].access_token),
            (_, "Unlock" | "Lock") => {
                let turn = usize::try_from(self.number()).expect("few") % self.unlocking.len();
                Metadata::bearer(&self.unlocking[turn].access_token)
            }
            (_, "ForceFailJob" | "AdoptSession") => {
                Metadata::bearer(&self.pair.admin()).with("x-interlock-project", &self.project)
            }
            (_, "List" | "Tail" | "Verify") => Metadata::bearer(&self.pair.admin()),
            (_, method) if rotates(method) => Metadata::bearer(&self.pair.admin()),
            (_, "ChangePassword") => {
                Metadata::bearer(&self.changing.lock().expect("nobody panics with it").access_token)
            }
            (_, "ListOwnerSessions" | "RevokeOwnerSessions") => Metadata::bearer(&self.pair.admin()),
            (_, "SetOwner" | "GetOwner" | "ListOwners" | "RemoveOwner" | "ImportOwner") => {
                Metadata::bearer(&self.pair.admin())
            }
            (_, "GetStatus") if request.policy.path.contains("RoleToken") => {
                Metadata::bearer(&self.pair.admin())
            }
            (_, "Ack" | "Quit") => {
                Metadata::none().with("cookie", &props.cookie).with("x-interlock-project", &self.project)
            }
            ("auth", _) => Metadata::bearer(&self.alice.access_token),
            _ => self.alice(),
        }
    }

    pub(crate) fn good(&self, request: &Request, variant: &str, props: &Props) -> Vec<u8> {
        self.good_with(request, variant, props, &props.hand)
    }

    /// A good request of the method, new each time: it succeeds.
    fn good_with(&self, request: &Request, variant: &str, props: &Props, hand: &InHand) -> Vec<u8> {
        let (session_id, job_id) = (props.session.clone(), props.job.clone());
        let (project_id, request_id) = (self.project.clone(), format!("r{}", self.number()));
        let agent_id = props.agent.clone();
        match (request.method.name(), variant) {
            ("Login", _) => self.login().encode_to_vec(),
            ("ChangePassword", _) => {
                let current_password = self.pair.world.password(&format!("w{CHANGES}")).to_owned();
                // The same again, and no session ends.
                let new_password = current_password.clone();
                auth::ChangePasswordRequest { current_password, new_password, keep_sessions: true }
                    .encode_to_vec()
            }
            ("SetOwner", _) => {
                let (owner_id, password) = (format!("o{}", self.number()), "longer than twelve".to_owned());
                let roles = Some(auth::Roles { roles: vec!["user".to_owned()] });
                let display_name = Some("An owner".to_owned());
                let active = Some(true);
                auth::SetOwnerRequest {
                    owner_id,
                    password,
                    display_name,
                    roles,
                    active,
                    ..Default::default()
                }
                .encode_to_vec()
            }
            ("ImportOwner", _) => {
                let (owner_id, password_hash) = (format!("o{}", self.number()), IMPORTED.to_owned());
                let roles = Some(auth::Roles { roles: vec!["user".to_owned()] });
                auth::ImportOwnerRequest { owner_id, password_hash, roles, ..Default::default() }
                    .encode_to_vec()
            }
            ("GetOwner", _) => auth::GetOwnerRequest { owner_id: "bob".to_owned() }.encode_to_vec(),
            ("RemoveOwner", _) => {
                let owner_id = props.owner.clone();
                auth::RemoveOwnerRequest { owner_id, ..Default::default() }.encode_to_vec()
            }
            ("ListOwnerSessions", _) => {
                let owner_id = "alice".to_owned();
                auth::ListOwnerSessionsRequest { owner_id, ..Default::default() }.encode_to_vec()
            }
            ("RevokeOwnerSessions", _) => {
                // That one has ended already is no error.
                let owner_session_id = "ows_ended".to_owned();
                auth::RevokeOwnerSessionsRequest { owner_session_id, ..Default::default() }.encode_to_vec()
            }
            ("Unlock", _) => {
                let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
                auth::UnlockRequest { password: self.pair.world.root_password().to_owned(), ttl }
                    .encode_to_vec()
            }
            ("AddMember", _) => {
                auth::AddMemberRequest { project_id, owner_id: "w5".to_owned() }.encode_to_vec()
            }
            ("RemoveMember", _) => {
                auth::RemoveMemberRequest { project_id, owner_id: "w5".to_owned(), ..Default::default() }
                    .encode_to_vec()
            }
            ("IssueToken", _) => {
                let (label, scopes) = ("values".to_owned(), vec!["jobs:work".to_owned()]);
                let (agent_ids, ttl) =
                    (vec![agent_id], Some(prost_types::Duration { seconds: 600, nanos: 0 }));
                auth::IssueTokenRequest { project_id, label, scopes, agent_ids, ttl, request_id }
                    .encode_to_vec()
            }
            ("ListTokens", _) => auth::ListTokensRequest { project_id, ..Default::default() }.encode_to_vec(),
            ("RotateToken", _) => {
                let token_id = props.token.clone();
                auth::RotateTokenRequest { project_id, token_id, request_id, ..Default::default() }
                    .encode_to_vec()
            }
            ("RevokeToken", _) => {
                auth::RevokeTokenRequest { project_id, token_id: props.token.clone() }.encode_to_vec()
            }
            ("CreateProject", _) => {
                auth::CreateProjectRequest { name: format!("p{}", self.number()), request_id }.encode_to_vec()
            }
            ("Rotate", _) => {
                auth::RotateRequest { role: "user".to_owned(), grace: None, request_id }.encode_to_vec()
            }
            ("BeginRotation", _) => {
                auth::BeginRotationRequest { role: "user".to_owned(), request_id }.encode_to_vec()
            }
            ("CommitRotation", _) => {
                let (role, credential_id) = ("user".to_owned(), props.token.clone());
                auth::CommitRotationRequest { role, credential_id, force: true, request_id }.encode_to_vec()
            }
            ("AbortRotation", _) => {
                let (role, credential_id) = ("user".to_owned(), props.token.clone());
                auth::AbortRotationRequest { role, credential_id, request_id }.encode_to_vec()
            }
            ("Validate", _) => {
                auth::ValidateRequest { credential_sha256: self.alice.access_token.hash().to_vec().into() }
                    .encode_to_vec()
            }
            ("CheckMembership", _) => {
                auth::CheckMembershipRequest { owner_id: "alice".to_owned(), project_id }.encode_to_vec()
            }
            ("DescribeOwner", _) => {
                auth::DescribeOwnerRequest { owner_id: "alice".to_owned() }.encode_to_vec()
            }
            ("HoldLease", variant) => hold_lease(variant, self.number()).encode_to_vec(),
            ("SetAgent", _) => {
                let description = Some("changed".to_owned());
                gateway::SetAgentRequest { agent_id, shared: None, description }.encode_to_vec()
            }
            ("RemoveAgent", _) => {
                gateway::RemoveAgentRequest { agent_id: props.spare.clone() }.encode_to_vec()
            }
            ("GetAgent", _) => gateway::GetAgentRequest { agent_id }.encode_to_vec(),
            ("SubmitJob", _) => {
                gateway::SubmitJobRequest { session_id, request_id, payload: "more".into() }.encode_to_vec()
            }
            ("GetJob", _) => gateway::GetJobRequest { job_id }.encode_to_vec(),
            ("ForceFailJob", _) => {
                gateway::ForceFailJobRequest { job_id: props.running.clone(), cause: "stuck".to_owned() }
                    .encode_to_vec()
            }
            ("CancelJob", _) => gateway::CancelJobRequest { job_id }.encode_to_vec(),
            ("WaitJob", _) => {
                let wait = Some(prost_types::Duration { seconds: 1, nanos: 0 });
                gateway::WaitJobRequest { job_id, wait }.encode_to_vec()
            }
            ("ListJobs", _) => gateway::ListJobsRequest { session_id, ..Default::default() }.encode_to_vec(),
            ("CreateSession", _) => {
                gateway::CreateSessionRequest { request_id, ..Default::default() }.encode_to_vec()
            }
            ("GetSession", _) => gateway::GetSessionRequest { session_id }.encode_to_vec(),
            ("ListSessions", _) => {
                let owner_id = "alice".to_owned();
                gateway::ListSessionsRequest { owner_id, ..Default::default() }.encode_to_vec()
            }
            ("AttachSession", _) => {
                gateway::AttachSessionRequest { session_id, agent_id, project_id, ..Default::default() }
                    .encode_to_vec()
            }
            ("AdoptSession", _) => {
                gateway::AdoptSessionRequest { session_id, owner_id: "alice".to_owned() }.encode_to_vec()
            }
            ("CloseSession", _) => gateway::CloseSessionRequest { session_id, force: true }.encode_to_vec(),
            ("StreamEvents", _) => {
                gateway::StreamEventsRequest { session_id, ..Default::default() }.encode_to_vec()
            }
            ("RenewStream", _) => {
                gateway::RenewStreamRequest { stream_id: props.stream_id.clone() }.encode_to_vec()
            }
            ("SetSessionPassword", _) => {
                let password = PASSWORD.to_owned();
                gateway::SetSessionPasswordRequest { session_id, password, ..Default::default() }
                    .encode_to_vec()
            }
            ("JoinSession", _) => {
                let password = PASSWORD.to_owned();
                gateway::JoinSessionRequest { session_id, password, request_id, ..Default::default() }
                    .encode_to_vec()
            }
            ("PutFile", _) => {
                let (name, data) = (format!("f{}", self.number() % 100), "kept".into());
                gateway::PutFileRequest { session_id, name, data, ..Default::default() }.encode_to_vec()
            }
            ("GetFile", _) => {
                gateway::GetFileRequest { session_id, name: "notes".to_owned(), ..Default::default() }
                    .encode_to_vec()
            }
            ("ListFiles", _) => {
                gateway::ListFilesRequest { session_id, ..Default::default() }.encode_to_vec()
            }
            ("DeleteFile", _) => {
                gateway::DeleteFileRequest { session_id, name: "none".to_owned(), ..Default::default() }
                    .encode_to_vec()
            }
            ("ListClients", _) => gateway::ListClientsRequest { session_id }.encode_to_vec(),
            ("EvictClient", _) => {
                gateway::EvictClientRequest { session_id, client_id: "clt_1".to_owned() }.encode_to_vec()
            }
            ("Quit", _) => gateway::QuitRequest { session_id }.encode_to_vec(),
            ("PostMessage", _) => {
                let data = "hello".into();
                gateway::PostMessageRequest { session_id, request_id, data, ..Default::default() }
                    .encode_to_vec()
            }
            ("Ack", _) => gateway::AckRequest { session_id, sequence: 1 }.encode_to_vec(),
            ("Work", variant) => talk::ask(work(variant, agent_id, job_id, hand)),
            ("List", _) => {
                let filter = Some(audit::Filter { principal: "alice".to_owned(), ..Default::default() });
                audit::ListRequest { filter, after: 1, page_size: 1 }.encode_to_vec()
            }
            ("Tail", _) => {
                let filter = Some(audit::Filter { principal: "alice".to_owned(), ..Default::default() });
                audit::TailRequest { filter, after: Some(1) }.encode_to_vec()
            }
            ("Verify", _) => {
                let head = audit::Head { writer: "w_1".to_owned(), number: 1, link: vec![1; 32].into() };
                audit::VerifyRequest { known: vec![head] }.encode_to_vec()
            }
            (
                "GetStatus" | "WhoAmI" | "Refresh" | "Logout" | "Lock" | "ListOwners" | "ListProjects"
                | "ListAgents",
                _,
            ) => Vec::new(),
            (other, _) => panic!("{other}: a good request of it is not known here; add one"),
        }
    }

    /// Each owner has a budget of tries. When all are used up, it is an owner that there is not.
    fn login(&self) -> auth::LoginRequest {
        let number = self.tries.fetch_add(1, Ordering::Relaxed);
        let username = format!("w{}", number % 5);
        if number / 5 >= TRIES {
            return auth::LoginRequest { username: format!("nobody-{number}"), password: "wrong".to_owned() };
        }
        let password = self.pair.world.password(&username).to_owned();
        auth::LoginRequest { username, password }
    }
}

/// Each time another verifier: one that comes again and again keeps too many leases.
fn hold_lease(variant: &str, number: u64) -> auth::HoldLeaseRequest {
    use auth::hold_lease_request::{Applied, Hello, Message, Renew, Use, Uses};
    let message = match variant {
        "hello" => Message::Hello(Hello {
            verifier_id: format!("values-{number:012}"),
            nonce: 1,
            ..Default::default()
        }),
        "renew" => {
            let head = audit::Head { writer: "wrt_values".to_owned(), number: 1, link: vec![7; 32].into() };
            let heads = || vec![head.clone()];
            let (credential_id, source) = ("crd_1".to_owned(), "192.0.2.1".to_owned());
            let ago = Some(prost_types::Duration { seconds: 1, nanos: 0 });
            let uses = Some(Uses { used: vec![Use { credential_id, source, ago, noted: 1 }] });
            Message::Renew(Renew { nonce: 2, applied: 0, heads: heads(), remembered: heads(), uses })
        }
        "applied" => Message::Applied(Applied { sequence: 0, streams_closed: 0 }),
        other => panic!("{other}: a good message of it is not known here; add one"),
    };
    auth::HoldLeaseRequest { message: Some(message) }
}

fn work(variant: &str, agent: String, ended: String, hand: &InHand) -> gateway::work_request::Message {
    use gateway::work_request::{Finish, Goodbye, Heartbeat, Hello, Message, Progress};
    // Nothing is missing that a value could be put into.
    let nothing = gateway::Held { job_id: ended, fencing_token: 1 };
    let held = hand.held.clone().unwrap_or(nothing);
    match variant {
        "hello" => Message::Hello(Hello {
            worker: "values".to_owned(),
            agent_ids: vec![agent],
            capacity: 1,
            held: vec![held],
        }),
        "heartbeat" => Message::Heartbeat(Heartbeat { held: vec![held] }),
        "progress" => {
            Message::Progress(Progress { held: Some(held), number: hand.lines + 1, data: "line".into() })
        }
        "finish" => Message::Finish(Finish {
            held: Some(held),
            state: gateway::JobState::Succeeded.into(),
            result: "result".into(),
            cause: String::new(),
        }),
        "goodbye" => Message::Goodbye(Goodbye {}),
        other => panic!("{other}: a good message of it is not known here; add one"),
    }
}
