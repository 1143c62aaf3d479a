//! The running gateway: opens the store, holds auth's lease, serves, and drains.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use interlock_client::{
    Connection, ConnectionBuilder, Tls as ClientTls,
    verifier::{Follower, HeadExchange, Verifier, VerifierOptions},
};
use interlock_kit::{
    audit_heads::AuditHeads,
    audit_log::AuditLog,
    authn::AllowFileError,
    clock::Clock,
    hasher::Hasher,
    health::Health as HealthService,
    health_state::Health,
    internal_token::{InternalToken, InternalTokenError},
    probes,
    ready_file::ReadyFile,
    reflection,
    reload::ReloadError,
    secret_file::{self, SecretFileError},
    serve::{Lanes, ServeError, Server, Services},
    store::{
        ChainKeyError, StoreLock,
        audit::{ChainKey, Trail},
        postgres,
        sqlite::{OpenError, Options, Place},
        writer::QueueLimits,
    },
    telemetry::{self, TelemetryError},
    tls::TlsError,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admit::Gate,
    anonymous::Anonymous,
    config::{AuthLink, Config},
    following::{self, Endings},
    grpc::{self, Front},
    guesses::GuessLimit,
    heads::{self, WithAuth},
    hub::Hub,
    listeners::Listeners,
    presence::Presence,
    readiness,
    store::Shell,
    streams::Streams,
    sweeper,
    vault::{Vault, VaultError},
};

mod doors;

use doors::{Doors, own_certificate};

/// How long a start waits for auth's lease before it says that it serves: without one it serves too, and refuses.
const FIRST_LEASE: Duration = Duration::from_secs(5);
/// The store's file, in the data folder.
pub(crate) const STORE_FILE: &str = "gateway.db";
/// No key file is longer.
const KEY_BYTES_MAX: u64 = 1 << 20;
/// The part of a drain that workers get to give their jobs back.
const DRAIN_PART: f64 = 0.7;
/// How long the tasks behind streams may outlive their connections.
const TASKS_END: Duration = Duration::from_secs(2);

/// Why the gateway does not start, or fails.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A socket, a folder or the runtime.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The address of a listener cannot be bound.
    #[error("{key} {address}: {source}; end what listens there, or set another address")]
    Bind {
        /// The key of the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data folder cannot be made, or another program uses the store.
    #[error("data_dir {0}")]
    DataDir(io::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store cannot be opened, in a database.
    #[error(transparent)]
    Database(#[from] postgres::OpenError),
    /// The ready file.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The key of the audit chain.
    #[error(transparent)]
    ChainKey(#[from] ChainKeyError),
    /// The internal token.
    #[error(transparent)]
    InternalToken(#[from] InternalTokenError),
    /// The allow list.
    #[error(transparent)]
    AllowFile(#[from] AllowFileError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The way to auth.
    #[error("auth: {0}")]
    Auth(interlock_client::Error),
    /// Logs or metrics.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Files cannot be watched.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// Where the contents of files are.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Reflection cannot be built.
    #[error("reflection: {0}")]
    Reflection(String),
    /// The server.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl RunError {
    /// Whether somebody has to mend what it was told: exit code 64.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::InternalToken(_)
            | Self::AllowFile(_)
            | Self::Tls(_)
            | Self::Auth(_)
            | Self::Telemetry(_) => true,
            Self::File(error) => error.is_configuration(),
            Self::ChainKey(error) => error.is_configuration(),
            Self::Vault(error) => error.is_configuration(),
            Self::Io(_)
            | Self::Bind { .. }
            | Self::DataDir(_)
            | Self::Store(_)
            | Self::Database(_)
            | Self::Reload(_)
            | Self::Reflection(_)
            | Self::Serve(_) => false,
        }
    }
}

/// Serves until `shutdown`, then drains: accepts nothing more, tells workers, ends streams, lets calls finish
/// within `limits.drain`, closes the store.
///
/// # Errors
/// [`RunError`]; all but a failure to close come before anything is served.
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> Result<(), RunError> {
    // What would be refused later is refused before anything on the disk is touched.
    if let Some(path) = &config.common.ready_file {
        ReadyFile::check(path)?;
    }
    let doors = Doors::load(&config)?;
    let connection = connect(&config)?;
    let _lock = lock(&config.common.data_dir)?;
    let health = Health::new(["store", "auth"]);
    let (front, trail) = front(&config, connection, &doors, &shutdown).await?;
    let message_bytes = config.common.limits.message_bytes;
    let kept = trail.clone();
    let log = AuditLog::new(Arc::clone(&front.gate), trail, Arc::clone(&front.heads), shutdown.clone());
    let services = grpc::services(&front, message_bytes).with(log.server(message_bytes));
    let health_service = HealthService::new(health.clone(), services.names(), shutdown.clone());
    let services = reflection::add(services.with(health_service.server()))
        .map_err(|error| RunError::Reflection(error.to_string()))?;

    let addresses = listeners.addresses()?;
    let metrics = match listeners.metrics {
        Some(socket) => Some((socket, telemetry::metrics()?)),
        None => None,
    };
    let lanes = Arc::new(Lanes::one_a_core()?);
    let mut server = Server::new(config.common.limits.clone(), Arc::clone(&front.gate)).lanes(&lanes);
    if let Some(socket) = listeners.health {
        server = server.health(socket, health_service.services());
    }
    let (server, reloads) = doors.hang(server, listeners.public, listeners.internal);
    let reloading = reloads.start(shutdown.clone())?;

    let own = TaskTracker::new();
    if let Some((socket, metrics)) = metrics {
        own.spawn(probes::serve(socket, health.clone(), metrics, shutdown.clone()));
    }
    own.spawn(readiness::watch(Arc::clone(&front), health));
    own.spawn(following::run(Arc::clone(&front)));
    own.spawn(sweeper::run(Arc::clone(&front)));
    own.spawn(sweeper::clear_files(Arc::clone(&front)));
    own.spawn(sweeper::flush_denials(Arc::clone(&front)));
    own.spawn(heads::trim(Arc::clone(&front), kept, config.common.audit));
    own.spawn(heads::run(Arc::clone(&front), config.common.audit.upkeep_every));
    own.spawn(end_streams(Arc::clone(&front), config.common.limits.drain.mul_f64(DRAIN_PART)));
    let announced = announce(config.common.ready_file, addresses, &front);
    let (served, announced) = tokio::join!(serve(server, services, &shutdown), announced);

    close(&front, &own).await;
    if reloading.await.is_err() {
        tracing::warn!("the watch of files did not end cleanly");
    }
    announced?;
    Ok(served?)
}

/// A server that could not start has to take the rest along.
async fn serve(
    server: Server<Gate>,
    services: Services,
    shutdown: &CancellationToken,
) -> Result<(), ServeError> {
    let served = server.run(services, shutdown.clone()).await;
    shutdown.cancel();
    served
}

/// What is left when nothing is served any more: tasks behind streams, then our own, then the store.
async fn close(front: &Front, own: &TaskTracker) {
    front.ending.cancel();
    front.tasks.close();
    if tokio::time::timeout(TASKS_END, front.tasks.wait()).await.is_err() {
        tracing::warn!(streams = front.streams.count(), "streams did not end in time");
    }
    own.close();
    own.wait().await;
    front.gate.flush(true).await;
    front.shell.close().await;
    tracing::info!("the store is closed");
}

/// Opens the store and starts to hold auth's lease.
async fn front(
    config: &Config,
    connection: Connection,
    doors: &Doors,
    shutdown: &CancellationToken,
) -> Result<(Arc<Front>, Trail), RunError> {
    let (clock, hub) = (Clock::system(), Hub::new());
    let vault = Vault::open(&config.files, config.common.profile)?;
    let (shell, trail) = open_store(config, &clock, &hub)?;
    let endings = Arc::new(Endings::new(shell.clone()));
    let followed = endings.place().await.map_err(|error| io::Error::other(error.to_string()))?.sequence;
    let follower: Option<Arc<dyn Follower>> = Some(Arc::clone(&endings) as _);
    let heads = AuditHeads::new(trail.clone(), clock.clone());
    let exchange: Arc<dyn HeadExchange> = Arc::new(WithAuth::new(Arc::clone(&heads)));
    let options =
        VerifierOptions { follower, followed, heads: Some(exchange), ..VerifierOptions::named("gateway") };
    let verifier = Verifier::start(connection, options);
    let gate = Gate::new(
        verifier.clone(),
        shell.clone(),
        clock.clone(),
        config.unscoped,
        config.common.limits.unknown_credentials,
    );
    let gate = gate
        .with_on_behalf(doors.on_behalf.clone())
        .with_service_workers(doors.service_workers.clone())
        .with_anonymous(config.allow_anonymous.then(Anonymous::new));
    let front = Front {
        shell,
        hub,
        verifier,
        endings,
        heads,
        gate: Arc::new(gate),
        streams: Streams::new(config.parked_per_owner),
        vault,
        hasher: Hasher::start(config.hashing.params, config.hashing.threads, config.hashing.queue)
            .map_err(|error| io::Error::other(error.to_string()))?,
        guesses: GuessLimit::new(config.join_tries),
        presence: Presence::new(config.limits.seen_step()),
        clock,
        unscoped: config.unscoped,
        draining: shutdown.clone(),
        ending: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    Ok((Arc::new(front), trail))
}

fn lock(data_dir: &Path) -> Result<StoreLock, RunError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let named = |error: io::Error| {
        let told = format!(
            "{}: cannot be made: {error}; set it to a folder that this user can write",
            data_dir.display()
        );
        RunError::DataDir(io::Error::new(error.kind(), told))
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(named)?;
    StoreLock::take(data_dir).map_err(RunError::DataDir)
}

/// Opens the store: in the database that is named, or in the data folder.
fn open_store(config: &Config, clock: &Clock, hub: &Hub) -> Result<(Shell, Trail), RunError> {
    let (limits, observer) = (Arc::new(config.limits.clone()), Arc::new(hub.clone()));
    let (key, profile) = (&config.chain_key_file, config.common.profile);
    if let Some(target) = &config.store {
        target.remember_in(&config.common.data_dir)?;
        let options = postgres::Options {
            target: target.clone(),
            sharing: config.sharing,
            clock: clock.clone(),
            chain_key: ChainKey::beside(key, postgres::is_begun(target)?, profile)?,
            limits: QueueLimits::default(),
        };
        let shell = Shell::open_database(&options, limits, observer)?;
        tracing::info!(store = %target, "the store is open");
        return Ok((shell, options.trail()));
    }
    let file = config.common.data_dir.join(STORE_FILE);
    let options = Options {
        place: Place::File(file.clone()),
        clock: clock.clone(),
        chain_key: ChainKey::of_file(key, &file, profile)?,
        limits: QueueLimits::default(),
        inline: false,
        inject_misses: false,
    };
    let shell = Shell::open(&options, limits, observer)?;
    tracing::info!(store = %file.display(), "the store is open");
    Ok((shell, options.trail().expect("a store in a file")))
}

/// The way to auth: certificates and token are read again by the connection itself when they change.
fn connect(config: &Config) -> Result<Connection, RunError> {
    let AuthLink { endpoints, ca, cert, key, server_name } = &config.auth;
    let (first, others) = endpoints.split_first().expect("the configuration has at least one endpoint");
    // Gateways with one list share its auth-services.
    let mut builder = others.iter().fold(Connection::to(first), ConnectionBuilder::or).spread();
    let encrypted = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    if let Some(ca) = ca.as_ref().filter(|_| encrypted) {
        own_certificate(&config.common, true).judge_file(cert)?;
        private(key, config)?;
        let tls = ClientTls::ca_file(ca).identity_files(cert, key);
        builder = builder.tls(match server_name {
            Some(name) => tls.server_name(name),
            None => tls,
        });
    }
    if let Some(token) = &config.common.internal_token_file {
        if config.common.internal.is_none() {
            InternalToken::load(token, config.common.profile)?;
        }
        builder = builder.internal_token_file(token);
    }
    builder.open().map_err(RunError::Auth)
}

/// The key that is shown to auth, where it is not the listeners' own: they look at theirs.
fn private(key: &Path, config: &Config) -> Result<(), RunError> {
    if *key == config.common.tls.key {
        return Ok(());
    }
    let secret = secret_file::read(key, KEY_BYTES_MAX, config.common.profile)
        .map_err(|source| TlsError::Secret { what: "private key", source })?;
    if let Some(exposed) = &secret.exposed {
        tracing::warn!("{exposed}");
    }
    Ok(())
}

/// Ends the streams that have not ended by themselves after a part of the drain.
async fn end_streams(front: Arc<Front>, after: Duration) {
    front.draining.cancelled().await;
    // Nothing has to wait once all are gone: a drain is as short as its work.
    front.tasks.close();
    let _ = tokio::time::timeout(after, front.tasks.wait()).await;
    front.ending.cancel();
}

/// Says that the gateway serves, once it holds auth's lease or has waited for it; the file is there until the
/// shutdown begins.
async fn announce(
    path: Option<PathBuf>,
    addresses: Vec<(&'static str, SocketAddr)>,
    front: &Front,
) -> Result<(), SecretFileError> {
    let shutdown = &front.draining;
    let held = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        held = tokio::time::timeout(FIRST_LEASE, front.verifier.ready()) => held.is_ok(),
    };
    for (listener, address) in &addresses {
        tracing::info!(listener, %address, lease = held, "serving");
    }
    let written = path.map(|path| ReadyFile::write(&path, addresses)).transpose();
    if written.is_err() {
        shutdown.cancel();
    }
    let _file = written?;
    shutdown.cancelled().await;
    Ok(())
}
