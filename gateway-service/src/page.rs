//! Pages of lists: bounded, with opaque tokens that tell nothing of other owners.

use interlock_kit::error::Error;

use crate::limits::{Limits, PAGE_TOKEN_BYTES_MAX};

/// Which page.
#[derive(Clone, Debug)]
pub(crate) struct Page<I> {
    /// After (or before) this entry; none for the first page.
    pub(crate) from: Option<I>,
    /// At most so many entries.
    pub(crate) limit: usize,
}

impl<I> Page<I> {
    /// Reads a page's size and token.
    pub(crate) fn read(
        size: u32,
        token: &str,
        parse: impl Fn(String) -> Result<I, Error>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        if size > limits.page_max {
            return Err(Error::invalid_field("page_size", format!("0 to {}", limits.page_max)));
        }
        let limit = if size == 0 { limits.page_default } else { size };
        let from = match token {
            "" => None,
            token => {
                let refused = || Error::invalid_field("page_token", "from the answer before");
                Some(parse(decode(token).ok_or_else(refused)?).map_err(|_| refused())?)
            }
        };
        Ok(Self { from, limit: usize::try_from(limit).unwrap_or(usize::MAX) })
    }

    /// The token of the page after this one, where `entries` has one more than the page takes.
    pub(crate) fn next<T>(&self, entries: &[T], id: impl Fn(&T) -> &str) -> String {
        match entries.get(self.limit) {
            Some(_) => entries.get(self.limit - 1).map(|last| encode(id(last))).unwrap_or_default(),
            None => String::new(),
        }
    }
}

/// Hexadecimal, so that nobody builds on what is in it.
fn encode(id: &str) -> String {
    id.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(token: &str) -> Option<String> {
    let plain = token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !token.len().is_multiple_of(2) || token.len() > PAGE_TOKEN_BYTES_MAX || !plain {
        return None;
    }
    let bytes = (0..token.len()).step_by(2).map(|at| u8::from_str_radix(&token[at..at + 2], 16).ok());
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AgentId;

    #[test]
    fn a_token_leads_to_the_entry_after_the_last_one_shown() {
        let limits = Limits::default();
        let page = Page::read(2, "", AgentId::parse, &limits).expect("a good page");
        let token = page.next(&["a", "b", "c"], |id| id);
        let next = Page::read(2, &token, AgentId::parse, &limits).expect("a good token");
        assert_eq!(next.from.map(|id| id.to_string()).as_deref(), Some("b"));
        assert_eq!(page.next(&["a", "b"], |id| id), "");
        for bad in ["zz", "6", "6é", "ff", "+1", "6A"] {
            assert!(Page::read(2, bad, AgentId::parse, &limits).is_err(), "{bad}");
        }
        assert!(Page::read(501, "", AgentId::parse, &limits).is_err());
    }
}
