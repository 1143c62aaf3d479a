//! Wires the service: data directory, role tokens, accounts, barrier, listeners, reloads, drain.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use interlock_kit::{
    audit_heads::AuditHeads,
    audit_log::AuditLog,
    audit_retention,
    authn::AllowFileError,
    clock::Clock,
    error::Error,
    hasher::Hasher,
    health,
    health_state::Health,
    internal_token::InternalTokenError,
    probes, process, random,
    ready_file::ReadyFile,
    reflection,
    reload::{ReloadError, Reloads},
    secret_file::SecretFileError,
    serve::{Lanes, ServeError, Server, ServerLimits, Services},
    store::audit::Trail,
    telemetry::{self, TelemetryError},
    tls::TlsError,
};
use thiserror::Error as ThisError;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    accounts::Account,
    accounts_apply::{self, ApplyError, Sources},
    admit::Gate,
    audit_log::{RememberHeads, TrimLog},
    barrier::{self, Barrier, Terms},
    census::Census,
    certificates::Certificates,
    config::Config,
    first_start::{self, TokensError},
    grpc,
    guesses::GuessLimit,
    ids::ReplicaId,
    listeners::Listeners,
    opening::{self, Database, LeaseNote, Opened, OpeningError, STORE_CONDITION},
    parts::{Parts, host_call},
    replicas::{self, Joining, Replicas},
    revocation::RevocationsAfter,
    root::{self, Root, RootError},
    store::Shell,
    sweeper,
    token_file::TokenFile,
    vouch::Vouch,
};

/// Verifiers with a stream or a lease.
const VERIFIERS_MAX: usize = 256;
/// Messages that wait for one verifier.
const OUTGOING_MAX: usize = 1_024;
/// What a call that waits for the barrier may take beyond the wait.
const BEYOND_A_LEASE: Duration = Duration::from_secs(5);
/// Calls that do not park and may wait for the barrier all the same.
const WAITING: [&str; 1] = ["/interlock.auth.v1.OwnerSessionService/Refresh"];

/// Why the service does not start, or had to stop. One line that says what to do, without secrets.
#[derive(Debug, ThisError)]
pub enum StartError {
    /// A certificate, a key or an authority.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The internal token.
    #[error(transparent)]
    InternalToken(#[from] InternalTokenError),
    /// The allow list.
    #[error(transparent)]
    AllowFile(#[from] AllowFileError),
    /// An accounts source.
    #[error(transparent)]
    Accounts(#[from] ApplyError),
    /// The data directory.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// The root password.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Role tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// A file of ours.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A listener cannot be bound.
    #[error("{what} {address}: {source}; end what listens there, or set another address")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Listeners, policies or bounds.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The descriptors of the services.
    #[error("reflection: {0}")]
    Reflection(String),
    /// Logs or metrics.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Watching files.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// The store or the hasher.
    #[error("{0}")]
    Refused(#[from] Error),
    /// Nobody reads stdout.
    #[error(
        "the first tokens cannot be printed on stdout: {0}; `interlock-auth auth status --reveal` shows them"
    )]
    FirstTokens(io::Error),
    /// The operating system.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// Whether somebody has to mend what it was told: exit code 64.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tls(_) | Self::InternalToken(_) | Self::AllowFile(_) | Self::Telemetry(_) => true,
            Self::Accounts(error) => !matches!(error, ApplyError::Refused(_) | ApplyError::Hash(_)),
            Self::Opening(error) => error.is_configuration(),
            Self::Root(error) => error.is_configuration(),
            Self::Tokens(error) => error.is_configuration(),
            Self::File(error) => error.is_configuration(),
            Self::Bind { .. }
            | Self::Serve(_)
            | Self::Reflection(_)
            | Self::Reload(_)
            | Self::Refused(_)
            | Self::FirstTokens(_)
            | Self::System(_) => false,
        }
    }
}

/// As a program: logs, signals, sockets, and [`run`].
///
/// # Errors
/// [`StartError`]
pub async fn serve(config: Config) -> Result<(), StartError> {
    telemetry::init_logs(config.common.log_format, &config.common.log_filter)?;
    process::keep_to_itself();
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listeners = Listeners::bind(&config).await?;
    let asked = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down: open calls may finish");
        asked.cancel();
    });
    run(config, listeners, shutdown).await
}

/// Serves on bound listeners until `shutdown`, then drains.
///
/// # Errors
/// [`StartError`]
pub async fn run(
    mut config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let clock = Clock::system();
    let tls = Certificates::load(&config)?;
    let root = root::Place::take(&mut config);
    let told = Told { accounts: checked(&config)?, root_password: root.read()?, root };
    let common = &config.common;
    let database = config.store.as_ref().map(|target| Database { target, sharing: config.sharing });
    let (folder, key) = (&common.data_dir, &config.chain_key_file);
    let opened = opening::open(folder, key, database, common.profile, clock.clone())?;
    let outcome = with_store(&config, &opened, tls, told, listeners, clock, shutdown).await;
    opened.store.close().await;
    outcome
}

/// Secrets that were read before anything was touched.
struct Told {
    accounts: Vec<Account>,
    root_password: Option<Zeroizing<Vec<u8>>>,
    root: root::Place,
}

/// What would be refused later is refused before anything on the disk is touched. Gives the accounts.
fn checked(config: &Config) -> Result<Vec<Account>, StartError> {
    let common = &config.common;
    if let Some(path) = &common.ready_file {
        ReadyFile::check(path)?;
    }
    opening::check_folder(&common.data_dir)?;
    TokenFile::of(&common.data_dir, common.profile).read().map_err(TokensError::from)?;
    Ok(Sources::of(config).read()?)
}

async fn with_store(
    config: &Config,
    opened: &Opened,
    tls: Certificates,
    told: Told,
    listeners: Listeners,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let common = &config.common;
    let Told { accounts, root_password, root: root_place } = told;
    let root = Arc::new(Root::default());
    let shell = Shell::new(opened.store.clone()).with_root(Arc::clone(&root));
    let copy = TokenFile::of(&common.data_dir, common.profile);
    let tokens = first_start::settle(&shell, &copy).await?;
    let health = Health::new([STORE_CONDITION]);
    let note = opening::unknown_leases(&common.data_dir, config.lease)?;
    let epoch = random::id("epo");
    let vouch = if config.store.is_some() { Vouch::leased(clock.clone()) } else { Vouch::always() };
    let copy = Arc::new(tokio::sync::Mutex::new(copy));
    let census = Census::new(shell.clone(), config.in_use_window, config.lease);
    let (barrier, replicas) = match &config.store {
        None => (barrier_of(&shell, config.lease, &note, tokens.fresh).await?, None),
        Some(_) => {
            let own = ReplicaId::made(&epoch);
            let promise = replicas::promise(config.lease).max(barrier::fence(note.longest));
            let joined = replicas::join(&shell, &own, promise).await?;
            // What others have granted stands in their rows; without any, an earlier version may have granted it.
            let known = tokens.fresh || !joined.others.is_empty();
            let unknown = if known { Duration::ZERO } else { barrier::fence(note.longest) };
            let barrier = Barrier::under(vouch.clone(), terms(config.lease), joined.newest, unknown);
            let (shell, vouch) = (shell.clone(), vouch.clone());
            let (announcer, copy) = (Arc::clone(&opened.announcer), Arc::clone(&copy));
            let (of_it, census) = (barrier.clone(), Arc::clone(&census));
            let joining = Joining { own, promise, shell, barrier: of_it, vouch, announcer, copy, census };
            (barrier, Some(Replicas::new(joining)))
        }
    };
    opened.announcer.tell(barrier.clone(), health.clone(), &vouch);
    let beating = CancellationToken::new();
    let beats = replicas.clone().map(|replicas| tokio::spawn(replicas.run(beating.clone())));
    let _until_the_end = beating.clone().drop_guard();
    let hasher = Hasher::start(config.hashing.params, config.hashing.threads, config.hashing.queue)?;
    accounts_apply::apply(&shell, &hasher, &accounts).await?;
    drop(accounts);
    if let Some(asked) = config.root_ttl_asked {
        let (asked_s, held_to_s) = (asked.as_secs(), config.root_ttl.as_secs());
        tracing::warn!(asked_s, held_to_s, "root.ttl is out of its bounds of 60 to 3600 s");
    }
    // Others use the store, too, where it is elsewhere.
    let shared = config.store.is_some();
    root::configure(&shell, &hasher, &root, root_password, shared).await?;
    if let Some(made) = tokens.made.filter(|_| config.print_first_tokens) {
        use std::io::Write as _;
        let shown = first_start::shown(&made, &*copy.lock().await);
        let mut out = io::stdout();
        out.write_all(shown.as_bytes()).and_then(|()| out.flush()).map_err(StartError::FirstTokens)?;
    }
    let gate = Arc::new(Gate::new(
        opened.store.clone(),
        clock.clone(),
        opened.announcer.verdicts(),
        Arc::clone(&census),
        Arc::clone(&root),
        config.common.limits.unknown_credentials,
    ));
    let heads = AuditHeads::new(opened.trail.clone(), clock.clone());
    let parts = Arc::new(Parts {
        gate: Arc::clone(&gate),
        heads: Arc::clone(&heads),
        shell: gate.shell(),
        barrier: barrier.clone(),
        census: Arc::clone(&census),
        hasher: hasher.clone(),
        copy,
        replicas: replicas.clone(),
        guesses: GuessLimit::default(),
        root: Arc::clone(&root),
        root_guesses: GuessLimit::default(),
        root_ttl: config.root_ttl,
        clock,
        epoch,
        access_ttl: config.access_ttl,
        session_ttl: config.owner_session_ttl,
        unscoped: config.unscoped,
        shutdown: shutdown.clone(),
    });
    let reloads = tls.reloads(Reloads::new());
    let reloads = root_place.reloaded(reloads, &shell, &hasher, &root, shared);
    let _reloading =
        accounts_reload(reloads, &shell, &hasher, Sources::of(config)).start(shutdown.clone())?;
    let shrinking = tokio::spawn(shrink_note(note));
    let remembering =
        tokio::spawn(remember(heads.clone(), common.audit.upkeep_every, shell.clone(), &shutdown));
    let trimming =
        tokio::spawn(trim(config, opened.trail.clone(), parts.clock.clone(), shell.clone(), &shutdown));
    let counting = tokio::spawn(census.run(shutdown.clone()));
    let sweeping = tokio::spawn(sweeper::run(shell, Arc::clone(&gate), health.clone(), shutdown.clone()));
    let lanes = Arc::new(Lanes::one_a_core()?);
    let doors = Doors { tls, listeners, lanes: Arc::clone(&lanes) };
    let log = AuditLog::new(Arc::clone(&gate), opened.trail.clone(), heads, shutdown.clone());
    let served = serve_all(config, &parts, log, doors, health, shutdown.clone()).await;
    // What still runs ends with the listeners, whatever ended those.
    shutdown.cancel();
    shrinking.abort();
    if remembering.await.is_err() || trimming.await.is_err() {
        tracing::error!("the upkeep of the audit log did not end cleanly");
    }
    if counting.await.is_err() {
        tracing::error!("the census of role tokens did not end cleanly");
    }
    if sweeping.await.is_err() {
        tracing::error!("the sweeper did not end cleanly");
    }
    beating.cancel();
    if let (Some(replicas), Some(beats)) = (replicas, beats) {
        if beats.await.is_err() {
            tracing::error!("the beats did not end cleanly");
        }
        replicas.leave().await;
    }
    if let Err(error) = gate.record_counted(true).await {
        tracing::error!(%error, "counted refusals could not be recorded");
    }
    served
}

/// Keeps heads of audit chains until the end.
fn remember(
    heads: Arc<AuditHeads>,
    every: Duration,
    shell: Shell,
    shutdown: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let keep = move |peer, heads| {
        let shell = shell.clone();
        async move { shell.run(&host_call("audit.remember"), RememberHeads { peer, heads }).await }
    };
    let shutdown = shutdown.clone();
    async move {
        shutdown.run_until_cancelled(heads.run(every, keep)).await;
    }
}

/// Removes old audit rows until the end.
fn trim(
    config: &Config,
    trail: Trail,
    clock: Clock,
    shell: Shell,
    shutdown: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let trim = move |trim| {
        let shell = shell.clone();
        async move { shell.run(&host_call("audit.trim"), TrimLog { trim }).await }
    };
    let (audit, shutdown) = (config.common.audit, shutdown.clone());
    async move {
        let trimming = audit_retention::run(trail, clock, audit.retention, audit.upkeep_every, trim);
        shutdown.run_until_cancelled(trimming).await;
    }
}

async fn barrier_of(
    shell: &Shell,
    lease: Duration,
    note: &LeaseNote,
    fresh: bool,
) -> Result<Barrier, StartError> {
    let log = shell.ask(&host_call("trust.start"), RevocationsAfter { after: 0, limit: 1 }).await?;
    // A first start: nobody can hold a lease yet.
    let unknown = if fresh { Duration::ZERO } else { barrier::fence(note.longest) };
    Ok(Barrier::new(terms(lease), log.newest, unknown))
}

fn terms(lease: Duration) -> Terms {
    Terms { lease, verifiers_max: VERIFIERS_MAX, outgoing_max: OUTGOING_MAX }
}

async fn shrink_note(note: LeaseNote) {
    tokio::time::sleep(barrier::fence(note.longest)).await;
    if let Err(error) = note.shrink() {
        tracing::warn!(%error, "the next start waits for longer leases than it needs to");
    }
}

/// What calls come in by, and where they are served.
struct Doors {
    tls: Certificates,
    listeners: Listeners,
    lanes: Arc<Lanes>,
}

async fn serve_all(
    config: &Config,
    parts: &Arc<Parts>,
    log: AuditLog<Gate>,
    doors: Doors,
    health: Health,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let Doors { tls, listeners, lanes } = doors;
    let addresses = listeners.addresses()?;
    let limits = limits_of(config);
    let services = grpc::services(parts, limits.message_bytes).with(log.server(limits.message_bytes));
    let health_rpc = health::Health::new(health.clone(), services.names(), shutdown.clone());
    let services = reflected(services.with(health_rpc.server()))?;
    let mut server =
        Server::new(limits, Arc::clone(&parts.gate)).lanes(&lanes).public(listeners.public, tls.public);
    if let (Some(listener), Some((tls, trust))) = (listeners.internal, tls.internal) {
        server = server.internal(listener, tls, trust);
    }
    if let Some(listener) = listeners.health {
        server = server.health(listener, health_rpc.services());
    }
    let probing = probe(listeners.metrics, &health, &shutdown)?;
    health.set(STORE_CONDITION, Ok(()));
    let ready = config
        .common
        .ready_file
        .as_ref()
        .map(|path| ReadyFile::write(path, addresses.clone()))
        .transpose()?;
    tracing::info!(?addresses, "serving");
    let served = server.run(services, shutdown.clone()).await;
    drop(ready);
    shutdown.cancel();
    if let Some(probing) = probing {
        // It ends within ten seconds by itself.
        let _ = probing.await;
    }
    Ok(served?)
}

fn limits_of(config: &Config) -> ServerLimits {
    let mut limits = config.common.limits.clone();
    let wait = barrier::fence(replicas::promise(config.lease)) + BEYOND_A_LEASE;
    limits.own_timeouts.extend(WAITING.map(|path| (path, wait)));
    limits
}

fn reflected(services: Services) -> Result<Services, StartError> {
    reflection::add(services).map_err(|error| StartError::Reflection(error.to_string()))
}

fn probe(
    listener: Option<TcpListener>,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<Option<JoinHandle<()>>, StartError> {
    let Some(listener) = listener else { return Ok(None) };
    let serving = probes::serve(listener, health.clone(), telemetry::metrics()?, shutdown.clone());
    Ok(Some(tokio::spawn(serving)))
}

fn accounts_reload(reloads: Reloads, shell: &Shell, hasher: &Hasher, sources: Sources) -> Reloads {
    let files: Vec<_> = sources.files().collect();
    if files.is_empty() {
        return reloads;
    }
    let (shell, hasher, runtime) = (shell.clone(), hasher.clone(), tokio::runtime::Handle::current());
    reloads.on(files, "accounts", move || {
        let done = runtime.block_on(accounts_apply::apply(&shell, &hasher, &sources.read()?))?;
        Ok(done != accounts_apply::Done::default())
    })
}
