//! A pair whose secrets are all known: each is a canary.

use std::fs;

use interlock_client::OwnerSession;
use interlock_kit::random;
use interlock_proto::credential::{Credential, Kind};
use interlock_tests::{Pair, Setup, canary::Canaries, home::Home};
use serde_json::json;

/// Of an owner that the environment names.
pub(crate) const OF_VARIABLE: &str = "env-owner";
/// Of an owner that came with a hash made elsewhere.
pub(crate) const IMPORTED: &str = "imported";
/// What verifies against [`HASH`] (the vector of the acceptance table).
pub(crate) const IMPORTED_PASSWORD: &str = "correct horse battery staple";
const HASH: &str =
    "pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o=";
/// Canaries that a store is there to hold: what callers hand to each other, and hashes for the hasher.
pub(crate) const STORED: [&str; 4] = ["payload", "result", "line of progress", "imported hash"];
/// Canaries that their owner may be shown again.
pub(crate) const ANSWERED: [&str; 3] = ["payload", "result", "line of progress"];

/// The pair, what was planted, and what came back.
pub(crate) struct Stage {
    pub(crate) pair: Pair,
    pub(crate) home: Home,
    pub(crate) canaries: Canaries,
    /// Refusals, and answers that are there to hold no secret: all that was heard of them.
    pub(crate) answers: Vec<u8>,
    /// What the command line printed.
    pub(crate) printed: Vec<u8>,
    /// Of alice, living to the end.
    pub(crate) alice: Option<OwnerSession>,
    /// Of a session of hers.
    pub(crate) cookie: String,
    pub(crate) env_password: String,
    pub(crate) root_password: String,
}

impl Stage {
    pub(crate) async fn make() -> Self {
        let setup = Setup::default().auth("log.filter", "trace").gateway("log.filter", "trace");
        let setup = setup.gateway("allow_anonymous", "true");
        let mut pair = Pair::stopped(setup);
        let mut canaries = Canaries::default();
        for owner in ["alice", "bob", "root", "w0", "w1"] {
            canaries.plant(&format!("password of {owner}"), pair.world.password(owner));
        }
        let env_password = text();
        canaries.plant("password in a variable", &env_password);
        canaries.plant("imported hash", HASH);
        canaries.plant("password of the imported hash", IMPORTED_PASSWORD);
        let accounts = json!([{ "username": OF_VARIABLE, "password": env_password, "role": "user" }]);
        let owners = json!([{ "owner_id": IMPORTED, "password_hash": HASH, "roles": ["user"] }]);
        pair.auth.env("INTERLOCK_ACCOUNTS_JSON", &accounts.to_string());
        pair.auth.env("INTERLOCK_OWNERS_JSON", &owners.to_string());
        let root_password = text();
        canaries.plant("root password", &root_password);
        pair.auth.env("INTERLOCK_ROOT_PASSWORD", &root_password);
        // A second line: it is accepted, and rolls in.
        let next = Credential::new(Kind::Internal, &random::bytes());
        let both = format!("{}\n{}\n", pair.world.internal_token(), next.expose());
        fs::write(pair.world.path("internal.token"), both).expect("written");
        canaries.plant("internal token", pair.world.internal_token());
        canaries.plant("next internal token", next.expose());
        for key in ["pki/auth.key", "pki/gateway.key", "pki/tester.key", "pki/ca.key"] {
            plant_key(&mut canaries, key, &fs::read(pair.world.path(key)).expect("a key"));
        }
        pair.start_auth().await;
        pair.start_gateway().await;
        pair.serving().await;
        for key in ["auth/audit.key", "gateway/gateway.chain-key"] {
            canaries.plant_bytes(key, &fs::read(pair.world.path(key)).expect("a chain's key"));
        }
        canaries.plant("admin token", pair.admin().expose());
        canaries.plant("first user token", pair.user().expose());
        let home = Home::of(&pair);
        let (answers, printed, cookie) = (Vec::new(), Vec::new(), String::new());
        Self { pair, home, canaries, answers, printed, alice: None, cookie, env_password, root_password }
    }

    /// Plants a credential, and gives it back.
    pub(crate) fn plant(&mut self, name: &str, credential: &Credential) {
        self.canaries.plant(name, credential.expose());
    }

    /// Plants both tokens of an owner session.
    pub(crate) fn plant_session(&mut self, name: &str, session: &OwnerSession) {
        self.plant(&format!("access token, {name}"), &session.access_token);
        self.plant(&format!("refresh token, {name}"), &session.refresh_token);
    }

    pub(crate) async fn end(&mut self) {
        assert!(self.pair.gateway.drain().await.success() && self.pair.auth.drain().await.success());
    }
}

/// Letters and digits that stand nowhere else.
pub(crate) fn text() -> String {
    Credential::new(Kind::Owner, &random::bytes()).expose()[8..40].to_owned()
}

/// The lines of a PEM key; the first ones of all keys of one kind are the same.
fn plant_key(canaries: &mut Canaries, name: &str, pem: &[u8]) {
    let text = std::str::from_utf8(pem).expect("PEM");
    let lines = text.lines().filter(|line| !line.starts_with("-----")).skip(1);
    let lines: Vec<_> = lines.filter(|line| line.len() >= 24).collect();
    assert!(!lines.is_empty(), "{name} has a second line");
    lines.into_iter().for_each(|line| canaries.plant(name, line));
}
