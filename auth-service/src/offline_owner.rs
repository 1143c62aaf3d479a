//! Owners on the host, while the service does not run: when nobody can sign in any more to change them.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use interlock_kit::{config::Profile, error::Error, hasher::Hasher, secret_file};
use interlock_proto::text::{self, escaped};
use zeroize::Zeroizing;

use crate::{
    accounts::{self, Account, Secret, Source},
    accounts_apply::ApplyError,
    config::Config,
    ids::OwnerId,
    limits,
    offline::{self, Failed},
    owner::{Edit, ListOwners, Owner, OwnerStored, ReadForEdit, RemoveOwner},
    owner_edit::{self, Ask},
    parts::host_call,
    policy,
    store::Shell,
};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum What {
    /// List the owners: id, roles, whether active. No hash is shown.
    List,
    /// Add an owner, or change one. A new one needs a password.
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
        /// May not sign in from now on.
        #[arg(long, conflicts_with = "active")]
        inactive: bool,
        /// May sign in again.
        #[arg(long)]
        active: bool,
        /// Where the password is read.
        #[command(flatten)]
        password: Password,
        /// A new password leaves the owner's sessions alive.
        #[arg(long)]
        keep_sessions: bool,
    },
    /// Remove an owner; its sessions end.
    Remove {
        /// Whom.
        owner: String,
    },
    /// Add or change the owners of a file, which may have hashes made elsewhere (`pbkdf2_sha256$…`, bcrypt). Where one is
    /// refused, those before it are done.
    Import {
        /// JSON, as accounts sources have it: 0600.
        file: PathBuf,
        /// Other passwords leave the owners' sessions alive.
        #[arg(long)]
        keep_sessions: bool,
    },
    /// Give an owner a new password; its sessions end.
    Passwd {
        /// Whose.
        owner: String,
        /// Where the password is read.
        #[command(flatten)]
        password: Password,
        /// Leave the owner's sessions alive.
        #[arg(long)]
        keep_sessions: bool,
    },
}

/// Where a password is read: never on the command line, which others can read.
#[derive(Debug, Args)]
pub struct Password {
    /// Read the password from this file.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
}

/// A line that is longer is no password.
const LINE_BYTES_MAX: u64 = 4096;

impl Password {
    /// From where the flags say; `None` where they say nothing.
    fn given(&self, profile: Profile) -> Result<Option<Zeroizing<String>>, Failed> {
        if let Some(path) = &self.password_file {
            return Ok(Some(line_of(&read(path, LINE_BYTES_MAX, profile)?)));
        }
        if self.password_stdin {
            let mut line = Zeroizing::new(String::new());
            io::Read::take(io::stdin().lock(), LINE_BYTES_MAX).read_line(&mut line)?;
            return Ok(Some(line_of(&line)));
        }
        Ok(None)
    }

    /// The same, or from the terminal, twice.
    fn asked(&self, profile: Profile, owner: &str) -> Result<Zeroizing<String>, Failed> {
        if let Some(given) = self.given(profile)? {
            return Ok(given);
        }
        typed(owner)?.ok_or(Failed::NoPassword)
    }
}

/// From the terminal, twice; `None` where there is none.
fn typed(owner: &str) -> Result<Option<Zeroizing<String>>, Failed> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let owner = escaped(owner);
    let first = Zeroizing::new(rpassword::prompt_password(format!("New password of {owner}: "))?);
    let again = Zeroizing::new(rpassword::prompt_password("Again: ")?);
    if first == again { Ok(Some(first)) } else { Err(Failed::PasswordsDiffer) }
}

fn line_of(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(path: &std::path::Path, bytes_max: u64, profile: Profile) -> Result<Zeroizing<String>, Failed> {
    let secret = secret_file::read(path, bytes_max, profile)?;
    if let Some(exposed) = &secret.exposed {
        interlock_kit::command::say(&format!("interlock-auth: warning: {exposed}"));
    }
    let text = std::str::from_utf8(&secret.contents).map_err(|_| Failed::NotText(path.to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Runs a command; the exit code says whether it was done.
#[must_use]
pub fn main(config: &Config, what: What) -> ExitCode {
    offline::ended(run(config, what))
}

/// The lines for stdout.
fn run(config: &Config, what: What) -> Result<Zeroizing<String>, Failed> {
    let profile = config.common.profile;
    match what {
        What::List => offline::with_store(config, list),
        What::Remove { owner } => {
            let owner = named(&owner)?;
            offline::with_store(config, async |shell| {
                let verb = RemoveOwner { owner: owner.clone(), expected: None, cancel_jobs: false };
                shell.run(&host_call("owner.remove"), verb).await?;
                Ok(Zeroizing::new(format!("{owner} removed\n")))
            })
        }
        What::Set { owner, roles, display_name, inactive, active, password, keep_sessions } => {
            let edit = Edit {
                display_name: display_name.map(|name| label("display-name", name)).transpose()?,
                roles: some_roles(roles)?,
                active: (inactive || active).then_some(active),
                password: None,
            };
            let password = password.given(profile)?;
            let owner = named(&owner)?;
            let (expected, cancel_jobs) = (None, false);
            let ask = Ask { owner, edit, password, keep_sessions, expected, cancel_jobs };
            changed(config, vec![ask], "owner.set")
        }
        What::Passwd { owner, password, keep_sessions } => {
            let named = named(&owner)?;
            let password = Some(password.asked(profile, &owner)?);
            let (edit, expected, cancel_jobs) = (Edit::default(), None, false);
            let ask = Ask { owner: named, edit, password, keep_sessions, expected, cancel_jobs };
            changed(config, vec![ask], "owner.set")
        }
        What::Import { file, keep_sessions } => {
            let text = read(&file, limits::ACCOUNTS_BYTES_MAX as u64, profile)?;
            let from = file.display().to_string();
            let accounts =
                accounts::parse(Source::File, &text).map_err(|why| ApplyError::Source { from, why })?;
            let asks = accounts.into_iter().map(|account| import(account, keep_sessions)).collect();
            changed(config, asks, "owner.import")
        }
    }
}

fn import(account: Account, keep_sessions: bool) -> Ask {
    let (password, plain) = match account.secret {
        Secret::Hashed(hash) => (Some(hash), None),
        Secret::Plain(plain) => (None, Some(plain)),
    };
    let facts = account.facts;
    let edit = Edit {
        display_name: Some(facts.display_name),
        roles: Some(facts.roles),
        active: Some(facts.active),
        password,
    };
    let (owner, password) = (account.owner, plain);
    Ask { owner, edit, password, keep_sessions, expected: None, cancel_jobs: false }
}

/// One verb for each; those before a refused one are done.
fn changed(config: &Config, asks: Vec<Ask>, action: &'static str) -> Result<Zeroizing<String>, Failed> {
    offline::with_store(config, async |shell| {
        let hasher = Hasher::start(config.hashing.params, config.hashing.threads, config.hashing.queue)?;
        let mut lines = Zeroizing::new(String::new());
        for mut ask in asks {
            let owner = ask.owner.clone();
            if ask.password.is_none() && ask.edit.password.is_none() && is_new(&shell, &owner, action).await?
            {
                ask.password = typed(owner.as_str())?;
            }
            let stored = owner_edit::set(&shell, &hasher, &host_call(action), ask).await;
            let OwnerStored { owner, created, .. } =
                stored.map_err(|why| Failed::Owner(owner, Box::new(why)))?;
            lines.push_str(&format!("{} {}\n", owner.id, if created { "added" } else { "set" }));
            if owner.roles.iter().any(|role| role.eq_ignore_ascii_case("owner")) {
                lines.push_str(&format!("the role `owner` makes {} session-root\n", owner.id));
            }
        }
        Ok(lines)
    })
}

/// Then there must be a password: one is asked for, where there is a terminal.
async fn is_new(shell: &Shell, owner: &OwnerId, action: &'static str) -> Result<bool, Error> {
    let known = shell.ask(&host_call(action), ReadForEdit { owner: owner.clone() }).await?;
    Ok(known.is_none())
}

async fn list(shell: Shell) -> Result<Zeroizing<String>, Failed> {
    let (mut lines, mut after) = (Zeroizing::new(String::new()), None);
    loop {
        let query = ListOwners { after, limit: limits::PAGE_MAX };
        let page = shell.ask(&host_call("owner.list"), query).await?;
        page.owners.iter().for_each(|owner| lines.push_str(&line(owner)));
        after = page.next;
        if after.is_none() {
            return Ok(lines);
        }
    }
}

fn line(owner: &Owner) -> String {
    let state = if owner.active { "active" } else { "inactive" };
    let root = if policy::is_session_root(&owner.roles) { " session-root" } else { "" };
    format!("{} {state} {}{root}\n", owner.id, escaped(&owner.roles.join(",")))
}

fn named(owner: &str) -> Result<OwnerId, Failed> {
    Ok(OwnerId::parse("owner", owner)?)
}

fn some_roles(roles: Vec<String>) -> Result<Option<Vec<String>>, Failed> {
    if roles.len() > limits::ROLES_MAX {
        return Err(Error::invalid_field("role", "at most 16").into());
    }
    let roles = roles.into_iter().map(|role| label("role", role)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(roles).filter(|roles| !roles.is_empty()))
}

fn label(field: &str, value: String) -> Result<String, Failed> {
    if text::is_label(&value, limits::LABEL_BYTES_MAX) {
        return Ok(value);
    }
    Err(Error::invalid_field(field, "1 to 128 bytes that all show, without blanks at the ends").into())
}
