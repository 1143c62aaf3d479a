//! A pair of services on filled stores.

use std::{fs, path::PathBuf, time::Duration};

use futures_util::{StreamExt as _, stream};
use interlock_client::SetAgent;
use interlock_tests::{Pair, Setup};
use serde::Serialize;

use crate::{
    engine::{self, Databases, Engine},
    fill::{self, Layout},
    owners::{self, Accounts, Owner},
    programs,
};

/// Owners who call.
const CALLING: usize = 64;
/// Owners that are set up at once.
const AT_ONCE: usize = 16;
/// Owners that a gateway meets at once.
const MEET_AT_ONCE: usize = 4;
/// Tokens that are asked for: known after a moment, in each store.
const TOKENS: u64 = 512;
/// Starts of each service; the median counts.
const STARTS: usize = 3;

/// It runs; and it is gone, with its files, when this is dropped.
pub(crate) struct Stage {
    /// Both services.
    pub(crate) pair: Pair,
    /// Who calls.
    pub(crate) owners: Vec<Owner>,
    /// Which sessions are theirs.
    pub(crate) layout: Layout,
    /// Of access tokens of all kinds of owners.
    pub(crate) hashes: Vec<Vec<u8>>,
    /// What a start took and takes.
    pub(crate) standing: [Standing; 2],
    _databases: Option<Databases>,
    _accounts: Accounts,
}

/// One service on a filled store.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Standing {
    /// `auth` or `gateway`.
    pub(crate) service: &'static str,
    /// What its store is in.
    pub(crate) engine: Engine,
    /// Rows of each kind.
    pub(crate) rows: u64,
    /// The store, MiB.
    pub(crate) store_mib: f64,
    /// From its start until it serves, milliseconds; of each start.
    pub(crate) start_ms: Vec<f64>,
    /// Memory when it has just started, MiB.
    pub(crate) started_mib: f64,
    /// Memory after all that was measured, MiB.
    pub(crate) after_mib: f64,
    /// The most it ever had, MiB.
    pub(crate) peak_mib: f64,
}

impl Stage {
    /// A pair whose stores have so many rows; `more` adds to the stores of auth and gateway.
    pub(crate) async fn grown(
        rows: u64,
        engine: Engine,
        setup: Setup,
        more: impl Fn(&PathBuf, &PathBuf),
        starts: usize,
    ) -> Self {
        let accounts = Accounts::new();
        let setup = setup
            .auth("accounts_json_file", &accounts.file().to_string_lossy())
            .auth("owner_session.access_ttl", "1h")
            .gateway("jobs_in_flight_per_owner", "1000000");
        let mut pair = Pair::start_with(setup).await;
        let mut owners = owners::sign_in(&pair, &accounts).await;
        owners.truncate(CALLING);
        register(&pair, &owners).await;
        pair.gateway.drain().await;
        pair.auth.drain().await;

        let layout = Layout::new(rows, owners.len());
        let (auth, gateway) = (pair.world.path("auth/auth.db"), pair.world.path("gateway/gateway.db"));
        eprintln!("filling stores with {rows} rows of each kind");
        fill::auth(&auth, &layout);
        fill::gateway(&gateway, &layout, &owners);
        let hashes = fill::access_hashes(&auth, TOKENS);
        more(&auth, &gateway);
        let databases = (engine == Engine::Postgres).then(|| Databases::take(&mut pair));

        let mut standing = [("auth", &auth), ("gateway", &gateway)].map(|(service, store)| Standing {
            service,
            engine,
            rows,
            store_mib: engine::store_mib(databases.as_ref(), service, store),
            start_ms: Vec::new(),
            started_mib: 0.0,
            after_mib: 0.0,
            peak_mib: 0.0,
        });
        for start in 1..=starts {
            let ms = |took: Duration| took.as_secs_f64() * 1e3;
            standing[0].start_ms.push(ms(pair.start_auth().await));
            standing[1].start_ms.push(ms(pair.start_gateway().await));
            if start < starts {
                pair.gateway.drain().await;
                pair.auth.drain().await;
            }
        }
        pair.serving().await;
        meet(&pair, &owners).await;
        for one in &mut standing {
            one.started_mib = memory_mib(programs::pid(&pair.world, one.service), "VmRSS:");
        }
        Self { pair, owners, layout, hashes, standing, _databases: databases, _accounts: accounts }
    }

    /// The same as most others.
    pub(crate) async fn of(rows: u64, engine: Engine) -> Self {
        Self::grown(rows, engine, Setup::default(), |_, _| (), STARTS).await
    }

    /// What both services came to, now that all was measured.
    pub(crate) fn standing(&self) -> Vec<Standing> {
        let now = |one: &Standing| {
            let pid = programs::pid(&self.pair.world, one.service);
            let (after_mib, peak_mib) = (memory_mib(pid, "VmRSS:"), memory_mib(pid, "VmHWM:"));
            Standing { after_mib, peak_mib, ..one.clone() }
        };
        self.standing.iter().map(now).collect()
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> [u32; 2] {
        ["auth", "gateway"].map(|service| programs::pid(&self.pair.world, service))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for service in [&mut self.pair.gateway, &mut self.pair.auth] {
            if service.pid().is_some() {
                service.kill();
            }
        }
        // Gigabytes that nobody wants read through for secrets.
        for service in ["auth", "gateway"] {
            let _ = fs::remove_dir_all(self.pair.world.path(service));
        }
    }
}

/// The agents that attaches go between.
async fn register(pair: &Pair, owners: &[Owner]) {
    let both = async |owner: &Owner| {
        let gateway = pair.sdk_gateway(&owner.token).with_project(&owner.project);
        for agent in ["b", "c"] {
            let agent = format!("{agent}-{}", owner.agent);
            gateway.agents().set(&agent, SetAgent::default()).await.expect("an agent");
        }
    };
    stream::iter(owners).map(both).buffered(AT_ONCE).collect::<()>().await;
}

/// The gateway asks auth for each owner and project once, and then knows them; not all at once.
async fn meet(pair: &Pair, owners: &[Owner]) {
    let one = async |owner: &Owner| {
        let gateway = pair.sdk_gateway(&owner.token).with_project(&owner.project);
        gateway.sessions().get(&owner.session).await.expect("its own session");
    };
    stream::iter(owners).map(one).buffered(MEET_AT_ONCE).collect::<()>().await;
}

/// A line of `/proc/<pid>/status`, MiB.
fn memory_mib(pid: u32, line: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let found = text.lines().find_map(|found| found.strip_prefix(line)).expect("proc(5)");
    let kib: f64 = found.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("proc(5)");
    kib / 1024.0
}
