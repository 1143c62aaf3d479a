//! `interlock demo`, as the README says it.

use std::process::{Command, Stdio};

use interlock_tests::service::program;
use serde_json::Value;

#[test]
fn every_act_of_the_demo_holds() {
    let home = tempfile::tempdir().expect("a folder");
    let output = Command::new(program("interlock"))
        .args(["demo", "--output", "json"])
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .expect("the demo runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(output.status.success(), "{said}\n{told}");
    let (last, acts) = lines.split_last().expect("a last line");
    assert_eq!((&last["held"], &last["of"]), (&Value::from(11), &Value::from(11)), "{said}\n{told}");
    assert_eq!(acts.len(), 11);
    assert!(acts.iter().all(|act| act["held"] == true));
    println!("{last}");
}
