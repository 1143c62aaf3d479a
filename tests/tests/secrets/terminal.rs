//! A password typed at a terminal shows nowhere on it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    process::{Command, Stdio},
};

use interlock_tests::eventually_sync;
use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

use crate::stage::Stage;

/// Signs in as `w1`, by hand.
pub(crate) fn password_at_a_prompt(stage: &mut Stage) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
    let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("text");
    let flags = OFlags::NOCTTY.bits().cast_signed();
    let slave = File::options().read(true).write(true).custom_flags(flags).open(name).expect("its other end");
    let end = || Stdio::from(slave.try_clone().expect("a second handle"));
    let interlock = stage.home.command(["login", "w1"]);
    // A program of util-linux gives it the terminal; whoever forks may not.
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg("--wait").arg(interlock.get_program()).args(interlock.get_args()).env_clear();
    command.envs(interlock.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("a sign-in");
    drop((slave, command));
    eventually_sync("a prompt without echo", || {
        let modes = tcgetattr(&master).expect("a terminal").local_modes;
        assert!(child.try_wait().expect("a child").is_none(), "it asks for the password");
        !modes.contains(LocalModes::ECHO)
    });
    let mut terminal = File::from(master);
    terminal.write_all(format!("{}\n", stage.pair.world.password("w1")).as_bytes()).expect("typed");
    assert!(child.wait().expect("it ends").success());
    let mut shown = Vec::new();
    // Once nobody has the other end, reading ends, with an error on Linux.
    let _ = terminal.read_to_end(&mut shown);
    let text = String::from_utf8_lossy(&shown);
    assert!(text.contains("Password of w1: ") && text.contains("signed in as w1"), "{text}");
    stage.printed.extend_from_slice(&shown);
}
