//! Starts that must not be: each says in one clear line what is wrong, where, and what to do; ends at once with
//! the right exit code (`interlock_kit::config::EXIT_USAGE` has the table); shows no secret; and leaves every byte
//! on the disk as it was. Once the fault is mended, the next start has everything that was there.
//!
//! - `settings`: arguments, the configuration file, the environment, addresses, contradictions;
//! - `secrets`: role tokens, keys, the internal token, who may read them;
//! - `certificates`: certificates, keys and authorities that do not fit;
//! - `accounts`: sources of accounts;
//! - `store`: stores that are damaged, foreign, newer, changed;
//! - `place`: data folders, ports, locks, a full disk, closed pipes;
//! - `offline`: the commands of `interlock-auth auth`;
//! - `up`: `interlock up`, and the command line without a home.

mod accounts;
mod certificates;
mod offline;
mod place;
mod secrets;
mod settings;
mod site;
mod store;
mod up;

use interlock_tests::start::{Attempt, Refusal};

/// Both services.
const BOTH: &[&str] = &["auth", "gateway"];
const AUTH: &[&str] = &["auth"];
const GATEWAY: &[&str] = &["gateway"];

/// What was told is wrong.
const TOLD: i32 = 64;
/// What was met is wrong.
const MET: i32 = 1;

/// One row of a table: what is wrong, with which service, how it comes about, the exit code, words of the line.
type Row =
    (&'static str, &'static [&'static str], fn(&mut Attempt) -> &mut Attempt, i32, &'static [&'static str]);

/// Every row of the table, each service of a row.
fn all(site: &mut site::Site, table: &[Row]) {
    for &(what, services, spoil, code, says) in table {
        for service in services {
            site.yard.refused(what, service, spoil, Refusal { code, says });
        }
    }
}
