//! `submit`: queueing jobs, durable when answered, beside a handler that only writes the same rows.
//!
//! The quota counts an owner's jobs in flight at each submit, and nothing is worked off here; so there are as
//! many owners as keep that count about what the default quota lets it be. Each has a project, an agent and
//! a session of its own.

use std::{os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use futures_util::{StreamExt as _, stream};
use interlock_client::{Credential, SetAgent};
use interlock_kit::random;
use interlock_proto::{
    gateway::v1::{SubmitJobRequest, job_service_client::JobServiceClient},
    metadata::PROJECT,
};
use interlock_tests::{
    Pair,
    wire::{self, Metadata, Shows},
};
use serde_json::json;
use tempfile::TempDir;
use tonic::{Status, transport::Channel};

use crate::{
    bare::{Bare, Kind},
    duel::Duel,
    load::{Caller, Side},
    plan::Plan,
    programs,
};

const OWNERS: usize = 256;
/// How many are set up at once.
const AT_ONCE: usize = 16;
const PAYLOAD: &[u8] = &[b'x'; 256];

/// The owners of a run, as auth is told of them. Removed with the value.
pub(crate) struct Accounts {
    folder: TempDir,
    owners: Vec<(String, String)>,
}

/// One owner, signed in, with somewhere to submit to.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// Its access token.
    pub(crate) token: Credential,
    project: String,
    session: String,
}

impl Accounts {
    /// Random passwords, in a file for us alone.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let owners: Vec<_> = (0..OWNERS).map(|n| (format!("o{n}"), random::id("pass"))).collect();
        let accounts = Self { folder, owners };
        let mut open = std::fs::OpenOptions::new();
        let file = open.create_new(true).write(true).mode(0o600).open(accounts.file()).expect("a file");
        let account = |(name, password): &(String, String)| json!({ "username": name, "password": password });
        let all: Vec<_> = accounts.owners.iter().map(account).collect();
        serde_json::to_writer(file, &all).expect("written");
        accounts
    }

    /// The file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("accounts.json")
    }
}

/// Signs all of them in and makes what each submits to.
pub(crate) async fn owners(pair: &Pair, accounts: &Accounts) -> Vec<Owner> {
    let auth = pair.sdk_auth();
    let owner = async |(name, password): &(String, String)| {
        let signed_in = auth.login(name, password).await.expect("a sign-in");
        let token = signed_in.access_token;
        let project = pair.sdk_auth_as(&token).create_project(&format!("p-{name}")).await.expect("a project");
        let gateway = pair.sdk_gateway(&token).with_project(&project.project_id);
        let agent = format!("a-{name}");
        gateway.agents().set(&agent, SetAgent::default()).await.expect("an agent");
        let session = gateway.sessions().create(name).await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, &agent, &project.project_id).await.expect("bound");
        Owner { token, project: project.project_id, session }
    };
    stream::iter(&accounts.owners).map(owner).buffered(AT_ONCE).collect().await
}

/// Submits to one session after another.
struct Submitter {
    client: JobServiceClient<Channel>,
    owners: Vec<(String, Metadata)>,
    name: String,
    submitted: usize,
}

impl Caller for Submitter {
    async fn call(&mut self) -> Result<(), Status> {
        self.submitted += 1;
        let (session_id, metadata) = &self.owners[self.submitted % self.owners.len()];
        let message = SubmitJobRequest {
            session_id: session_id.clone(),
            request_id: format!("{}-{}", self.name, self.submitted),
            payload: PAYLOAD.into(),
        };
        let answer = self.client.submit_job(metadata.on(message)).await?.into_inner();
        if answer.job.is_some() { Ok(()) } else { Err(Status::internal("no job was made")) }
    }
}

/// The gateway's public listener beside the bare writer.
pub(crate) async fn duel(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Duel {
    let bare = Bare::start(Kind::Write, &pair.world);
    let shows = Shows { ca: pair.world.ca(), leaf: None };
    let gateway = programs::pid(&pair.world, "gateway");
    let mut ours = Side { server: gateway, callers: callers(plan, owners, &|| pair.gateway_public()) };
    let mut write = Side {
        server: bare.pid(),
        callers: callers(plan, owners, &|| wire::connect(bare.address(), &shows)),
    };
    let auth = programs::pid(&pair.world, "auth");
    let mut duel = Duel::fight("submit", plan, &mut ours, &mut write, &[auth]).await;
    let submitted: usize = ours.callers.iter().map(|caller| caller.submitted).sum();
    duel.note = format!(
        "; at the end {} jobs in flight for each of {} owners",
        submitted / owners.len(),
        owners.len()
    );
    duel
}

fn callers(plan: &Plan, owners: &[Owner], connect: &dyn Fn() -> Channel) -> Vec<Submitter> {
    let channels: Vec<Channel> = (0..plan.connections).map(|_| connect()).collect();
    let target =
        |owner: &Owner| (owner.session.clone(), Metadata::bearer(&owner.token).with(PROJECT, &owner.project));
    let caller = |number: usize| Submitter {
        client: JobServiceClient::new(channels[number % channels.len()].clone()),
        owners: owners.iter().skip(number).step_by(plan.callers).map(target).collect(),
        name: format!("c{number}"),
        submitted: 0,
    };
    (0..plan.callers).map(caller).collect()
}
