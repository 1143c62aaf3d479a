//! A folder in which both services run. Removed at the end of the test, unless `INTERLOCK_KEEP` is set.
//!
//! ```text
//! pki/              the authority; leaves `auth`, `gateway`, `tester` (listed at both), `unlisted`
//! foreign/          another authority of the same trust domain, with a leaf `tester`
//! internal.token    what services show each other beside their certificates
//! accounts.json     the owners
//! root.password     what owners unlock root with, where `Setup::root` configures it
//! auth.toml, gateway.toml, auth.log, gateway.log, auth/, gateway/
//! ```

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use interlock_kit::{
    clock::Clock,
    pki::{Leaf, Pki},
    random,
};
use interlock_proto::credential::{Credential, Kind};
use serde_json::json;
use tempfile::TempDir;

const TRUST_DOMAIN: &str = "interlock.test";
/// Who can sign in, and as what. `w0` to `w5` are for loads: each has its own budget of tries.
const OWNERS: [(&str, &str); 9] = [
    ("alice", "user"),
    ("bob", "user"),
    ("root", "root"),
    ("w0", "user"),
    ("w1", "user"),
    ("w2", "user"),
    ("w3", "user"),
    ("w4", "user"),
    ("w5", "user"),
];

/// Settings over those that every test has.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    auth: BTreeMap<String, String>,
    gateway: BTreeMap<String, String>,
}

impl Setup {
    /// Sets a key of auth's configuration.
    #[must_use]
    pub fn auth(mut self, key: &str, value: &str) -> Self {
        self.auth.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Lets owners unlock root with [`World::root_password`].
    #[must_use]
    pub fn root(self) -> Self {
        self.auth("root.password_file", "root.password")
    }

    /// Auth's store is a database, by its URL, that several may share.
    #[must_use]
    pub fn auth_in(self, database: &str) -> Self {
        self.auth("store", database).auth("store_sharing", "shared").auth("chain_key_file", "auth.chain-key")
    }

    /// Sets a key of the gateway's configuration.
    #[must_use]
    pub fn gateway(mut self, key: &str, value: &str) -> Self {
        self.gateway.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The gateway's store is a database, by its URL, that several may share.
    #[must_use]
    pub fn gateway_in(self, database: &str) -> Self {
        self.gateway("store", database)
            .gateway("store_sharing", "shared")
            .gateway("chain_key_file", "gateway.chain-key")
    }
}

/// The folder.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
    setup: Setup,
    passwords: BTreeMap<String, String>,
    internal_token: String,
    root_password: String,
}

impl World {
    /// Makes it. Starts nothing.
    ///
    /// # Panics
    /// Where files cannot be made.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let mut folder = tempfile::Builder::new().prefix("interlock-").tempdir().expect("a temporary folder");
        folder.disable_cleanup(std::env::var_os("INTERLOCK_KEEP").is_some());
        let passwords = OWNERS.map(|(owner, _)| (owner.to_owned(), random_text(Kind::Owner))).into();
        let internal_token = Credential::new(Kind::Internal, &random::bytes()).expose().to_owned();
        let root_password = random_text(Kind::Owner);
        let world = Self { folder, setup, passwords, internal_token, root_password };
        world.make_pki();
        write_private(&world.path("root.password"), &format!("{}\n", world.root_password));
        write_private(&world.path("internal.token"), &format!("{}\n", world.internal_token));
        let accounts = OWNERS.map(|(owner, role)| {
            json!({ "username": owner, "password": world.password(owner), "role": role, "display_name": owner })
        });
        write_private(&world.path("accounts.json"), &json!(accounts).to_string());
        for service in ["auth", "gateway"] {
            fs::DirBuilder::new().mode(0o700).create(world.path(service)).expect("a data folder");
        }
        world
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.path("pki/ca.pem")
    }

    /// Certificate and key of a leaf, like `pki/tester`.
    #[must_use]
    pub fn leaf(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    /// An owner's password.
    ///
    /// # Panics
    /// For who is not in the accounts.
    #[must_use]
    pub fn password(&self, owner: &str) -> &str {
        &self.passwords[owner]
    }

    /// What owners unlock root with, in a pair that was set up for it.
    #[must_use]
    pub fn root_password(&self) -> &str {
        &self.root_password
    }

    /// The internal token.
    #[must_use]
    pub fn internal_token(&self) -> &str {
        &self.internal_token
    }

    /// A role token, from its recoverable copy.
    ///
    /// # Panics
    /// Where auth has not written it.
    #[must_use]
    pub fn role_token(&self, role: &str) -> Credential {
        let text =
            fs::read_to_string(self.path("auth/auth_tokens.json")).expect("the copy of the role tokens");
        let copy: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let token = copy["tokens"][role].as_str().expect("both roles have a token");
        Credential::parse(token).expect("a credential")
    }

    /// Every secret that this world began with, and its role tokens.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let mut all: Vec<_> = self.passwords.values().cloned().collect();
        all.push(self.internal_token.clone());
        all.push(self.root_password.clone());
        all.extend(["admin", "user"].map(|role| self.role_token(role).expose().to_owned()));
        all
    }

    /// Writes the configuration of `auth`. Known addresses are kept, others are chosen by the system.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn configure_auth(&self, known: &BTreeMap<String, SocketAddr>) {
        self.configure_auth_as("auth", None, known);
    }

    /// Writes the configuration of an auth whose files have that name, and whose store may be named otherwise.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn configure_auth_as(&self, name: &str, store: Option<&str>, known: &BTreeMap<String, SocketAddr>) {
        let mut all = self.shared("auth", &["gateway", "tester"], known);
        all.insert("data_dir".to_owned(), name.to_owned());
        all.insert("ready_file".to_owned(), format!("{name}.ready.json"));
        all.extend(
            [("accounts_json_file", "accounts.json"), ("argon2.m_kib", "8"), ("argon2.t", "1")].map(owned),
        );
        all.extend(self.setup.auth.clone());
        all.extend(store.map(|store| ("store".to_owned(), store.to_owned())));
        // One or the other says who may call.
        if all.contains_key("allow_file") {
            all.remove("allow");
        }
        self.write_config(name, all);
    }

    /// Writes the configuration of `gateway`.
    pub(crate) fn configure_gateway(&self, auth_internal: SocketAddr, known: &BTreeMap<String, SocketAddr>) {
        self.configure_gateway_as("gateway", &[auth_internal], known);
    }

    /// Writes the configuration of a gateway whose files have that name.
    pub(crate) fn configure_gateway_as(
        &self,
        name: &str,
        auth_internal: &[SocketAddr],
        known: &BTreeMap<String, SocketAddr>,
    ) {
        let mut all = self.shared("gateway", &["auth", "tester"], known);
        let endpoints: Vec<_> = auth_internal.iter().map(|address| format!("https://{address}")).collect();
        all.insert("auth.endpoints".to_owned(), endpoints.join(","));
        all.insert("data_dir".to_owned(), name.to_owned());
        all.insert("ready_file".to_owned(), format!("{name}.ready.json"));
        all.extend(self.setup.gateway.clone());
        self.write_config(name, all);
    }

    fn shared(
        &self,
        service: &str,
        allow: &[&str],
        known: &BTreeMap<String, SocketAddr>,
    ) -> BTreeMap<String, String> {
        let allow: Vec<_> = allow.iter().map(|name| format!("spiffe://{TRUST_DOMAIN}/{name}")).collect();
        let fixed = [
            ("profile", "local"),
            ("internal_token_file", "internal.token"),
            ("tls.client_ca", "pki/ca.pem"),
            ("tls.trust_domain", TRUST_DOMAIN),
            ("log.filter", "info"),
        ];
        let mut all: BTreeMap<_, _> = fixed.map(owned).into();
        all.extend([
            ("data_dir".to_owned(), service.to_owned()),
            ("ready_file".to_owned(), format!("{service}.ready.json")),
            ("tls.cert".to_owned(), format!("pki/{service}.pem")),
            ("tls.key".to_owned(), format!("pki/{service}.key")),
            ("allow".to_owned(), allow.join(",")),
        ]);
        for listener in ["public", "internal", "health", "metrics"] {
            let address = known.get(listener).map_or_else(|| "127.0.0.1:0".to_owned(), ToString::to_string);
            all.insert(format!("{listener}.address"), address);
        }
        all
    }

    /// A list is an array in the file; everything else is text there.
    fn write_config(&self, service: &str, settings: BTreeMap<String, String>) {
        let mut text = String::new();
        for (key, value) in settings {
            let value = match key.as_str() {
                "allow" | "auth.endpoints" => json!(value.split(',').collect::<Vec<_>>()).to_string(),
                _ => json!(value).to_string(),
            };
            writeln!(text, "{key} = {value}").expect("a String takes all");
        }
        fs::write(self.path(&format!("{service}.toml")), text).expect("a configuration");
    }

    fn make_pki(&self) {
        // Some days old, so that clocks can be set back.
        let now = Clock::system().now().before(Duration::from_secs(3 * 86_400));
        let domain = || TRUST_DOMAIN.parse().expect("a trust domain");
        let pki = Pki::create(&self.path("pki"), domain(), now).expect("an authority");
        for name in ["auth", "gateway", "tester", "unlisted"] {
            pki.issue(&Leaf::new(name, now)).expect("a certificate");
        }
        let foreign = Pki::create(&self.path("foreign"), domain(), now).expect("another authority");
        foreign.issue(&Leaf::new("tester", now)).expect("a certificate");
    }
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Letters and digits that stand nowhere else: if they are found in a log, they leaked.
fn random_text(kind: Kind) -> String {
    Credential::new(kind, &random::bytes()).expose()[8..40].to_owned()
}

/// A file for us alone.
fn write_private(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file =
        fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
}
