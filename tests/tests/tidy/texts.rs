//! Rules over every file's text: nothing left open, no address that belongs to one machine or
//! registry, and how long files have become.

use crate::{Fault, holds, sees, tree::Tree};

/// Words that say a thing is not done. Written apart, so that this file is free of them.
const OPEN: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")];

/// The attribute that turns a test off.
const OFF: &str = concat!("#[ign", "ore");

/// Hosts of package registries.
const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("registry.npm", "js.org"),
    concat!("deb.deb", "ian.org"),
    concat!("static.rust", "-lang.org"),
];

/// Where one machine keeps its homes and work.
const MACHINE: &[&str] =
    &[concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// Written by cargo, which names its registry in it.
const GENERATED: &[&str] = &["Cargo.lock", "tests/fuzz/Cargo.lock"];

/// Beyond this a file may hold two rooms.
const LONG: usize = 400;

/// Nothing is left open, and no test is off.
fn open(tree: &Tree) -> Vec<Fault> {
    let kinds = [".rs", ".proto", ".py", ".sh", ".sql"];
    let files = tree.files().filter(|(p, _)| kinds.iter().any(|k| p.ends_with(k)));
    lines(files, |line| OPEN.iter().any(|w| word(line, w)) || line.contains(OFF), "left open")
}

/// No file names a registry's host or a path of one machine.
fn addresses(tree: &Tree) -> Vec<Fault> {
    let files = tree.files().filter(|(path, _)| !GENERATED.contains(path));
    let bad =
        |line: &str| REGISTRIES.iter().any(|h| line.contains(h)) || MACHINE.iter().any(|p| rooted(line, p));
    lines(files, bad, "names a registry or a place on one machine")
}

/// Files that a reader may want to see parted.
fn long(tree: &Tree) -> Vec<Fault> {
    let sizes = tree.rust("").map(|(path, text)| (path, text.lines().count()));
    sizes.filter(|(_, size)| *size > LONG).map(|(path, size)| format!("{path}: {size} lines")).collect()
}

fn lines<'a>(
    files: impl Iterator<Item = (&'a str, &'a str)>,
    wrong: impl Fn(&str) -> bool,
    why: &str,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, text) in files {
        let found = text.lines().enumerate().filter(|(_, line)| wrong(line));
        faults.extend(found.map(|(at, line)| format!("{path}:{}: {why}: {}", at + 1, line.trim())));
    }
    faults
}

/// Whether the line has the word, not as a part of a longer one.
fn word(line: &str, word: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let ends = word.chars().last();
    line.match_indices(word).any(|(at, found)| {
        let after = line[at + found.len()..].chars().next();
        let longer = letter(line[..at].chars().last()) || (letter(ends) && letter(after));
        !longer
    })
}

/// Whether the line has the path from the file system's root on, not as the middle of a longer one.
fn rooted(line: &str, path: &str) -> bool {
    let within = |c: char| c.is_alphanumeric() || "_-.}/*".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].chars().last().is_some_and(within))
}

#[test]
fn nothing_is_left_open() {
    holds(&open(&Tree::real()));
}

#[test]
fn open_sees_what_is_left() {
    let planted = [
        ("a/src/a.rs", format!("// {}: later", OPEN[0])),
        ("a/src/b.rs", format!("fn f() {{ {}) }}", OPEN[2])),
        ("a/src/c.rs", format!("{}]\nfn test() {{}}", OFF)),
        ("a/src/d.rs", format!("// MY{}S, {}S", OPEN[0], OPEN[1])),
        ("a/proto/e.proto", format!("// {}", OPEN[1])),
    ];
    let files: Vec<(&str, &str)> = planted.iter().map(|(p, t)| (*p, t.as_str())).collect();
    sees(&open(&Tree::planted(&files)), &["a.rs:1", "b.rs:1", "c.rs:1", "e.proto:1"]);
}

#[test]
fn nothing_names_a_registry_or_a_machine() {
    holds(&addresses(&Tree::real()));
}

#[test]
fn addresses_see_a_host_and_a_home() {
    let planted = [
        ("README.md", format!("see {}", REGISTRIES[0])),
        ("check", format!("cd {}me/main", MACHINE[1])),
        ("a.rs", format!("a{}b, $HOME{}x", MACHINE[2], "/x")),
        ("Cargo.lock", REGISTRIES[0].to_owned()),
    ];
    let files: Vec<(&str, &str)> = planted.iter().map(|(p, t)| (*p, t.as_str())).collect();
    sees(&addresses(&Tree::planted(&files)), &["README.md:1", "check:1"]);
}

/// Reports; does not fail: a file is not to be shredded for a number.
#[test]
fn long_files_are_reported() {
    for file in long(&Tree::real()) {
        println!("long: {file}");
    }
    let text = "\n".repeat(LONG + 1);
    sees(
        &long(&Tree::planted(&[("a.rs", &text), ("b.rs", &text[1..]), ("c.md", &text)])),
        &["a.rs: 401 lines"],
    );
}
