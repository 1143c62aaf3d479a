//! Whether comparing a secret takes longer the more of a guess is right: statistical timing tests, with figures.
//!
//! ```text
//! cargo bench -p interlock-tests --bench secret_compare                     # all, about five minutes
//! cargo bench -p interlock-tests --bench secret_compare -- token --samples 20000
//! cargo bench -p interlock-tests --bench secret_compare -- sign-in --tries 200
//! ```
//!
//! | test | one class | the other |
//! |---|---|---|
//! | `naive` | guesses that agree up to the last byte | guesses that differ in the first | by `==`: what the method must see, else it sees nothing |
//! | `token` | the same | the same | by the kit's internal token |
//! | `credential` | the same | the same | by two credentials as they are compared, and by a thousand as they are found |
//! | `sign-in` | a wrong password of an owner that there is | a password of nobody's | by auth-service, over the wire, at the default cost |
//!
//! After dudect (Reparaz, Balasch, Verbauwhede: *Dude, is my code constant time?*, DATE 2017): the two classes in
//! random order, the slowest samples cut off, Welch's t between what is left. |t| over 4.5 says that the classes
//! differ; under it, that so many samples saw no difference. Of `sign-in` the medians are compared, too: they
//! differ by less than 2 %. Nothing here is asserted: times belong to the machine, and it says what they were.

mod classes;
mod sign_in;
mod welch;

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, ExitCode},
};

const USAGE: &str = "usage: secret_compare [naive] [token] [credential] [sign-in] [--samples N] [--tries N]";
const PROGRAMS: &str = "INTERLOCK_PROGRAMS";

/// What one run measures.
struct Plan {
    /// Of each class of the comparisons in this process.
    samples: usize,
    /// Of each class of sign-ins.
    tries: usize,
    /// Only these; all where empty.
    only: Vec<String>,
}

impl Plan {
    /// From the command line. `cargo bench` adds `--bench`.
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, &'static str> {
        let mut plan = Self { samples: 200_000, tries: 2_000, only: Vec::new() };
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).filter(|n| *n >= 20);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--samples" => plan.samples = number(arguments.next()).ok_or(USAGE)?,
                "--tries" => plan.tries = number(arguments.next()).ok_or(USAGE)?,
                "naive" | "token" | "credential" | "sign-in" => plan.only.push(argument),
                _ => return Err(USAGE),
            }
        }
        Ok(plan)
    }

    fn wants(&self, test: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == test)
    }
}

fn main() -> ExitCode {
    // One build gives all sides: this program is auth-service, too, under its name.
    let name = env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name().and_then(OsStr::to_str) == Some("interlock-auth") {
        return interlock_auth::main_with(env::args_os());
    }
    let plan = match Plan::read(env::args().skip(1)) {
        Ok(plan) => plan,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    if env::var_os(PROGRAMS).is_none() && plan.wants("sign-in") {
        return again_with_programs();
    }
    let build = if cfg!(debug_assertions) { "with debug assertions: no figures" } else { "optimised" };
    println!("built {build}\n{}", welch::HEADING);
    if plan.wants("naive") {
        println!("{}", classes::naive(plan.samples));
    }
    if plan.wants("token") {
        println!("{}", classes::token(plan.samples));
    }
    if plan.wants("credential") {
        println!("{}", classes::credential_equals(plan.samples));
        println!("{}", classes::credential_found(plan.samples));
    }
    if plan.wants("sign-in") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        println!("{}", runtime.block_on(sign_in::compare(plan.tries)));
    }
    ExitCode::SUCCESS
}

/// Runs this program once more with a folder in which it stands under the name of auth-service.
fn again_with_programs() -> ExitCode {
    let this = env::current_exe().expect("the path of this program");
    let folder = tempfile::tempdir().expect("a folder");
    symlink(&this, folder.path().join("interlock-auth")).expect("a link");
    let ended = Command::new(&this).args(env::args_os().skip(1)).env(PROGRAMS, folder.path()).status();
    let code = ended.expect("this program runs").code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(1))
}
