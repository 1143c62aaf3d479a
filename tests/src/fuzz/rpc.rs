//! Messages of every RPC, as bytes, to both services whole in this process: through TLS, gate 1, decoding, verbs and
//! the store.

use std::{
    net::SocketAddr,
    sync::{
        LazyLock, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use interlock_proto::{
    gateway::v1::{AttachSessionRequest, CreateSessionRequest, CreateSessionResponse},
    policy::descriptors,
};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    patience::eventually,
    wire::{self, Metadata, Shows},
    world::{Setup, World},
};

/// In a message, it stands for the id of a session that is there.
const SESSION: &str = "$s";
/// A new session after so many calls: the last one may be gone.
const CALLS: u64 = 64;
const CREATE: &str = "/interlock.gateway.v1.SessionService/CreateSession";
const ATTACH: &str = "/interlock.gateway.v1.SessionService/AttachSession";
/// Answers of a service that cannot answer now: a slow machine, no fault.
const NOT_NOW: [&str; 3] = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"];

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::make);

struct Stage {
    runtime: Runtime,
    world: World,
    methods: Vec<MethodDescriptor>,
    auth: Channel,
    gateway: Channel,
    calls: AtomicU64,
    session: Mutex<String>,
}

/// A method, a credential, a message.
///
/// # Panics
/// Where what can be decoded is answered with INTERNAL, or a refusal gives no reason of ours.
pub fn check(data: &[u8]) {
    let [method, credential, message @ ..] = data else { return };
    let stage = &*STAGE;
    let method = &stage.methods[usize::from(*method) % stage.methods.len()];
    stage.runtime.block_on(stage.call(method, *credential, message));
}

impl Stage {
    async fn call(&self, method: &MethodDescriptor, credential: u8, message: &[u8]) {
        if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(CALLS) {
            self.renew_session().await;
        }
        let decoded = DynamicMessage::decode(method.input(), message).ok();
        let message = decoded.clone().map_or_else(|| message.to_vec(), |decoded| self.named(decoded));
        let service = method.parent_service();
        let path = format!("/{}/{}", service.full_name(), method.name());
        let ours = if service.package_name() == "interlock.auth.v1" { &self.auth } else { &self.gateway };
        let answer = wire::call(ours, &path, message, &self.metadata(credential)).await.outcome;
        if answer.code == "OK" || NOT_NOW.contains(&answer.code.as_str()) {
            return;
        }
        if answer.code == "INTERNAL" {
            assert!(decoded.is_none() && answer.message == "malformed request", "{path}: {answer}");
        }
        assert!(!answer.reason.is_empty(), "{path}: a refusal without a reason: {answer}");
    }

    fn metadata(&self, credential: u8) -> Metadata {
        let shown = |role: &str| Metadata::bearer(&self.world.role_token(role));
        let metadata = match credential % 4 {
            0 => Metadata::none(),
            1 => shown("user"),
            _ => shown("admin").with("x-interlock-project", "system"),
        };
        metadata.with("grpc-timeout", "2S")
    }

    /// With the session's id where it is asked for.
    fn named(&self, mut message: DynamicMessage) -> Vec<u8> {
        if message.get_field_by_name("session_id").is_some_and(|id| id.as_str() == Some(SESSION)) {
            message.set_field_by_name("session_id", Value::String(self.session().clone()));
        }
        message.encode_to_vec()
    }

    fn session(&self) -> MutexGuard<'_, String> {
        self.session.lock().expect("no panic")
    }

    async fn renew_session(&self) {
        let number = self.calls.load(Ordering::Relaxed);
        let create = CreateSessionRequest { request_id: format!("fuzz {number}"), ..Default::default() };
        let made = wire::ask(&self.gateway, CREATE, &create, &self.metadata(2)).await;
        if made.outcome.code != "OK" {
            return; // The last one serves on: there is a limit on sessions.
        }
        let id = made.read::<CreateSessionResponse>().session.expect("made").session_id;
        let attach = AttachSessionRequest {
            session_id: id.clone(),
            agent_id: "primary".to_owned(),
            project_id: "system".to_owned(),
            ..Default::default()
        };
        wire::ask(&self.gateway, ATTACH, &attach, &self.metadata(2)).await;
        *self.session() = id;
    }

    fn make() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let world = World::new(Setup::default());
        let (auth, gateway) = runtime.block_on(start(&world));
        let shows = Shows { ca: world.ca(), leaf: None };
        let channel = |address: SocketAddr| runtime.block_on(async { wire::connect(address, &shows) });
        let (auth, gateway) = (channel(auth), channel(gateway));
        let mut methods: Vec<_> =
            descriptors().services().flat_map(|s| s.methods().collect::<Vec<_>>()).collect();
        methods.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        let (calls, session) = (AtomicU64::new(0), Default::default());
        let stage = Self { runtime, world, methods, auth, gateway, calls, session };
        stage.runtime.block_on(eventually("a gateway that admits calls", async || {
            stage.renew_session().await;
            (!stage.session().is_empty()).then_some(())
        }));
        stage
    }
}

/// Runs both; answers where their public listeners are.
async fn start(world: &World) -> (SocketAddr, SocketAddr) {
    world.configure_auth(&Default::default());
    let config = interlock_auth::Config::read(Some(&world.path("auth.toml")), [], Vec::new());
    let config = config.expect("a good configuration");
    let listeners = interlock_auth::Listeners::bind(&config).await.expect("free ports");
    let bound = listeners.addresses().expect("bound");
    let at =
        |bound: &[(&str, SocketAddr)], name: &str| bound.iter().find(|(n, _)| *n == name).expect("bound").1;
    let auth = (at(&bound, "public"), at(&bound, "internal"));
    runs("auth", tokio::spawn(interlock_auth::run(config, listeners, CancellationToken::new())));
    eventually("auth is ready", async || world.path("auth.ready.json").exists().then_some(())).await;

    world.configure_gateway(auth.1, &Default::default());
    let config = interlock_gateway::config::load(Some(&world.path("gateway.toml")), Vec::new());
    let config = config.expect("a good configuration");
    let listeners = interlock_gateway::Listeners::bind(&config).await.expect("free ports");
    let gateway = at(&listeners.addresses().expect("bound"), "public");
    runs("gateway", tokio::spawn(interlock_gateway::run(config, listeners, CancellationToken::new())));
    eventually("the gateway is ready", async || world.path("gateway.ready.json").exists().then_some(()))
        .await;
    (auth.0, gateway)
}

/// A service that ends by itself is a finding.
fn runs<E: std::fmt::Debug + Send + 'static>(name: &'static str, task: JoinHandle<Result<(), E>>) {
    tokio::spawn(async move {
        let ended = task.await;
        panic!("{name} ended: {ended:?}");
    });
}
