//! What the compiler refuses, in both services: a write without a permit, rows reached past `Tx`, a permit or a
//! project scope made outside the policy, a binding without an entrance.
//!
//! Each program under `auth/` and `gateway/` says where it must be refused and with which error: a comment
//! `//~ E0061` at the end of the line. The compiler's errors must be these and no others. The libraries are
//! those that the tests themselves are built with, so that nothing is compiled a second time.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Line and error code.
type Refusals = BTreeSet<(u64, String)>;

#[test]
fn the_compiler_refuses() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let mut seen = 0;
    for folder in ["auth", "gateway"] {
        let library = library(&format!("interlock_{folder}"));
        for program in programs(&here.join(folder)) {
            let text = fs::read_to_string(&program).expect("the program is readable");
            let wanted = wanted(&text);
            assert!(!wanted.is_empty(), "{} names no error", program.display());
            let (found, said) = compile(&program, &library);
            assert_eq!(found, wanted, "{}:\n{said}", program.display());

            // The same without the lines that are refused: so it is these, and not the rest.
            let rest = tempfile::tempdir().expect("a folder");
            let allowed = rest.path().join("allowed.rs");
            fs::write(&allowed, without_refused_lines(&text)).expect("writes");
            let (found, said) = compile(&allowed, &library);
            assert_eq!(found, Refusals::new(), "{} without its refused lines:\n{said}", program.display());
            seen += 1;
        }
    }
    assert!(seen >= 7, "{seen} programs were compiled");
}

fn programs(folder: &Path) -> Vec<PathBuf> {
    let mut programs: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    programs.sort();
    programs
}

fn wanted(text: &str) -> Refusals {
    (1..)
        .zip(text.lines())
        .filter_map(|(line, text)| Some((line, text.split_once("//~ ")?.1.trim().to_owned())))
        .collect()
}

/// A refused line becomes a panic, so that what it stands in still has a value.
fn without_refused_lines(text: &str) -> String {
    text.lines()
        .map(
            |line| {
                if line.contains("//~ ") { "    return panic!();\n".to_owned() } else { format!("{line}\n") }
            },
        )
        .collect()
}

/// What the compiler refuses in `program`, and all that it says.
fn compile(program: &Path, library: &Path) -> (Refusals, String) {
    let out = tempfile::tempdir().expect("a folder");
    let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.trim_start_matches("lib").split('-').next().unwrap_or_default().to_owned();
    let beside = library.parent().expect("a library lies in a folder");
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--edition", "2024", "--crate-type", "bin", "--emit", "metadata", "--error-format", "json"])
        .arg("--extern")
        .arg(format!("{name}={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", beside.display()))
        .arg("--out-dir")
        .arg(out.path());
    let output = rustc.arg(program).output().expect("rustc runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut refusals = Refusals::new();
    for message in said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let spans = message["spans"].as_array().map_or(&[][..], Vec::as_slice);
        if message["level"] != "error" || (message["code"].is_null() && spans.is_empty()) {
            continue; // The last one only counts the others.
        }
        let line = spans
            .iter()
            .find(|span| span["is_primary"] == true)
            .map_or(0, |span| span["line_start"].as_u64().unwrap_or(0));
        let code = message["code"]["code"].as_str().unwrap_or("no code");
        refusals.insert((line, code.to_owned()));
    }
    assert_eq!(output.status.success(), refusals.is_empty(), "the compiler said something else:\n{said}");
    (refusals, said)
}

/// A service's library as these tests are linked with it: it lies beside them. Where features have left several, the
/// newest one is of the newest source.
fn library(name: &str) -> PathBuf {
    let this = env::current_exe().expect("the path of this test");
    let beside = this.parent().expect("a test stands in a folder");
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib")
    };
    let entries = fs::read_dir(beside).expect("the folder is readable");
    let all = entries.map(|entry| entry.expect("an entry").path()).filter(is_it);
    let newest = all.max_by_key(|path| path.metadata().and_then(|about| about.modified()).expect("a file"));
    newest.unwrap_or_else(|| panic!("no lib{name} in {}", beside.display()))
}
