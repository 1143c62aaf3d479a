//! Rules over the manifests and folders: the arrows between crates, the lints, the list of folders.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::{Fault, holds, sees, tree::Tree};

/// Each crate of ours, its folder, and which of ours it may depend on.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("interlock-proto", "proto", &[]),
    ("interlock-kit", "service-kit", &["interlock-proto"]),
    ("interlock-auth", "auth-service", &["interlock-kit", "interlock-proto"]),
    ("interlock-gateway", "gateway-service", &["interlock-kit", "interlock-proto", "interlock-client"]),
    ("interlock-client", "client-sdk", &["interlock-proto"]),
    (
        "interlock",
        "cli",
        &["interlock-client", "interlock-proto", "interlock-kit", "interlock-auth", "interlock-gateway"],
    ),
    (
        "interlock-tests",
        "tests",
        &["interlock-client", "interlock-proto", "interlock-kit", "interlock-auth", "interlock-gateway"],
    ),
];

/// Folders at the root beside those of the crates: settings, and pages to read.
const SETTINGS: &[&str] = &[".ci", ".config", "docs"];

/// No crate depends on one of ours that it may not know.
fn arrows(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for &(name, folder, may) in ARROWS {
        let Some(manifest) = manifest(tree, &format!("{folder}/Cargo.toml"), &mut faults) else { continue };
        let found = manifest.get("package").and_then(|p| p.get("name")).and_then(Value::as_str);
        if found != Some(name) {
            faults.push(format!("{folder}/Cargo.toml: the crate is not {name}"));
        }
        for dependency in dependencies(&manifest) {
            let ours = ARROWS.iter().any(|(other, ..)| *other == dependency);
            if ours && !may.contains(&dependency.as_str()) {
                faults.push(format!("{folder}/Cargo.toml: {name} must not depend on {dependency}"));
            }
        }
    }
    faults
}

/// `unsafe` is forbidden in the workspace, and every crate inherits the workspace's lints.
fn lints(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(root) = manifest(tree, "Cargo.toml", &mut faults) {
        let forbidden = path(&root, &["workspace", "lints", "rust", "unsafe_code"]);
        if forbidden.and_then(Value::as_str) != Some("forbid") {
            faults.push("Cargo.toml: unsafe_code is not forbidden".to_owned());
        }
    }
    for (_, folder, _) in ARROWS {
        let at = format!("{folder}/Cargo.toml");
        let Some(manifest) = manifest(tree, &at, &mut faults) else { continue };
        if path(&manifest, &["lints", "workspace"]).and_then(Value::as_bool) != Some(true) {
            faults.push(format!("{at}: does not inherit the workspace's lints"));
        }
    }
    faults
}

/// The folders at the root are those of DESIGN, each a member of the workspace, and no others.
fn folders(tree: &Tree) -> Vec<Fault> {
    let crates: BTreeSet<&str> = ARROWS.iter().map(|(_, folder, _)| *folder).collect();
    let expected: BTreeSet<&str> = crates.iter().chain(SETTINGS).copied().collect();
    let found = tree.top();
    let mut faults: Vec<Fault> =
        found.difference(&expected).map(|f| format!("{f}/: no such folder in the design")).collect();
    faults.extend(expected.difference(&found).map(|f| format!("{f}/: is missing")));
    if let Some(root) = manifest(tree, "Cargo.toml", &mut faults) {
        let members = path(&root, &["workspace", "members"]).and_then(Value::as_array);
        let members: BTreeSet<&str> = members.into_iter().flatten().filter_map(Value::as_str).collect();
        if members != crates {
            faults.push(format!("Cargo.toml: the members are {members:?}"));
        }
    }
    faults
}

fn manifest(tree: &Tree, at: &str, faults: &mut Vec<Fault>) -> Option<Table> {
    let parsed = tree
        .file(at)
        .ok_or("is missing".to_owned())
        .and_then(|t| t.parse::<Table>().map_err(|e| format!("is no TOML: {e}")));
    parsed.map_err(|e| faults.push(format!("{at}: {e}"))).ok()
}

/// The names of all dependencies, of every kind and target.
fn dependencies(manifest: &Table) -> Vec<String> {
    const KINDS: &[&str] = &["dependencies", "build-dependencies", "dev-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables = targets.into_iter().flat_map(|t| t.values().filter_map(Value::as_table));
    let tables = std::iter::once(manifest).chain(tables);
    let lists = tables.flat_map(|t| KINDS.iter().filter_map(|k| t.get(*k).and_then(Value::as_table)));
    lists.flat_map(|list| list.iter().map(|(name, value)| renamed(name, value))).collect()
}

/// A dependency's own name, where the manifest gives it another.
fn renamed(name: &str, value: &Value) -> String {
    value.get("package").and_then(Value::as_str).unwrap_or(name).to_owned()
}

fn path<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(key))
}

#[test]
fn crates_know_only_whom_they_may() {
    holds(&arrows(&Tree::real()));
}

#[test]
fn arrows_see_a_forbidden_dependency() {
    let text = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
    let files: Vec<(String, String)> = ARROWS
        .iter()
        .map(|(name, folder, _)| {
            let rest = match *folder {
                "gateway-service" => "[dependencies]\ninterlock-auth.workspace = true",
                "client-sdk" => "[dev-dependencies]\nkit = { package = \"interlock-kit\", path = \"..\" }",
                "service-kit" => "[target.'cfg(unix)'.build-dependencies]\ninterlock-client = \"1\"",
                _ => "[dependencies]\ntonic = \"1\"\ninterlock-proto = \"1\"",
            };
            (format!("{folder}/Cargo.toml"), text(name, if *folder == "proto" { "" } else { rest }))
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    sees(
        &arrows(&Tree::planted(&files)),
        &[
            "interlock-gateway must not depend on interlock-auth",
            "interlock-client must not depend on interlock-kit",
            "interlock-kit must not depend on interlock-client",
        ],
    );
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    holds(&lints(&Tree::real()));
}

#[test]
fn lints_see_a_crate_of_its_own_mind() {
    let mut files = vec![("Cargo.toml".to_owned(), "[workspace.lints.rust]\nunsafe_code = \"warn\"")];
    for (_, folder, _) in ARROWS {
        let text = if *folder == "cli" { "[lints]\nworkspace = false" } else { "[lints]\nworkspace = true" };
        files.push((format!("{folder}/Cargo.toml"), text));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
    sees(
        &lints(&Tree::planted(&files)),
        &["unsafe_code is not forbidden", "cli/Cargo.toml: does not inherit"],
    );
}

#[test]
fn the_folders_are_those_of_the_design() {
    holds(&folders(&Tree::real()));
}

#[test]
fn folders_see_one_too_many_and_one_too_few() {
    let mut files = vec![("Cargo.toml".to_owned(), "[workspace]\nmembers = [\"common\"]")];
    for (_, folder, _) in ARROWS.iter().filter(|(_, folder, _)| *folder != "cli") {
        files.push((format!("{folder}/Cargo.toml"), ""));
    }
    files.extend(SETTINGS.iter().map(|f| (format!("{f}/run"), "")));
    files.push(("common/src/lib.rs".to_owned(), ""));
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
    sees(
        &folders(&Tree::planted(&files)),
        &["common/: no such folder", "cli/: is missing", "the members are {\"common\"}"],
    );
}
