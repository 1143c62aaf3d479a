//! A folder in which both services run: certificates, internal token, accounts, configuration, stores.
//!
//! ```text
//! DIR/pki/            CA and certificates
//! DIR/internal.token  what the services show each other beside their certificates
//! DIR/accounts.json   the owners that auth-service knows (0600: it holds their first passwords)
//! DIR/<owner>.password  one for each of them (0600)
//! DIR/database.password  that of the role, where the URL of `--store` held it (0600)
//! DIR/auth.toml, DIR/gateway.toml   configuration; change it, then start again
//! DIR/auth/, DIR/gateway/           data: stores, unless they are elsewhere; role tokens, keys of the audit chains
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
    database::Database,
    endpoints::Endpoints,
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
    /// program out of it, from before anything is made. With a database, its stores are there.
    ///
    /// # Errors
    /// What the file system says; a folder that holds half a world, or one with other stores, or that another program
    /// uses; a database that cannot be had.
    pub(crate) fn open(
        folder: &Path,
        accounts: &[Account],
        database: Option<&Database>,
    ) -> Result<(Self, Alone), Failure> {
        let unusable = |error: io::Error| {
            let told = format!("cannot make the folder {}: {error}", folder.display());
            Failure::local(told).next("--dir DIR, a folder that this user can write")
        };
        fs::create_dir_all(folder).map_err(unusable)?;
        let world = Self { folder: folder.canonicalize().map_err(unusable)? };
        let alone = world.alone()?;
        // The last thing that is made says that all was made.
        let is_made = world.config("gateway").exists();
        let database = match database {
            Some(given) => {
                let file = world.database_password_file();
                let (database, password) = given.with_password_in(&file);
                if is_made {
                    world.has_its_stores_in(given)?;
                }
                given.make()?;
                if let Some(password) = password {
                    write_private(&file, password)?;
                }
                Some(database)
            }
            None => None,
        };
        if !is_made {
            world.make(accounts, database.as_ref())?;
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
        self.program_named(service, service, settings)
    }

    /// The same of one that was added.
    pub(crate) fn program_named(&self, service: &'static str, name: &str, settings: Vec<String>) -> Program {
        Program {
            service,
            config: self.config(name),
            settings,
            ready_file: self.folder.join(format!("{name}.ready.json")),
            log: self.folder.join(format!("{name}.log")),
        }
    }

    /// The CLI's context for these addresses.
    pub(crate) fn context(&self, auth: SocketAddr, gateway: SocketAddr) -> Context {
        let at = |address: SocketAddr| Endpoints::one(format!("https://{address}"));
        Context { auth: at(auth), gateway: at(gateway), ca_file: self.ca() }
    }

    /// The CA's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("pki").join("ca.pem")
    }

    /// The file with an owner's first password.
    pub(crate) fn password_file(&self, username: &str) -> PathBuf {
        self.folder.join(format!("{username}.password"))
    }

    fn database_password_file(&self) -> PathBuf {
        self.folder.join("database.password")
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

    /// Whether it was made for these: a folder that has stores of its own keeps them.
    fn has_its_stores_in(&self, database: &Database) -> Result<(), Failure> {
        // What is wrong with a configuration its service says.
        let auth = interlock_auth::config::Config::of_process(Some(&self.config("auth")), Vec::new());
        let gateway = interlock_gateway::config::load(Some(&self.config("gateway")), Vec::new());
        let stores = [
            ("auth", auth.ok().map(|config| config.store)),
            ("gateway", gateway.ok().map(|config| config.store)),
        ];
        for (service, store) in stores {
            let Some(store) = store else { continue };
            let expected = database.of_service(service).to_string();
            let found = store.map(|store| store.to_string());
            if found.as_ref() != Some(&expected) {
                let folder = self.folder.display();
                let place = found.unwrap_or_else(|| "a file in it".to_owned());
                let told = format!("{folder} was made with the store of {service}-service in {place}");
                return Err(Failure::usage(told).next(format!(
                    "--dir DIR, another folder; or move that store to {expected}: docs/several.md"
                )));
            }
        }
        Ok(())
    }

    /// Adds a further service of a kind, on the store of the first one; `auth` are the internal ports of the
    /// auth-services, in the order in which it tries them.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn add(
        &self,
        service: &'static str,
        name: &str,
        database: &Database,
        auth: &[u16],
    ) -> Result<(), Failure> {
        let [public, internal] = free_ports()?;
        make_private_folder(&self.folder.join(name))?;
        let ports = Ports { public, internal };
        let database = &database.with_password_in(&self.database_password_file()).0;
        let (key, text) = match service {
            "auth" => ("auth/audit.key", auth_config(name, ports, Some(database))),
            _ => ("gateway/gateway.chain-key", gateway_config(name, ports, Some(database), auth)),
        };
        let text = format!("chain_key_file = \"{key}\"\n{text}");
        secret_file::write_open(&self.config(name), text.as_bytes())
            .map_err(|error| Failure::local(error.to_string()))
    }

    fn make(&self, accounts: &[Account], database: Option<&Database>) -> Result<(), Failure> {
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
        let [public, internal, gateway_public, gateway_internal] = free_ports()?;
        let auth = auth_config("auth", Ports { public, internal }, database);
        let ports = Ports { public: gateway_public, internal: gateway_internal };
        let gateway = gateway_config("gateway", ports, database, &[internal]);
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

/// Where a service listens.
#[derive(Clone, Copy)]
struct Ports {
    public: u16,
    internal: u16,
}

fn auth_config(name: &str, ports: Ports, database: Option<&Database>) -> String {
    let head = head("auth", name, "gateway", database);
    format!("{head}accounts_json_file = \"accounts.json\"\n\n{}{}", listeners(ports), tls("auth"))
}

fn gateway_config(name: &str, ports: Ports, database: Option<&Database>, auth: &[u16]) -> String {
    let head = head("gateway", name, "auth", database);
    let endpoints: Vec<_> = auth.iter().map(|port| format!("\"https://127.0.0.1:{port}\"")).collect();
    let auth = format!("[auth]\nendpoints = [{}]\n\n", endpoints.join(", "));
    format!("{head}\n{auth}{}{}", listeners(ports), tls("gateway"))
}

fn head(service: &str, name: &str, other: &str, database: Option<&Database>) -> String {
    let store = database.map_or_else(String::new, |database| {
        format!("store = \"{}\"\nstore_sharing = \"shared\"\n", database.of_service(service).url())
    });
    format!(
        "# Written by `interlock`; yours to change.\nprofile = \"local\"\ndata_dir = \"{name}\"\n\
         ready_file = \"{name}.ready.json\"\n{store}internal_token_file = \"internal.token\"\n\
         allow = [\"spiffe://{TRUST_DOMAIN}/{other}\"]\n"
    )
}

fn listeners(Ports { public, internal }: Ports) -> String {
    format!(
        "[public]\naddress = \"127.0.0.1:{public}\"\n\n[internal]\naddress = \"127.0.0.1:{internal}\"\n\n"
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

/// Below what systems give to connections: nobody is given one of these while a service is down.
const PORTS: std::ops::Range<u16> = 15_000..30_000;
/// How many are tried for each.
const PORT_TRIES: usize = 64;

/// Ports that were free a moment ago. They are kept in the configuration, so that services come back at the same
/// place.
fn free_ports<const N: usize>() -> Result<[u16; N], Failure> {
    let mut held = Vec::with_capacity(N);
    for _ in 0..N * PORT_TRIES {
        let port = PORTS.start + u16::from_le_bytes(random::bytes()) % (PORTS.end - PORTS.start);
        if held.len() < N {
            held.extend(TcpListener::bind(("127.0.0.1", port)).ok());
        }
    }
    let mut ports = [0; N];
    for (at, port) in ports.iter_mut().enumerate() {
        let any = match held.get(at) {
            Some(listener) => listener.local_addr()?,
            None => TcpListener::bind(("127.0.0.1", 0))?.local_addr()?,
        };
        *port = any.port();
    }
    Ok(ports)
}
