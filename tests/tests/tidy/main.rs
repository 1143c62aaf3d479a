//! The rules of the tree that neither the compiler nor clippy holds: which crate knows which, what a
//! noun may name, where the environment and the clock are read, what every file is free of.
//!
//! - [`tree`]: the files, as text.
//! - [`code`]: the paths that Rust code names, tests left out.
//! - [`manifests`], [`mutants`], [`protos`], [`secrets`], [`settings`], [`sources`], [`texts`]: the rules, one
//!   function each, from the tree to its faults; beside each a tree with a fault planted in it, so that no rule passes
//!   by being blind.

mod code;
mod manifests;
mod mutants;
mod protos;
mod secrets;
mod settings;
mod sources;
mod texts;
mod tree;

/// A fault: where, and what is wrong there.
type Fault = String;

/// Fails with all faults of the real tree.
#[track_caller]
fn holds(faults: &[Fault]) {
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

/// Fails unless the rule saw exactly the planted faults, each by a part of its text.
#[track_caller]
fn sees(faults: &[Fault], planted: &[&str]) {
    let seen = faults.len() == planted.len() && planted.iter().all(|p| faults.iter().any(|f| f.contains(p)));
    assert!(seen, "planted: {planted:#?}\nseen: {faults:#?}");
}
