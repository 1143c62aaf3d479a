//! I14 on the wire: who asks for something of another owner's is answered what is answered where there is no such thing, to
//! the byte: status, text, details, metadata, and the message of what is no refusal.
//!
//! Every request that names a session, a job, a stream, a token, a project, an agent or an owner is sent twice, by everyone
//! who may not: as it is, and with one of its ids made up. So a new RPC is among them. Times are compared by the bench
//! `secret_compare`, and what follows one from the other by `what_one_owner_is_told_does_not_depend_on_another_owners_data`
//! of the gateway's `domain` tests.

use std::fmt;

use bytes::Bytes;
use interlock_client::{Cookie, SetAgent, TokenGrant};
use interlock_proto::{
    auth::v1 as auth,
    credential::Credential,
    gateway::v1 as gateway,
    options::v1::Listener,
    policy::{MethodPolicy, Policies},
};
use interlock_tests::{
    Setup,
    wire::{self, Answer, Metadata},
};
use prost::Message as _;
use tonic::metadata::KeyAndValueRef;

use crate::{
    Who,
    cluster::Cluster,
    fixture::{AGENT, IDLE_AGENT, PASSWORD, PROJECT, Props, Stage, served},
};

/// All that a caller sees of an answer, but for when it came.
#[derive(PartialEq, Eq)]
struct Seen {
    outcome: wire::Outcome,
    details: Bytes,
    message: Bytes,
    metadata: Vec<(String, Vec<u8>)>,
}

impl Seen {
    fn of(answer: Answer) -> Self {
        let entry = |entry: KeyAndValueRef<'_>| match entry {
            KeyAndValueRef::Ascii(name, value) => (name.to_string(), value.as_bytes().to_vec()),
            KeyAndValueRef::Binary(name, value) => (name.to_string(), value.as_encoded_bytes().to_vec()),
        };
        let mut metadata: Vec<_> = answer.metadata.iter().map(entry).collect();
        metadata.retain(|(name, _)| name != "date");
        metadata.sort_unstable();
        Self { outcome: answer.outcome, details: answer.details, message: answer.message, metadata }
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} details {:?} message {:?}", self.outcome, self.details, self.message)?;
        self.metadata
            .iter()
            .try_for_each(|(name, value)| write!(f, " {name}: {}", String::from_utf8_lossy(value)))
    }
}

/// Who may not, each with the metadata of a call.
struct Callers {
    all: Vec<(&'static str, Metadata)>,
    /// Who is signed in as another owner.
    bob: Metadata,
    /// A session of bob's, not bound, and a project and an agent of bob's.
    session: String,
    project: String,
}

const BOBS_AGENT: &str = "bob-agent";
const SCOPES: [&str; 5] = ["sessions:read", "sessions:write", "jobs:submit", "jobs:read", "jobs:work"];

impl Callers {
    async fn of(stage: &Stage) -> Self {
        let bob = &stage.bob.access_token;
        let sdk = stage.pair.sdk_gateway(bob);
        let created = sdk.sessions().create("bobs").await.expect("a session");
        let cookie = created.cookie.expect("once");
        sdk.agents().set(BOBS_AGENT, SetAgent::default()).await.expect("an agent");
        let project = stage.pair.project(&stage.bob, "bobs").await;
        let grant = TokenGrant { scopes: SCOPES.map(str::to_owned).to_vec(), ..TokenGrant::default() };
        let token = stage.pair.sdk_auth_as(bob).issue_token(&project, grant).await.expect("a member may");
        let of = |credential: &Credential| Metadata::bearer(credential);
        let all = vec![
            ("nobody", Metadata::none()),
            ("the role token `user`", of(&stage.pair.user())),
            ("another owner", of(bob)),
            ("another owner's project token", of(&token.secret).with(PROJECT, &project)),
            ("another session's cookie", Metadata::none().with("cookie", Cookie::expose(&cookie))),
        ];
        Self { all, bob: of(bob), session: created.session.session_id, project }
    }
}

/// One that nobody was given, as long as `id`.
fn made_up(id: &str) -> String {
    let (prefix, rest) = id.split_at(id.find(['_', '-']).map_or(1, |at| at + 1));
    let other = |at: usize, char: char| match (at, char) {
        (0..8, '0') => '1',
        (0..8, _) if char.is_ascii_alphanumeric() => '0',
        _ => char,
    };
    let rest: String = rest.chars().enumerate().map(|(at, char)| other(at, char)).collect();
    format!("{prefix}{rest}")
}

/// `message` with another value in the field that has this one; `None` where none has.
fn with_other(message: &[u8], value: &str, other: &str) -> Option<Vec<u8>> {
    assert!(value.len() == other.len() && value != other && value.len() < 128, "{value} {other}");
    let field = [&[u8::try_from(value.len()).expect("short")], value.as_bytes()].concat();
    let at = message.windows(field.len()).position(|window| *window == *field)?;
    Some([&message[..=at], other.as_bytes(), &message[at + field.len()..]].concat())
}

/// Ids that a request may have; most are of alice's.
fn ids(stage: &Stage, props: &Props) -> Vec<String> {
    let fixed = [AGENT, IDLE_AGENT, "alice", "bob"].map(str::to_owned);
    let own = [&props.session, &props.job, &props.stream_id, &props.token_id, &props.owner, &stage.project];
    own.into_iter().filter(|id| !id.is_empty()).cloned().chain(fixed).collect()
}

struct Comparing<'a> {
    stage: &'a Stage,
    calls: u32,
    differ: Vec<String>,
}

impl Comparing<'_> {
    /// Sends both. What is told of the one must be told of the other.
    async fn compare(
        &mut self,
        service: &str,
        path: &str,
        who: &str,
        [theirs, unknown]: [(Vec<u8>, Metadata); 2],
    ) {
        self.calls += 1;
        let mut seen = Vec::new();
        for (message, metadata) in [theirs, unknown] {
            // The same in both, as it is in each answer.
            let metadata = metadata.with("x-request-id", "apart");
            seen.push(Seen::of(wire::call(self.stage.channel(service), path, message, &metadata).await));
        }
        if seen[0] != seen[1] {
            self.differ.push(format!("{path} by {who}:\n    {:?}\n    {:?}", seen[0], seen[1]));
        }
    }

    /// Everyone, with each id of one method's request. Whether it has one.
    async fn method(&mut self, service: &str, policy: &MethodPolicy, callers: &Callers) -> bool {
        let props = self.stage.props(policy).await;
        let mut message = self.stage.message(&policy.path, &props, Who::Stranger);
        if policy.path.ends_with("/JoinSession") {
            // Who has the password may.
            message = with_other(&message, PASSWORD, &made_up(PASSWORD)).expect("it has one");
        }
        let mut named = false;
        for id in ids(self.stage, &props) {
            let Some(unknown) = with_other(&message, &id, &made_up(&id)) else { continue };
            named = true;
            for (who, metadata) in &callers.all {
                let both = [&message, &unknown].map(|message| (message.clone(), metadata.clone()));
                self.compare(service, &policy.path, who, both).await;
            }
        }
        named
    }

    /// By bob, within what is bob's: the message with alice's id, and with a made-up one.
    async fn within_own<M: prost::Message>(
        &mut self,
        path: &str,
        callers: &Callers,
        id: &str,
        message: impl Fn(String) -> M,
    ) {
        let service = if path.contains(".auth.") { "auth" } else { "gateway" };
        let both = [id.to_owned(), made_up(id)].map(|id| (message(id).encode_to_vec(), callers.bob.clone()));
        self.compare(service, path, "another owner, with what is theirs", both).await;
    }
}

/// Whoever is first has the name of an agent, and who would give it again is told: names are shared on purpose.
const SHARED: [&str; 1] = ["/interlock.gateway.v1.AgentService/SetAgent"];

// I14, UA-03, UA-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_anothers_is_answered_as_what_there_is_not() {
    compared(Setup::default()).await;
    // What is answered is made where no engine shows; the long form looks at it there, too.
    if std::env::var_os("INTERLOCK_LONG").is_some() {
        let cluster = Cluster::start();
        let setup = Setup::default().auth("store", &cluster.database("auth"));
        compared(setup.gateway("store", &cluster.database("gateway"))).await;
    }
}

async fn compared(setup: Setup) {
    let stage = Stage::make_with(setup).await;
    let callers = Callers::of(&stage).await;
    let mut comparing = Comparing { stage: &stage, calls: 0, differ: Vec::new() };
    let mut methods = 0;
    for (service, policy) in served() {
        if policy.served_on(Listener::Public) && !SHARED.contains(&&*policy.path) {
            methods += u32::from(comparing.method(service, policy, &callers).await);
        }
    }
    own(&mut comparing, &callers).await;
    // It can see a difference: of bob's own there is something to tell.
    let (told, path) = (comparing.differ.len(), "/interlock.gateway.v1.SessionService/GetSession");
    comparing
        .within_own(path, &callers, &callers.session, |session_id| gateway::GetSessionRequest { session_id })
        .await;
    assert_eq!(comparing.differ.split_off(told).len(), 1, "a comparison that sees nothing");
    let Comparing { calls, differ, .. } = comparing;
    assert!(differ.is_empty(), "{} of {calls} tell one from the other:\n{}", differ.len(), differ.join("\n"));
    println!("{calls} pairs of answers of {methods} methods, each the same to the byte");
    assert!(methods >= METHODS_MIN, "{methods} methods that name something: some are not found any more");
}

/// As many as there were when this was written.
const METHODS_MIN: u32 = 39;

/// Where something of one's own is named first, and something of another's besides.
async fn own(comparing: &mut Comparing<'_>, callers: &Callers) {
    let stage = comparing.stage;
    let policy = Policies::all().of("/interlock.auth.v1.ProjectService/RotateToken").expect("ours");
    let alices = stage.props(policy).await;
    let sessions = stage.pair.sdk_gateway(&stage.alice.access_token).sessions();
    let client = sessions.clients(&alices.session).await.expect("hers")[0].client_id.clone();
    let session = || callers.session.clone();
    let project = || callers.project.clone();
    let attach = |agent_id: String, project_id: String| gateway::AttachSessionRequest {
        session_id: session(),
        agent_id,
        project_id,
        ..Default::default()
    };
    let path = "/interlock.gateway.v1.SessionService/AttachSession";
    comparing.within_own(path, callers, AGENT, |agent| attach(agent, project())).await;
    comparing
        .within_own(path, callers, &stage.project, |project| attach(BOBS_AGENT.to_owned(), project))
        .await;
    let path = "/interlock.gateway.v1.SessionService/CreateSession";
    comparing
        .within_own(path, callers, "alice", |owner_id| gateway::CreateSessionRequest {
            owner_id,
            request_id: "apart-000000000000000000".to_owned(),
            ..Default::default()
        })
        .await;
    let path = "/interlock.gateway.v1.SessionService/EvictClient";
    comparing
        .within_own(path, callers, &client, |client_id| gateway::EvictClientRequest {
            session_id: session(),
            client_id,
        })
        .await;
    let path = "/interlock.gateway.v1.SessionService/JoinSession";
    for owner in ["alice", "bob"] {
        // A session of that name there is not, or it has no password.
        comparing
            .within_own(path, callers, owner, |owner_id| gateway::JoinSessionRequest {
                owner_id,
                name: "bobs".to_owned(),
                password: "none of theirs".into(),
                request_id: "apart-111111111111111111".to_owned(),
                ..Default::default()
            })
            .await;
    }
    let files = "/interlock.gateway.v1.FileService";
    comparing
        .within_own(&format!("{files}/GetFile"), callers, &alices.job, |job_id| {
            let (name, fencing_token) = name_and_token();
            gateway::GetFileRequest { job_id, name, fencing_token, ..Default::default() }
        })
        .await;
    comparing
        .within_own(&format!("{files}/PutFile"), callers, &alices.job, |job_id| {
            let (name, fencing_token) = name_and_token();
            gateway::PutFileRequest { job_id, name, fencing_token, ..Default::default() }
        })
        .await;
    let path = "/interlock.gateway.v1.WorkerService/Work";
    comparing
        .within_own(path, callers, AGENT, |agent| {
            use gateway::work_request::{Hello, Message};
            let agent_ids = vec![agent];
            let hello = Hello { worker: "apart".to_owned(), agent_ids, capacity: 1, held: Vec::new() };
            gateway::WorkRequest { message: Some(Message::Hello(hello)) }
        })
        .await;
    let path = "/interlock.auth.v1.OwnerSessionService/RevokeOwnerSessions";
    comparing
        .within_own(path, callers, &stage.alice.owner_session_id, |owner_session_id| {
            auth::RevokeOwnerSessionsRequest { owner_session_id, ..Default::default() }
        })
        .await;
    let path = "/interlock.auth.v1.ProjectService/RevokeToken";
    comparing
        .within_own(path, callers, &alices.token_id, |token_id| auth::RevokeTokenRequest {
            project_id: project(),
            token_id,
        })
        .await;
    let path = "/interlock.auth.v1.ProjectService/RotateToken";
    comparing
        .within_own(path, callers, &alices.token_id, |token_id| auth::RotateTokenRequest {
            project_id: project(),
            token_id,
            request_id: "apart-222222222222222222".to_owned(),
            ..Default::default()
        })
        .await;
    // A wrong password, of who there is and of who there is not.
    let path = "/interlock.auth.v1.OwnerSessionService/Login";
    comparing
        .within_own(path, callers, "alice", |username| auth::LoginRequest {
            username,
            password: "not the password".to_owned(),
        })
        .await;
    // The project that a call names.
    for (path, message) in [
        (
            "/interlock.gateway.v1.SessionService/GetSession",
            gateway::GetSessionRequest { session_id: session() }.encode_to_vec(),
        ),
        ("/interlock.gateway.v1.SessionService/ListSessions", Vec::new()),
        ("/interlock.gateway.v1.AgentService/ListAgents", Vec::new()),
        ("/interlock.auth.v1.ProjectService/ListProjects", Vec::new()),
        (
            "/interlock.auth.v1.ProjectService/ListTokens",
            auth::ListTokensRequest { project_id: project(), ..Default::default() }.encode_to_vec(),
        ),
    ] {
        let service = if path.contains(".auth.") { "auth" } else { "gateway" };
        let named = [stage.project.clone(), made_up(&stage.project)];
        let both = named.map(|named| (message.clone(), callers.bob.clone().with(PROJECT, &named)));
        comparing.compare(service, path, "another owner, who names a project", both).await;
    }
}

/// Of a file that there is not, as the worker of an attempt.
fn name_and_token() -> (String, u64) {
    ("notes".to_owned(), 1)
}
