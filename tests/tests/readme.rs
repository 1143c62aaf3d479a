//! The commands of README.md, run as they stand there, against `interlock up`. SW-01, NC-21

use std::fs;

use interlock_tests::Up;

const README: &str = include_str!("../../README.md");

/// The lines of all blocks that begin with that line.
fn blocks(fence: &str) -> Vec<Vec<&'static str>> {
    let mut blocks = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        if line == fence {
            blocks.push(lines.by_ref().take_while(|line| *line != "```").collect());
        }
    }
    blocks
}

#[test]
fn every_command_of_the_readme_works() {
    let up = Up::start(&[]);
    let blocks = blocks("```sh interlock");
    assert!(blocks.len() >= 2, "the README has lost its commands");
    for line in blocks.into_iter().flatten() {
        let output = up.shell(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}\n{}\n{said}", output.status);
        assert!(!said.contains("warning"), "{line}\n{said}");
    }
}

#[test]
fn the_first_two_commands_are_demo_and_check() {
    let first: Vec<_> = blocks("```sh").into_iter().flatten().take(2).collect();
    assert_eq!(first, ["cargo run -p interlock -- demo", "./check"]);
    let check = fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/../check")).expect("./check is there");
    assert!(check.is_file());
}

#[test]
fn the_papers_say_what_they_must() {
    let architecture = include_str!("../../ARCHITECTURE.md");
    assert!(architecture.lines().count() <= 150, "a map, not a book");
    // SW-43: one home for role tokens.
    assert!(architecture.contains("`role_token.rs` and `token_file.rs` (the one home of role tokens)"));
    // FN-01: five subsections.
    let (_, policy) = README.split_once("\n## Owner sessions and root unlock\n").expect("the section");
    let policy = policy.split("\n## ").next().expect("a first part");
    let parts: Vec<_> = policy.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(parts, ["Session auth", "Roles", "Root unlock", "Bootstrap", "Revoke"]);
    // SQ-08, SQ-27: the project file is committed and holds no secret; tools load it at each invocation.
    for said in ["**Commit it**", "It is not secret", "in_folder(&folder)", "ProjectFile::discover(&folder)"]
    {
        assert!(README.contains(said), "the README does not say {said}");
    }
    // UA-29: public ingress.
    assert!(README.contains("There is no public ingress"));
    // UA-40: what must never be committed is ignored.
    let ignored = include_str!("../../.gitignore");
    for secret in ["auth_tokens.json", "accounts.json", "owners.json", "*.key", "*.token", "*.password"] {
        assert!(ignored.lines().any(|line| line == secret), "{secret} is not ignored");
    }
}
