//! Canaries: secrets that stand nowhere else, so that wherever one is found, it has leaked.
//!
//! Each is looked for in every form that it could have been written in: as it is, in base64 (both alphabets, at
//! each of the three places that it can have in a longer text), in hexadecimal, as a list of numbers, which is how
//! `Debug` shows bytes; of a credential also its 32 random bytes in all of these. One pass for all of them.
//!
//! Beside those that a test plants there is [`credentials`]: whatever has the form of a credential, with a right
//! checksum, whoever made it. No log, store or audit row may have one; [`crate::Service`] asks that of every
//! test as it ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use aho_corasick::AhoCorasick;
use interlock_proto::credential::{Credential, TEXT_LEN};

/// Files of a data folder that are there to hold secrets: the recoverable copy of the role tokens, also while
/// it is written, and what tests set aside of it.
const HOLDS_SECRETS: &str = "auth_tokens.json";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Secrets by what they are, in every form.
#[derive(Debug, Default)]
pub struct Canaries {
    planted: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

/// All forms of all canaries, ready to be looked for.
#[derive(Clone, Debug)]
pub struct Hunt {
    names: Arc<[String]>,
    spared: BTreeSet<String>,
    forms: AhoCorasick,
}

/// A canary that was found, and where: its name and the text around it, without itself.
pub type Leak = String;

impl Canaries {
    /// Plants one. A credential's random bytes go with it.
    pub fn plant(&mut self, name: &str, secret: &str) {
        let forms = self.planted.entry(name.to_owned()).or_default();
        forms.extend(forms_of(secret.as_bytes()));
        if let Some(bytes) = random_bytes(secret) {
            // The random part alone would be a leak, too.
            forms.insert(secret.as_bytes()[8..TEXT_LEN - 6].to_vec());
            forms.extend(forms_of(&bytes));
        }
    }

    /// Plants bytes: keys.
    pub fn plant_bytes(&mut self, name: &str, secret: &[u8]) {
        self.planted.entry(name.to_owned()).or_default().extend(forms_of(secret));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.planted.len()
    }

    /// Makes them ready.
    ///
    /// # Panics
    /// Where there are more than the search can take.
    #[must_use]
    pub fn hunt(&self) -> Hunt {
        let all = self.planted.iter();
        let all = all.flat_map(|(name, forms)| forms.iter().map(move |form| (name.clone(), form)));
        let (names, forms): (Vec<_>, Vec<_>) = all.unzip();
        let forms = AhoCorasick::new(forms).expect("a few thousand short forms");
        Hunt { names: names.into(), spared: BTreeSet::new(), forms }
    }
}

impl Hunt {
    /// The same, but for these: where they belong.
    #[must_use]
    pub fn but(&self, spared: &[&str]) -> Self {
        Self { spared: spared.iter().map(|&name| name.to_owned()).collect(), ..self.clone() }
    }

    /// What is found in these bytes.
    #[must_use]
    pub fn in_bytes(&self, bytes: &[u8]) -> Vec<Leak> {
        let mut leaks = BTreeSet::new();
        for found in self.forms.find_iter(bytes) {
            let before = &bytes[found.start().saturating_sub(160)..found.start()];
            let name = &self.names[found.pattern().as_usize()];
            if self.spared.contains(name) {
                continue;
            }
            leaks.insert(format!("{name} after `{}`", String::from_utf8_lossy(before).escape_debug()));
        }
        leaks.into_iter().take(8).collect()
    }

    /// What is found in the files of a folder, and how many bytes were looked at. `except` says by its name
    /// which file is there to hold secrets.
    ///
    /// # Panics
    /// Where the folder cannot be read.
    #[must_use]
    pub fn in_folder(&self, folder: &Path, except: &dyn Fn(&str) -> bool) -> (usize, Vec<Leak>) {
        let (mut looked, mut leaks) = (0, Vec::new());
        for (name, bytes) in files(folder) {
            if !except(&name) {
                looked += bytes.len();
                leaks.extend(self.in_bytes(&bytes).into_iter().map(|leak| format!("{name}: {leak}")));
            }
        }
        (looked, leaks)
    }
}

/// Each well-formed credential in these bytes: its kind and the text before it.
#[must_use]
pub fn credentials(bytes: &[u8]) -> Vec<Leak> {
    let prefix = AhoCorasick::new(["ilk_"]).expect("one short form");
    let found = prefix.find_iter(bytes).filter_map(|at| {
        let text = bytes.get(at.start()..at.start() + TEXT_LEN)?;
        let credential = Credential::parse(std::str::from_utf8(text).ok()?).ok()?;
        let before = &bytes[at.start().saturating_sub(160)..at.start()];
        let before = String::from_utf8_lossy(before);
        Some(format!("a credential of kind {} after `{}`", credential.kind().tag(), before.escape_debug()))
    });
    found.take(8).collect()
}

/// What a service of this name has left in its log and its data folder that it must not have: any credential,
/// an owner's password, the internal token.
#[must_use]
pub fn left_by(folder: &Path, service: &str) -> Vec<Leak> {
    let mut canaries = Canaries::default();
    let accounts = fs::read(folder.join("accounts.json")).unwrap_or_default();
    let accounts: Vec<BTreeMap<String, serde_json::Value>> =
        serde_json::from_slice(&accounts).unwrap_or_default();
    for password in accounts.iter().filter_map(|account| account.get("password")?.as_str()) {
        // Shorter ones stand in texts of all kinds.
        if password.len() >= 12 {
            canaries.plant("an owner's password", password);
        }
    }
    let token = fs::read_to_string(folder.join("internal.token")).unwrap_or_default();
    for line in token.lines().filter(|line| line.len() >= 32) {
        canaries.plant("the internal token", line);
    }
    let hunt = canaries.hunt();
    let log = fs::read(folder.join(format!("{service}.log"))).unwrap_or_default();
    let mut all = vec![(format!("{service}.log"), log)];
    let data = folder.join(service);
    all.extend(files(&data).into_iter().filter(|(name, _)| !name.contains(HOLDS_SECRETS)));
    let leaks = all.iter().flat_map(|(name, bytes)| {
        let found = credentials(bytes).into_iter().chain(hunt.in_bytes(bytes));
        found.map(move |leak| format!("{service}, {name}: {leak}"))
    });
    leaks.collect()
}

/// The files of a folder and of those in it, by name. What goes away meanwhile is not there.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                let inner = files(&entry.path()).into_iter();
                found.extend(inner.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
            }
            Ok(kind) if kind.is_file() => {
                found.extend(fs::read(entry.path()).ok().map(|bytes| (name, bytes)));
            }
            _ => {}
        }
    }
    found
}

fn forms_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    let mut forms = vec![
        bytes.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        numbers.join(", ").into_bytes(),
        numbers.join(",").into_bytes(),
    ];
    for place in 0..3 {
        let text = base64_at(bytes, place);
        let url = text.iter().map(|&c| match c {
            b'+' => b'-',
            b'/' => b'_',
            c => c,
        });
        forms.push(url.collect());
        forms.push(text);
    }
    forms
}

/// The characters of base64 that rest on these bytes alone, where `place` bytes stand before them.
fn base64_at(bytes: &[u8], place: usize) -> Vec<u8> {
    let padded = [&[0_u8; 2][..place], bytes].concat();
    let all: Vec<u8> = padded
        .chunks(3)
        .flat_map(|chunk| {
            let number =
                chunk.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            (0..=chunk.len()).map(move |digit| BASE64[(number >> (18 - 6 * digit)) as usize & 63])
        })
        .collect();
    let (first, last) = ((place * 8).div_ceil(6), padded.len() * 8 / 6);
    all[first..last].to_vec()
}

/// The 32 bytes that a credential's digits say.
fn random_bytes(text: &str) -> Option<[u8; 32]> {
    let credential = Credential::parse(text).ok()?;
    let mut bytes = [0_u8; 32];
    for digit in credential.expose()[8..TEXT_LEN - 6].bytes() {
        let mut carry = u32::try_from(ALPHABET.iter().position(|&d| d == digit)?).ok()?;
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 62;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use interlock_proto::credential::Kind;

    use super::*;

    #[test]
    fn a_canary_is_found_in_every_form() {
        let random: [u8; 32] = std::array::from_fn(|n| (n * 7 + 3) as u8);
        let credential = Credential::new(Kind::Owner, &random);
        assert_eq!(random_bytes(credential.expose()), Some(random));
        let mut canaries = Canaries::default();
        canaries.plant("it", credential.expose());
        canaries.plant("word", "sesame-open");
        let hunt = canaries.hunt();
        let sees = |text: &[u8], name: &str| {
            let found = hunt.in_bytes(&[b"before ", text, b" after"].concat());
            assert!(found.iter().any(|leak| leak.starts_with(name)), "{}", String::from_utf8_lossy(text));
        };
        sees(b"sesame-open", "word");
        // `Zsesame-open!` and so on, by another encoder than ours.
        for text in ["c2VzYW1lLW9wZW4=", "WnNlc2FtZS1vcGVuIQ==", "WlpzZXNhbWUtb3BlbiE="] {
            sees(text.as_bytes(), "word");
        }
        sees(b"736573616d652d6f70656e", "word");
        sees(format!("{:?}", b"sesame-open").as_bytes(), "word");
        sees(credential.expose().as_bytes(), "it");
        sees(&random, "it");
        sees(format!("{random:?}").as_bytes(), "it");
        assert_eq!(hunt.in_bytes(b"sesame-ope"), [""; 0]);
        assert_eq!(credentials(format!("a {}.", credential.expose()).as_bytes()).len(), 1);
        assert_eq!(credentials(&credential.expose().as_bytes()[..56]), [""; 0]);
    }
}
