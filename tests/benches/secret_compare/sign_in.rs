//! Sign-ins that fail: a wrong password of an owner that there is, and a password of nobody's.

use std::{os::unix::fs::OpenOptionsExt as _, time::Instant};

use interlock_kit::random;
use interlock_proto::auth::v1::LoginRequest;
use interlock_tests::{
    Pair, Setup,
    wire::{self, Metadata},
};
use serde_json::json;

use crate::welch::{self, Result};

const LOGIN: &str = "/interlock.auth.v1.OwnerSessionService/Login";
/// A source may try so often at one name in a row.
const TRIES_OF_ONE: usize = 8;
/// The default cost: what an owner's password costs where nobody has changed it.
const COST: [(&str, &str); 3] = [("argon2.m_kib", "19456"), ("argon2.t", "2"), ("argon2.p", "1")];

/// Alternates them over one connection, one at a time.
async fn compare_tries(pair: &Pair, tries: usize) -> Result {
    let channel = pair.auth_public();
    let mut times = [Vec::with_capacity(tries), Vec::with_capacity(tries)];
    for n in 0..tries + TRIES_OF_ONE {
        // Whoever is first in a pair of tries takes turns.
        for class in if rand::random() { [0, 1] } else { [1, 0] } {
            let name = if class == 0 { owner(n) } else { format!("nobody{}", n / TRIES_OF_ONE) };
            let login = LoginRequest { username: name, password: random::id("guess") };
            let began = Instant::now();
            let answer = wire::ask(&channel, LOGIN, &login, &Metadata::none()).await;
            let took = began.elapsed();
            assert_eq!(
                answer.outcome.reason, "INVALID_CREDENTIALS",
                "a refusal of another kind is no figure"
            );
            // The first ones warm up both sides.
            if n >= TRIES_OF_ONE {
                times[class].push(took);
            }
        }
    }
    let [near, far] = times;
    welch::compare("sign-in", near, far)
}

/// Starts auth-service with as many owners as the tries need.
pub(crate) async fn compare(tries: usize) -> Result {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("accounts.json");
    let owners = (tries + TRIES_OF_ONE).div_ceil(TRIES_OF_ONE);
    let accounts: Vec<_> = (0..owners)
        .map(|n| json!({ "username": owner(n * TRIES_OF_ONE), "password": random::id("password") }))
        .collect();
    let mut open = std::fs::OpenOptions::new();
    let file = open.create_new(true).write(true).mode(0o600).open(&path).expect("a file");
    serde_json::to_writer(file, &accounts).expect("written");
    let mut setup = Setup::default().auth("accounts_json_file", &path.to_string_lossy());
    for (key, value) in COST {
        setup = setup.auth(key, value);
    }
    let mut pair = Pair::stopped(setup);
    pair.start_auth().await;
    compare_tries(&pair, tries).await
}

fn owner(n: usize) -> String {
    format!("owner{}", n / TRIES_OF_ONE)
}
