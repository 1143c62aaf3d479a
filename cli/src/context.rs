//! Which services the commands talk to, and on which credential: a JSON file in the user's
//! configuration folder, and the secrets beside it. For which project says the folder that they run in.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use etcetera::BaseStrategy as _;
use interlock_client::{
    Auth, Connection, Cookie, Credential, Credentials, FoundProject, Gateway, ProjectFile, Tls,
};
use serde::{Deserialize, Serialize};

use crate::{
    args::Common,
    door::Door,
    endpoints::Endpoints,
    failure::Failure,
    keep::{Jar, SignIn, read_token},
    project_name,
};

/// A person waits no longer for an ordinary call; a service that is restarted meanwhile is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the services are. Holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `https://host:port` of auth-service, or several.
    pub(crate) auth: Endpoints,
    /// `https://host:port` of gateway-service, or several.
    pub(crate) gateway: Endpoints,
    /// The CA that both servers' certificates come from.
    pub(crate) ca_file: PathBuf,
}

impl Context {
    /// Reads a context file.
    ///
    /// # Errors
    /// Where it is missing or not a context.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let missing = format!("no context at {}", path.display());
                return Err(Failure::local(missing).next("interlock up, or --context FILE"));
            }
            Err(error) => return Err(Failure::local(format!("cannot read {}: {error}", path.display()))),
        };
        serde_json::from_str(&text)
            .map_err(|error| Failure::local(format!("{} is not a context: {error}", path.display())))
    }

    /// Writes a context file, its folder too.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        crate::keep::write_private(path, text.as_bytes())
    }
}

/// The context file of commands that name none.
pub(crate) fn default_path() -> Result<PathBuf, Failure> {
    let base = etcetera::choose_base_strategy().map_err(|error| {
        Failure::local(format!("no configuration folder: {error}")).next("--context FILE")
    })?;
    Ok(base.config_dir().join("interlock").join("context.json"))
}

/// One command's connections and credential.
pub(crate) struct Caller {
    /// The stored sign-in and its lock.
    pub(crate) sign_in: Arc<SignIn>,
    /// Session cookies.
    pub(crate) jar: Jar,
    auth: Connection,
    gateway: Connection,
    credentials: Credentials,
    auth_at: Endpoints,
    gateway_at: Endpoints,
    ca_file: PathBuf,
    /// Asked for by name, whatever the folder is bound to.
    project: Option<String>,
    /// Where the context is.
    home: PathBuf,
    /// Where the command was given.
    folder: PathBuf,
}

impl Caller {
    /// Reads the context and the credential, if there is one.
    ///
    /// # Errors
    /// Where a file is missing, unreadable or not what it should be.
    pub(crate) fn open(common: &Common) -> Result<Self, Failure> {
        let path = match &common.context {
            Some(path) => path.clone(),
            None => default_path()?,
        };
        let context = Context::read(&path)?;
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let auth = connect(&context.auth, &context.ca_file)?;
        let gateway = connect(&context.gateway, &context.ca_file)?;
        let sign_in = Arc::new(SignIn::beside(&folder, &path));
        let credentials = match &common.token_file {
            Some(file) => Credentials::bearer(read_token(file)?),
            None => stored(&sign_in, &auth)?,
        };
        let jar = Jar::beside(&folder);
        Ok(Self {
            jar,
            sign_in,
            auth,
            gateway,
            credentials,
            auth_at: context.auth,
            gateway_at: context.gateway,
            ca_file: context.ca_file,
            project: common.project.clone(),
            home: folder,
            folder: std::env::current_dir()?,
        })
    }

    /// A file of that name beside the context.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The public listener of a service, the first of several, for calls that nobody should get through with.
    ///
    /// # Errors
    /// As [`Door::to`].
    pub(crate) fn door(&self, auth: bool) -> Result<Door, Failure> {
        let at = if auth { &self.auth_at } else { &self.gateway_at };
        Door::to(at.first(), &self.ca_file, None)
    }

    /// An internal listener, with a client certificate and its key or without.
    ///
    /// # Errors
    /// As [`Door::to`].
    pub(crate) fn internal_door(
        &self,
        address: &str,
        own: Option<(&PathBuf, &PathBuf)>,
    ) -> Result<Door, Failure> {
        Door::to(&format!("https://{address}"), &self.ca_file, own)
    }

    /// The credential that calls are made with.
    ///
    /// # Errors
    /// Where there is none, or no fresh one can be had.
    pub(crate) async fn bearer(&self) -> Result<Credential, Failure> {
        self.credentials.current().await?.ok_or_else(Failure::not_signed_in)
    }

    /// Calls to auth-service.
    pub(crate) fn auth(&self) -> Auth {
        Auth::new(self.auth.clone()).with_credentials(self.credentials.clone())
    }

    /// Calls to gateway-service that name no project.
    pub(crate) fn gateway(&self) -> Gateway {
        Gateway::new(self.gateway.clone(), self.credentials.clone())
    }

    /// Where gateway-service is.
    pub(crate) fn gateway_at(&self) -> &Endpoints {
        &self.gateway_at
    }

    /// The folder that the command runs in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What that folder is bound to.
    ///
    /// # Errors
    /// Where its project file is broken.
    pub(crate) fn bound(&self) -> Result<Option<FoundProject>, Failure> {
        Ok(ProjectFile::discover(&self.folder)?)
    }

    /// Whether there is a credential to call on.
    ///
    /// # Errors
    /// Where what is kept cannot be read.
    pub(crate) fn is_signed_in(&self, common: &Common) -> Result<bool, Failure> {
        let kept = || Ok::<_, Failure>(self.sign_in.token()?.is_some() || self.sign_in.session()?.is_some());
        Ok(common.token_file.is_some() || kept()?)
    }

    /// Calls to gateway-service of nobody.
    pub(crate) fn nobody(&self) -> Gateway {
        Gateway::new(self.gateway.clone(), Credentials::none())
    }

    /// Calls to gateway-service of a session's client, and of nobody else. A project of the flag is named by its id then:
    /// who is not signed in cannot look up a name.
    pub(crate) fn client(&self, cookie: Cookie) -> Gateway {
        let client = self.nobody().with_cookie(cookie);
        match self.project.as_deref().filter(|project| project_name::is_id(project)) {
            Some(project) => client.with_project(project),
            None => client.in_folder(&self.folder),
        }
    }

    /// Calls to gateway-service for the project of the flag or the environment, else of the folder.
    ///
    /// # Errors
    /// Where that names no project that the caller can enter.
    pub(crate) async fn scoped(&self) -> Result<Gateway, Failure> {
        match &self.project {
            Some(_) => Ok(self.gateway().with_project(self.project_id().await?)),
            None => Ok(self.gateway().in_folder(&self.folder)),
        }
    }

    /// The id of that project.
    ///
    /// # Errors
    /// Where none is named and the folder is bound to none, or none of that name can be entered.
    pub(crate) async fn project_id(&self) -> Result<String, Failure> {
        if let Some(project) = &self.project {
            return project_name::resolve(&self.auth(), project).await;
        }
        let found = self.bound()?.map(|found| found.file.project_id);
        found.ok_or_else(|| {
            Failure::usage("this folder is for no project")
                .next("interlock use PROJECT, or --project PROJECT")
        })
    }
}

fn connect(at: &Endpoints, ca_file: &Path) -> Result<Connection, Failure> {
    let connection = at.connection().tls(Tls::ca_file(ca_file)).deadline(PATIENCE).open();
    connection.map_err(|error| Failure::from(error).next("interlock up writes a new context"))
}

fn stored(sign_in: &Arc<SignIn>, auth: &Connection) -> Result<Credentials, Failure> {
    if let Some(token) = sign_in.token()? {
        return Ok(Credentials::bearer(token));
    }
    if sign_in.session()?.is_some() {
        return Ok(Credentials::owner_session(Auth::new(auth.clone()), Arc::clone(sign_in) as _));
    }
    Ok(Credentials::none())
}
