//! Secrets are compared in constant time: `==` stops at the first byte that differs, and by how long it takes a
//! caller learns how much of a guess is right. What callers show is compared by `subtle`, or found by its hash.

use proc_macro2::{Spacing, TokenStream, TokenTree};

use crate::{
    Fault,
    code::{after_item, is_cfg_test},
    holds, sees,
    tree::Tree,
};

/// Beside `==` or `!=` one of these says that a secret, or what was made of one, is compared.
const SECRETS: &[&str] = &["secret", "password", "digest", "expose", "accepted", "mac", "tag_of"];

/// Compared here is what the host's own files and variables say, with what they said before: no caller is asked.
const AT_HOME: &[&str] =
    &["auth-service/src/accounts.rs", "auth-service/src/accounts_apply.rs", "service-kit/src/tls.rs"];

/// The crates whose programs take secrets from others.
const CRATES: &[&str] = &["proto", "service-kit", "auth-service", "gateway-service", "client-sdk"];

fn comparisons(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for folder in CRATES {
        for (path, text) in tree.rust(folder) {
            let source = path.contains("/src/") && !path.contains("/tests/") && !path.ends_with("/tests.rs");
            if !source || AT_HOME.contains(&path) {
                continue;
            }
            let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{path} is no Rust: {e}"));
            scan(tokens, &mut |line, word| {
                faults.push(format!("{path}:{line}: `{word}` is compared byte by byte"));
            });
        }
    }
    faults
}

fn scan(stream: TokenStream, found: &mut impl FnMut(usize, &str)) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(p) if p.as_char() == '#' && is_cfg_test(tokens.get(at + 1)) => {
                at = after_item(&tokens, at + 2);
                continue;
            }
            TokenTree::Group(group) => scan(group.stream(), found),
            token if compares(&tokens, at) => {
                let left = tokens[..at].iter().rev().take_while(|token| !ends(token));
                let right = tokens[at + 2..].iter().take_while(|token| !ends(token));
                let mut words = Vec::new();
                left.chain(right).for_each(|token| idents(token, &mut words));
                if let Some(word) = words.iter().find(|word| SECRETS.contains(&word.as_str())) {
                    found(token.span().start().line, word);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// `==` or `!=` from here on.
fn compares(tokens: &[TokenTree], at: usize) -> bool {
    let is = |at: usize, chars: &[char]| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if chars.contains(&p.as_char()));
    is(at, &['=', '!']) && is(at + 1, &['=']) && !(at > 0 && is(at - 1, &['=', '!', '<', '>']))
}

/// What no operand goes beyond.
fn ends(token: &TokenTree) -> bool {
    match token {
        // Of `&&` the first one: a single one makes a reference.
        TokenTree::Punct(p) if p.as_char() == '&' => p.spacing() == Spacing::Joint,
        TokenTree::Punct(p) => matches!(p.as_char(), ';' | ',' | '|' | '='),
        TokenTree::Ident(word) => {
            ["if", "while", "return", "let", "match", "in"].iter().any(|end| word == end)
        }
        TokenTree::Group(_) | TokenTree::Literal(_) => false,
    }
}

fn idents(token: &TokenTree, words: &mut Vec<String>) {
    match token {
        TokenTree::Ident(word) => words.push(word.to_string()),
        TokenTree::Group(group) if group.delimiter() == proc_macro2::Delimiter::Parenthesis => {
            group.stream().into_iter().for_each(|token| idents(&token, words));
        }
        _ => {}
    }
}

#[test]
fn secrets_are_compared_in_constant_time() {
    holds(&comparisons(&Tree::real()));
}

#[test]
fn comparisons_see_a_secret_beside_an_equals_sign() {
    let tree = Tree::planted(&[
        ("service-kit/src/a.rs", "fn f() -> bool {\n digest == *first || digest == *second }"),
        ("auth-service/src/b.rs", "fn f() { if x && given.expose() != kept { g() } }"),
        ("client-sdk/src/c.rs", "fn f() -> bool { password(a) == b }"),
        (
            "proto/src/d.rs",
            "fn f() -> bool { let digest = 1; a.hash() == b.hash() && digest.ct_eq(x).into() }",
        ),
        ("proto/src/e.rs", "fn f(a: u8) { let secret = a >= 1; match secret { _ => {} } }"),
        ("proto/src/f.rs", "#[cfg(test)]\nmod tests { fn f() { secret == 1; } }"),
    ]);
    sees(
        &comparisons(&tree),
        &["a.rs:2: `digest`", "a.rs:2: `digest`", "b.rs:1: `expose`", "c.rs:1: `password`"],
    );
}
