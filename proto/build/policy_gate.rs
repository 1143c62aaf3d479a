//! The gate that every method passes at build time: it has a policy, and the policy says one thing.
//!
//! A part of the build script; `tests/gate.rs` includes it too, and shuts it with planted faults.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, prost_types::FileDescriptorSet};

const POLICY: &str = "interlock.options.v1.policy";

/// Protos whose methods all have a sound policy.
pub(crate) struct Passed {
    /// What the generator takes.
    pub(crate) set: FileDescriptorSet,
    /// The same set, encoded with its options.
    pub(crate) encoded: Vec<u8>,
    /// The same set, to be read by reflection.
    pub(crate) pool: DescriptorPool,
}

/// Compiles every .proto under `root`.
///
/// # Errors
/// A file that does not compile, or the faults of all policies together, each naming its method.
pub(crate) fn compile(root: &Path) -> Result<Passed, Box<dyn Error>> {
    let mut files = Vec::new();
    proto_files(root, &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;
    let encoded = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(encoded.as_slice())?;
    let faults = policy_faults(&pool);
    if !faults.is_empty() {
        return Err(format!("policies of RPCs:\n  {}", faults.join("\n  ")).into());
    }
    Ok(Passed { set: compiler.file_descriptor_set(), encoded, pool })
}

fn proto_files(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// Every reason why a method's policy cannot stand, each naming its method.
fn policy_faults(pool: &DescriptorPool) -> Vec<String> {
    let Some(extension) = pool.get_extension_by_name(POLICY) else {
        return vec![format!("the option {POLICY} is not defined")];
    };
    let mut faults = Vec::new();
    let mut actions = BTreeMap::new();
    for method in pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
        let name = method.full_name().to_owned();
        let options = method.options();
        if !options.has_extension(&extension) {
            faults.push(format!("{name} has no ({POLICY})"));
            continue;
        }
        let value = options.get_extension(&extension);
        let Some(policy) = value.as_message() else {
            faults.push(format!("{name}: ({POLICY}) is no message"));
            continue;
        };
        faults.extend(faults_of(&method, policy).into_iter().map(|f| format!("{name}: {f}")));
        let action = text(policy, "audit");
        if let Some(other) = actions.insert(action.clone(), name.clone()) {
            faults.push(format!("{name}: audit action {action:?} is also that of {other}"));
        }
    }
    faults
}

/// The rules written at the fields of `interlock.options.v1.Policy`.
fn faults_of(method: &MethodDescriptor, policy: &DynamicMessage) -> Vec<&'static str> {
    let (anyone, project_token, service) = (1, 4, 6);
    let who = numbers(policy, "who");
    let listeners = numbers(policy, "listeners");
    let role = policy.get_field_by_name("role").and_then(|v| v.as_enum_number()).unwrap_or(0);
    let unjudged = who.contains(&anyone) || who == [service];
    let mut faults = Vec::new();
    let mut rule = |broken: bool, what| {
        if broken {
            faults.push(what);
        }
    };
    rule(listeners.is_empty() || listeners.contains(&0), "names no listener");
    rule(who.is_empty() || who.contains(&0), "names nobody who may call");
    rule(who.contains(&anyone) && who.len() > 1, "CALLER_ANYONE stands alone");
    rule((role == 0) != unjudged, "a role is required, but not for CALLER_ANYONE or CALLER_SERVICE");
    rule(
        texts(policy, "scopes").is_empty() == who.contains(&project_token),
        "a scope is required exactly where CALLER_PROJECT_TOKEN may call",
    );
    rule(!text(policy, "audit").contains('.'), "the audit action must be `noun.verb`");
    rule(
        method.is_server_streaming() && !flag(policy, "parks"),
        "a stream of answers parks: it needs bounds of its own",
    );
    faults
}

fn numbers(policy: &DynamicMessage, field: &str) -> Vec<i32> {
    let value = policy.get_field_by_name(field);
    let list = value.as_ref().and_then(|v| v.as_list());
    list.map(|l| l.iter().filter_map(prost_reflect::Value::as_enum_number).collect()).unwrap_or_default()
}

fn text(policy: &DynamicMessage, field: &str) -> String {
    let value = policy.get_field_by_name(field);
    value.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn texts(policy: &DynamicMessage, field: &str) -> Vec<String> {
    let value = policy.get_field_by_name(field);
    let list = value.as_ref().and_then(|v| v.as_list());
    list.map(|l| l.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()).unwrap_or_default()
}

fn flag(policy: &DynamicMessage, field: &str) -> bool {
    policy.get_field_by_name(field).and_then(|v| v.as_bool()).unwrap_or(false)
}
