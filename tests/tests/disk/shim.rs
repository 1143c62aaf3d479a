//! The faults themselves: what the other tests switch on is what a program meets.

use std::{
    fs,
    process::{Command, Output},
    time::Duration,
};

use interlock_tests::faults::{Fault, Faults, Operation};

/// Runs a script in `folder` with its faults; every prerequisite of the tests has Python.
fn run(faults: &Faults, folder: &std::path::Path, script: &str) -> String {
    let Output { stdout, stderr, .. } = Command::new("python3")
        .args(["-I", "-c", script])
        .envs(faults.environment())
        .current_dir(folder)
        .output()
        .expect("python3 runs");
    assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text").trim().to_owned()
}

const WRITE: &str = "
import os, errno
def attempt(call, *args):
    try: return call(*args)
    except OSError as e: return errno.errorcode[e.errno]
f = os.open('file', os.O_RDWR | os.O_CREAT)
";

#[test]
fn a_disk_is_full_until_space_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("a folder");
    let faults = Faults::new(&data);
    faults.set(Fault::SpaceLeft(100));
    let script = format!(
        "{WRITE}
print(attempt(os.pwrite, f, b'x' * 60, 0), attempt(os.pwrite, f, b'x' * 60, 60), attempt(os.pwrite, f, b'x', 100),
      attempt(os.pwrite, f, b'y' * 100, 0), attempt(os.ftruncate, f, 50), attempt(os.pwrite, f, b'z' * 99, 50),
      attempt(os.posix_fallocate, f, 0, 101), attempt(os.rename, 'file', 'other'), attempt(os.unlink, 'other'))"
    );
    assert_eq!(run(&faults, &data, &script), "60 40 ENOSPC 100 None 50 ENOSPC None None");
    assert_eq!(faults.seen().writes_refused, 3, "one of them in part");
    faults.set(Fault::SpaceBack);
    assert_eq!(run(&faults, &data, &format!("{WRITE}print(os.write(f, b'x' * 5000))")), "5000");
    // Elsewhere there is room.
    faults.set(Fault::SpaceLeft(0));
    let elsewhere = "open('../elsewhere', 'w').write('x' * 5000)";
    assert_eq!(run(&faults, &data, elsewhere), "");
}

#[test]
fn syncs_and_writes_fail_as_often_as_they_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let faults = Faults::new(folder.path());
    let sync = format!("{WRITE}print(*[attempt(os.fsync, f) for _ in range(4)])");
    faults.set(Fault::SyncsFail(1, Some(2)));
    assert_eq!(run(&faults, folder.path(), &sync), "None EIO EIO None");
    faults.set(Fault::SyncsFail(0, None));
    assert_eq!(run(&faults, folder.path(), &sync), "EIO EIO EIO EIO");
    faults.clear();
    faults.set(Fault::WritesFail(1, Some(1)));
    faults.set(Fault::WritesAtMost(3));
    let write = format!("{WRITE}print(*[attempt(os.write, f, b'x' * 5) for _ in range(3)])");
    assert_eq!(run(&faults, folder.path(), &write), "3 EIO 3");
    faults.set(Fault::SyncsTake(Duration::from_millis(30)));
    let timed =
        format!("{WRITE}import time; t = time.monotonic(); os.fsync(f); print(time.monotonic() - t >= 0.03)");
    assert_eq!(run(&faults, folder.path(), &timed), "True");
    assert_eq!((faults.seen().syncs_failed, faults.seen().writes_failed), (6, 1));
}

#[test]
fn the_wall_clock_jumps_and_the_other_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let faults = Faults::new(folder.path());
    let now = "import time; print(round(time.time()), round(time.monotonic()))";
    let read = || {
        let text = run(&faults, folder.path(), now);
        let (wall, steady) = text.split_once(' ').expect("two numbers");
        wall.parse::<i64>().expect("seconds") - steady.parse::<i64>().expect("seconds")
    };
    let apart = read();
    for day in [86_400, -86_400] {
        faults.set(Fault::ClockAhead(day));
        assert!((read() - apart - day).abs() <= 2, "the wall clock alone jumps");
    }
}

#[test]
fn a_trace_tells_every_operation_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let faults = Faults::new(&folder.path().join("."));
    faults.set(Fault::Traced(true));
    faults.set(Fault::SyncsFail(2, Some(1)));
    let script = format!(
        "{WRITE}
os.write(f, b'one'); os.fsync(f); os.ftruncate(f, 1); os.rename('file', 'other'); os.mkdir('deep')
d = os.open('.', os.O_RDONLY); os.fsync(d); attempt(os.fsync, f); os.unlink('other')"
    );
    run(&faults, folder.path(), &script);
    faults.mark("told");
    let told = faults.trace();
    let Operation::Create(_, inode) = told[0] else { panic!("{told:?}") };
    let Operation::Sync(_, top) = told[6] else { panic!("{told:?}") };
    let file = || "file".into();
    let expected = [
        Operation::Create(file(), inode),
        Operation::Write(inode, 0, b"one".to_vec()),
        Operation::Sync(file(), inode),
        Operation::Truncate(inode, 1),
        Operation::Rename(file(), "other".into()),
        Operation::MakeFolder("deep".into()),
        Operation::Sync("".into(), top),
        Operation::SyncLost(file(), inode),
        Operation::Unlink("other".into()),
        Operation::Mark("told".into()),
    ];
    assert_eq!(told, expected);
}
