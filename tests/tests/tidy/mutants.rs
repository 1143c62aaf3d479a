//! Mutants that no longer fit the code show nothing: each patch still applies. What they show is asked in
//! `./check --long`, which builds and runs them all.

use std::{path::Path, process::Command};

use crate::{Fault, holds, sees, tree::Tree};

const FOLDER: &str = "tests/mutants/";
/// What says of a mutant what it is, and the one test that must kill it.
const HEADER: [&str; 3] = ["Mutant: ", "Invariant: I", "Killed-by: "];
/// Fewer say little of our tests.
const LEAST: usize = 8;

/// Each patch has its header, and the test that it names is there.
fn headers(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.starts_with(FOLDER) && path.ends_with(".patch"))
    {
        let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("--- ")).collect();
        for wanted in HEADER {
            if !head.iter().any(|line| line.starts_with(wanted)) {
                faults.push(format!("{path}: no line `{wanted}…` above the diff"));
            }
        }
        let named = head.iter().find_map(|line| line.strip_prefix("Killed-by: ")).unwrap_or_default();
        let test = named.rsplit(' ').next().and_then(|test| test.rsplit("::").next()).unwrap_or_default();
        let there = tree.rust("").any(|(_, text)| text.contains(&format!("fn {test}(")));
        if !there {
            faults.push(format!("{path}: there is no test {test}"));
        }
    }
    faults
}

#[test]
fn every_mutant_names_its_invariant_and_its_test() {
    holds(&headers(&Tree::real()));
}

#[test]
fn headers_see_a_mutant_that_names_nothing() {
    let tree = Tree::planted(&[
        ("tests/mutants/a.patch", "Mutant: m\nInvariant: I1\nKilled-by: t mod::gone\n\n--- a/x\n"),
        ("tests/mutants/b.patch", "Mutant: m\nKilled-by: t mod::there\n--- a/x\nInvariant: I1\n"),
        ("tests/mutants/c.patch", "Mutant: m\nInvariant: I1\nKilled-by: t there\n\n--- a/x\n"),
        ("a/src/a.rs", "async fn there() {}"),
    ]);
    sees(&headers(&tree), &["a.patch: there is no test gone", "b.patch: no line `Invariant: I"]);
}

#[test]
fn every_mutant_still_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root");
    let mut patches: Vec<_> = std::fs::read_dir(root.join(FOLDER))
        .expect("the mutants")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    patches.sort();
    assert!(patches.len() >= LEAST, "{} mutants", patches.len());
    let mut faults = Vec::new();
    for patch in &patches {
        let applied = Command::new("git").args(["apply", "--check"]).arg(patch).current_dir(root).output();
        let applied = applied.expect("git runs");
        if !applied.status.success() {
            faults.push(format!("{}: {}", patch.display(), String::from_utf8_lossy(&applied.stderr)));
        }
    }
    holds(&faults);
}
