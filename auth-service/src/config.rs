//! The configuration of auth: every key, its bounds, and the variables that have names of their own.
//!
//! Nothing else reads the environment. What holds passwords exists only as variables: `INTERLOCK_ACCOUNTS_JSON`,
//! `INTERLOCK_OWNERS_JSON` and `INTERLOCK_ROOT_PASSWORD`; each has a file beside it.

use std::{
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use interlock_kit::{
    config::{Common, Defaults, Hashing, Layers, Mistake, Reader},
    serve::ServerLimits,
    store::postgres::{Sharing, Target},
    unscoped::Unscoped,
};
use zeroize::Zeroizing;

use crate::{
    limits::{ACCESS_TTL, IN_USE_WINDOW, LEASE, OWNER_SESSION_TTL, ROOT_TTL, Span},
    opening::CHAIN_KEY_FILE,
};

/// `public.address` follows it: `INTERLOCK_AUTH_PUBLIC_ADDRESS`.
const ENV_PREFIX: &str = "INTERLOCK_AUTH";
const ACCOUNTS_JSON: &str = "INTERLOCK_ACCOUNTS_JSON";
const OWNERS_JSON: &str = "INTERLOCK_OWNERS_JSON";
const ROOT_PASSWORD: &str = "INTERLOCK_ROOT_PASSWORD";
const ROOT_TTL_SEC: &str = "INTERLOCK_ROOT_TTL_SEC";
const ROOT_TTL_VARIABLE: &str = "INTERLOCK_AUTH_ROOT_TTL";
const SESSION_TTL_SEC: &str = "INTERLOCK_OWNER_SESSION_TTL_SEC";
/// Variables that are other names of keys.
const OTHER_NAMES: [(&str, &str); 3] = [
    ("INTERLOCK_ACCOUNTS_JSON_FILE", "INTERLOCK_AUTH_ACCOUNTS_JSON_FILE"),
    ("INTERLOCK_OWNERS_FILE", "INTERLOCK_AUTH_OWNERS_FILE"),
    ("INTERLOCK_ROOT_PASSWORD_FILE", "INTERLOCK_AUTH_ROOT_PASSWORD_FILE"),
];
const SESSION_TTL_VARIABLE: &str = "INTERLOCK_AUTH_OWNER_SESSION_TTL";
/// Beside the configuration file, where no other owners file is named.
const OWNERS_FILE_DEFAULT: &str = "owners.json";

const PORT_DEFAULT: u16 = 7_401;

/// A text that `Debug` does not show.
#[derive(Clone)]
pub struct SecretText(pub Zeroizing<String>);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

/// Everything that auth is told from outside.
#[derive(Clone, Debug)]
pub struct Config {
    /// What every service has.
    pub common: Common,
    /// `lease`: how long a verifier may admit calls without hearing from here. 1 s to 30 s, 3 s by default.
    pub lease: Duration,
    /// `owner_session.ttl` or `INTERLOCK_OWNER_SESSION_TTL_SEC`: when an owner session ends, whatever is
    /// refreshed. 5 min to 14 d, 12 h by default.
    pub owner_session_ttl: Duration,
    /// `owner_session.access_ttl`: how long an access token lives. 1 min to 1 h, 15 min by default.
    pub access_ttl: Duration,
    /// `rotation.in_use_window`: for how long after a use a role token counts as in use, so that a rotation in two phases
    /// is not committed. 5 s to 24 h, 1 min by default.
    pub in_use_window: Duration,
    /// Of owners' passwords. 2 threads by default.
    pub hashing: Hashing,
    /// `owners_file` or `INTERLOCK_OWNERS_FILE`; `owners.json` beside the configuration file otherwise, if it
    /// is there.
    pub owners_file: Option<PathBuf>,
    /// `accounts_json_file` or `INTERLOCK_ACCOUNTS_JSON_FILE`.
    pub accounts_json_file: Option<PathBuf>,
    /// `INTERLOCK_ACCOUNTS_JSON`.
    pub accounts_json: Option<SecretText>,
    /// `INTERLOCK_OWNERS_JSON`.
    pub owners_json: Option<SecretText>,
    /// `INTERLOCK_ROOT_PASSWORD`: what owners unlock root with. None here and in the file: nobody can.
    pub root_password: Option<SecretText>,
    /// `root.password_file` or `INTERLOCK_ROOT_PASSWORD_FILE`: the same in a file, read again when it changes.
    pub root_password_file: Option<PathBuf>,
    /// `root.ttl` or `INTERLOCK_ROOT_TTL_SEC`: how long root stays unlocked, at most. 15 min by default; held to 1 min
    /// to 1 h.
    pub root_ttl: Duration,
    /// What was asked for instead, where that was out of bounds.
    pub root_ttl_asked: Option<Duration>,
    /// `unscoped`, `sunset`: what calls on a project get that name none.
    pub unscoped: Unscoped,
    /// `store`: the URL of a database, `postgres://…`. Unset: a file in `data_dir`.
    pub store: Option<Target>,
    /// `store_sharing`: whether other auth-services use that database at the same time.
    pub sharing: Sharing,
    /// `chain_key_file`: the key of the audit chain; `audit.key` in `data_dir` otherwise.
    pub chain_key_file: PathBuf,
    /// Whether the first role tokens are printed once on stdout: flag `--print-first-tokens` only.
    pub print_first_tokens: bool,
}

impl Config {
    /// Reads the configuration of this process: file under environment under flags.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn of_process(file: Option<&Path>, flags: Vec<(String, String)>) -> Result<Self, Vec<Mistake>> {
        Self::read(file, std::env::vars_os(), flags)
    }

    /// As [`Config::of_process`], for a command that serves nothing: what only a server needs may be
    /// missing.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn of_host_command(file: Option<&Path>, flags: Vec<(String, String)>) -> Result<Self, Vec<Mistake>> {
        let (config, mistakes) = read(file, std::env::vars_os(), flags);
        let serious: Vec<_> = mistakes.into_iter().filter(|m| !m.place.starts_with("tls.")).collect();
        if serious.is_empty() { Ok(config) } else { Err(serious) }
    }

    /// Reads the configuration from an environment that is passed in.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<(String, String)>,
    ) -> Result<Self, Vec<Mistake>> {
        let (config, mistakes) = read(file, environment, flags);
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }
}

fn read(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: Vec<(String, String)>,
) -> (Config, Vec<Mistake>) {
    let mut variables = Variables::default();
    let environment: Vec<_> = environment.into_iter().filter_map(|pair| variables.take(pair)).collect();
    let mut r = Reader::new(Layers::read(file, ENV_PREFIX, variables.beneath(environment), flags));
    let public = SocketAddr::from(([127, 0, 0, 1], PORT_DEFAULT));
    let common = Common::read(&mut r, Defaults { public, limits: ServerLimits::auth() });
    let beside = file.map(|path| path.with_file_name(OWNERS_FILE_DEFAULT)).filter(|path| path.exists());
    let store = r.database("store", common.profile);
    let chain_key_file = r.path("chain_key_file").unwrap_or_else(|| common.data_dir.join(CHAIN_KEY_FILE));
    let root_ttl = r.value("root.ttl", ROOT_TTL.default);
    let unscoped = Unscoped::read(&mut r, common.profile);
    let config = Config {
        common,
        unscoped,
        sharing: r.sharing("store_sharing", store.as_ref()),
        store,
        chain_key_file,
        lease: span(&mut r, "lease", LEASE),
        owner_session_ttl: span(&mut r, "owner_session.ttl", OWNER_SESSION_TTL),
        access_ttl: span(&mut r, "owner_session.access_ttl", ACCESS_TTL),
        in_use_window: span(&mut r, "rotation.in_use_window", IN_USE_WINDOW),
        hashing: Hashing::read(&mut r, 2),
        owners_file: r.path("owners_file").or(beside),
        accounts_json_file: r.path("accounts_json_file"),
        root_password: variables.root_password,
        root_password_file: r.path("root.password_file"),
        root_ttl: ROOT_TTL.clamp(root_ttl),
        root_ttl_asked: Some(root_ttl).filter(|asked| !ROOT_TTL.allows(*asked)),
        accounts_json: variables.accounts_json,
        owners_json: variables.owners_json,
        print_first_tokens: false,
    };
    if config.access_ttl > config.owner_session_ttl {
        r.mistake("owner_session.access_ttl", "at most owner_session.ttl");
    }
    if config.root_password.is_some() && config.root_password_file.is_some() {
        r.mistake("root.password_file", format!("not beside {ROOT_PASSWORD}"));
    }
    let mut mistakes = r.finish().err().unwrap_or_default();
    mistakes.append(&mut variables.mistakes);
    (config, mistakes)
}

fn span(r: &mut Reader, key: &str, span: Span) -> Duration {
    r.bounded(key, span.default, span.min..=span.max)
}

/// The variables that do not begin with our prefix.
#[derive(Default)]
struct Variables {
    accounts_json: Option<SecretText>,
    owners_json: Option<SecretText>,
    root_password: Option<SecretText>,
    renamed: Vec<(OsString, OsString)>,
    mistakes: Vec<Mistake>,
}

impl Variables {
    /// Keeps what is of these, hands back what is not.
    fn take(&mut self, (name, value): (OsString, OsString)) -> Option<(OsString, OsString)> {
        let Some(text) = name.to_str() else { return Some((name, value)) };
        if let Some((_, key)) = OTHER_NAMES.iter().find(|(other, _)| *other == text) {
            self.renamed.push((key.into(), value));
            return None;
        }
        match text {
            ACCOUNTS_JSON => self.accounts_json = self.secret(ACCOUNTS_JSON, value),
            OWNERS_JSON => self.owners_json = self.secret(OWNERS_JSON, value),
            ROOT_PASSWORD => self.root_password = self.secret(ROOT_PASSWORD, value),
            // Out of its bounds it is held to them, on either side.
            ROOT_TTL_SEC => match value.to_str().and_then(|v| v.trim().parse::<i64>().ok()) {
                Some(s) => self.renamed.push((ROOT_TTL_VARIABLE.into(), format!("{}s", s.max(0)).into())),
                None => self.mistakes.push(Mistake::new(ROOT_TTL_SEC, "a whole number of seconds")),
            },
            SESSION_TTL_SEC => match value.to_str().and_then(|v| v.trim().parse::<u64>().ok()) {
                Some(s) => self.renamed.push((SESSION_TTL_VARIABLE.into(), format!("{s}s").into())),
                None => self.mistakes.push(Mistake::new(SESSION_TTL_SEC, "a whole number of seconds")),
            },
            _ => return Some((name, value)),
        }
        None
    }

    fn secret(&mut self, name: &str, value: OsString) -> Option<SecretText> {
        match value.into_string() {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(SecretText(Zeroizing::new(text))),
            Err(_) => {
                self.mistakes.push(Mistake::new(name, "must be UTF-8"));
                None
            }
        }
    }

    /// A key's own variable wins over its other name.
    fn beneath(&mut self, environment: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
        let mut all = std::mem::take(&mut self.renamed);
        all.extend(environment);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn read(env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
        let tls = [("tls.cert", "/c.pem"), ("tls.key", "/c.key")];
        let flags = tls.iter().chain(flags).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::read(None, env.iter().map(|(k, v)| (k.into(), v.into())), flags)
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let config = read(&[], &[]).expect("good");
        assert_eq!(config.lease, 3 * SECOND);
        assert_eq!(config.owner_session_ttl, 12 * 60 * MINUTE);
        assert_eq!(config.access_ttl, 15 * MINUTE);
        assert_eq!(config.in_use_window, MINUTE);
        assert_eq!(config.hashing.params, interlock_kit::hasher::Params::default());
        assert_eq!(config.unscoped, Unscoped::Warn { sunset: None });
    }

    #[test]
    fn documented_variables_are_other_names_of_keys() {
        let config = read(
            &[
                ("INTERLOCK_OWNER_SESSION_TTL_SEC", "1800"),
                ("INTERLOCK_OWNERS_FILE", "/etc/owners.json"),
                ("INTERLOCK_ACCOUNTS_JSON", "{\"a\":1}"),
                ("INTERLOCK_ACCOUNTS_JSON_FILE", "/run/accounts.json"),
            ],
            &[],
        )
        .expect("good");
        assert_eq!(config.owner_session_ttl, 30 * MINUTE);
        assert_eq!(config.owners_file.as_deref(), Some(Path::new("/etc/owners.json")));
        assert_eq!(config.accounts_json_file.as_deref(), Some(Path::new("/run/accounts.json")));
        assert!(config.accounts_json.is_some());
        assert!(!format!("{config:?}").contains("\"a\""));
    }

    #[test]
    fn the_keys_own_variable_wins_over_its_other_name() {
        let env = [("INTERLOCK_OWNER_SESSION_TTL_SEC", "1800"), ("INTERLOCK_AUTH_OWNER_SESSION_TTL", "1h")];
        assert_eq!(read(&env, &[]).expect("good").owner_session_ttl, 60 * MINUTE);
    }

    // UA-33, UA-35
    #[test]
    fn owners_stand_beside_the_configuration_unless_another_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("auth.toml");
        std::fs::write(&file, "[tls]\ncert = \"/c.pem\"\nkey = \"/c.key\"\n").expect("written");
        let read = |env: &[(&str, &str)]| {
            let env = env.iter().map(|(k, v)| (k.into(), v.into()));
            Config::read(Some(&file), env, Vec::new()).expect("good").owners_file
        };
        assert_eq!(read(&[]), None);
        let beside = folder.path().join("owners.json");
        std::fs::write(&beside, "[]").expect("written");
        assert_eq!(read(&[]), Some(beside));
        let named = [("INTERLOCK_OWNERS_FILE", "/etc/other.json")];
        assert_eq!(read(&named).as_deref(), Some(Path::new("/etc/other.json")));
    }

    // FN-07, FN-17, FN-32, FN-34
    #[test]
    fn the_root_password_is_a_secret_and_its_time_is_held_to_bounds() {
        let config = read(&[], &[]).expect("good");
        assert!(config.root_password.is_none() && config.root_password_file.is_none());
        assert_eq!((config.root_ttl, config.root_ttl_asked), (15 * MINUTE, None));
        let config = read(&[("INTERLOCK_ROOT_PASSWORD", "hidden hidden hidden")], &[]).expect("good");
        assert!(config.root_password.is_some() && !format!("{config:?}").contains("hidden"));
        let config = read(&[("INTERLOCK_ROOT_PASSWORD_FILE", "/run/root")], &[]).expect("good");
        assert_eq!(config.root_password_file.as_deref(), Some(Path::new("/run/root")));
        for (asked, held) in [("60", 60), ("3600", 3_600), ("59", 60), ("0", 60), ("-1", 60), ("3601", 3_600)]
        {
            let config = read(&[("INTERLOCK_ROOT_TTL_SEC", asked)], &[]).expect("good");
            assert_eq!(config.root_ttl.as_secs(), held, "{asked}");
            let beyond = !matches!(asked, "60" | "3600");
            assert_eq!(config.root_ttl_asked.is_some(), beyond, "{asked}");
        }
        assert_eq!(read(&[], &[("root.ttl", "2h")]).expect("good").root_ttl, 60 * MINUTE);
        let place = |env: &[(&str, &str)]| read(env, &[]).expect_err("a mistake")[0].place.clone();
        assert_eq!(place(&[("INTERLOCK_ROOT_TTL_SEC", "soon")]), ROOT_TTL_SEC);
        let both = [("INTERLOCK_ROOT_PASSWORD", "x"), ("INTERLOCK_ROOT_PASSWORD_FILE", "/run/root")];
        assert!(place(&both).starts_with("root.password_file"));
    }

    #[test]
    fn a_store_elsewhere_is_named_by_a_url_without_its_password_being_told() {
        assert!(read(&[], &[]).expect("good").store.is_none());
        let good = "postgres://auth:hidden@127.0.0.1/auth?sslmode=disable";
        let config = read(&[("INTERLOCK_AUTH_STORE", good)], &[]).expect("good");
        assert_eq!(config.store.as_ref().expect("set").to_string(), "postgres://auth@127.0.0.1:5432/auth");
        assert!(!format!("{config:?}").contains("hidden"));
        for bad in
            ["", "auth.db", "postgres://auth:hidden@db", "postgres://a:hidden@db/a?sslmode=require", good]
        {
            let mistakes = read(&[], &[("store", bad)]).expect_err(bad);
            assert_eq!(mistakes.len(), 1, "{bad}: {mistakes:?}");
            let told = mistakes[0].to_string();
            assert!(told.starts_with("store (flag): ") && !told.contains("hidden"), "{told}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_a_mistake() {
        let places = |env: &[(&str, &str)], flags: &[(&str, &str)]| {
            read(env, flags).expect_err("mistakes").into_iter().map(|m| m.place).collect::<Vec<_>>()
        };
        let short = [("INTERLOCK_OWNER_SESSION_TTL_SEC", "299")];
        assert_eq!(places(&short, &[]), ["owner_session.ttl (INTERLOCK_AUTH_OWNER_SESSION_TTL)"]);
        assert_eq!(places(&[("INTERLOCK_OWNER_SESSION_TTL_SEC", "soon")], &[]), [SESSION_TTL_SEC]);
        assert_eq!(
            places(&[], &[("lease", "31s"), ("argon2.m_kib", "4")]),
            ["lease (flag)", "argon2.m_kib (flag)"]
        );
        assert_eq!(
            places(&[], &[("owner_session.ttl", "5m")]),
            ["owner_session.access_ttl"],
            "an access token never outlives its owner session"
        );
    }
}
