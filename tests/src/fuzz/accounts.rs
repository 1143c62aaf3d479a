//! Accounts JSON: what is taken can be written and taken again, what is refused is not quoted.

use std::collections::BTreeSet;

use interlock_auth::accounts::{Account, Secret, Source, findings, parse};
use serde_json::{Value, json};

/// Stands where a password would.
const CANARY: &str = "hunter2";

/// The text of a source.
///
/// # Panics
/// Where an error quotes it, or what was taken is not taken again as the same.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let accounts = match parse(Source::Environment, text) {
        Ok(accounts) => accounts,
        Err(error) => {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(CANARY) && shown.len() < 300, "{shown}");
            return;
        }
    };
    let owners: BTreeSet<&str> = accounts.iter().map(|account| account.owner.as_str()).collect();
    assert_eq!(owners.len(), accounts.len(), "one record for each owner");
    for account in &accounts {
        assert!(
            !account.owner.as_str().is_empty() && account.facts.roles.iter().all(|role| !role.is_empty())
        );
        if let Secret::Plain(plain) = &account.secret {
            assert!((1..=1024).contains(&plain.len()));
        }
    }
    for finding in findings(&accounts) {
        assert!(owners.iter().any(|owner| finding.to_string().contains(owner)));
    }
    let list = Value::Array(accounts.iter().map(record).collect()).to_string();
    same(&accounts, &list);
    let map: serde_json::Map<String, Value> =
        accounts.iter().map(|account| (account.owner.to_string(), record(account))).collect();
    same(&accounts, &Value::Object(map).to_string());
}

/// List and map give the same, in whatever order.
fn same(accounts: &[Account], text: &str) {
    let again = parse(Source::File, text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(again.len(), accounts.len());
    for account in accounts {
        let other = again.iter().find(|other| other.owner == account.owner).expect("each owner");
        assert_eq!(other.facts, account.facts);
        let kept = match (&account.secret, &other.secret) {
            (Secret::Plain(a), Secret::Plain(b)) => a == b,
            (Secret::Hashed(a), Secret::Hashed(b)) => a == b,
            (Secret::Plain(_), Secret::Hashed(_)) | (Secret::Hashed(_), Secret::Plain(_)) => false,
        };
        assert!(kept, "another password");
    }
}

fn record(account: &Account) -> Value {
    let mut record = json!({
        "username": account.owner.as_str(),
        "roles": account.facts.roles,
        "active": account.facts.active,
        "display_name": account.facts.display_name,
    });
    let (key, value) = match &account.secret {
        Secret::Plain(plain) => ("password", plain.as_str()),
        Secret::Hashed(hash) => ("password_hash", hash.expose()),
    };
    record[key] = json!(value);
    record
}
