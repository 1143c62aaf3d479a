//! `interlock up`: both services in a folder, with everything that a first session needs.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
    time::Duration,
};

use etcetera::BaseStrategy as _;
use interlock_client::{Auth, Credentials, Gateway, Reason, SetAgent, Tls};
use serde_json::json;

use crate::{
    args::Common,
    command::duration,
    context::{Context, default_path},
    database::{Database, StoreUrl},
    endpoints::Endpoints,
    failure::Failure,
    output::Format,
    pair::Running,
    world::{Account, World},
};

/// The owner that a new folder starts with.
pub(crate) const DEV: Account = Account { username: "dev", role: "user", display_name: "Developer" };
const PROJECT: &str = "demo";
const AGENT: &str = "builder";

/// Where, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// The folder; made where it is missing. In the user's data folder by default.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the stores in PostgreSQL instead of in files: `…/NAME` stands for the databases NAME_auth and NAME_gateway,
    /// which are made where they are missing. A password is better named by `password_file=` in the URL.
    #[arg(long, value_name = "postgres://...", env = "INTERLOCK_STORE", hide_env_values = true)]
    store: Option<StoreUrl>,
    /// How long a job's lease lives without a heartbeat.
    #[arg(long, value_parser = duration)]
    lease: Option<Duration>,
    /// Let calls with no credential make sessions: `interlock session create --anonymous`.
    #[arg(long)]
    allow_anonymous: bool,
    /// Write what was printed as JSON to this file, once everything is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Runs until Ctrl-C, SIGTERM, or the end of a service.
///
/// # Errors
/// Where a service does not start or ends by itself.
pub(crate) async fn run(up: Up, common: &Common) -> Result<ExitCode, Failure> {
    let folder = match up.dir {
        Some(folder) => folder,
        None => etcetera::choose_base_strategy()
            .map_err(|error| Failure::local(format!("no data folder: {error}")).next("--dir DIR"))?
            .data_dir()
            .join("interlock")
            .join("up"),
    };
    let context_path = match &common.context {
        Some(path) => path.clone(),
        None => default_path()?,
    };
    let database = up.store.as_ref().map(Database::of).transpose()?;
    let (world, _alone) = World::open(&folder, &[DEV], database.as_ref())?;
    let lease = up.lease.map(|lease| format!("lease_ttl={}ms", lease.as_millis()));
    let anonymous = up.allow_anonymous.then(|| "allow_anonymous=true".to_owned());
    let settings = lease.into_iter().chain(anonymous).collect();
    // From here on, also while they start: whoever asks us to end gets what was started drained.
    let mut stopped = std::pin::pin!(crate::stop::asked()?);
    let auth = world.program("auth", Vec::new());
    let Some(auth) = before(stopped.as_mut(), auth.start()).await else { return Ok(ExitCode::SUCCESS) };
    let mut auth = auth?;
    let gateway = world.program("gateway", settings);
    let mut gateway = match before(stopped.as_mut(), gateway.start()).await {
        Some(Ok(gateway)) => gateway,
        other => {
            auth.drain().await;
            return other.map_or(Ok(ExitCode::SUCCESS), |failed| failed.map(|_| ExitCode::SUCCESS));
        }
    };
    let told =
        tell((&world, database.as_ref()), &auth, &gateway, &context_path, up.ready_file.as_deref(), common);
    let outcome = match before(stopped.as_mut(), told).await {
        None => Ok(()),
        Some(Err(failure)) => Err(failure),
        Some(Ok(())) => tokio::select! {
            () = stopped => Ok(()),
            fallen = auth.ended() => Err(fallen),
            fallen = gateway.ended() => Err(fallen),
        },
    };
    if common.output == Format::Text {
        anstream::eprintln!("interlock: draining");
    }
    gateway.drain().await;
    auth.drain().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// What the work gives, unless we are asked to end before.
async fn before<T>(stopped: Pin<&mut impl Future<Output = ()>>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stopped => None,
        done = work => Some(done),
    }
}

/// What a first session needs, and where it is: to the context, to standard output, to the ready file.
async fn tell(
    (world, database): (&World, Option<&Database>),
    auth: &Running,
    gateway: &Running,
    path: &Path,
    ready_file: Option<&Path>,
    common: &Common,
) -> Result<(), Failure> {
    let (context, project) = first_steps(world, auth, gateway).await?;
    context.write(path)?;
    let story = Story { world, auth, gateway, context: &context, project: &project, path, database };
    common.output.print(&story.text(), &story.json())?;
    if let Some(file) = ready_file {
        crate::keep::write_private(file, story.json().to_string().as_bytes())?;
    }
    Ok(())
}

/// Signs in as `dev`, and makes its project and its agent where they are missing. Gives the project's id.
async fn first_steps(world: &World, auth: &Running, gateway: &Running) -> Result<(Context, String), Failure> {
    let context = world.context(auth.ready.public, gateway.ready.public);
    let connect = |at: &Endpoints| at.connection().tls(Tls::ca_file(&context.ca_file)).open();
    let sign_in = Auth::new(connect(&context.auth)?);
    let session = match sign_in.login(DEV.username, &world.password(DEV.username)?).await {
        // The password was changed since: what follows was done at an earlier start.
        Err(error) if error.reason() == Some(Reason::InvalidCredentials) => {
            return Ok((context, PROJECT.to_owned()));
        }
        session => session?,
    };
    let credentials = Credentials::bearer(session.access_token.clone());
    let auth = sign_in.clone().with_credentials(credentials.clone());
    let projects = auth.list_projects().await?;
    let project = match projects.into_iter().find(|project| project.name == PROJECT) {
        Some(project) => project,
        None => auth.create_project(PROJECT).await?,
    };
    let agents = Gateway::new(connect(&context.gateway)?, credentials).agents();
    let description = Some("the first agent: give it a worker".to_owned());
    agents.set(AGENT, SetAgent { shared: None, description }).await?;
    sign_in.logout(&session.access_token).await?;
    Ok((context, project.project_id))
}

/// What a person needs to go on.
struct Story<'a> {
    world: &'a World,
    auth: &'a Running,
    gateway: &'a Running,
    context: &'a Context,
    project: &'a str,
    path: &'a Path,
    /// Where the flag has it.
    database: Option<&'a Database>,
}

impl Story<'_> {
    fn text(&self) -> String {
        let folder = self.world.folder().display();
        let password_file = self.world.password_file(DEV.username);
        format!(
            "Interlock is up.\n\
             \n\
             auth-service     {}  (process {})\n\
             gateway-service  {}  (process {})\n\
             folder           {folder}\n\
             CA               {}\n\
             role tokens      {}\n\
             context          {}\n\
             {}owner            {}, password in {}\n\
             project          {PROJECT} ({})\n\
             agent            {AGENT}\n\
             \n\
             Next, in another terminal:\n\
             \n\
             interlock login {} --password-file {}\n\
             interlock use {PROJECT}\n\
             interlock session create first --agent {AGENT}\n\
             interlock worker run --agent {AGENT} -- sh -c 'echo working; wc -c'\n\
             \n\
             Then `interlock job submit first hello --wait`. Ctrl-C here drains both services.\n",
            self.context.auth.first(),
            self.auth.pid(),
            self.context.gateway.first(),
            self.gateway.pid(),
            self.context.ca_file.display(),
            self.world.role_tokens_file().display(),
            self.path.display(),
            self.database.map_or_else(String::new, |database| format!("stores           {database}\n")),
            DEV.username,
            password_file.display(),
            self.project,
            DEV.username,
            password_file.display(),
        )
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "auth": self.context.auth, "gateway": self.context.gateway,
            "auth_pid": self.auth.pid(), "gateway_pid": self.gateway.pid(),
            "folder": self.world.folder(), "ca_file": self.context.ca_file, "context": self.path,
            "role_tokens_file": self.world.role_tokens_file(), "owner": DEV.username,
            "password_file": self.world.password_file(DEV.username), "project_id": self.project,
            "agent_id": AGENT, "stores": self.database.map(ToString::to_string),
        })
    }
}
