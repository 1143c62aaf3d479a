//! Accounts sources: JSON from the environment and from a file, read into [`Account`]s.
//!
//! Two shapes, each as a list or as a map by name: accounts (`username`, `password`, `role` or `roles`,
//! `display_name`) and owners (`owner_id`, `password_hash`, `active`, `roles`). Bad JSON is an error that
//! says where, never what: a password may stand there.
//!
//! # Applying
//!
//! [`merge`] lets the environment win over the file, owner by owner. The shell then reads what was applied
//! before ([`crate::owner::ReadApplied`]), has the hasher compare each plain password with the applied hash,
//! and gives [`Account::changed`] the result; what differs goes into [`crate::owner::ApplyAccount`].

use std::{collections::BTreeMap, fmt};

use zeroize::Zeroizing;

pub use self::json::parse;
use crate::{
    ids::OwnerId,
    owner::{Applied, ChangedAccount},
    password::{self, PasswordHash},
    policy,
};

mod json;

/// Where a record came from. The environment wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `INTERLOCK_ACCOUNTS_JSON`, `INTERLOCK_OWNERS_JSON`.
    Environment,
    /// The owners file.
    File,
}

impl Source {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Environment, Self::File];

    /// As stored and shown.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::File => "file",
        }
    }
}

/// One record of a source.
#[derive(Clone, Debug)]
pub struct Account {
    /// Where it came from.
    pub source: Source,
    /// Of whom.
    pub owner: OwnerId,
    /// All but the password.
    pub facts: Facts,
    /// The password, or its hash.
    pub secret: Secret,
}

/// What a record says besides the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What people see; the id where the record says nothing.
    pub display_name: String,
    /// As written; `user` where the record says nothing.
    pub roles: Vec<String>,
    /// True where the record says nothing.
    pub active: bool,
}

/// The password of a record.
#[derive(Clone)]
pub enum Secret {
    /// As people type it; it goes through the hasher.
    Plain(Zeroizing<String>),
    /// Hashed elsewhere.
    Hashed(PasswordHash),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Hashed(_) => "Hashed",
        })
    }
}

/// Why a source cannot be used. Says where, never what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountsError {
    /// Not JSON of one of the shapes.
    #[error("not accounts JSON at line {line} column {column}: {what}")]
    Json {
        /// Counted from one.
        line: usize,
        /// Counted from one.
        column: usize,
        /// What is wrong, in our words.
        what: &'static str,
    },
    /// A record that cannot be used.
    #[error("account {number}: {field}: {what}")]
    Record {
        /// Counted from one, in the order of the source.
        number: usize,
        /// Which field.
        field: &'static str,
        /// What is wrong, in our words.
        what: &'static str,
    },
    /// Too long.
    #[error("at most {max} {unit} in one accounts source")]
    TooMuch {
        /// The bound.
        max: usize,
        /// Of what.
        unit: &'static str,
    },
}

/// Something that an operator should know of a record; `hardened` refuses weak passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The password has fewer than 12 characters.
    WeakPassword(OwnerId),
    /// The role `owner` meets the root condition, which its name does not say.
    OwnerIsRoot(OwnerId),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WeakPassword(owner) => write!(f, "the password of {owner} has fewer than 12 characters"),
            Self::OwnerIsRoot(owner) => write!(f, "the role `owner` makes {owner} session-root"),
        }
    }
}

/// One record for each owner: the environment's where both have one.
#[must_use]
pub fn merge(environment: Vec<Account>, file: Vec<Account>) -> Vec<Account> {
    let mut by_owner: BTreeMap<OwnerId, Account> = file.into_iter().map(|a| (a.owner.clone(), a)).collect();
    by_owner.extend(environment.into_iter().map(|a| (a.owner.clone(), a)));
    by_owner.into_values().collect()
}

/// What an operator should know of these.
#[must_use]
pub fn findings(accounts: &[Account]) -> Vec<Finding> {
    let mut found = Vec::new();
    for account in accounts {
        if let Secret::Plain(plain) = &account.secret
            && password::check("password", plain).is_err()
        {
            found.push(Finding::WeakPassword(account.owner.clone()));
        }
        let roles = &account.facts.roles;
        if policy::is_session_root(roles) && roles.iter().any(|role| role.eq_ignore_ascii_case("owner")) {
            found.push(Finding::OwnerIsRoot(account.owner.clone()));
        }
    }
    found
}

impl Account {
    /// The change that this record makes, if it makes one.
    ///
    /// `same` says whether a plain password verifies against the hash that was applied before (asked
    /// only where there is one); `hash` is the hash of the password: the given one, or the one made now,
    /// or, where it is the same, the applied one.
    #[must_use]
    pub fn changed(
        &self,
        before: Option<&Applied>,
        same: bool,
        hash: PasswordHash,
    ) -> Option<ChangedAccount> {
        let unchanged_password = before.is_some_and(|b| match &self.secret {
            Secret::Plain(_) => same,
            Secret::Hashed(given) => b.password == *given,
        });
        if unchanged_password && before.is_some_and(|b| b.facts == self.facts) {
            return None;
        }
        let record = Applied {
            source: self.source,
            owner: self.owner.clone(),
            facts: self.facts.clone(),
            password: hash,
        };
        Some(ChangedAccount { record, password_changed: !unchanged_password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Account>, AccountsError> {
        parse(Source::Environment, text)
    }

    #[test]
    fn list_and_map_give_the_same() {
        // FN-02, FN-19: the literal example.
        let list = r#"[{"username":"root","password":"change-me-please","role":"root","display_name":"Root Admin"}]"#;
        let map = r#"{"root":{"password":"change-me-please","roles":["root"],"display_name":"Root Admin"}}"#;
        for text in [list, map] {
            let accounts = read(text).expect("well-formed");
            let [account] = &accounts[..] else { panic!("one account") };
            assert_eq!((account.owner.as_str(), account.facts.active), ("root", true));
            assert_eq!(account.facts.roles, ["root"]);
            assert_eq!(account.facts.display_name, "Root Admin");
            assert!(matches!(&account.secret, Secret::Plain(p) if p.as_str() == "change-me-please"));
        }
    }

    #[test]
    fn owners_shape_and_defaults() {
        // UA-24 to UA-27
        let text = r#"{"bob":{"owner_id":"bob","active":false,"password_hash":
            "pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o="}}"#;
        let accounts = read(text).expect("well-formed");
        assert_eq!(
            accounts[0].facts,
            Facts { display_name: "bob".to_owned(), roles: vec!["user".to_owned()], active: false }
        );
    }

    #[test]
    fn errors_say_where_and_never_what() {
        let bad = [
            "hunter2",
            "",
            "3",
            "null",
            "[[\"hunter2\"]]",
            r#"["hunter2"]"#,
            r#"[{"username":"a","password":3}]"#,
            r#"[{"username":"a","hunter2":"x"}]"#,
            r#"[{"username":"a","password":"hunter2hunter2","password":"x"}]"#,
            r#"[{"username":"hunter2 ","password":"longer than twelve"}]"#,
            r#"{"a":{"username":"hunter2","password":"longer than twelve"}}"#,
            r#"[{"password":"hunter2"}]"#,
            r#"[{"username":"a"}]"#,
            r#"[{"username":"a","password":""}]"#,
            r#"[{"username":"admin","password":"hunter2hunter2"}]"#,
            r#"[{"username":"a","password_hash":"hunter2"}]"#,
            r#"[{"username":"a","password":"x","password_hash":"hunter2"}]"#,
            r#"[{"username":"a","password":"hunter2","roles":[""]}]"#,
            r#"[{"username":"a","password":"hunter2","role":"x","roles":[]}]"#,
            r#"{"a":{"password":"hunter2"},"a":{"password":"hunter2"}}"#,
            r#"[{"username":"a","password":"hunter2"},{"username":"a","password":"hunter2"}]"#,
            r#"[{"username":"a","password":"hunter2"}"#,
        ];
        for text in bad {
            let error = read(text).expect_err(text);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_environment_wins_owner_by_owner() {
        let one = |source, name: &str| {
            parse(source, &format!(r#"[{{"username":"{name}","password":"longer than twelve"}}]"#))
                .expect("good")
        };
        let mut file = one(Source::File, "a");
        file.extend(one(Source::File, "b"));
        let merged = merge(one(Source::Environment, "a"), file);
        let found: Vec<_> = merged.iter().map(|a| (a.owner.as_str(), a.source)).collect();
        assert_eq!(found, [("a", Source::Environment), ("b", Source::File)]);
    }

    #[test]
    fn only_what_differs_from_the_last_time_is_a_change() {
        // DESIGN 14.16: a restart with the same source changes nothing.
        let phc = |letter| {
            let text = format!(
                "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw${}",
                String::from(letter).repeat(43)
            );
            PasswordHash::parse(&text).expect("a hash")
        };
        let read = |text: &str| read(text).expect("well-formed").remove(0);
        let account = read(r#"[{"username":"a","password":"longer than twelve"}]"#);
        let first = account.changed(None, false, phc('A')).expect("new");
        assert!(first.password_changed);
        let before = Some(&first.record);
        assert!(account.changed(before, true, phc('A')).is_none());
        assert!(account.changed(before, false, phc('Q')).expect("another password").password_changed);
        let renamed = read(r#"[{"username":"a","password":"longer than twelve","display_name":"A"}]"#);
        assert!(!renamed.changed(before, true, phc('A')).expect("another name").password_changed);
        let hashed = read(&format!(r#"[{{"username":"a","password_hash":"{}"}}]"#, phc('A').expose()));
        assert!(hashed.changed(before, false, phc('A')).is_none(), "the same hash is the same password");
        let other = read(&format!(r#"[{{"username":"a","password_hash":"{}"}}]"#, phc('Q').expose()));
        assert!(other.changed(before, true, phc('Q')).expect("another hash").password_changed);
    }

    #[test]
    fn weak_passwords_and_the_role_owner_are_pointed_out() {
        let accounts = read(r#"[{"username":"a","password":"short","role":"Owner"}]"#).expect("well-formed");
        let a = OwnerId::made("a");
        assert_eq!(findings(&accounts), [Finding::WeakPassword(a.clone()), Finding::OwnerIsRoot(a)]);
        assert!(!format!("{accounts:?}").contains("short"));
    }
}
