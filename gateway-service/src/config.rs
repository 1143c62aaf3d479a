//! What the gateway is told at its start: a file, under the environment (`INTERLOCK_GATEWAY_*`), under flags.
//!
//! Beside the keys that every service has (profile, addresses, `tls.*`, `allow`, `internal_token_file`,
//! `data_dir`, `log.*`, `ready_file`, `limits.*`; see the kit):
//!
//! | key | default | what |
//! |---|---|---|
//! | `store` | `gateway.db` in `data_dir` | the URL of a database, `postgres://…`; unset: that file |
//! | `store_sharing` | `alone` | `shared`: other gateways use the database at the same time |
//! | `chain_key_file` | `gateway.chain-key` in `data_dir` | key of the audit chain; made at the first start |
//! | `auth.endpoints` | required | `https://host:port` of auth's internal listener, or several: begins at any; `http` on loopback in `local` |
//! | `auth.ca` | `tls.client_ca` | who signs auth's certificate |
//! | `auth.cert`, `auth.key` | `tls.cert`, `tls.key` | what the gateway shows auth |
//! | `auth.server_name` | from the endpoint | the name in auth's certificate |
//! | `lease_ttl` | `10s` | how long a job's lease lives without a heartbeat |
//! | `max_attempts` | 3 | after so many a released job fails |
//! | `retry_backoff` | `1s` | how long a job pauses whose lease ran out; twice as long each further time, a minute at most |
//! | `max_queue_age` | `24h` | a job queued for longer fails |
//! | `max_run_time` | `6h` | a job running for longer fails |
//! | `jobs_in_flight_per_owner` | 1000 | quota |
//! | `sessions_per_owner`, `agents_per_owner` | 1000, 100 | quotas |
//! | `unscoped` | `warn`, in `hardened` `deny` | what calls that name no project get |
//! | `sunset` | none | RFC 3339: from when on `warn` refuses them too |
//! | `retention.events` | 10000 | events kept of a session |
//! | `retention.size` | `16MiB` | ... and how large they are together |
//! | `retention.age` | `7d` | ... and for how long; ended jobs likewise |
//! | `clients_per_session` | 100 | clients of one session at once |
//! | `join_tries` | 5 | tries at passwords of sessions that one source has at once; one more comes back each second |
//! | `client_idle` | `720h` | a client that is not seen for so long is no longer of its session |
//! | `argon2.m_kib`, `argon2.t`, `argon2.p` | 19456, 2, 1 | cost of hashing a session's password |
//! | `hasher.threads`, `hasher.queue` | 1, 32 | threads that hash passwords, and calls that wait for them |
//! | `files.folder` | `files` in `data_dir` | where the contents of files are |
//! | `files.bucket` | none | `bucket` or `bucket/prefix` of an S3-compatible service, instead of the folder |
//! | `files.endpoint`, `files.region` | of AWS, `us-east-1` | where that service is; `http` on loopback in `local` |
//! | `files.credentials_file` | required with a bucket | two lines: the access key's id and its secret |
//! | `files.size`, `files.session_size` | `64MiB`, `1GiB` | the largest file, and all of a session together |
//! | `files.per_session` | 1000 | files of one session at once |
//! | `files.upload_time` | `10m` | how long storing one file may take |
//! | `parked_per_owner` | 256 | waits and streams of one owner at once |
//! | `on_behalf_file` | none | which services act for which owners by name, on the internal listener |
//! | `service_workers_file` | none | which services work jobs as themselves, and of which agents, on the internal listener |
//! | `allow_anonymous` | `false` | calls with no credential may make sessions, of the owner `local`; only in profile `local` |
//!
//! The only file that reads the environment.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use interlock_kit::{
    config::{ByteSize, Common, Defaults, Hashing, Layers, Mistake, Profile, Reader},
    serve::ServerLimits,
    store::postgres::{Sharing, Target},
};

use crate::{caller::Unscoped, limits::Limits};

const ENV_PREFIX: &str = "INTERLOCK_GATEWAY";
const PORT_DEFAULT: u16 = 7_402;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const SIZE_MIN: ByteSize = ByteSize(1 << 20);
const SIZE_MAX: ByteSize = ByteSize(16 << 30);
const FILE_MAX: ByteSize = ByteSize(16 << 30);
const FILES_MAX: ByteSize = ByteSize(1 << 40);

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What every service has.
    pub common: Common,
    /// The database that the store is in; none: a file in `data_dir`.
    pub store: Option<Target>,
    /// Whether other gateways use that database at the same time.
    pub sharing: Sharing,
    /// The audit chain's key file.
    pub chain_key_file: PathBuf,
    /// The way to auth.
    pub auth: AuthLink,
    /// Of sessions, jobs, leases and logs.
    pub limits: Limits,
    /// Calls that name no project.
    pub unscoped: Unscoped,
    /// Where the contents of files are.
    pub files: FileStore,
    /// Of the passwords of sessions.
    pub hashing: Hashing,
    /// Tries at passwords of sessions that one source has at once.
    pub join_tries: u32,
    /// Waits and streams of one owner at once.
    pub parked_per_owner: usize,
    /// Which services act for which owners by name. Read again when it changes.
    pub on_behalf_file: Option<PathBuf>,
    /// Which services work jobs as themselves, and of which agents. Read again when it changes.
    pub service_workers_file: Option<PathBuf>,
    /// Calls with no credential may make sessions, of the built-in owner `local`. Only in profile `local`, whose
    /// listeners are all on loopback.
    pub allow_anonymous: bool,
}

/// Where the contents of files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileStore {
    /// In a folder of this machine.
    Folder(PathBuf),
    /// With an S3-compatible service.
    Bucket {
        /// Its name.
        bucket: String,
        /// Before each key; empty: nothing.
        prefix: String,
        /// Where the service is; `None`: AWS.
        endpoint: Option<String>,
        /// In which part of the world.
        region: String,
        /// The access key's id and its secret, a line each.
        credentials_file: PathBuf,
    },
}

/// The way to auth's internal listener.
#[derive(Clone, Debug)]
pub struct AuthLink {
    /// In the order of trying; at least one.
    pub endpoints: Vec<String>,
    /// Who signs auth's certificate; `None` only for plain text on loopback.
    pub ca: Option<PathBuf>,
    /// What the gateway shows: certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The name in auth's certificate, where it is not the endpoint's.
    pub server_name: Option<String>,
}

/// Reads flags over this process's environment over the file.
///
/// # Errors
/// All mistakes together.
pub fn load(file: Option<&Path>, flags: Vec<(String, String)>) -> Result<Config, Vec<Mistake>> {
    read(file, std::env::vars_os(), flags)
}

fn read(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: Vec<(String, String)>,
) -> Result<Config, Vec<Mistake>> {
    let mut r = Reader::new(Layers::read(file, ENV_PREFIX, environment, flags));
    let public = ([127, 0, 0, 1], PORT_DEFAULT).into();
    let common = Common::read(&mut r, Defaults { public, limits: ServerLimits::gateway() });
    let store = r.database("store", common.profile);
    let config = Config {
        sharing: r.sharing("store_sharing", store.as_ref()),
        store,
        chain_key_file: r.path("chain_key_file").unwrap_or_else(|| common.data_dir.join("gateway.chain-key")),
        auth: read_auth(&mut r, &common),
        limits: read_limits(&mut r),
        files: read_files(&mut r, &common),
        unscoped: Unscoped::read(&mut r, common.profile),
        hashing: Hashing::read(&mut r, 1),
        join_tries: r.bounded("join_tries", 5, 1..=100_000),
        parked_per_owner: r.bounded("parked_per_owner", 256, 1..=16_384),
        on_behalf_file: r.path("on_behalf_file"),
        service_workers_file: r.path("service_workers_file"),
        allow_anonymous: r.value("allow_anonymous", false),
        common,
    };
    for (key, file) in
        [("on_behalf_file", &config.on_behalf_file), ("service_workers_file", &config.service_workers_file)]
    {
        if file.is_some() && config.common.internal.is_none() {
            r.mistake(key, "only with internal.address");
        }
    }
    if config.allow_anonymous && config.common.profile == Profile::Hardened {
        r.mistake("allow_anonymous", "false in profile hardened, where every call says who makes it");
    }
    r.finish().map(|()| config)
}

fn read_auth(r: &mut Reader, common: &Common) -> AuthLink {
    let endpoints: Vec<String> = r.list("auth.endpoints");
    let ca = r.path("auth.ca").or_else(|| common.tls.client_ca.clone());
    if endpoints.is_empty() {
        r.mistake("auth.endpoints", "must be set: https://host:port of auth's internal listener");
    }
    let plain = endpoints.iter().any(|endpoint| endpoint.starts_with("http://"));
    if plain && common.profile == Profile::Hardened {
        r.mistake("auth.endpoints", "https endpoints only, in profile hardened");
    }
    if !plain && !endpoints.is_empty() && common.internal_token_file.is_none() {
        r.mistake("internal_token_file", "must be set: auth asks for it beside the certificate");
    }
    if !plain && ca.is_none() {
        r.mistake("auth.ca", "must be set, or tls.client_ca");
    }
    AuthLink {
        endpoints,
        ca,
        cert: r.path("auth.cert").unwrap_or_else(|| common.tls.cert.clone()),
        key: r.path("auth.key").unwrap_or_else(|| common.tls.key.clone()),
        server_name: r.optional("auth.server_name"),
    }
}

fn read_files(r: &mut Reader, common: &Common) -> FileStore {
    let folder = r.path("files.folder");
    let bucket: Option<String> = r.optional("files.bucket");
    let endpoint: Option<String> = r.optional("files.endpoint");
    let region: String = r.value("files.region", "us-east-1".to_owned());
    let credentials_file = r.path("files.credentials_file");
    let Some(bucket) = bucket else {
        for (key, set) in
            [("files.endpoint", endpoint.is_some()), ("files.credentials_file", credentials_file.is_some())]
        {
            if set {
                r.mistake(key, "only with files.bucket");
            }
        }
        return FileStore::Folder(folder.unwrap_or_else(|| common.data_dir.join("files")));
    };
    if folder.is_some() {
        r.mistake("files.folder", "none beside files.bucket");
    }
    let (bucket, prefix) = bucket.split_once('/').unwrap_or((&bucket, ""));
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    let whole = |prefix: &str| prefix.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if bucket.is_empty() || !plain(bucket) || !plain(prefix) || !(prefix.is_empty() || whole(prefix)) {
        r.mistake("files.bucket", "`bucket` or `bucket/prefix`");
    }
    if let Some(endpoint) = &endpoint {
        let loopback = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
        let near = common.profile == Profile::Local && loopback.iter().any(|to| endpoint.starts_with(to));
        if !endpoint.starts_with("https://") && !near {
            r.mistake("files.endpoint", "`https://host:port`; `http` on loopback, in profile local");
        }
    }
    let credentials_file = credentials_file.unwrap_or_else(|| {
        r.mistake("files.credentials_file", "must be set with files.bucket");
        PathBuf::new()
    });
    let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
    FileStore::Bucket { bucket, prefix, endpoint, region, credentials_file }
}

fn read_limits(r: &mut Reader) -> Limits {
    let d = Limits::default();
    let all_files = ByteSize(d.files_bytes_max);
    let log_age_max = r.bounded("retention.age", d.log_age_max, HOUR..=HOUR * 87_600);
    let limits = Limits {
        lease_ttl: r.bounded("lease_ttl", d.lease_ttl, SECOND..=SECOND * 300),
        attempts_max: r.bounded("max_attempts", d.attempts_max, 1..=100),
        retry_backoff: r.bounded("retry_backoff", d.retry_backoff, Duration::ZERO..=HOUR),
        queue_age_max: r.bounded("max_queue_age", d.queue_age_max, SECOND..=HOUR * 720),
        run_time_max: r.bounded("max_run_time", d.run_time_max, SECOND..=HOUR * 720),
        jobs_in_flight_max: r.bounded("jobs_in_flight_per_owner", d.jobs_in_flight_max, 1..=1_000_000),
        sessions_max: r.bounded("sessions_per_owner", d.sessions_max, 1..=1_000_000),
        agents_max: r.bounded("agents_per_owner", d.agents_max, 1..=100_000),
        clients_max: r.bounded("clients_per_session", d.clients_max, 1..=1_000),
        client_idle_max: r.bounded("client_idle", d.client_idle_max, SECOND * 60..=HOUR * 87_600),
        log_events_max: r.bounded("retention.events", d.log_events_max, 256..=10_000_000),
        log_bytes_max: r.bounded("retention.size", ByteSize(d.log_bytes_max), SIZE_MIN..=SIZE_MAX).0,
        file_bytes_max: r.bounded("files.size", ByteSize(d.file_bytes_max), ByteSize(1)..=FILE_MAX).0,
        files_bytes_max: r.bounded("files.session_size", all_files, ByteSize(1)..=FILES_MAX).0,
        files_max: r.bounded("files.per_session", d.files_max, 1..=5_000),
        upload_time_max: r.bounded("files.upload_time", d.upload_time_max, SECOND..=HOUR * 24),
        log_age_max,
        ended_jobs_kept: log_age_max,
        ..d
    };
    for rule in limits.check() {
        r.mistake("lease_ttl and the other bounds", rule);
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: [(&str, &str); 5] = [
        ("tls.cert", "/c.pem"),
        ("tls.key", "/c.key"),
        ("auth.endpoints", "https://127.0.0.1:7444"),
        ("auth.ca", "/ca.pem"),
        ("internal_token_file", "/token"),
    ];

    fn with(more: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let all = LEAST.iter().chain(more);
        let flags = all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        read(None, [], flags).map_err(|all| all.into_iter().map(|m| m.place).collect())
    }

    #[test]
    fn the_least_configuration_has_the_designs_defaults() {
        let config = with(&[]).expect("good");
        assert!(config.store.is_none());
        assert_eq!(config.limits.lease_ttl, SECOND * 10);
        assert_eq!(config.limits.attempts_max, 3);
        assert_eq!(config.unscoped, Unscoped::Warn { sunset: None });
        assert_eq!(config.auth.cert, PathBuf::from("/c.pem"));
    }

    #[test]
    fn the_environment_is_over_the_file_and_flags_are_over_both() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.toml");
        std::fs::write(&file, "lease_ttl = \"3s\"\nmax_attempts = 5\nmax_run_time = \"2h\"\n")
            .expect("written");
        let environment = [("INTERLOCK_GATEWAY_LEASE_TTL", "4s"), ("INTERLOCK_GATEWAY_MAX_ATTEMPTS", "6")];
        let environment = environment.map(|(k, v)| (OsString::from(k), OsString::from(v)));
        let mut flags: Vec<_> = LEAST.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        flags.push(("lease_ttl".to_owned(), "5s".to_owned()));
        let jobs = read(Some(&file), environment, flags).expect("good").limits;
        assert_eq!((jobs.lease_ttl, jobs.attempts_max, jobs.run_time_max), (SECOND * 5, 6, HOUR * 2));
    }

    #[test]
    fn a_store_elsewhere_is_named_by_a_url_without_its_password_being_told() {
        let good = "postgres://gateway:hidden@127.0.0.1/gateway?sslmode=disable";
        let environment = [(OsString::from("INTERLOCK_GATEWAY_STORE"), OsString::from(good))];
        let flags = LEAST.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let config = read(None, environment, flags).expect("good");
        assert_eq!(
            config.store.as_ref().expect("set").to_string(),
            "postgres://gateway@127.0.0.1:5432/gateway"
        );
        assert!(!format!("{config:?}").contains("hidden"));
        assert_eq!(config.sharing, Sharing::Alone);
        assert_eq!(with(&[("store_sharing", "shared")]).expect_err("no database"), ["store_sharing (flag)"]);
        for bad in ["gateway.db", "postgres://g:hidden@db/g?sslmode=require", good] {
            assert_eq!(with(&[("store", bad)]).expect_err(bad), ["store (flag)"]);
        }
    }

    #[test]
    fn files_are_in_a_folder_or_in_a_bucket() {
        let folder = |config: &Config| match &config.files {
            FileStore::Folder(folder) => folder.clone(),
            FileStore::Bucket { .. } => panic!("{config:?}"),
        };
        let config = with(&[]).expect("good");
        assert_eq!(folder(&config), config.common.data_dir.join("files"));
        assert_eq!(folder(&with(&[("files.folder", "/f")]).expect("good")), PathBuf::from("/f"));
        let keys = ("files.credentials_file", "/keys");
        let config = with(&[("files.bucket", "b/some/where"), keys]).expect("good");
        let FileStore::Bucket { bucket, prefix, region, .. } = &config.files else { panic!("{config:?}") };
        assert_eq!((&**bucket, &**prefix, &**region), ("b", "some/where", "us-east-1"));
        let near = ("files.endpoint", "http://127.0.0.1:9000");
        with(&[("files.bucket", "b"), keys, near]).expect("in local");
        for (bad, place) in [
            (vec![("files.bucket", "b")], "files.credentials_file"),
            (vec![("files.bucket", "b"), keys, ("files.folder", "/f")], "files.folder (flag)"),
            (vec![("files.bucket", "b/../c"), keys], "files.bucket (flag)"),
            (
                vec![("files.bucket", "b"), keys, ("files.endpoint", "http://s3.example")],
                "files.endpoint (flag)",
            ),
            (vec![("files.bucket", "b"), keys, near, ("profile", "hardened")], "files.endpoint (flag)"),
            (vec![keys], "files.credentials_file (flag)"),
            (vec![("files.size", "2GiB")], "lease_ttl and the other bounds"),
        ] {
            assert_eq!(with(&bad).expect_err("wrong"), [place], "{bad:?}");
        }
    }

    #[test]
    fn mistakes_are_told_together() {
        let wrong = with(&[("lease_ttl", "900ms"), ("sunset", "soon"), ("lease_tll", "2s")]);
        assert_eq!(wrong.expect_err("three"), ["lease_ttl (flag)", "sunset (flag)", "lease_tll (flag)"]);
    }

    #[test]
    fn hardened_denies_unscoped_calls_and_plain_text_to_auth() {
        let config = with(&[("profile", "hardened")]).expect("good");
        assert_eq!(config.unscoped, Unscoped::Deny);
        let plain = with(&[("profile", "hardened"), ("auth.endpoints", "http://127.0.0.1:1")]);
        assert_eq!(plain.expect_err("plain"), ["auth.endpoints (flag)"]);
    }

    // NC-01
    #[test]
    fn sessions_for_everybody_are_off_and_only_for_local_and_lists_of_services_need_their_listener() {
        assert!(!with(&[]).expect("good").allow_anonymous);
        let on = ("allow_anonymous", "true");
        assert!(with(&[on]).expect("in local").allow_anonymous);
        assert_eq!(with(&[on, ("profile", "hardened")]).expect_err("hardened"), ["allow_anonymous (flag)"]);
        let list = with(&[("service_workers_file", "/list"), ("on_behalf_file", "/list")]);
        assert_eq!(list.expect_err("no listener"), ["on_behalf_file (flag)", "service_workers_file (flag)"]);
        let open = with(&[on, ("public.address", "0.0.0.0:7402")]);
        assert_eq!(open.expect_err("not on loopback"), ["public.address (flag)"]);
        assert_eq!(
            with(&[("allow_anonymous", "yes")]).expect_err("no word for it"),
            ["allow_anonymous (flag)"]
        );
    }
}
