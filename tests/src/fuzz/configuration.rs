//! Configuration files of both services: read the same twice, within bounds, and never quoted.

use std::{fs, sync::LazyLock};

use interlock_auth::Config as Auth;
use interlock_gateway::{Config as Gateway, config as gateway};
use interlock_kit::config::Mistake;
use tempfile::TempDir;
use toml::{Table, Value};

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

/// The text of a file.
///
/// # Panics
/// Where the same file is read in two ways, what is read is out of bounds, or a mistake quotes a value.
pub fn check(data: &[u8]) {
    let file = FOLDER.path().join("service.toml");
    fs::write(&file, data).expect("written");
    let mistakes = judged(|| Auth::read(Some(&file), [], Vec::new()), auth_is_bounded)
        .into_iter()
        .chain(judged(|| gateway::load(Some(&file), Vec::new()), gateway_is_bounded));
    let table = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Table>().ok());
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    collect(&Value::Table(table.unwrap_or_default()), &mut keys, &mut values);
    for mistake in mistakes {
        let shown = mistake.to_string();
        for value in &values {
            let ours = keys.iter().any(|key| key.contains(value.as_str()));
            assert!(ours || !shown.contains(value.as_str()), "{value:?} is quoted: {shown}");
        }
    }
}

fn judged<C: std::fmt::Debug>(
    read: impl Fn() -> Result<C, Vec<Mistake>>,
    is_bounded: impl Fn(&C) -> bool,
) -> Vec<Mistake> {
    let first = read();
    assert_eq!(format!("{first:?}"), format!("{:?}", read()), "the same file, read twice");
    match first {
        Ok(config) => {
            assert!(is_bounded(&config), "out of bounds: {config:?}");
            Vec::new()
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused for no mistake");
            mistakes
        }
    }
}

fn auth_is_bounded(config: &Auth) -> bool {
    (1..=30).contains(&config.lease.as_secs())
        && (300..=14 * 86_400).contains(&config.owner_session_ttl.as_secs())
        && config.access_ttl <= config.owner_session_ttl
        && (1..=16).contains(&config.hashing.threads)
}

fn gateway_is_bounded(config: &Gateway) -> bool {
    config.limits.check().is_empty()
        && (1..=300).contains(&config.limits.lease_ttl.as_secs())
        && (1..=100).contains(&config.limits.attempts_max)
        && !config.auth.endpoints.is_empty()
}

/// Keys, and texts that are long and odd enough to stand in a mistake only because they were quoted: with a
/// character that none of our own words has.
fn collect(value: &Value, keys: &mut Vec<String>, values: &mut Vec<String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                keys.push(key.clone());
                collect(value, keys, values);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, keys, values)),
        Value::String(text) if text.len() >= 8 && text.contains(['$', '!', '#', '%']) => {
            values.push(text.clone());
        }
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}
