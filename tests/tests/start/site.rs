//! A pair with something in both stores, at rest; and the proof that all of it is still there.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use interlock_client::Session;
use interlock_tests::{Pair, Service, Setup, audit, start::Yard};

/// What was made, before anything was refused.
pub(crate) struct Site {
    pub(crate) yard: Yard,
    pair: Pair,
    tokens: [String; 2],
    project: String,
    session: Session,
}

impl Site {
    /// Both services have ended as they should.
    pub(crate) async fn at_rest() -> Self {
        let (mut pair, project, session) = filled().await;
        pair.gateway.drain().await;
        pair.auth.drain().await;
        Self::of(pair, project, session)
    }

    /// Both were killed: what they wrote last stands in the logs of their stores.
    pub(crate) async fn killed() -> Self {
        let (mut pair, project, session) = filled().await;
        pair.gateway.kill();
        pair.auth.kill();
        Self::of(pair, project, session)
    }

    fn of(pair: Pair, project: String, session: Session) -> Self {
        let tokens = ["admin", "user"].map(|role| pair.world.role_token(role).expose().to_owned());
        let yard = Yard::new(&pair.world.path(""), pair.world.secrets());
        Self { yard, pair, tokens, project, session }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.pair.world.path(name)
    }

    pub(crate) fn role_token(&self, role: &str) -> String {
        self.pair.world.role_token(role).expose().to_owned()
    }

    pub(crate) fn secrets(&self) -> Vec<String> {
        self.pair.world.secrets()
    }

    /// Starts both, on ports that are free now: everything is there.
    pub(crate) async fn everything_is_there(mut self) {
        self.start().await;
        for (role, token) in ["admin", "user"].into_iter().zip(&self.tokens) {
            assert_eq!(self.pair.world.role_token(role).expose(), token, "{role}");
        }
        let admin = self.pair.admin();
        self.pair.sdk_auth_as(&admin).whoami().await.expect("the role token is as it was");
        let alice = self.pair.login("alice").await;
        let projects = self.pair.sdk_auth_as(&alice.access_token).list_projects().await.expect("projects");
        assert_eq!(projects.iter().map(|p| &p.project_id).collect::<Vec<_>>(), [&self.project]);
        let sessions = self.pair.sdk_gateway(&alice.access_token).sessions();
        let session = sessions.get(&self.session.session_id).await.expect("the session");
        assert_eq!(session.name, self.session.name);
        self.pair.gateway.drain().await;
        self.pair.auth.drain().await;
        for (store, key) in
            [("auth/auth.db", "auth/audit.key"), ("gateway/gateway.db", "gateway/gateway.chain-key")]
        {
            let (damage, rows) = audit::damage(&self.path(store), &self.path(key));
            assert!(damage.is_empty() && rows > 0, "{store}: {rows} rows, {damage:?}");
        }
    }

    /// Starts both; where they listen.
    pub(crate) async fn running(&mut self) -> [(&'static str, BTreeMap<String, SocketAddr>); 2] {
        self.start().await;
        [("auth", self.pair.auth.addresses().clone()), ("gateway", self.pair.gateway.addresses().clone())]
    }

    /// Both have served all the while, and end as they should.
    pub(crate) async fn serves_and_ends(&mut self) {
        self.pair.serving().await;
        self.pair.gateway.drain().await;
        self.pair.auth.drain().await;
    }

    /// Starts and ends both; the warnings of their logs since then.
    pub(crate) async fn warnings(&mut self) -> Vec<String> {
        let before = self.pair.auth.log().len() + self.pair.gateway.log().len();
        self.start().await;
        self.pair.gateway.drain().await;
        self.pair.auth.drain().await;
        let logs = [self.pair.auth.log(), self.pair.gateway.log()];
        assert!(logs.iter().map(String::len).sum::<usize>() > before, "they have logged");
        logs.iter().flat_map(|log| log.lines()).filter(|l| l.contains(" WARN ")).map(str::to_owned).collect()
    }

    /// The ports of before may be another's by now.
    async fn start(&mut self) {
        let folder = self.pair.world.path("");
        let folder: &Path = &folder;
        self.pair.auth = Service::new("auth", folder);
        self.pair.gateway = Service::new("gateway", folder);
        self.pair.start_auth().await;
        self.pair.start_gateway().await;
        self.pair.serving().await;
    }
}

async fn filled() -> (Pair, String, Session) {
    let pair = Pair::start_with(Setup::default()).await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "first").await;
    let made = pair.sdk_gateway(&alice.access_token).sessions().create("kept").await.expect("a session");
    (pair, project, made.session)
}
