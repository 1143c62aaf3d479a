//! `storm`: sign-ins with the default cost of argon2id, beside the same hashing on all cores with nothing around it;
//! and how long `Validate` takes meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use interlock_kit::hasher::{Hasher, Params, Priority};
use interlock_proto::{
    auth::v1::{ValidateRequest, trust_service_client::TrustServiceClient},
    credential::Credential,
    metadata::INTERNAL_TOKEN,
};
use interlock_tests::{Pair, Setup, pair::Peer, wire::Metadata};
use tonic::{Status, transport::Channel};
use zeroize::Zeroizing;

use crate::{
    load::{Caller, Side, Slice},
    measured::{Measured, Meter, OURS_AND_BARE, Used},
    memory,
    plan::Plan,
    programs,
    report::Report,
    sign_ins::Source,
};

/// Who signs in at once.
const STORM: u8 = 64;
/// Who asks for verdicts meanwhile, and how often each: a load that leaves the machine idle by itself.
const ASKERS: usize = 8;
const ASKS_EVERY: Duration = Duration::from_millis(8);
/// A side's slice: four of them make a pair, and the last sign-ins end after it.
pub(crate) const SLICE_MAX: Duration = Duration::from_millis(500);
const MEMORY_EVERY: Duration = Duration::from_millis(20);

/// Asks for one known token, at a steady pace.
struct Asker {
    client: TrustServiceClient<Channel>,
    metadata: Metadata,
    hash: Vec<u8>,
}

impl Caller for Asker {
    async fn call(&mut self) -> Result<(), Status> {
        let message = ValidateRequest { credential_sha256: self.hash.clone().into() };
        let answer = self.client.validate(self.metadata.on(message)).await?.into_inner();
        if answer.principal.is_some() { Ok(()) } else { Err(Status::internal("a verdict on nobody")) }
    }

    fn every(&self) -> Option<Duration> {
        Some(ASKS_EVERY)
    }
}

/// Measures with an auth of its own, which hashes as dearly as by default.
pub(crate) async fn measure(plan: &Plan, report: &mut Report) {
    if !plan.wants("storm") {
        return;
    }
    let pair = auth().await;
    let server = programs::pid(&pair.world, "auth");
    let household = [std::process::id(), server];
    let mut storm = Side { server, callers: (1..=STORM).map(|n| Source::new(&pair, n)).collect() };
    let known = storm.callers[0].sign_in().await.expect("a sign-in");
    let mut askers = Side { server, callers: askers(&pair, &known) };
    let slice = plan.slice().min(SLICE_MAX);
    // Each source is a known one after its first sign-in, and connected.
    storm.measure(Duration::ZERO, &household).await;
    storm.measure(slice, &household).await;
    askers.measure(slice, &household).await;
    let mut rates = Measured::new("storm", OURS_AND_BARE);
    let mut meanwhile = Measured::new("storm, Validate meanwhile", ["in a storm", "without"]);
    rates.note = format!("{STORM} callers; bare: argon2id on each core with memory that is kept");
    for pair in 1..=plan.pairs {
        let signed_in = storm.measure(slice, &household).await;
        let (hashes, used) = bare(slice, &household).await;
        let hashes_a_second = hashes / used.seconds;
        let memory_without = memory::resident_kib(server);
        let without = askers.measure(slice, &household).await;
        let (within, memory_within) = beside(&mut storm, &mut askers, slice, &household).await;
        eprintln!(
            "storm {pair}/{}: ours {:.1}/s, bare {hashes_a_second:.1}/s; Validate p99 {} and {} us",
            plan.pairs, signed_in.per_second, within.p99_us, without.p99_us
        );
        rates.pair("sign-ins a second", 1, signed_in.per_second, hashes_a_second);
        rates.pair("CPU each, ms", 2, signed_in.server_cpu_us / 1e3, 1e3 * used.server_cpu / hashes);
        rates.beside("CPU of others, %", 1, 100.0 * signed_in.others_share, used.others);
        meanwhile.pair("p50, us", 0, within.p50_us.into(), without.p50_us.into());
        meanwhile.pair("p99, us", 0, within.p99_us.into(), without.p99_us.into());
        meanwhile.pair("auth's memory, MiB", 1, mib(memory_within), mib(memory_without));
    }
    meanwhile.note = format!(
        "{ASKERS} callers, each every {} ms; memory: the most in a storm, and after the one before",
        ASKS_EVERY.as_millis()
    );
    report.take(rates);
    report.take(meanwhile);
}

async fn auth() -> Pair {
    let setup = Setup::default()
        .auth("argon2.m_kib", "19456")
        .auth("argon2.t", "2")
        // By default a storm of more than waits there is refused: what is measured here is hashing.
        .auth("hasher.queue", "256")
        .auth("owner_session.access_ttl", "1h")
        .auth("limits.timeout", "40s");
    let mut pair = Pair::stopped(setup);
    pair.start_auth().await;
    pair
}

fn askers(pair: &Pair, known: &Credential) -> Vec<Asker> {
    let metadata = Metadata::none().with(INTERNAL_TOKEN, pair.world.internal_token());
    let asker = |_| Asker {
        client: TrustServiceClient::new(pair.auth_internal(Peer::Listed)),
        metadata: metadata.clone(),
        hash: known.hash().to_vec(),
    };
    (0..ASKERS).map(asker).collect()
}

/// `Validate` while the storm goes on, and the most memory that auth had meanwhile, KiB.
async fn beside(
    storm: &mut Side<Source>,
    askers: &mut Side<Asker>,
    slice: Duration,
    household: &[u32],
) -> (Slice, u64) {
    let (server, over) = (storm.server, Arc::new(AtomicBool::new(false)));
    let ending = Arc::clone(&over);
    let looking = tokio::spawn(async move {
        let mut most = 0;
        while !ending.load(Ordering::Relaxed) {
            most = memory::resident_kib(server).max(most);
            tokio::time::sleep(MEMORY_EVERY).await;
        }
        most
    });
    // The storm has begun, and outlasts who asks: its last sign-ins end after the slice.
    let asking = async {
        tokio::time::sleep(slice / 10).await;
        askers.measure(slice.mul_f64(0.9), household).await
    };
    let (_, slice) = tokio::join!(storm.measure(slice, household), asking);
    over.store(true, Ordering::Relaxed);
    (slice, looking.await.expect("it only looks"))
}

/// The same hashing on all cores: how many, and what went by meanwhile. No other process of ours does anything.
pub(crate) async fn bare(slice: Duration, household: &[u32]) -> (f64, Used) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let meter = Meter::start(std::process::id(), household);
    let until = Instant::now() + slice;
    let hashing = tokio::task::spawn_blocking(move || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(|| hash_until(until))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread ends")).sum::<usize>()
        })
    });
    let hashes = hashing.await.expect("hashed");
    (hashes as f64, meter.read())
}

/// On this thread alone, in memory that is kept; how many.
fn hash_until(until: Instant) -> usize {
    let hasher = Hasher::inline(Params::default());
    let mut hashes = 0;
    while Instant::now() < until {
        let password = Zeroizing::new(b"as long as they are".to_vec());
        let hashed = hasher.verify_nothing(password, Priority::Known).now_or_never();
        hashed.expect("on this thread").expect("hashed");
        hashes += 1;
    }
    hashes
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
