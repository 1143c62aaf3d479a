//! The programs of a run. `cargo bench` of one crate builds no other crate's programs; but this one is linked
//! with both services' libraries, whose `main_with` is all that their programs are. So it runs itself under
//! their names, in a folder of links that `INTERLOCK_PROGRAMS` names, and one build gives all sides.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, ExitCode},
};

use interlock_tests::World;

const PROGRAMS: &str = "INTERLOCK_PROGRAMS";

/// Runs as one of the services, where this process was started as one.
pub(crate) fn hidden() -> Option<ExitCode> {
    let name = env::args_os().next()?;
    match Path::new(&name).file_name().and_then(OsStr::to_str)? {
        "interlock-auth" => Some(interlock_auth::main_with(env::args_os())),
        "interlock-gateway" => Some(interlock_gateway::main_with(env::args_os())),
        _ => None,
    }
}

/// Runs this program once more with a folder of programs, unless there is one.
pub(crate) fn again_with_services() -> Option<ExitCode> {
    if env::var_os(PROGRAMS).is_some() {
        return None;
    }
    let this = env::current_exe().expect("the path of this program");
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["interlock-auth", "interlock-gateway"] {
        symlink(&this, folder.path().join(name)).expect("a link");
    }
    let ended = Command::new(&this).args(env::args_os().skip(1)).env(PROGRAMS, folder.path()).status();
    let code = ended.expect("this program runs").code().and_then(|code| u8::try_from(code).ok());
    Some(ExitCode::from(code.unwrap_or(1)))
}

/// The process of a service that serves: its ready file tells.
pub(crate) fn pid(world: &World, service: &str) -> u32 {
    let text = fs::read(world.path(&format!("{service}.ready.json"))).expect("it serves");
    let said: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    said["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id")
}
