//! Whether an answer is right for a value.

use bytes::Bytes;
use interlock_proto::{gateway::v1 as gateway, policy::descriptors};
use interlock_tests::{wire, within};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, Value};

use crate::{
    fields::Request,
    hostile::{Case, Echo, Fate},
    stage::{Props, Stage},
    talk::Reply,
};

/// Refusals that are right for a well-formed value of a field (or of a whole request, by its method), beside
/// those that name the field.
const TYPED: &[(&str, &[&str])] = &[
    ("session_id", &["NOT_FOUND", "OWNER_MISMATCH", "INVALID_CREDENTIALS"]),
    ("stream_id", &["OWNER_MISMATCH"]),
    ("job_id", &["OWNER_MISMATCH", "NOT_FOUND"]),
    ("agent_id", &["FORBIDDEN", "ROOT_REQUIRED", "NOT_FOUND", "SESSION_BUSY"]),
    ("agent_ids", &["FORBIDDEN", "ROOT_REQUIRED", "NOT_FOUND"]),
    ("project_id", &["PROJECT_MISMATCH", "FORBIDDEN", "ROOT_REQUIRED"]),
    ("owner_id", &["OWNER_MISMATCH", "FORBIDDEN", "NOT_FOUND"]),
    ("token_id", &["NOT_FOUND", "FORBIDDEN"]),
    // Of another role no rotation is open, and what is open has another handle.
    ("role", &["NOT_FOUND"]),
    ("credential_id", &["CONFLICT"]),
    // It was another request's before.
    ("request_id", &["REQUEST_ID_REUSED"]),
    ("username", &["INVALID_CREDENTIALS"]),
    // Each owner has a budget of tries at the root password; when all are used up, none is looked at.
    ("password", &["INVALID_CREDENTIALS", "RATE_LIMITED", "WEAK_PASSWORD"]),
    ("current_password", &["INVALID_CREDENTIALS", "RATE_LIMITED"]),
    ("new_password", &["WEAK_PASSWORD", "RATE_LIMITED"]),
    ("keep_sessions", &["RATE_LIMITED"]),
    ("ChangePassword", &["INVALID_CREDENTIALS", "RATE_LIMITED"]),
    ("expected_version", &["CONFLICT"]),
    ("ttl", &["RATE_LIMITED"]),
    ("seconds", &["RATE_LIMITED"]),
    ("nanos", &["RATE_LIMITED"]),
    ("Unlock", &["INVALID_CREDENTIALS", "RATE_LIMITED"]),
    ("credential_sha256", &["PROVIDER_AUTH_FAILED"]),
    ("name", &["NAME_TAKEN", "NOT_FOUND"]),
    // Of a file: more than it, or its session, may have.
    ("size", &["LIMIT_REACHED"]),
    ("shared", &["FORBIDDEN"]),
    ("force", &["SESSION_BUSY"]),
    // When every owner's tries are used up, it is nobody who signs in.
    ("Login", &["INVALID_CREDENTIALS"]),
];

/// By the path: answers that tell something else under the field's name, as the .proto says.
const TOLD_OTHERWISE: &[(&str, &str)] = &[
    ("progress.number", "answered with the number up to which lines are stored"),
    ("sequence", "answered with the larger one"),
    ("applied.sequence", "a grant tells the newest one"),
    ("hello.epoch", "a grant tells the epoch of this start"),
    ("known[0].writer", "the heads of now are told"),
    ("known[0].number", "the heads of now are told"),
    ("known[0].link", "the heads of now are told"),
    ("renew.heads[0].writer", "a grant tells what is kept of heads, once it is stored"),
    ("renew.heads[0].number", "a grant tells what is kept of heads, once it is stored"),
    ("renew.heads[0].link", "a grant tells what is kept of heads, once it is stored"),
    ("renew.remembered[0].writer", "a grant tells what is kept of heads, once it is stored"),
    ("renew.remembered[0].number", "a grant tells what is kept of heads, once it is stored"),
    ("renew.remembered[0].link", "a grant tells what is kept of heads, once it is stored"),
    ("hello.held[0].job_id", "what is lost is not told"),
    ("hello.held[0].fencing_token", "what is lost is not told"),
];

/// What became of a value, as it is counted; else what is wrong with it.
pub(crate) async fn judge(
    stage: &Stage,
    request: &Request,
    props: &Props,
    case: &Case,
    field: Option<&FieldDescriptor>,
    reply: &Reply,
) -> Result<&'static str, String> {
    let outcome = &reply.outcome;
    match (case.fate, outcome.code.as_str(), outcome.reason.as_str()) {
        (Fate::Malformed, "INTERNAL", _) if outcome.message == "malformed request" => Ok("malformed request"),
        (Fate::TooLarge, "RESOURCE_EXHAUSTED", "LIMIT_REACHED") => Ok("LIMIT_REACHED"),
        (Fate::Malformed | Fate::TooLarge, ..) => Err("this is no request at all".to_owned()),
        (_, "INVALID_ARGUMENT", "INVALID_FIELD" | "MISSING_FIELD") => named(case, reply),
        (Fate::Never, ..) => Err("no field takes such a value".to_owned()),
        (Fate::Either, "OK", _) => taken(stage, request, props, case, field, reply).await,
        (Fate::Either, _, reason) => {
            let name = field.map_or(request.method.name(), FieldDescriptor::name);
            let right = TYPED.iter().filter(|(field, _)| *field == name).flat_map(|(_, reasons)| *reasons);
            let found = right.copied().find(|right| *right == reason);
            found.ok_or_else(|| "this refusal is not right for any value of this field".to_owned())
        }
    }
}

/// A refusal names exactly the field.
fn named(case: &Case, reply: &Reply) -> Result<&'static str, String> {
    let [named] = reply.violations.as_slice() else {
        return Err(format!("a refusal names one field, not {:?}", reply.violations));
    };
    // What a nested message lacks is in it.
    let inside = named.strip_prefix(&case.path).is_some_and(|rest| rest.starts_with(['.', '[']));
    if !case.path.is_empty() && *named != case.path && !inside {
        return Err(format!("the refusal names `{named}`"));
    }
    Ok(if reply.outcome.reason == "MISSING_FIELD" { "MISSING_FIELD" } else { "INVALID_FIELD" })
}

/// What is taken is given back unchanged, wherever an answer has the field.
async fn taken(
    stage: &Stage,
    request: &Request,
    props: &Props,
    case: &Case,
    field: Option<&FieldDescriptor>,
    reply: &Reply,
) -> Result<&'static str, String> {
    let (Some(field), Some(echo)) = (field, &case.echo) else { return Ok("taken") };
    if TOLD_OTHERWISE.iter().any(|(path, _)| *path == case.path) {
        return Ok("taken");
    }
    let output = request.method.output();
    let mut parts = vec![decoded(&reply.messages, &output)];
    // Ids and numbers of one job are not those of a whole log.
    if !field.parent_message().full_name().ends_with(".Held") {
        parts.extend(read_again(stage, request, props, reply).await);
    }
    let mut given_back = false;
    for part in &parts {
        let mut found = Vec::new();
        part.iter().for_each(|answer| search(answer, field.name(), &mut found));
        if found.contains(echo) {
            given_back = true;
        } else if !found.is_empty() {
            return Err(format!("something else is given back: {:.300}", format!("{found:?}")));
        }
    }
    Ok(if given_back { "given back" } else { "taken" })
}

/// What later readers are told: the answers of each read.
async fn read_again(
    stage: &Stage,
    request: &Request,
    props: &Props,
    reply: &Reply,
) -> Vec<Vec<DynamicMessage>> {
    let first = reply.messages.first().cloned().unwrap_or_default();
    match (request.method.name(), request.variant.as_str()) {
        ("SubmitJob", _) => {
            let made = gateway::SubmitJobResponse::decode(first).expect("an answer").job.expect("a job");
            vec![job(stage, made.job_id).await]
        }
        ("CreateSession", _) => {
            let made = gateway::CreateSessionResponse::decode(first).expect("an answer").session;
            let session_id = made.expect("a session").session_id;
            let message = gateway::GetSessionRequest { session_id }.encode_to_vec();
            vec![read(stage, "SessionService/GetSession", message).await]
        }
        ("SetAgent", _) => {
            let made = gateway::SetAgentResponse::decode(first).expect("an answer").agent.expect("an agent");
            let message = gateway::GetAgentRequest { agent_id: made.agent_id }.encode_to_vec();
            vec![read(stage, "AgentService/GetAgent", message).await]
        }
        ("Work", "hello" | "progress") => vec![log(stage, props).await],
        ("Work", "finish") => {
            let mut answers = reply.messages.iter().map(|message| {
                let message = gateway::WorkResponse::decode(message.clone()).expect("an answer").message;
                match message {
                    Some(gateway::work_response::Message::Finished(finished)) => finished.held,
                    _ => None,
                }
            });
            let Some(held) = answers.find_map(|held| held) else { return Vec::new() };
            vec![job(stage, held.job_id).await, log(stage, props).await]
        }
        _ => Vec::new(),
    }
}

async fn job(stage: &Stage, job_id: String) -> Vec<DynamicMessage> {
    read(stage, "JobService/GetJob", gateway::GetJobRequest { job_id }.encode_to_vec()).await
}

async fn read(stage: &Stage, path: &str, message: Vec<u8>) -> Vec<DynamicMessage> {
    let (path, alice) = (format!("/interlock.gateway.v1.{path}"), stage.alice());
    let answer = wire::call(&stage.gateway, &path, message, &alice).await;
    assert_eq!(answer.outcome, wire::Outcome::ok(), "{path} reads what was made");
    decoded(&[answer.message], &output_of(&path))
}

/// The whole log of the session.
async fn log(stage: &Stage, props: &Props) -> Vec<DynamicMessage> {
    const PATH: &str = "/interlock.gateway.v1.SessionService/StreamEvents";
    let message = gateway::StreamEventsRequest { session_id: props.session.clone(), ..Default::default() };
    let read = async {
        let opened = wire::open(&stage.gateway, PATH, message.encode_to_vec(), &stage.alice()).await;
        let (_, mut stream) = opened.expect("a stream");
        let mut all = Vec::new();
        loop {
            let next = stream.message().await.expect("living").expect("a log that is followed has no end");
            let answer = gateway::StreamEventsResponse::decode(next.clone()).expect("an answer");
            if matches!(answer.message, Some(gateway::stream_events_response::Message::CaughtUp(_))) {
                return decoded(&all, &output_of(PATH));
            }
            all.push(next);
        }
    };
    within("the log", read).await
}

fn output_of(path: &str) -> MessageDescriptor {
    let (service, method) = path[1..].rsplit_once('/').expect("a path");
    let service = descriptors().get_service_by_name(service).expect("ours");
    let found = service.methods().find(|found| found.name() == method);
    found.expect("ours").output()
}

fn decoded(messages: &[Bytes], kind: &MessageDescriptor) -> Vec<DynamicMessage> {
    let decode = |message: &Bytes| DynamicMessage::decode(kind.clone(), message.clone()).expect("an answer");
    messages.iter().map(decode).collect()
}

/// Every value of a field of that name, however deep.
fn search(message: &DynamicMessage, name: &str, found: &mut Vec<Echo>) {
    for (field, value) in message.fields() {
        if field.name() == name {
            found.extend(as_echo(value));
        }
        match value {
            Value::Message(inner) => search(inner, name, found),
            Value::List(items) => {
                items.iter().filter_map(Value::as_message).for_each(|inner| search(inner, name, found));
            }
            _ => {}
        }
    }
}

fn as_echo(value: &Value) -> Option<Echo> {
    Some(match value {
        Value::String(text) => Echo::Text(text.clone()),
        Value::Bytes(bytes) => Echo::Bytes(bytes.to_vec()),
        Value::U32(n) => Echo::Number(u64::from(*n)),
        Value::U64(n) => Echo::Number(*n),
        Value::I32(n) | Value::EnumNumber(n) => Echo::Number(i64::from(*n) as u64),
        Value::I64(n) => Echo::Number(*n as u64),
        Value::Bool(b) => Echo::Number(u64::from(*b)),
        _ => return None,
    })
}
