//! `verify`: four calls that show whether the doors are shut. For after an installation, and for whoever would
//! rather see than believe.

use std::{path::PathBuf, process::ExitCode};

use interlock_proto::metadata;
use serde_json::json;
use tonic::Code;
use zeroize::Zeroizing;

use crate::{
    args::Common,
    command::signed_in,
    context::Caller,
    door::{Answer, Shown},
    failure::Failure,
};

const CREATE_SESSION: &str = "/interlock.gateway.v1.SessionService/CreateSession";
const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const WHO_AM_I: &str = "/interlock.auth.v1.IdentityService/WhoAmI";

/// What the checks of the internal listener need.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Verify {
    /// Where gateway-service's internal listener is. Without it two of the four checks are left out.
    #[arg(long, value_name = "HOST:PORT", requires_all = ["cert", "key", "internal_token_file"])]
    internal: Option<String>,
    /// A client certificate that is on that listener's allow list, PEM.
    #[arg(long, value_name = "FILE", requires = "internal")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "internal")]
    key: Option<PathBuf>,
    /// The internal token.
    #[arg(long, value_name = "FILE", requires = "internal")]
    internal_token_file: Option<PathBuf>,
}

/// One check.
struct Check {
    what: &'static str,
    expected: &'static str,
    got: String,
    passed: bool,
}

/// Makes the calls. Exit code 1 where one is not answered as it has to be.
///
/// # Errors
/// Files that cannot be read; no credential for the call that has to succeed.
pub(crate) async fn run(verify: &Verify, common: &Common) -> Result<ExitCode, Failure> {
    let caller = Caller::open(common)?;
    let nobody = Shown::default();
    let created = caller.door(false)?.call(CREATE_SESSION, &nobody).await;
    let known = caller.door(true)?.call(WHO_AM_I, &nobody).await;
    let mut checks = vec![
        refused("CreateSession with no credential", &created),
        refused("WhoAmI with no credential", &known),
    ];
    match &verify.internal {
        Some(address) => checks.extend(internal(verify, address, common).await?),
        None => {
            for what in
                ["ListSessions on the internal listener without its token", "ListSessions there with it"]
            {
                let got = "left out: --internal says where".to_owned();
                checks.push(Check { what, expected: "", got, passed: true });
            }
        }
    }
    let lines: Vec<_> = checks.iter().enumerate().map(|(at, check)| line(at + 1, check)).collect();
    let json = checks.iter().map(
        |check| json!({ "check": check.what, "expected": check.expected, "got": check.got, "passed": check.passed }),
    );
    common.output.print(&lines.join("\n"), &json.collect())?;
    let all = checks.iter().all(|check| check.passed);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As a listed service that forwards the credential of whoever runs this.
async fn internal(verify: &Verify, address: &str, common: &Common) -> Result<[Check; 2], Failure> {
    let own = verify.cert.as_ref().zip(verify.key.as_ref());
    let caller = signed_in(common)?;
    let door = caller.internal_door(address, own)?;
    let bearer = caller.bearer().await?;
    let named = || Shown::default().bearer(bearer.expose());
    let without = door.call(LIST_SESSIONS, &named()).await;
    let file = verify.internal_token_file.as_ref().expect("clap asks for it");
    let read = |error| Failure::local(format!("cannot read {}: {error}", file.display()));
    let token = Zeroizing::new(std::fs::read_to_string(file).map_err(read)?);
    let token = token.lines().next().unwrap_or_default().trim().to_owned();
    let with = door.call(LIST_SESSIONS, &named().with(metadata::INTERNAL_TOKEN, token)).await;
    let passed = with == Answer::Open;
    let got = told(&with);
    Ok([
        refused("ListSessions on the internal listener without its token", &without),
        Check { what: "ListSessions there with it", expected: "OK", got, passed },
    ])
}

fn refused(what: &'static str, answer: &Answer) -> Check {
    let passed = matches!(answer, Answer::Refused { code: Code::Unauthenticated, .. });
    Check { what, expected: "UNAUTHENTICATED", got: told(answer), passed }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Open => "OK".to_owned(),
        Answer::Unreached(why) => format!("no answer: {why}"),
        Answer::Refused { code: Code::Unauthenticated, reason } => format!("UNAUTHENTICATED {reason}"),
        Answer::Refused { code, reason } => format!("{code:?} {reason}"),
    }
}

fn line(number: usize, check: &Check) -> String {
    let mark = match (check.passed, check.expected) {
        (true, "") => "  --",
        (true, _) => "  ok",
        (false, _) => "FAIL",
    };
    let expected = if check.passed { String::new() } else { format!(" (expected {})", check.expected) };
    format!("{mark}  {number}. {}: {}{expected}", check.what, check.got)
}
