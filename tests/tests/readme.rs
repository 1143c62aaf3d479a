//! The commands of README.md, run as they stand there, against `interlock up`. SW-01

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
