//! The corpus of each fuzz target, replayed: the properties hold for what fuzzing has kept, and for whatever once
//! broke one of them. So a target cannot rot between two runs of `./check --long`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use interlock_tests::fuzz::TARGETS;

/// Kept small: they are read by people, and replayed each time.
const SEEDS_MAX: usize = 64;
const SEED_BYTES_MAX: u64 = 8 * 1024;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

#[test]
fn the_corpus_breaks_no_property() {
    for (name, check) in TARGETS {
        let seeds = files(&folder("corpus").join(name));
        assert!((1..=SEEDS_MAX).contains(&seeds.len()), "{name}: {} seeds", seeds.len());
        for seed in seeds {
            let bytes = fs::read(&seed).expect("a seed");
            assert!(bytes.len() as u64 <= SEED_BYTES_MAX, "{}: {} bytes", seed.display(), bytes.len());
            // The last line before a panic says which.
            println!("{}", seed.display());
            check(&bytes);
        }
    }
}

/// A target without a program is never fuzzed, a program without a target is never replayed.
#[test]
fn each_target_has_a_program_and_each_program_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let programs: BTreeSet<String> = files(&folder("fuzz_targets")).into_iter().map(stem).collect();
    let corpora: BTreeSet<String> = files(&folder("corpus")).into_iter().map(stem).collect();
    assert_eq!((&programs, &corpora), (&targets, &targets));
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("a manifest");
    for name in &targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not built");
        let program =
            fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).expect("a program");
        assert!(program.contains(&format!("fuzz::{name}::check")), "{name} fuzzes another target");
    }
}
