//! `owner list|set|remove|import|passwd`: who can sign in.

use std::{collections::BTreeMap, path::PathBuf};

use interlock_client::{Owner as Found, OwnerSet, Reason, SetOwner};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    args::Common,
    command::signed_in,
    context::Caller,
    failure::Failure,
    keep::read_large_secret,
    output::{instant, table},
    password::{Password, stdin_line},
};

/// What to do with owners.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Owner {
    /// List the owners.
    List,
    /// Add an owner, or change one. A new one is asked for its password.
    Set {
        /// 1 to 64 of a-z, 0-9, `-`, `_` and `.`.
        owner: String,
        /// A role; several may be given, and are then all of them. `admin`, `owner`, `superuser` and `root` make an
        /// administrator.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// The name to show.
        #[arg(long, value_name = "NAME")]
        display_name: Option<String>,
        /// May not sign in from now on; its sessions end.
        #[arg(long, conflicts_with = "active")]
        inactive: bool,
        /// May sign in again.
        #[arg(long)]
        active: bool,
        #[command(flatten)]
        password: Password,
        /// A new password leaves the owner's sessions alive.
        #[arg(long)]
        keep_sessions: bool,
        /// Where the change ends the owner's sessions: cancel their jobs, too.
        #[arg(long, conflicts_with = "keep_sessions")]
        cancel_jobs: bool,
    },
    /// Remove an owner: its sign-ins, and the clients of its sessions, are dead everywhere when this returns.
    Remove {
        /// Whom.
        owner: String,
        /// Cancel the jobs of its sessions; else they go on.
        #[arg(long)]
        cancel_jobs: bool,
    },
    /// Add or change the owners of a file whose hashes were made elsewhere (`pbkdf2_sha256$…`, bcrypt).
    Import {
        /// JSON: a list, or a map by id, of `owner_id`, `password_hash`, `roles`, `active`, `display_name`.
        file: PathBuf,
        /// Other hashes leave the owners' sessions alive.
        #[arg(long)]
        keep_sessions: bool,
    },
    /// Change your own password, or give an owner another one.
    Passwd {
        /// Whose, by an administrator; your own where nobody is named.
        owner: Option<String>,
        #[command(flatten)]
        password: Password,
        /// Where the present password is in a file or on standard input, as the first line: the new one is in this file,
        /// or on the second line.
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        /// Leave the owner's sessions alive.
        #[arg(long)]
        keep_sessions: bool,
    },
}

/// Does it.
///
/// # Errors
/// What auth-service refuses; a file that cannot be read.
pub(crate) async fn run(owner: Owner, common: &Common) -> Result<(), Failure> {
    let caller = signed_in(common)?;
    match owner {
        Owner::List => {
            let found = caller.auth().owners().list().await?;
            let rows: Vec<_> = found.iter().map(row).collect();
            let heading = ["ID", "ACTIVE", "ROLES", "SESSION-ROOT", "NAME"];
            common.output.print(&table(&heading, &rows), &Value::Array(found.iter().map(shown).collect()))?;
        }
        Owner::Set { owner, roles, display_name, inactive, active, password, keep_sessions, cancel_jobs } => {
            let set = SetOwner {
                display_name,
                roles: Some(roles).filter(|roles| !roles.is_empty()),
                active: (inactive || active).then_some(active),
                keep_sessions,
                expected_version: None,
                cancel_jobs,
            };
            let password = new_password(&caller, &owner, &password).await?;
            let done =
                caller.auth().owners().set(&owner, password.as_deref().map(String::as_str), set).await?;
            told(&[done], common)?;
        }
        Owner::Remove { owner, cancel_jobs } => {
            let reached = caller.auth().owners().remove(&owner, cancel_jobs).await?;
            let json = json!({
                "owner_id": owner, "removed": true, "acknowledged": reached.map(|r| r.acknowledged),
                "fenced": reached.map(|r| r.fenced), "streams_closed": reached.map(|r| r.streams_closed),
            });
            common.output.print(&format!("{owner} removed"), &json)?;
        }
        Owner::Import { file, keep_sessions } => {
            let mut done = Vec::new();
            for record in records(&read_large_secret(&file)?)? {
                let set = SetOwner {
                    display_name: record.display_name,
                    roles: record.roles.or_else(|| record.role.map(|role| vec![role])),
                    active: record.active,
                    keep_sessions,
                    expected_version: None,
                    cancel_jobs: false,
                };
                let hash = Zeroizing::new(record.password_hash);
                let owner = record.owner_id.unwrap_or_default();
                let stored = caller.auth().owners().import(&owner, &hash, set).await;
                done.push(stored.map_err(|error| {
                    Failure::from(error).fact(format!("owner {owner}; {} before it are done", done.len()))
                })?);
            }
            told(&done, common)?;
        }
        Owner::Passwd { owner: Some(owner), password, new_password_file: None, keep_sessions } => {
            // That it is there already: a slip of the finger is no new owner.
            caller.auth().owners().get(&owner).await?;
            let new = password.ask_new(&format!("New password of {owner}: "))?;
            let set = SetOwner { keep_sessions, ..SetOwner::default() };
            told(&[caller.auth().owners().set(&owner, Some(&new), set).await?], common)?;
        }
        Owner::Passwd { owner: Some(_), .. } => {
            return Err(Failure::usage("the password of another owner is read with --password-file alone"));
        }
        Owner::Passwd { owner: None, password, new_password_file, keep_sessions } => {
            let current = password.ask("Present password: ")?;
            let new = match &new_password_file {
                Some(_) => Password::in_file(new_password_file).ask("")?,
                None if password.is_stdin() => stdin_line()?,
                None if password.is_given() => {
                    return Err(Failure::usage("no new password").next("--new-password-file FILE"));
                }
                None => Password::default().ask_new("New password: ")?,
            };
            let reached = caller.auth().change_password(&current, &new, keep_sessions).await?;
            let text = match reached {
                Some(_) => "the password is changed; sign in again with it",
                None => "the password is changed; your sessions go on",
            };
            common.output.print(text, &json!({ "changed": true, "sessions_ended": reached.is_some() }))?;
        }
    }
    Ok(())
}

/// A new owner needs a password; one that is there keeps its own, unless a flag brings another.
async fn new_password(
    caller: &Caller,
    owner: &str,
    password: &Password,
) -> Result<Option<Zeroizing<String>>, Failure> {
    let prompt = format!("New password of {owner}: ");
    if password.is_given() {
        return password.ask(&prompt).map(Some);
    }
    match caller.auth().owners().get(owner).await {
        Err(error) if error.reason() == Some(Reason::NotFound) => password.ask_new(&prompt).map(Some),
        found => Ok(found.map(|_| None)?),
    }
}

fn told(done: &[OwnerSet], common: &Common) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for OwnerSet { owner, created, .. } in done {
        lines.push(format!("{} {}", owner.owner_id, if *created { "added" } else { "set" }));
        if owner.roles.iter().any(|role| role.eq_ignore_ascii_case("owner")) {
            anstream::eprintln!("interlock: warning: the role `owner` makes {} session-root", owner.owner_id);
        }
    }
    let json = done.iter().map(|set| {
        let mut json = shown(&set.owner);
        json["created"] = set.created.into();
        json
    });
    let json = json.collect();
    Ok(common.output.print(&lines.join("\n"), &Value::Array(json))?)
}

fn row(owner: &Found) -> Vec<String> {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    vec![
        owner.owner_id.clone(),
        yes(owner.active),
        owner.roles.join(","),
        yes(owner.session_root),
        owner.display_name.clone(),
    ]
}

fn shown(owner: &Found) -> Value {
    json!({
        "owner_id": owner.owner_id, "display_name": owner.display_name, "roles": owner.roles,
        "active": owner.active, "session_root": owner.session_root, "version": owner.version,
        "changed_at": owner.changed_at.map(instant),
    })
}

/// One owner of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(alias = "username")]
    owner_id: Option<String>,
    password_hash: String,
    role: Option<String>,
    roles: Option<Vec<String>>,
    active: Option<bool>,
    display_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Records {
    List(Vec<Record>),
    ById(BTreeMap<String, Record>),
}

/// What is wrong is said without showing it: hashes stand there.
fn records(text: &str) -> Result<Vec<Record>, Failure> {
    let wrong = "not a list or map of owners with owner_id, password_hash, roles, active, display_name";
    match serde_json::from_str(text).map_err(|_| Failure::usage(wrong))? {
        Records::List(list) => Ok(list),
        Records::ById(map) => map
            .into_iter()
            .map(|(id, record)| match &record.owner_id {
                Some(other) if *other != id => Err(Failure::usage(format!("{id}: another owner_id inside"))),
                _ => Ok(Record { owner_id: Some(id), ..record }),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_owners_is_a_list_or_a_map_and_its_mistakes_show_no_hash() {
        let list = r#"[{"owner_id":"ann","password_hash":"$2b$x","roles":["user"],"active":false}]"#;
        let map = r#"{"ann":{"password_hash":"$2b$x","role":"user"}}"#;
        for text in [list, map] {
            let records = records(text).expect("well-formed");
            assert_eq!(records[0].owner_id.as_deref(), Some("ann"));
        }
        for bad in [
            r#"["hunter2"]"#,
            r#"[{"owner_id":"a","password":"hunter2"}]"#,
            r#"{"a":{"owner_id":"b","password_hash":"hunter2"}}"#,
        ] {
            let refused = records(bad).err().expect(bad);
            assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
        }
    }
}
