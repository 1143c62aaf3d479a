//! `joins`: strangers who join one session by its password, which costs argon2id as dearly as by default, and quit it
//! again; beside the same hashing on all cores with nothing around it.

use interlock_client::{ClientRole, Credentials, Gateway, JoinTarget};
use interlock_tests::{Pair, Setup};
use tonic::Status;

use crate::{
    load::{Caller, Side},
    measured::{Measured, OURS_AND_BARE},
    plan::Plan,
    programs,
    report::Report,
    storm,
};

/// Who joins at once: fewer than the clients that a session may have.
const STORM: usize = 64;
const PASSWORD: &str = "as long as they are";

/// One stranger, on a connection of its own.
struct Stranger {
    gateway: Gateway,
    session: String,
}

impl Caller for Stranger {
    async fn call(&mut self) -> Result<(), Status> {
        let failed = |error: interlock_client::Error| Status::internal(error.to_string());
        let target = JoinTarget::Id(&self.session);
        let joined = self.gateway.sessions().join(target, PASSWORD).await.map_err(failed)?;
        let member = self.gateway.clone().with_cookie(joined.cookie);
        member.sessions().quit(&self.session).await.map_err(failed)?;
        Ok(())
    }
}

/// Measures with a pair of its own, which hashes as dearly as by default, and lets one source try as often as it likes.
pub(crate) async fn measure(plan: &Plan, report: &mut Report) {
    if !plan.wants("joins") {
        return;
    }
    let setup = Setup::default()
        .gateway("argon2.m_kib", "19456")
        .gateway("argon2.t", "2")
        .gateway("hasher.queue", "256")
        // As many as there are cores: by default there is one.
        .gateway("hasher.threads", "2")
        .gateway("join_tries", "100000")
        .gateway("limits.timeout", "40s");
    let pair = Pair::start_with(setup).await;
    let alice = pair.sdk_gateway(&pair.login("alice").await.access_token);
    let session = alice.sessions().create("joined").await.expect("a session").session.session_id;
    let set = alice.sessions().set_password(&session, PASSWORD, ClientRole::Operator, false).await;
    set.expect("a password");
    let stranger =
        |_| Stranger { gateway: pair.sdk_gateway_as(Credentials::none()), session: session.clone() };
    let server = programs::pid(&pair.world, "gateway");
    let household = [std::process::id(), server, programs::pid(&pair.world, "auth")];
    let mut storm = Side { server, callers: (0..STORM).map(stranger).collect() };
    let slice = plan.slice().min(storm::SLICE_MAX);
    // All are connected, and the hasher has its memory.
    storm.measure(slice, &household).await;
    let mut measured = Measured::new("joins", OURS_AND_BARE);
    measured.note = format!(
        "{STORM} strangers join one session, and quit: two hashes each, to verify and to seal the answer; bare: argon2id on each core with memory that is kept"
    );
    for number in 1..=plan.pairs {
        let joined = storm.measure(slice, &household).await;
        let (hashes, used) = storm::bare(slice, &household).await;
        let hashes_a_second = hashes / used.seconds;
        eprintln!(
            "joins {number}/{}: ours {:.1}/s, bare {hashes_a_second:.1}/s",
            plan.pairs, joined.per_second
        );
        measured.pair("joins a second", 1, joined.per_second, hashes_a_second);
        measured.pair("CPU each, ms", 2, joined.server_cpu_us / 1e3, 1e3 * used.server_cpu / hashes);
        measured.beside("CPU of others, %", 1, 100.0 * joined.others_share, used.others);
    }
    report.take(measured);
}
