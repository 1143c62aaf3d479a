//! Power cuts: what a service did to its folder under load is recorded; then the power is cut at thousands of
//! points of that record, each time with another part of what had not been synced, and what is left is opened
//! by the service's own door. The load goes through a `kill -9`, and through syncs that fail before another one.

mod check;
mod remains;
mod reset;

use std::{fs, sync::Arc, time::Instant};

use interlock_tests::{
    Pair, Setup,
    faults::{Fault, Faults, Operation},
};
use rand::RngExt as _;

use crate::{
    bare::{Bare, is_unavailable, login},
    load::{Accounts, Stage, tally},
    seeded,
};
use check::{AUTH, GATEWAY, Service};
use remains::{Disk, Kept};

fn cuts() -> usize {
    if std::env::var_os("INTERLOCK_LONG").is_some() { 3_000 } else { 60 }
}

// I6, I7, I11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_keeps_through_power_cuts_what_it_has_acknowledged() {
    let setup = Setup::default().gateway("jobs_in_flight_per_owner", "100000");
    let mut pair = Pair::stopped(setup);
    let faults = Arc::new(Faults::new(&pair.world.path("gateway")));
    faults.attach(&mut pair.gateway);
    faults.set(Fault::Traced(true));
    pair.start_auth().await;
    pair.start_gateway().await;
    pair.serving().await;
    let marking = Arc::clone(&faults);
    let (told, _) = tally(move |mark| marking.mark(&mark.join(" ")));
    let stage = Stage::set(&pair, 3, told).await;
    stage.run(&pair, 12).await;
    pair.gateway.kill();
    pair.start_gateway().await;
    stage.run(&pair, 8).await;
    // Commits of which the system keeps nothing but what it shows to the next process.
    faults.set(Fault::SyncsFail(0, None));
    let bare = Bare::gateway(&pair, &stage.alice);
    for n in 0..4 {
        let failed = bare.submit(&stage.sessions[0], &format!("unsynced-{n}"), b"none").await;
        is_unavailable(&failed.expect_err("acknowledged without a sync"));
    }
    pair.gateway.kill();
    faults.set(Fault::SyncsPass);
    pair.start_gateway().await;
    stage.run(&pair, 8).await;
    assert!(pair.gateway.drain().await.success(), "it drains");
    drop(pair.auth);
    assert!(faults.seen().syncs_failed > 0, "the fault has happened");
    cut_everywhere("gateway", &GATEWAY, &faults.trace());
}

// I6, I7, I11, SW-15, SW-22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_keeps_through_power_cuts_what_it_has_acknowledged() {
    let mut pair = Pair::stopped(Setup::default().auth("lease", "1s"));
    let faults = Arc::new(Faults::new(&pair.world.path("auth")));
    faults.attach(&mut pair.auth);
    faults.set(Fault::Traced(true));
    pair.start_auth().await;
    faults.mark("serving");
    let marking = Arc::clone(&faults);
    let (told, _) = tally(move |mark| marking.mark(&mark.join(" ")));
    let accounts = Accounts::new(told);
    accounts.run(&pair, 3).await;
    accounts.rotate(&pair).await;
    pair.auth.kill();
    pair.start_auth().await;
    accounts.rotate(&pair).await;
    accounts.run(&pair, 2).await;
    faults.set(Fault::SyncsFail(0, None));
    is_unavailable(&login(&pair, "w3").await.expect_err("acknowledged without a sync"));
    pair.auth.kill();
    faults.set(Fault::SyncsPass);
    pair.start_auth().await;
    accounts.run(&pair, 2).await;
    accounts.rotate(&pair).await;
    assert!(pair.auth.drain().await.success(), "it drains");
    assert!(faults.seen().syncs_failed > 0, "the fault has happened");
    cut_everywhere("auth", &AUTH, &faults.trace());
}

/// In memory, where there is such a folder: what is opened here is synced for nobody.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

fn cut_everywhere(name: &str, service: &Service, trace: &[Operation]) {
    let began = Instant::now();
    let mut rng = seeded();
    // What a first start does is cut, too.
    let mut points: Vec<_> = (0..cuts()).map(|_| rng.random_range(0..=trace.len())).collect();
    points.sort_unstable();
    let (mut disk, mut done, mut marks) = (Disk::default(), 0, Vec::new());
    let mut acknowledged = 0;
    for point in &points {
        for operation in &trace[done..*point] {
            disk.take(operation);
            if let Operation::Mark(mark) = operation {
                marks.push(mark.split(' ').map(str::to_owned).collect::<Vec<_>>());
            }
        }
        done = *point;
        let kept = [Kept::Nothing, Kept::Everything, Kept::Some, Kept::Beginning][rng.random_range(0..4)];
        let folder = place();
        disk.cut(kept, &mut rng, folder.path());
        // As large as it is kept, so that opening does not fill it each time.
        let reserve = folder.path().join(format!("{}-reserve", service.store));
        fs::File::create(reserve).and_then(|file| file.set_len(4 << 20)).expect("a file");
        let known: Vec<_> = marks.iter().map(Vec::as_slice).collect();
        let checked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| service.check(folder.path(), &known)));
        if let Err(panic) = checked {
            let left = folder.keep();
            eprintln!(
                "cut {name} before operation {point} of {}, {kept:?} kept: {}",
                trace.len(),
                left.display()
            );
            std::panic::resume_unwind(panic);
        }
        acknowledged += known.len();
    }
    let count = |of: fn(&Operation) -> bool| trace.iter().filter(|operation| of(operation)).count();
    println!(
        "{name}: {} power cuts in {:.1} s, over {} writes, {} syncs ({} failed) and {} acknowledgements; {acknowledged} \
         acknowledged things looked for after the cuts, lost 0; nothing half, every audit chain whole",
        points.len(),
        began.elapsed().as_secs_f64(),
        count(|o| matches!(o, Operation::Write(..))),
        count(|o| matches!(o, Operation::Sync(..) | Operation::SyncLost(..))),
        count(|o| matches!(o, Operation::SyncLost(..))),
        count(|o| matches!(o, Operation::Mark(_))),
    );
}
