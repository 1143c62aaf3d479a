//! Every field of every request, from the descriptor set: a new one is found here without anyone thinking of it.

use interlock_proto::{
    options::v1::Listener,
    policy::{MethodPolicy, Policies, descriptors},
};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use crate::edit::Step;

/// One kind of request of one RPC: of a stream of messages, each member of its oneof is one.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) policy: &'static MethodPolicy,
    pub(crate) method: MethodDescriptor,
    /// Which member of the oneof; empty where the message is one thing.
    pub(crate) variant: String,
    pub(crate) fields: Vec<Field>,
}

/// One field, and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) of: FieldDescriptor,
    /// To the message that it stands in.
    pub(crate) steps: Vec<Step>,
    /// As refusals name it: `hello.agent_ids`.
    pub(crate) path: String,
}

/// All requests of both services.
pub(crate) fn requests() -> Vec<Request> {
    let methods = descriptors().services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.flat_map(|method| of_method(&method)).collect()
}

impl Request {
    /// `gateway` or `auth`.
    pub(crate) fn service(&self) -> &'static str {
        if self.policy.path.starts_with("/interlock.auth.") { "auth" } else { "gateway" }
    }

    /// Whether only other services may send it.
    pub(crate) fn internal(&self) -> bool {
        !self.policy.listeners.contains(&Listener::Public)
    }

    /// The method's name and the variant's: `Work hello`.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method.name(), self.variant).trim_end().to_owned()
    }
}

fn of_method(method: &MethodDescriptor) -> Vec<Request> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let policy = Policies::all().of(&path).expect("every method of ours has a policy");
    let request = |variant: &str, fields| Request {
        policy,
        method: method.clone(),
        variant: variant.to_owned(),
        fields,
    };
    let input = method.input();
    let choices = input.fields().filter(|f| f.containing_oneof().is_some_and(|o| !o.is_synthetic()));
    let choices: Vec<FieldDescriptor> = choices.collect();
    if choices.is_empty() {
        return vec![request("", fields_of(&input, &[], ""))];
    }
    let each = choices.iter().map(|choice| {
        let Kind::Message(message) = choice.kind() else { panic!("{}: no message", choice.full_name()) };
        request(choice.name(), fields_of(&message, &[(choice.number(), 0)], choice.name()))
    });
    each.collect()
}

fn fields_of(message: &MessageDescriptor, steps: &[Step], prefix: &str) -> Vec<Field> {
    let mut all = Vec::new();
    for of in message.fields() {
        assert!(!of.is_map(), "{}: a map; say in `hostile.rs` what is hostile to one", of.full_name());
        let path = if prefix.is_empty() { of.name().to_owned() } else { format!("{prefix}.{}", of.name()) };
        if let Some(inner) = nested(&of) {
            let inside: Vec<Step> = steps.iter().copied().chain([(of.number(), 0)]).collect();
            let prefix = if of.is_list() { format!("{path}[0]") } else { path.clone() };
            all.extend(fields_of(&inner, &inside, &prefix));
        }
        all.push(Field { of, steps: steps.to_vec(), path });
    }
    all
}

/// The message of a field that is looked into: not a span of time, nor an instant.
pub(crate) fn nested(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if !message.full_name().starts_with("google.protobuf.") => Some(message),
        _ => None,
    }
}
