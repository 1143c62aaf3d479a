//! Compiles the .proto files with protox, and refuses to build where a method has no policy or a
//! policy that contradicts itself (`build/policy_gate.rs`).

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use prost_reflect::{DescriptorPool, MessageDescriptor};

#[path = "build/policy_gate.rs"]
mod policy_gate;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build");
    // To see the gate shut: point this at a copy of `proto` with a fault in it.
    println!("cargo:rerun-if-env-changed=INTERLOCK_PROTO_ROOT");
    let root = env::var_os("INTERLOCK_PROTO_ROOT").map_or_else(|| PathBuf::from("proto"), PathBuf::from);
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let passed = policy_gate::compile(&root)?;
    let redacted = redacted_messages(&passed.pool);
    fs::write(out.join("descriptors.bin"), &passed.encoded)?;
    fs::write(out.join("redacted.rs"), debug_impls(&redacted))?;
    tonic_prost_build::configure()
        .bytes(".")
        .skip_debug(redacted.iter().map(|m| format!(".{}", m.full_name())))
        .compile_fds(passed.set)?;
    Ok(())
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
