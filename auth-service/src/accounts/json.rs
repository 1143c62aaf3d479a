//! From JSON text to accounts: both shapes, as a list or a map. What it refuses it names by place, never by
//! content.

use std::{collections::BTreeMap, fmt};

use interlock_kit::hasher::HashFormatError;
use interlock_proto::text;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use zeroize::Zeroizing;

use super::{Account, AccountsError, Facts, Secret, Source};
use crate::{
    ids::OwnerId,
    limits,
    password::{self, PasswordHash},
};

/// Reads a source.
///
/// # Errors
/// [`AccountsError`]; none of its records is then used.
pub fn parse(source: Source, text: &str) -> Result<Vec<Account>, AccountsError> {
    if text.len() > limits::ACCOUNTS_BYTES_MAX {
        return Err(AccountsError::TooMuch { max: limits::ACCOUNTS_BYTES_MAX, unit: "bytes" });
    }
    let Records(records) = serde_json::from_str(text).map_err(|error| place(&error))?;
    if records.len() > limits::ACCOUNTS_MAX {
        return Err(AccountsError::TooMuch { max: limits::ACCOUNTS_MAX, unit: "accounts" });
    }
    let mut seen = BTreeMap::new();
    let mut accounts = Vec::with_capacity(records.len());
    for (at, (key, record)) in records.into_iter().enumerate() {
        let number = at + 1;
        let wrong = |(field, what)| AccountsError::Record { number, field, what };
        let account = record.into_account(source, key.as_deref()).map_err(wrong)?;
        if seen.insert(account.owner.clone(), number).is_some() {
            return Err(wrong(("username", "named twice in this source")));
        }
        accounts.push(account);
    }
    Ok(accounts)
}

/// serde_json's own text may quote the input: only the place and the kind of fault go on.
fn place(error: &serde_json::Error) -> AccountsError {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "a syntax error",
        serde_json::error::Category::Data => {
            "an unknown, repeated or missing field, or a value of a wrong type"
        }
    };
    AccountsError::Json { line: error.line(), column: error.column(), what }
}

/// Each record, with its key where the source is a map.
struct Records(Vec<(Option<String>, Record)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(alias = "owner_id")]
    username: Option<String>,
    password: Option<String>,
    password_hash: Option<String>,
    role: Option<String>,
    roles: Option<Vec<String>>,
    active: Option<bool>,
    display_name: Option<String>,
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

struct Shape;

impl<'de> Visitor<'de> for Shape {
    type Value = Records;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of accounts, or a map by name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Records, A::Error> {
        let mut records = Vec::new();
        while let Some(Whole(record)) = list.next_element()? {
            records.push((None, record));
        }
        Ok(Records(records))
    }

    // One key at a time: a name that stands twice must not be lost.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Records, A::Error> {
        let mut records = Vec::new();
        while let Some((key, Whole(record))) = map.next_entry::<String, Whole>()? {
            records.push((Some(key), record));
        }
        Ok(Records(records))
    }
}

/// A record that is written as an object: a derived struct would also take a list of its values.
struct Whole(Record);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an account")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Whole, A::Error> {
                Record::deserialize(MapAccessDeserializer::new(map)).map(Whole)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

type Wrong = (&'static str, &'static str);

impl Record {
    fn into_account(self, source: Source, key: Option<&str>) -> Result<Account, Wrong> {
        let name = match (key, self.username.as_deref()) {
            (Some(key), Some(name)) if key != name => return Err(("username", "another one than its key")),
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => return Err(("username", "missing")),
        };
        let owner = OwnerId::parse("username", name).map_err(|_| ("username", text::NAME))?;
        if owner.is_reserved() {
            return Err(("username", "admin, user, local and system are reserved"));
        }
        let secret = match (self.password, self.password_hash) {
            (Some(plain), None) => {
                let plain = Zeroizing::new(plain);
                password::check_size("password", &plain).map_err(|_| ("password", "1 to 1024 bytes"))?;
                Secret::Plain(plain)
            }
            (None, Some(hash)) => Secret::Hashed(
                PasswordHash::parse(&hash)
                    .map_err(|_: HashFormatError| ("password_hash", "not a hash that is known here"))?,
            ),
            (Some(_), Some(_)) => return Err(("password", "beside a password_hash")),
            (None, None) => return Err(("password", "missing")),
        };
        let roles = match (self.role, self.roles) {
            (Some(_), Some(_)) => return Err(("roles", "beside a role")),
            (Some(role), None) => vec![role],
            (None, Some(roles)) => roles,
            (None, None) => vec!["user".to_owned()],
        };
        if roles.len() > limits::ROLES_MAX || !roles.iter().all(|role| is_text(role)) {
            return Err(("roles", "at most 16 of 1 to 128 bytes that all show"));
        }
        let display_name = self.display_name.unwrap_or_else(|| owner.to_string());
        if !is_text(&display_name) {
            return Err(("display_name", "1 to 128 bytes that all show, without blanks at the ends"));
        }
        let facts = Facts { display_name, roles, active: self.active.unwrap_or(true) };
        Ok(Account { source, owner, facts, secret })
    }
}

fn is_text(text: &str) -> bool {
    text::is_label(text, limits::LABEL_BYTES_MAX)
}
