//! The paths that Rust code names: `std::env::var`, `tonic::Status`; comments, strings and what
//! stands under `#[cfg(test)]` left out.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path that a file names, or a method it calls (`.name`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// `a::b::c`, as written; in a `use` with braces, each one in full.
    pub(crate) path: String,
    /// From 1.
    pub(crate) line: usize,
}

impl Named {
    /// Whether the path has this part.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.path.split("::").any(|p| p == part)
    }

    /// Whether the path is this one or goes into it.
    pub(crate) fn enters(&self, path: &str) -> bool {
        self.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }

    /// Whether the path ends in these parts, or is this method.
    pub(crate) fn ends(&self, parts: &str) -> bool {
        self.path.strip_suffix(parts).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
    }
}

/// All that a file names outside of its tests. Text that is no Rust is a broken file: it names itself.
pub(crate) fn named(path: &str, text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    match text.parse::<TokenStream>() {
        Ok(tokens) => scan(tokens, &mut found),
        Err(e) => panic!("{path} is no Rust: {e}"),
    }
    found
}

fn scan(stream: TokenStream, found: &mut Vec<Named>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(p) if p.as_char() == '#' && is_cfg_test(tokens.get(at + 1)) => {
                at = after_item(&tokens, at + 2);
            }
            // `use<'a>` names what an opaque type captures, and imports nothing.
            TokenTree::Ident(word) if word == "use" && !is_punct(tokens.get(at + 1), '<') => {
                at = use_tree(&tokens, at + 1, "", found);
            }
            TokenTree::Ident(_) => at = plain_path(&tokens, at, found),
            TokenTree::Group(group) => {
                scan(group.stream(), found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// `[cfg(test)]`.
pub(crate) fn is_cfg_test(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(g)) if g.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// The place after the item that starts at `at`: its braces, or its semicolon.
pub(crate) fn after_item(tokens: &[TokenTree], at: usize) -> usize {
    let end = tokens[at..].iter().position(|t| match t {
        TokenTree::Group(g) => g.delimiter() == Delimiter::Brace,
        TokenTree::Punct(p) => p.as_char() == ';',
        _ => false,
    });
    end.map_or(tokens.len(), |e| at + e + 1)
}

/// `a::b::c` from `at` on; gives the place after it.
fn plain_path(tokens: &[TokenTree], at: usize, found: &mut Vec<Named>) -> usize {
    let called = at > 0 && is_punct(tokens.get(at - 1), '.');
    let mut path = if called { format!(".{}", tokens[at]) } else { tokens[at].to_string() };
    let line = tokens[at].span().start().line;
    let mut next = at + 1;
    while is_path_sep(tokens, next) {
        let Some(TokenTree::Ident(word)) = tokens.get(next + 2) else { break };
        path = format!("{path}::{word}");
        next += 3;
    }
    found.push(Named { path, line });
    next
}

/// One branch of a `use`, up to its end or the comma after it; gives the place there.
fn use_tree(tokens: &[TokenTree], from: usize, prefix: &str, found: &mut Vec<Named>) -> usize {
    let (mut at, mut path, mut line) = (from, prefix.to_owned(), 0);
    let mut whole = true;
    while at < tokens.len() && !is_punct(tokens.get(at), ';') && !is_punct(tokens.get(at), ',') {
        match &tokens[at] {
            TokenTree::Ident(word) if word == "as" => at += 1,
            TokenTree::Ident(word) => {
                let separator = if path.is_empty() { "" } else { "::" };
                path = format!("{path}{separator}{word}");
                line = word.span().start().line;
            }
            TokenTree::Group(group) => {
                whole = false;
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let mut branch = 0;
                while branch < inner.len() {
                    branch = use_tree(&inner, branch, &path, found) + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if whole && !path.is_empty() {
        found.push(Named { path, line });
    }
    at
}

fn is_path_sep(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == char)
}

#[test]
fn paths_are_read_in_full_and_tests_are_not() {
    let text = r#"
        //! tonic::Status in a comment
        use std::{env, time::{self, Instant as Clock}};
        fn now() -> time::Instant { let _ = "tokio::spawn"; Clock::now().elapsed(); std::env::var("A") }
        #[cfg(test)]
        mod tests { use rusqlite::Connection; }
        const LAST: u8 = crate::limits::FIRST;
    "#;
    let paths: Vec<String> = named("a.rs", text).into_iter().map(|n| n.path).collect();
    for present in [
        "std::env",
        "std::time::self",
        "std::time::Instant",
        "Clock::now",
        ".elapsed",
        "std::env::var",
        "crate::limits::FIRST",
    ] {
        assert!(paths.iter().any(|p| p == present), "{present} is not in {paths:?}");
    }
    for absent in ["tonic", "tokio", "rusqlite"] {
        assert!(!paths.iter().any(|p| p.contains(absent)), "{absent} is in {paths:?}");
    }
}
