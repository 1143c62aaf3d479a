//! `interlock-auth auth reset`, cut off anywhere: both role tokens are as they were or both are new, the copy knows those
//! that count, and the same command does the rest.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use interlock_tests::{
    Pair, Setup,
    faults::{Fault, Faults, Operation},
    service::program,
};
use rand::RngExt as _;
use rusqlite::Connection;

use super::{
    check::{AUTH, Service},
    cuts, place,
    remains::{Disk, Kept},
};
use crate::seeded;

const KEPT: [Kept; 4] = [Kept::Nothing, Kept::Everything, Kept::Some, Kept::Beginning];
/// Of the folders that were cut, so many are reset again.
const AGAIN: usize = 6;

/// The generations of the tokens that count, admin's first.
fn generations(connection: &Connection) -> Vec<i64> {
    let sql = "SELECT generation FROM role_token WHERE valid_until IS NULL AND candidate = 0 ORDER BY role";
    let mut statement = connection.prepare(sql).expect("role tokens");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a number")).collect()
}

const RESET: Service = Service {
    holds: |connection, folder, mark| {
        let [_, least] = mark else { panic!("no mark of this test's: {mark:?}") };
        let least: i64 = least.parse().expect("a number");
        let all = generations(connection);
        all.len() == 2
            && all.iter().all(|generation| *generation >= least)
            && folder.join("auth_tokens.json").exists()
    },
    besides: |connection, folder| {
        (AUTH.besides)(connection, folder);
        let all = generations(connection);
        assert!(matches!(all[..], [admin, user] if admin == user), "half a reset: {all:?}");
    },
    ..AUTH
};

/// Runs the command on this data folder.
fn reset(pair: &Pair, data: &Path, faults: Option<&Faults>) -> Output {
    let mut command = Command::new(program("interlock-auth"));
    command.args(["auth", "reset", "--yes", "--config"]).arg(pair.world.path("auth.toml"));
    command.arg("--set").arg(format!("data_dir={}", data.display()));
    if let Some(faults) = faults {
        command.envs(faults.environment());
    }
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

// Issue 6, faults: "crash at any point of … reset". I6, SW-15, SW-39
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_cut_anywhere_leaves_both_role_tokens_as_they_were_or_both_new() {
    let mut pair = Pair::stopped(Setup::default());
    let faults = Faults::new(&pair.world.path("auth"));
    faults.attach(&mut pair.auth);
    faults.set(Fault::Traced(true));
    pair.start_auth().await;
    assert!(pair.auth.drain().await.success(), "it drains");
    faults.mark("generation 1");
    reset(&pair, &pair.world.path("auth"), Some(&faults));
    faults.mark("generation 2");
    let trace = faults.trace();
    let begun = trace.iter().position(|operation| matches!(operation, Operation::Mark(_))).expect("marked");
    let mut rng = seeded();
    let mut points: Vec<_> = (0..cuts()).map(|_| rng.random_range(begun + 1..=trace.len())).collect();
    if points.len() >= 4 * (trace.len() - begun) {
        points = (begun + 1..=trace.len()).flat_map(|point| [point; 4]).collect();
    }
    points.sort_unstable();
    let (mut disk, mut done, mut marks) = (Disk::default(), 0, Vec::<Vec<String>>::new());
    let (mut found, mut again) = (BTreeSet::new(), 0);
    for (number, point) in points.iter().copied().enumerate() {
        for operation in &trace[done..point] {
            disk.take(operation);
            if let Operation::Mark(mark) = operation {
                marks.push(mark.split(' ').map(str::to_owned).collect());
            }
        }
        done = point;
        let folder = place();
        let kept = KEPT[number % KEPT.len()];
        println!("cut before operation {point} of {}, {kept:?} kept", trace.len());
        disk.cut(kept, &mut rng, folder.path());
        let reserve = folder.path().join("auth.db-reserve");
        fs::File::create(reserve).and_then(|file| file.set_len(4 << 20)).expect("a file");
        let known: Vec<_> = marks.iter().map(Vec::as_slice).collect();
        RESET.check(folder.path(), &known);
        let store = || Connection::open(folder.path().join(RESET.store)).expect("the store");
        let before = generations(&store())[0];
        found.insert(before);
        if number % points.len().div_ceil(AGAIN) == 0 {
            for entry in fs::read_dir(folder.path()).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_file() {
                    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a file of ours");
                }
            }
            reset(&pair, folder.path(), None);
            RESET.check(folder.path(), &known);
            assert_eq!(generations(&store()), [before + 1; 2], "the same command again does all of it");
            again += 1;
        }
    }
    assert_eq!(found, BTreeSet::from([1, 2]), "cuts before and after the commit");
    println!("{} cuts within {} operations; {again} resets after one", points.len(), trace.len() - begun);
}
