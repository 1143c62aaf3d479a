//! The types that can hold a secret: none shows it in `Debug`, `Display` or an error.
//!
//! Of the wire's messages those with a field marked `debug_redact`, all of them: a new one fails until it stands
//! here. Of our own types those that a credential, a password, a key or a payload goes through.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use http::HeaderValue;
use interlock_auth::{
    accounts,
    config::SecretText,
    ids::{CredentialId, OwnerId},
    owner::{Applied, LoginFacts},
    owner_session,
    password::PasswordHash,
    rotation, sign_in,
    token_file::Tokens,
    trust::NewCredential,
};
use interlock_client::{Credentials, OwnerSession, Rotated};
use interlock_gateway::{
    caller,
    event::EventKind,
    ids::{AgentId, JobId, ProjectId, RequestId, SessionId},
    job, lease, worker,
};
use interlock_kit::{
    authn::{Bearer, Cookie, Presented},
    clock::Timestamp,
    config::Profile,
    internal_token::InternalToken,
    seal::Seal,
    secret_file,
    store::audit::ChainKey,
};
use interlock_proto::{
    auth::v1 as auth,
    credential::{Credential, Kind, cookie_name},
    gateway::v1 as gateway,
    policy::descriptors,
};
use interlock_tests::canary::{Canaries, Hunt};
use zeroize::Zeroizing;

/// What stands for every secret text.
const SECRET: &str = "a-canary-0123456789-of-a-password";
/// What stands for every secret credential.
const RANDOM: [u8; 32] = [0xa7; 32];

fn credential(kind: Kind) -> Credential {
    Credential::new(kind, &RANDOM)
}

fn hunt() -> Hunt {
    let mut canaries = Canaries::default();
    canaries.plant("text", SECRET);
    canaries.plant_bytes("key", &RANDOM);
    for kind in [Kind::Admin, Kind::User, Kind::Owner, Kind::Refresh, Kind::Client, Kind::Internal] {
        canaries.plant(kind.tag(), credential(kind).expose());
    }
    canaries.hunt()
}

/// What shows itself, checked one by one.
struct Shapes {
    hunt: Hunt,
    shown: usize,
}

impl Shapes {
    fn shows(&mut self, value: &dyn Debug) {
        for text in [format!("{value:?}"), format!("{value:#?}")] {
            let leaks = self.hunt.in_bytes(text.as_bytes());
            assert!(leaks.is_empty(), "{}\nin {text}", leaks.join("\n"));
        }
        self.shown += 1;
    }
}

#[test]
fn the_hunt_sees_what_a_derived_debug_would_show() {
    #[derive(Debug)]
    #[expect(dead_code, reason = "its Debug reads it")]
    struct Careless(Vec<u8>, String);
    let text = format!("{:?}", Careless(SECRET.as_bytes().to_vec(), String::new()));
    assert!(!hunt().in_bytes(text.as_bytes()).is_empty(), "{text}");
    let text = format!("{:?}", Careless(Vec::new(), credential(Kind::Owner).expose().to_owned()));
    assert!(!hunt().in_bytes(text.as_bytes()).is_empty(), "{text}");
}

#[test]
fn no_message_shows_what_is_marked() {
    let mut shapes = Shapes { hunt: hunt(), shown: 0 };
    let text = || SECRET.to_owned();
    let mut named = BTreeSet::new();
    macro_rules! message {
        ($package:ident :: $name:literal, $value:expr) => {
            let value = $value;
            shapes.shows(&value);
            named.insert(format!("interlock.{}.v1.{}", stringify!($package), $name));
        };
    }
    message!(auth::"LoginRequest", auth::LoginRequest { password: text(), ..Default::default() });
    message!(
        auth::"LoginResponse",
        auth::LoginResponse { access_token: text(), refresh_token: text(), ..Default::default() }
    );
    message!(
        auth::"RefreshResponse",
        auth::RefreshResponse { access_token: text(), refresh_token: text(), ..Default::default() }
    );
    message!(auth::"RoleToken", auth::RoleToken { token: text(), ..Default::default() });
    message!(auth::"RotateResponse", auth::RotateResponse { token: text(), ..Default::default() });
    message!(
        auth::"BeginRotationResponse",
        auth::BeginRotationResponse { token: text(), ..Default::default() }
    );
    message!(auth::"UnlockRequest", auth::UnlockRequest { password: text(), ..Default::default() });
    message!(auth::"SetOwnerRequest", auth::SetOwnerRequest { password: text(), ..Default::default() });
    message!(
        auth::"ImportOwnerRequest",
        auth::ImportOwnerRequest { password_hash: text(), ..Default::default() }
    );
    message!(
        auth::"ChangePasswordRequest",
        auth::ChangePasswordRequest { current_password: text(), new_password: text(), keep_sessions: false }
    );
    message!(auth::"IssueTokenResponse", auth::IssueTokenResponse { token: text(), ..Default::default() });
    message!(auth::"RotateTokenResponse", auth::RotateTokenResponse { token: text(), ..Default::default() });
    message!(
        gateway::"SetSessionPasswordRequest",
        gateway::SetSessionPasswordRequest { password: text(), ..Default::default() }
    );
    message!(
        gateway::"JoinSessionRequest",
        gateway::JoinSessionRequest { password: text(), ..Default::default() }
    );
    message!(
        gateway::"PostMessageRequest",
        gateway::PostMessageRequest { data: SECRET.into(), ..Default::default() }
    );
    message!(gateway::"MessagePosted", gateway::MessagePosted { data: SECRET.into(), ..Default::default() });
    message!(
        gateway::"PutFileRequest",
        gateway::PutFileRequest { data: SECRET.into(), ..Default::default() }
    );
    message!(
        gateway::"GetFileResponse",
        gateway::GetFileResponse { data: SECRET.into(), ..Default::default() }
    );
    message!(gateway::"JobProgress", gateway::JobProgress { data: SECRET.into(), ..Default::default() });
    message!(
        gateway::"Job",
        gateway::Job { payload: SECRET.into(), result: SECRET.into(), ..Default::default() }
    );
    message!(
        gateway::"SubmitJobRequest",
        gateway::SubmitJobRequest { payload: SECRET.into(), ..Default::default() }
    );
    message!(
        gateway::"WorkRequest.Progress",
        gateway::work_request::Progress { data: SECRET.into(), ..Default::default() }
    );
    message!(
        gateway::"WorkRequest.Finish",
        gateway::work_request::Finish { result: SECRET.into(), ..Default::default() }
    );
    message!(
        gateway::"WorkResponse.Assignment",
        gateway::work_response::Assignment { payload: SECRET.into(), ..Default::default() }
    );
    let marked = descriptors().all_messages().filter(|message| {
        let redacted = |field: prost_reflect::FieldDescriptor| {
            let option = field.options().get_field_by_name("debug_redact").and_then(|value| value.as_bool());
            option.unwrap_or(false)
        };
        message.fields().any(redacted)
    });
    assert_eq!(named, marked.map(|message| message.full_name().to_owned()).collect());
    // What secrets are called: such a field is marked, whatever its message.
    for message in descriptors().all_messages().filter(|m| m.full_name().starts_with("interlock.")) {
        for field in message.fields() {
            let called = |word: &str| field.name().split('_').any(|part| part == word);
            let secret =
                ["password", "secret", "token", "cookie", "payload", "result"].into_iter().any(called);
            let public =
                ["page_token", "next_page_token", "fencing_token", "token_id"].contains(&field.name());
            let is_text = matches!(field.kind(), prost_reflect::Kind::String | prost_reflect::Kind::Bytes);
            if secret && !public && is_text {
                assert!(named.contains(message.full_name()), "{} is not marked", field.full_name());
            }
        }
    }
    println!("{} messages show no marked field", shapes.shown);
}

#[test]
fn no_type_of_ours_shows_what_it_holds() {
    let mut shapes = Shapes { hunt: hunt(), shown: 0 };
    let data = || SECRET.as_bytes().to_vec();

    // What calls carry.
    for kind in
        [Kind::Admin, Kind::User, Kind::Owner, Kind::Refresh, Kind::Project, Kind::Client, Kind::Internal]
    {
        shapes.shows(&credential(kind));
        shapes.shows(&NewCredential::of(&credential(kind), CredentialId::made("crd_1")));
    }
    shapes.shows(&Credential::parse(&format!("{}x", &credential(Kind::Owner).expose()[1..])));
    let cookie = Cookie { session_id: "ses_1".to_owned(), credential: Some(credential(Kind::Client)) };
    let bearer = Bearer::Credential(credential(Kind::Owner));
    shapes.shows(&Presented { bearer, cookies: vec![cookie], on_behalf_of: None });
    let mut value = HeaderValue::from_static(SECRET);
    value.set_sensitive(true);
    shapes.shows(&value);

    // Keys and files.
    shapes.shows(&ChainKey::new(RANDOM));
    shapes.shows(&Seal::of(&RANDOM, "label"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("internal.token");
    secret_file::write(&file, SECRET.as_bytes()).expect("written");
    shapes.shows(&InternalToken::load(&file, Profile::Hardened).expect("long enough"));
    secret_file::write(&file, format!("{SECRET} {SECRET}").as_bytes()).expect("written");
    let error = InternalToken::load(&file, Profile::Hardened).expect_err("a space in it");
    shapes.shows(&format_args!("{error} {error:?}"));

    // Auth.
    let hash = || PasswordHash::parse(&argon2(&SECRET[..8])).expect("a hash");
    let owner = || OwnerId::parse("owner_id", "ann").expect("a name");
    let plain = format!(r#"[{{"username":"ann","password":"{SECRET}"}}]"#);
    let accounts = accounts::parse(accounts::Source::File, &plain).expect("well-formed");
    shapes.shows(&accounts);
    let applied = Applied {
        source: accounts::Source::File,
        owner: owner(),
        facts: accounts[0].facts.clone(),
        password: hash(),
    };
    assert!(!format!("{applied:?}").contains("argon2id"), "{applied:?}");
    for bad in [plain.replace("username", SECRET), plain.replace("}]", ""), plain.replace('"', "'")] {
        let error = accounts::parse(accounts::Source::Environment, &bad).expect_err("bad");
        shapes.shows(&format_args!("{error} {error:?}"));
    }
    shapes.shows(&applied);
    shapes.shows(&LoginFacts { password: hash(), version: 1 });
    shapes.shows(&SecretText(Zeroizing::new(SECRET.to_owned())));
    let pair = || sign_in::Pair { access: credential(Kind::Owner), refresh: credential(Kind::Refresh) };
    shapes.shows(&pair());
    shapes.shows(
        &Tokens::default().with_pending(interlock_auth::role_token::Role::Admin, credential(Kind::Admin)),
    );
    let answer =
        rotation::Answer { token: credential(Kind::User), generation: 2, path: String::new(), reached: None };
    shapes.shows(&answer);
    let (id, path) = (interlock_auth::ids::CredentialId::made("crd_1"), String::new());
    shapes.shows(&rotation::Opened { token: credential(Kind::User), id, generation: 2, path });
    let refresh = owner_session::Refresh {
        presented: credential(Kind::Refresh).hash(),
        access: sign_in::stored_form(&pair().access),
        refresh: sign_in::stored_form(&pair().refresh),
        sealed: Seal::of(&RANDOM, "label").seal([1; 12], b"", SECRET.as_bytes()),
        access_ttl: std::time::Duration::from_secs(1),
    };
    shapes.shows(&refresh);

    // The gateway: what callers hand to each other.
    let (id, session) = (JobId::new(), SessionId::new());
    let held = || lease::Held { job: id.clone(), fencing: 1 };
    let request = RequestId::parse("r1".to_owned()).expect("a mark");
    shapes.shows(&job::Submit { id: id.clone(), session: session.clone(), request, payload: data() });
    shapes.shows(&lease::Progress { held: held(), number: 1, data: data() });
    let (outcome, cause) = (job::Outcome::Failed, SECRET.to_owned());
    shapes.shows(&lease::Finish { held: held(), outcome, result: data(), cause });
    shapes.shows(&EventKind::JobProgress { job: id.clone(), attempt: 1, data: data().into() });
    let (agent, project) = ("a".to_owned(), "p".to_owned());
    let binding = interlock_gateway::binding::Binding {
        agent: AgentId::parse(agent).expect("a name"),
        project: ProjectId::parse(project).expect("a name"),
        epoch: 1,
    };
    shapes.shows(&worker::Assignment {
        held: held(),
        session: session.clone(),
        binding,
        attempt: 1,
        payload: data(),
        until: Timestamp::default(),
        lease: std::time::Duration::ZERO,
        run_time_left: std::time::Duration::ZERO,
    });
    shapes.shows(&caller::Cookie { session, hash: credential(Kind::Client).hash() });

    // The SDK: what programs of others print.
    shapes.shows(&Credentials::bearer(credential(Kind::Owner)));
    let cookie = format!("{}={}", cookie_name("ses_1"), credential(Kind::Client).expose());
    shapes.shows(&interlock_client::Cookie::parse(&cookie).expect("a cookie"));
    shapes.shows(&interlock_client::Cookie::parse(&cookie.replace('_', SECRET)));
    let json = format!(
        r#"{{"access_token":"{}","refresh_token":"{}"}}"#,
        credential(Kind::Owner).expose(),
        credential(Kind::Refresh).expose()
    );
    shapes.shows(&OwnerSession::from_json(&json));
    let rotated = Rotated {
        role: "user".to_owned(),
        token: credential(Kind::User),
        generation: 2,
        path: String::new(),
        reached: None,
    };
    shapes.shows(&rotated);
    shapes.shows(&interlock_client::Rotation {
        role: "user".to_owned(),
        token: credential(Kind::User),
        generation: 2,
        credential_id: "crd_1".to_owned(),
        path: String::new(),
    });
    for outcome in [
        interlock_client::Outcome::Succeeded { result: SECRET.into() },
        interlock_client::Outcome::Failed { cause: String::new(), result: SECRET.into() },
    ] {
        shapes.shows(&outcome);
    }
    let kind =
        interlock_client::EventKind::JobProgress { job_id: String::new(), attempt: 1, data: SECRET.into() };
    shapes.shows(&Arc::new(kind));
    println!("{} values show nothing of what they hold", shapes.shown);
}

/// A hash in PHC form that has this text for its salt: `Debug` shows no part of a hash.
fn argon2(salt: &str) -> String {
    let salt: String =
        salt.chars().filter(char::is_ascii_alphanumeric).chain("AAAAAAAAAAAAAAAAAAAAAA".chars()).collect();
    format!("$argon2id$v=19$m=8,t=1,p=1${}${}", &salt[..22], "A".repeat(43))
}
