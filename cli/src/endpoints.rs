//! Where a service is: one URL, or several of the same service.

use interlock_client::{Connection, ConnectionBuilder};
use serde::{Deserialize, Serialize};

/// As many as the SDK takes.
const ENDPOINTS_MAX: usize = 16;

/// `https://host:port`, once or more: in JSON a text, or an array of them. The first one that answers is used, and the
/// next one when that is dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OneOrMore", into = "OneOrMore")]
pub(crate) struct Endpoints(Vec<String>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Endpoints {
    /// One.
    pub(crate) fn one(url: String) -> Self {
        Self(vec![url])
    }

    /// Of these; none where there is none, or more than are taken.
    pub(crate) fn of(urls: Vec<String>) -> Option<Self> {
        (1..=ENDPOINTS_MAX).contains(&urls.len()).then_some(Self(urls))
    }

    /// The one that is tried first: what stands for the service where one URL does.
    pub(crate) fn first(&self) -> &str {
        &self.0[0]
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The same, tried from the last one on.
    pub(crate) fn reversed(&self) -> Self {
        Self(self.0.iter().rev().cloned().collect())
    }

    /// What a connection to whichever answers is made from.
    pub(crate) fn connection(&self) -> ConnectionBuilder {
        self.0[1..].iter().fold(Connection::to(self.first()), ConnectionBuilder::or)
    }
}

impl From<Endpoints> for OneOrMore {
    fn from(Endpoints(mut urls): Endpoints) -> Self {
        if urls.len() == 1 { Self::One(urls.remove(0)) } else { Self::More(urls) }
    }
}

impl TryFrom<OneOrMore> for Endpoints {
    type Error = String;

    fn try_from(urls: OneOrMore) -> Result<Self, String> {
        let urls = match urls {
            OneOrMore::One(url) => vec![url],
            OneOrMore::More(urls) => urls,
        };
        Self::of(urls).ok_or_else(|| format!("1 to {ENDPOINTS_MAX} URLs"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_a_text_and_several_are_an_array() {
        for (text, first) in
            [(r#""https://a:1""#, "https://a:1"), (r#"["https://a:1","https://b:2"]"#, "https://a:1")]
        {
            let read: Endpoints = serde_json::from_str(text).expect(text);
            assert_eq!(read.first(), first);
            assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
        }
        let many = serde_json::to_string(&vec!["https://a:1"; ENDPOINTS_MAX + 1]).expect("JSON");
        for bad in ["[]", "7", "{}", many.as_str()] {
            assert!(serde_json::from_str::<Endpoints>(bad).is_err(), "{bad}");
        }
    }
}
