//! Compiles the .proto files with protox, and refuses to build where a method has no policy or a
//! policy that contradicts itself.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};

const POLICY: &str = "interlock.options.v1.policy";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    // The compile-fail test of this gate points it at a folder of its own.
    println!("cargo:rerun-if-env-changed=INTERLOCK_PROTO_ROOT");
    let root = env::var_os("INTERLOCK_PROTO_ROOT").map_or_else(|| PathBuf::from("proto"), PathBuf::from);
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut files = Vec::new();
    proto_files(&root, &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;
    let encoded = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(encoded.as_slice())?;

    let faults = policy_faults(&pool);
    if !faults.is_empty() {
        return Err(format!("policies of RPCs:\n  {}", faults.join("\n  ")).into());
    }

    let redacted = redacted_messages(&pool);
    fs::write(out.join("descriptors.bin"), &encoded)?;
    fs::write(out.join("redacted.rs"), debug_impls(&redacted))?;
    tonic_prost_build::configure()
        .bytes(".")
        .skip_debug(redacted.iter().map(|m| format!(".{}", m.full_name())))
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn proto_files(dir: &PathBuf, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
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
    let mut actions = std::collections::BTreeMap::new();
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
        text(policy, "scope").is_empty() == who.contains(&project_token),
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

fn flag(policy: &DynamicMessage, field: &str) -> bool {
    policy.get_field_by_name(field).and_then(|v| v.as_bool()).unwrap_or(false)
}

/// Messages with a field marked `debug_redact`: their `Debug` must not show it.
fn redacted_messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    let ours = pool.all_messages().filter(|m| m.package_name().starts_with("interlock."));
    ours.filter(|m| m.fields().any(|f| redact(&f))).collect()
}

fn redact(field: &prost_reflect::FieldDescriptor) -> bool {
    let value = field.options().get_field_by_name("debug_redact").map(|v| v.as_bool());
    value.flatten().unwrap_or(false)
}

fn debug_impls(messages: &[MessageDescriptor]) -> String {
    let mut code = String::new();
    for message in messages {
        let path = rust_path(message);
        let name = message.name();
        let _ = write!(
            code,
            "impl std::fmt::Debug for {path} {{\n    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{\n        f.debug_struct(\"{name}\")"
        );
        for field in message.fields().filter(|f| f.containing_oneof().is_none()) {
            let field_name = field.name();
            if redact(&field) {
                let _ = write!(
                    code,
                    "\n            .field(\"{field_name}\", &format_args!(\"<{{}} bytes>\", self.{field_name}.len()))"
                );
            } else {
                let _ = write!(code, "\n            .field(\"{field_name}\", &self.{field_name})");
            }
        }
        code.push_str("\n            .finish()\n    }\n}\n");
    }
    code
}

/// `interlock.gateway.v1.WorkRequest.Finish` is `crate::gateway::v1::work_request::Finish`.
fn rust_path(message: &MessageDescriptor) -> String {
    let package = message.package_name();
    let inner = &message.full_name()[package.len() + 1..];
    let mut path = package.strip_prefix("interlock.").unwrap_or(package).replace('.', "::");
    let parts: Vec<&str> = inner.split('.').collect();
    for (i, part) in parts.iter().enumerate() {
        let segment = if i + 1 == parts.len() { (*part).to_owned() } else { snake(part) };
        let _ = write!(path, "::{segment}");
    }
    format!("crate::{path}")
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
