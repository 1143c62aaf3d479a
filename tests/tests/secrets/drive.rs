//! Every RPC, as many callers, with credentials in every place where they do not belong.

use bytes::Bytes;
use interlock_proto::{
    credential::{Credential, Kind},
    policy::{Policies, descriptors},
};
use interlock_tests::{
    pair::Peer,
    wire::{self, Metadata},
    within,
};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, MessageDescriptor, Value};
use tonic::{Status, metadata::MetadataMap, transport::Channel};

use crate::stage::Stage;

/// Answers of these are there to hold a secret.
const GIVE_SECRETS: [&str; 5] =
    ["/Login", "/Refresh", "/Rotate", "/BeginRotation", "RoleTokenService/GetStatus"];
/// These end the credential that they are called on.
const END_THEIRS: [&str; 2] = ["/Logout", "/Refresh"];

/// How many methods are called.
pub(crate) fn methods() -> usize {
    Policies::all().iter().count()
}

/// Makes all the calls, and hears their answers; how many they were.
pub(crate) async fn every_rpc(stage: &mut Stage) -> usize {
    let alice = stage.alice.clone().expect("signed in");
    let access = alice.access_token.expose().to_owned();
    let internal = stage.pair.world.internal_token().to_owned();
    let callers = [
        Metadata::none(),
        Metadata::bearer(&alice.access_token),
        Metadata::bearer(&stage.pair.admin()),
        Metadata::none().with("cookie", &stage.cookie),
    ];
    let strangers = [
        Metadata::bearer(&alice.refresh_token),
        Metadata::none().with("authorization", &format!("Bearer {internal}")),
        Metadata::bearer(&Credential::new(Kind::Owner, &[5; 32])),
    ];
    let service = [
        Metadata::none().with("x-internal-token", &internal),
        Metadata::bearer(&alice.access_token).with("x-internal-token", &internal),
        Metadata::none().with("x-internal-token", Credential::new(Kind::Internal, &[6; 32]).expose()),
    ];
    let mut calls = 0;
    for (own, public, inside) in [
        (".auth.", stage.pair.auth_public(), stage.pair.auth_internal(Peer::Listed)),
        (".gateway.", stage.pair.gateway_public(), stage.pair.gateway_internal(Peer::Listed)),
    ] {
        // The other service's are one refusal, and it is not known here.
        let served = |path: &str| !path.starts_with("/interlock.") || path.contains(own);
        for policy in Policies::all().iter().filter(|policy| served(&policy.path)) {
            let path = policy.path.as_str();
            let messages = messages(path, &access);
            for (channel, callers) in [(&public, &callers[..]), (&inside, &service[..])] {
                for caller in callers {
                    for message in &messages {
                        calls += call(stage, channel, path, message, caller).await;
                    }
                }
            }
            for stranger in &strangers {
                calls += call(stage, &public, path, &Bytes::new(), stranger).await;
            }
        }
        for path in misplaced_paths(&access) {
            calls += call(stage, &public, &path, &Bytes::new(), &callers[1]).await;
        }
        for metadata in misplaced(stage, &access) {
            for path in [
                "/interlock.gateway.v1.SessionService/ListSessions",
                "/interlock.auth.v1.IdentityService/WhoAmI",
            ] {
                calls += call(stage, &public, path, &Bytes::new(), &metadata).await;
                calls += call(stage, &inside, path, &Bytes::new(), &metadata).await;
            }
        }
    }
    calls
}

async fn call(stage: &mut Stage, channel: &Channel, path: &str, message: &Bytes, caller: &Metadata) -> usize {
    // Who is signed out is heard of no more.
    let bearer = format!("{caller:?}").contains("Bearer ilk_own_");
    if bearer && END_THEIRS.iter().any(|end| path.ends_with(end)) {
        return 0;
    }
    let answer = within(path, async {
        let (metadata, mut messages) = wire::open(channel, path, message.clone(), caller).await?;
        let first = messages.message().await?;
        Ok::<_, Status>((metadata, first.unwrap_or_default()))
    })
    .await;
    match answer {
        Ok((metadata, message)) => {
            hear_metadata(stage, &metadata);
            if !GIVE_SECRETS.iter().any(|gives| path.ends_with(gives)) {
                stage.answers.extend_from_slice(&message);
            }
        }
        Err(status) => {
            hear_metadata(stage, status.metadata());
            stage.answers.extend_from_slice(format!("{status:?} {status}").as_bytes());
            stage.answers.extend_from_slice(status.details());
        }
    }
    stage.answers.extend_from_slice(b"\n");
    1
}

fn hear_metadata(stage: &mut Stage, metadata: &MetadataMap) {
    for (name, value) in metadata.as_ref() {
        // A session's first answer carries its cookie.
        if name != "set-cookie" {
            stage.answers.extend_from_slice(name.as_str().as_bytes());
            stage.answers.extend_from_slice(value.as_bytes());
        }
    }
}

/// A credential in each place of a call that is no place for one. A password as the id of a call cannot be told
/// from an id: it is the caller's own mark, and goes where such marks go.
fn misplaced(stage: &Stage, access: &str) -> Vec<Metadata> {
    let password = stage.pair.world.password("alice");
    let internal = stage.pair.world.internal_token();
    let cookie = format!("__Host-interlock_{access}={access}; theme={access}");
    let plain = [
        ("x-request-id", access),
        ("traceparent", access),
        ("tracestate", access),
        ("user-agent", access),
        ("x-interlock-project", access),
        ("x-on-behalf-of", access),
        ("x-on-behalf-of", password),
        ("cookie", &cookie),
        ("authorization", access),
        ("x-internal-token", internal),
        ("grpc-timeout", access),
        ("grpc-encoding", access),
        ("x-forwarded-for", access),
        ("x-anything", access),
    ];
    let alice = Metadata::none().with("authorization", &format!("Bearer {access}"));
    let mut all: Vec<_> = plain.iter().map(|(name, value)| Metadata::none().with(name, value)).collect();
    all.extend(plain.iter().map(|(name, value)| alice.clone().with(name, value)));
    for value in
        [format!("Basic {password}"), format!("Bearer {password}"), format!("Bearer {access} {access}")]
    {
        all.push(Metadata::none().with("authorization", &value));
    }
    all
}

fn misplaced_paths(access: &str) -> [String; 3] {
    [
        format!("/{access}/{access}"),
        format!("/interlock.auth.v1.IdentityService/{access}"),
        format!("/interlock.auth.v1.IdentityService/WhoAmI?access_token={access}"),
    ]
}

/// Requests of a method: an empty one, and one for each branch of its `oneof` with this text in every field.
fn messages(path: &str, text: &str) -> Vec<Bytes> {
    let method = descriptors()
        .services()
        .flat_map(|s| s.methods().collect::<Vec<_>>())
        .find(|method| path == format!("/{}/{}", method.parent_service().full_name(), method.name()));
    // Of health and reflection: `service`, and field 4 of both reflections (`file_containing_symbol`).
    let Some(method) = method else {
        let field = if path.contains("Health") { 0x0a } else { 0x22 };
        let length = u8::try_from(text.len()).expect("short");
        let stuffed = [&[field, length], text.as_bytes()].concat();
        return vec![Bytes::new(), stuffed.into(), Bytes::from_static(&[0x3a, 0x00])];
    };
    let mut all = vec![Bytes::new()];
    let message = method.input();
    let branches: Vec<_> = message.oneofs().flat_map(|oneof| oneof.fields().collect::<Vec<_>>()).collect();
    if branches.is_empty() {
        all.push(stuffed(&message, text, None, 0).encode_to_vec().into());
    }
    all.extend(branches.iter().map(|branch| stuffed(&message, text, Some(branch), 0).encode_to_vec().into()));
    all
}

fn stuffed(
    message: &MessageDescriptor,
    text: &str,
    branch: Option<&FieldDescriptor>,
    depth: u8,
) -> DynamicMessage {
    let mut made = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if field.containing_oneof().is_some() && branch.is_some_and(|branch| *branch != field) {
            continue;
        }
        let value = match field.kind() {
            FieldKind::String => Value::String(text.to_owned()),
            FieldKind::Bytes => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
            FieldKind::Message(inner) if depth < 3 && !inner.full_name().starts_with("google.") => {
                Value::Message(stuffed(&inner, text, None, depth + 1))
            }
            _ => continue,
        };
        made.set_field(&field, if field.is_list() { Value::List(vec![value]) } else { value });
    }
    made
}
