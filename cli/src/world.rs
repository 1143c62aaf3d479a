//! A folder in which both services run: certificates, internal token, accounts, configuration, stores.
//!
//! ```text
//! DIR/pki/            CA and certificates
//! DIR/internal.token  what the services show each other beside their certificates
//! DIR/accounts.json   the owners that auth-service knows (0600: it holds their first passwords)
//! DIR/<owner>.password  one for each of them (0600)
//! DIR/auth.toml, DIR/gateway.toml   configuration; change it, then start again
//! DIR/auth/, DIR/gateway/           data: stores, role tokens, keys of the audit chains
//! ```

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use interlock_kit::{
    clock::Clock,
    pki::{Leaf, Pki},
    random, secret_file,
    spiffe::TrustDomain,
    store::StoreLock,
};
use interlock_proto::credential::{Credential, Kind};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    context::Context,
    failure::Failure,
    keep::{read_secret, write_private},
    pair::Program,
};

const TRUST_DOMAIN: &str = "interlock.local";

/// An owner that the world starts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    /// Its id.
    pub(crate) username: &'static str,
    /// Its role.
    pub(crate) role: &'static str,
    /// The name to show.
    pub(crate) display_name: &'static str,
}

/// Keeps other programs out of a world for as long as it lives.
#[derive(Debug)]
pub(crate) struct Alone {
    _lock: StoreLock,
}

/// Such a folder.
#[derive(Clone, Debug)]
pub(crate) struct World {
    folder: PathBuf,
}

impl World {
    /// Opens the folder, and makes what is missing in it. What is there stays as it is. The lock keeps a second
    /// program out of it, from before anything is made.
    ///
    /// # Errors
    /// What the file system says; a folder that holds half a world, or that another program uses.
    pub(crate) fn open(folder: &Path, accounts: &[Account]) -> Result<(Self, Alone), Failure> {
        let unusable = |error: io::Error| {
            let told = format!("cannot make the folder {}: {error}", folder.display());
            Failure::local(told).next("--dir DIR, a folder that this user can write")
        };
        fs::create_dir_all(folder).map_err(unusable)?;
        let world = Self { folder: folder.canonicalize().map_err(unusable)? };
        let alone = world.alone()?;
        // The last thing that is made says that all was made.
        if !world.config("gateway").exists() {
            world.make(accounts)?;
        }
        Ok((world, alone))
    }

    fn alone(&self) -> Result<Alone, Failure> {
        StoreLock::take(&self.folder).map(|lock| Alone { _lock: lock }).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let taken = format!("`interlock up` runs in {} already", self.folder.display());
                Failure::local(taken).next("use that one, or --dir ANOTHER")
            }
            _ => Failure::local(error.to_string()).next("--dir DIR, a folder that this user can write"),
        })
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of the two programs, with settings over its configuration.
    pub(crate) fn program(&self, service: &'static str, settings: Vec<String>) -> Program {
        Program {
            service,
            config: self.config(service),
            settings,
            ready_file: self.folder.join(format!("{service}.ready.json")),
            log: self.folder.join(format!("{service}.log")),
        }
    }

    /// The CLI's context for these addresses.
    pub(crate) fn context(&self, auth: SocketAddr, gateway: SocketAddr) -> Context {
        Context { auth: format!("https://{auth}"), gateway: format!("https://{gateway}"), ca_file: self.ca() }
    }

    /// The CA's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("pki").join("ca.pem")
    }

    /// The file with an owner's first password.
    pub(crate) fn password_file(&self, username: &str) -> PathBuf {
        self.folder.join(format!("{username}.password"))
    }

    /// The file with both role tokens.
    pub(crate) fn role_tokens_file(&self) -> PathBuf {
        self.folder.join("auth").join("auth_tokens.json")
    }

    /// An owner's first password.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub(crate) fn password(&self, username: &str) -> Result<Zeroizing<String>, Failure> {
        let text = read_secret(&self.password_file(username))?;
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    fn config(&self, service: &str) -> PathBuf {
        self.folder.join(format!("{service}.toml"))
    }

    fn make(&self, accounts: &[Account]) -> Result<(), Failure> {
        let domain: TrustDomain = TRUST_DOMAIN
            .parse()
            .map_err(|error| Failure::local(format!("the trust domain {TRUST_DOMAIN}: {error}")))?;
        let folder = self.folder.join("pki");
        let now = Clock::system().now();
        let made = if self.ca().exists() { Pki::load(&folder) } else { Pki::create(&folder, domain, now) };
        let pki = made.map_err(|error| {
            Failure::local(error.to_string())
                .next(format!("remove {} and start again", self.folder.display()))
        })?;
        for service in ["auth", "gateway"] {
            pki.issue(&Leaf::new(service, now)).map_err(|error| Failure::local(error.to_string()))?;
            make_private_folder(&self.folder.join(service))?;
        }
        let token = Credential::new(Kind::Internal, &random::bytes());
        write_private(&self.folder.join("internal.token"), format!("{}\n", token.expose()).as_bytes())?;
        self.make_accounts(accounts)?;
        let [auth_public, auth_internal, gateway_public, gateway_internal] = free_ports()?;
        let auth = format!(
            "# Written by `interlock up`; yours to change.\n{}accounts_json_file = \"accounts.json\"\n\n\
             [public]\naddress = \"127.0.0.1:{auth_public}\"\n\n[internal]\naddress = \"127.0.0.1:{auth_internal}\"\n\n{}",
            head("auth", "gateway"),
            tls("auth")
        );
        let gateway = format!(
            "# Written by `interlock up`; yours to change.\n{}\n\
             [auth]\nendpoints = [\"https://127.0.0.1:{auth_internal}\"]\n\n\
             [public]\naddress = \"127.0.0.1:{gateway_public}\"\n\n[internal]\naddress = \"127.0.0.1:{gateway_internal}\"\n\n{}",
            head("gateway", "auth"),
            tls("gateway")
        );
        // Whole or not at all: half a configuration would be taken for a world that was made.
        for (service, text) in [("auth", auth), ("gateway", gateway)] {
            secret_file::write_open(&self.config(service), text.as_bytes())
                .map_err(|error| Failure::local(error.to_string()))?;
        }
        Ok(())
    }

    fn make_accounts(&self, accounts: &[Account]) -> Result<(), Failure> {
        let mut all = Vec::new();
        for account in accounts {
            let password = password();
            let file = self.password_file(account.username);
            write_private(&file, format!("{}\n", password.as_str()).as_bytes())?;
            all.push(json!({
                "username": account.username, "password": password.as_str(), "role": account.role,
                "display_name": account.display_name,
            }));
        }
        let text = Zeroizing::new(serde_json::Value::Array(all).to_string());
        write_private(&self.folder.join("accounts.json"), text.as_bytes())?;
        Ok(())
    }
}

fn head(service: &str, other: &str) -> String {
    format!(
        "profile = \"local\"\ndata_dir = \"{service}\"\nready_file = \"{service}.ready.json\"\n\
         internal_token_file = \"internal.token\"\nallow = [\"spiffe://{TRUST_DOMAIN}/{other}\"]\n"
    )
}

fn tls(service: &str) -> String {
    format!(
        "[tls]\ncert = \"pki/{service}.pem\"\nkey = \"pki/{service}.key\"\nclient_ca = \"pki/ca.pem\"\n\
         trust_domain = \"{TRUST_DOMAIN}\"\n"
    )
}

fn make_private_folder(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::local(format!("cannot make the folder {}: {error}", path.display())))
}

/// Twenty-four letters and digits: 142 bits.
fn password() -> Zeroizing<String> {
    let random = Credential::new(Kind::Owner, &random::bytes());
    Zeroizing::new(random.expose()[8..32].to_owned())
}

/// Four ports that were free a moment ago. They are kept in the configuration, so that both services come
/// back at the same place.
fn free_ports() -> Result<[u16; 4], Failure> {
    let bound = [(); 4].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(bound) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}
