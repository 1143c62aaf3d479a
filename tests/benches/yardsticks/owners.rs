//! Whom the load is from. The quota counts an owner's jobs in flight at each submit, and most yardsticks work none
//! off; so there are as many owners as keep that count about what the default quota lets it be. Each has a
//! project, an agent and a session of its own.

use std::{os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use futures_util::{StreamExt as _, stream};
use interlock_client::{Credential, OwnerSession, SetAgent};
use interlock_kit::random;
use interlock_proto::metadata::PROJECT;
use interlock_tests::{Pair, wire::Metadata};
use serde_json::json;
use tempfile::TempDir;

const OWNERS: usize = 256;
/// How many are set up at once.
const AT_ONCE: usize = 16;

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
    /// Its project's id.
    pub(crate) project: String,
    /// Its session's id, attached to its agent and project.
    pub(crate) session: String,
    /// Its agent's.
    pub(crate) agent: String,
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
pub(crate) async fn sign_in(pair: &Pair, accounts: &Accounts) -> Vec<Owner> {
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
        Owner { token, project: project.project_id, session, agent }
    };
    stream::iter(&accounts.owners).map(owner).buffered(AT_ONCE).collect().await
}

/// Signs so many of them in once more: owner sessions that nothing else calls with.
#[allow(dead_code, reason = "the other bench has no use for it")]
pub(crate) async fn again(pair: &Pair, accounts: &Accounts, count: usize) -> Vec<OwnerSession> {
    let auth = pair.sdk_auth();
    let one =
        async |(name, password): &(String, String)| auth.login(name, password).await.expect("a sign-in");
    stream::iter(&accounts.owners[..count]).map(one).buffered(AT_ONCE).collect().await
}

impl Owner {
    /// What each of its calls shows.
    pub(crate) fn metadata(&self) -> Metadata {
        Metadata::bearer(&self.token).with(PROJECT, &self.project)
    }
}
