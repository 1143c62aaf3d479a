//! Every key that a service reads stands in `docs/configuration.md`, and no other does.

use std::collections::BTreeSet;

use crate::{Fault, holds, sees, tree::Tree};

const PAGE: &str = "docs/configuration.md";
/// Where keys are read.
const READERS: [&str; 7] = [
    "service-kit/src/config/common.rs",
    "service-kit/src/config/limits.rs",
    "service-kit/src/config/hashing.rs",
    "auth-service/src/config.rs",
    "gateway-service/src/config.rs",
    "service-kit/src/unscoped.rs",
    "service-kit/src/config/audit.rs",
];
/// What begins the reading of a key: methods of the kit's `Reader`, and functions over them.
const READS: [&str; 11] = [
    "r.value(",
    "r.optional(",
    "r.required(",
    "r.bounded(",
    "r.choice(",
    "r.list(",
    "r.path(",
    "r.database(",
    "r.sharing(",
    "(r, ",
    "(&mut r, ",
];

fn documented(tree: &Tree) -> Vec<Fault> {
    let Some(page) = tree.file(PAGE) else { return vec![format!("{PAGE}: is missing")] };
    let mut read = BTreeSet::new();
    for path in READERS {
        let Some(text) = tree.file(path) else { return vec![format!("{path}: is missing")] };
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        read.extend(READS.iter().flat_map(|read| keys_after(text, read)));
        // A closure of its own reads these two.
        read.extend(keys_after(text, "file("));
    }
    // The first cell of each row.
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let told: BTreeSet<&str> = cells.flat_map(|cell| cell.split('`').filter(|part| is_key(part))).collect();
    let untold = read.difference(&told).map(|key| format!("{PAGE}: says nothing of {key}"));
    let unread = told.difference(&read).map(|key| format!("{PAGE}: {key} is read nowhere"));
    untold.chain(unread).collect()
}

/// The string literals that follow directly on this.
fn keys_after<'t>(text: &'t str, read: &str) -> Vec<&'t str> {
    let after = text.match_indices(read).map(|(at, read)| text[at + read.len()..].trim_start());
    after.filter_map(|rest| rest.strip_prefix('"')?.split('"').next()).filter(|key| is_key(key)).collect()
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b))
}

#[test]
fn every_setting_is_documented() {
    holds(&documented(&Tree::real()));
}

#[test]
fn documented_sees_a_key_too_few_and_one_too_many() {
    let tree = Tree::planted(&[
        (
            READERS[0],
            "let a = r.value(\"told\", 1); let b = r.path(\n  \"untold.too\"); \n#[cfg(test)] r.path(\"no\")",
        ),
        (READERS[1], "bounded(r, \"limits.x\", &mut l.x)"),
        (READERS[3], "span(&mut r, \"lease\", LEASE)"),
        (READERS[2], ""),
        (READERS[5], ""),
        (READERS[6], ""),
        (READERS[4], ""),
        (PAGE, "| key | default |\n| `told`, `lease` | 1 | `not.here` |\n| `limits.y` | 2 |"),
    ]);
    let planted = ["nothing of limits.x", "nothing of untold.too", "limits.y is read nowhere"];
    sees(&documented(&tree), &planted);
}
