//! Owner sessions over real sockets.

#![expect(clippy::unwrap_used, reason = "a test")]

mod served;

use std::time::Duration;

use interlock_proto::auth::v1::{
    LoginRequest, LogoutRequest, OwnerSessionServiceGetStatusRequest, RefreshRequest, WhoAmIRequest,
};
use served::{Host, bearer, plain, reason, within};
use tonic::Code;
use tonic_types::StatusExt as _;

#[tokio::test]
async fn an_owner_signs_in_refreshes_and_signs_out() {
    let host = Host::new();
    let served = host.start().await;
    let login = host.login(&served, "alice").await;
    assert_eq!(
        (login.username.as_str(), login.display_name.as_str(), login.role.as_str()),
        ("alice", "Alice", "user")
    );

    let who = host.identity(&served).who_am_i(bearer(WhoAmIRequest {}, &login.access_token)).await.unwrap();
    let principal = who.into_inner().principal.unwrap();
    assert_eq!((principal.owner_id.as_str(), principal.session_root), ("alice", false));
    assert_eq!(principal.owner_session_id, login.owner_session_id);

    let mut sessions = host.sessions(&served);
    let status =
        sessions.get_status(bearer(OwnerSessionServiceGetStatusRequest {}, &login.access_token)).await;
    let status = status.unwrap().into_inner();
    assert!(status.enabled && status.authenticated && status.username == "alice");
    let status =
        sessions.get_status(plain(OwnerSessionServiceGetStatusRequest {})).await.unwrap().into_inner();
    assert!(status.enabled && !status.authenticated && status.username.is_empty());

    // Any number of refreshes with one token get the same successor.
    let one = sessions.refresh(bearer(RefreshRequest {}, &login.refresh_token)).await.unwrap().into_inner();
    let two = sessions.refresh(bearer(RefreshRequest {}, &login.refresh_token)).await.unwrap().into_inner();
    assert_eq!((&one.access_token, &one.refresh_token), (&two.access_token, &two.refresh_token));
    assert_ne!(one.access_token, login.access_token);

    // UA-56
    let out = sessions.logout(bearer(LogoutRequest {}, &one.access_token)).await.unwrap().into_inner();
    assert!(out.reached.is_some());
    let again = sessions.logout(bearer(LogoutRequest {}, &one.access_token)).await.unwrap().into_inner();
    assert!(again.reached.is_none(), "repeating it is no error");
    for dead in [&login.access_token, &one.access_token] {
        let refused = host.identity(&served).who_am_i(bearer(WhoAmIRequest {}, dead)).await.unwrap_err();
        assert_eq!(reason(&refused), "PROVIDER_AUTH_FAILED");
    }
    let refused = sessions.refresh(bearer(RefreshRequest {}, &one.refresh_token)).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_CREDENTIALS");
    served.stop().await;
}

// I9
#[tokio::test]
async fn a_replay_after_the_successor_was_used_ends_the_family() {
    let host = Host::new();
    let served = host.start().await;
    let login = host.login(&served, "alice").await;
    let mut sessions = host.sessions(&served);
    let first = sessions.refresh(bearer(RefreshRequest {}, &login.refresh_token)).await.unwrap().into_inner();
    let second =
        sessions.refresh(bearer(RefreshRequest {}, &first.refresh_token)).await.unwrap().into_inner();
    let replay = sessions.refresh(bearer(RefreshRequest {}, &login.refresh_token)).await.unwrap_err();
    assert_eq!(reason(&replay), "INVALID_CREDENTIALS");
    let refused = host.identity(&served).who_am_i(bearer(WhoAmIRequest {}, &second.access_token)).await;
    assert_eq!(reason(&refused.unwrap_err()), "PROVIDER_AUTH_FAILED");
    let rows = host.audit("owner_session.refresh");
    let refused = ("alice".to_owned(), "refused".to_owned(), "INVALID_CREDENTIALS".to_owned());
    assert!(rows.contains(&refused), "{rows:?}");
    served.stop().await;
}

// Issue 6 line 6: after a start, whoever is signed in is known where the session is refreshed: guesses from there hold the
// owner up for a second at most, however many there were.
#[tokio::test]
async fn after_a_start_a_refresh_makes_its_source_known() {
    let host = Host::new();
    let served = host.start().await;
    let login = host.login(&served, "alice").await;
    served.stop().await;
    let served = host.start().await;
    let mut sessions = host.sessions(&served);
    sessions.refresh(bearer(RefreshRequest {}, &login.refresh_token)).await.unwrap();
    let (mut tried, mut waits) = (0, Vec::new());
    // A stranger's second wait is two seconds.
    while waits.len() < 2 {
        let wrong =
            LoginRequest { username: "alice".to_owned(), password: "not alice's password".to_owned() };
        let refused = within(sessions.login(plain(wrong))).await.unwrap_err();
        match reason(&refused).as_str() {
            "INVALID_CREDENTIALS" => tried += 1,
            "RATE_LIMITED" => {
                let wait = refused.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
                waits.push(wait);
                tokio::time::sleep(wait).await;
            }
            other => panic!("{other}: {refused:?}"),
        }
    }
    assert!(tried >= 10 && waits.iter().all(|wait| *wait <= Duration::from_secs(1)), "{tried} {waits:?}");
    host.login(&served, "alice").await;
    served.stop().await;
}

// SW-11, SW-12, UA-16: no oracle.
#[tokio::test]
async fn missing_malformed_and_unknown_credentials_are_refused_alike() {
    let host = Host::new();
    let served = host.start().await;
    let unknown =
        interlock_proto::credential::Credential::new(interlock_proto::credential::Kind::Admin, &[7; 32]);
    let session = host.login(&served, "alice").await;
    let mut identity = host.identity(&served);
    let mut answers = Vec::new();
    for request in [
        plain(WhoAmIRequest {}),
        bearer(WhoAmIRequest {}, "garbage"),
        bearer(WhoAmIRequest {}, unknown.expose()),
        bearer(WhoAmIRequest {}, &session.refresh_token),
    ] {
        let refused = identity.who_am_i(request).await.unwrap_err();
        answers.push((refused.code(), refused.message().to_owned(), reason(&refused)));
    }
    let expected = (Code::Unauthenticated, "login required".to_owned(), "PROVIDER_AUTH_FAILED".to_owned());
    assert_eq!(answers, vec![expected; 4]);
    served.stop().await;
}

#[tokio::test]
async fn unknown_owner_and_wrong_password_get_one_answer_and_are_limited() {
    let host = Host::new();
    let served = host.start().await;
    let mut sessions = host.sessions(&served);
    let mut answers = Vec::new();
    for username in ["alice", "nobody"] {
        let asked = LoginRequest { username: username.to_owned(), password: "wrong".to_owned() };
        let refused = sessions.login(plain(asked)).await.unwrap_err();
        answers.push((refused.code(), refused.message().to_owned(), reason(&refused)));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].2, "INVALID_CREDENTIALS");
    // UA-47
    let mut limited = None;
    for _ in 0..30 {
        let asked = LoginRequest { username: "alice".to_owned(), password: "wrong".to_owned() };
        let refused = within(sessions.login(plain(asked))).await.unwrap_err();
        if reason(&refused) == "RATE_LIMITED" {
            limited = Some(refused);
            break;
        }
    }
    let limited = limited.expect("guessing is limited");
    assert_eq!(limited.code(), Code::ResourceExhausted);
    assert!(tonic_types::StatusExt::get_details_retry_info(&limited).is_some());
    host.login(&served, "root").await;
    served.stop().await;
}

#[tokio::test]
async fn bad_requests_name_their_field() {
    let host = Host::new();
    let served = host.start().await;
    let mut sessions = host.sessions(&served);
    for (username, password, expected) in [
        ("", "x", "MISSING_FIELD"),
        ("alice", "", "MISSING_FIELD"),
        ("Alice!", "x", "INVALID_FIELD"),
        ("alice", &"x".repeat(1025), "INVALID_FIELD"),
    ] {
        let asked = LoginRequest { username: username.to_owned(), password: password.to_owned() };
        let refused = sessions.login(plain(asked)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, expected));
    }
    served.stop().await;
}

// DESIGN 14.16, FN-18: an account's first application is remembered; the environment is applied again only where it changed.
#[tokio::test]
async fn a_changed_account_ends_its_sessions_and_an_unchanged_one_does_not() {
    let mut host = Host::new();
    let served = host.start().await;
    let login = host.login(&served, "alice").await;
    served.stop().await;

    let served = host.start().await;
    let who = host.identity(&served).who_am_i(bearer(WhoAmIRequest {}, &login.access_token)).await;
    assert!(who.is_ok(), "a restart signs nobody out");
    served.stop().await;

    host.env =
        vec![("INTERLOCK_ACCOUNTS_JSON", served::ACCOUNTS.replace("alice's long", "alice's other long"))];
    let served = host.start().await;
    let who = host.identity(&served).who_am_i(bearer(WhoAmIRequest {}, &login.access_token)).await;
    assert_eq!(reason(&who.unwrap_err()), "PROVIDER_AUTH_FAILED");
    served.stop().await;
}

// UA-47: a weak password in an accounts source refuses a hardened start; bad JSON refuses any.
#[tokio::test]
async fn bad_accounts_refuse_the_start_without_telling_them() {
    let mut host = Host::new();
    for accounts in [r#"[{"username":"a","password":"hunter2"}]"#, r#"{"hunter2"#] {
        host.env = vec![("INTERLOCK_ACCOUNTS_JSON", accounts.to_owned())];
        let refused = host.refused().await;
        assert!(refused.is_configuration() && !refused.to_string().contains("hunter2"), "{refused}");
    }
}

// UA-13, UA-34, UA-35: owners from a file, added while it runs; the environment wins.
#[tokio::test]
async fn an_owners_file_is_applied_and_applied_again_when_it_changes() {
    let host = Host::new();
    let path = host.folder.path().join("owners.json");
    let put = |text: &str| interlock_kit::secret_file::write(&path, text.as_bytes()).unwrap();
    let alice = r#"{"owner_id":"alice","active":false,"password_hash":
        "pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o="}"#;
    put(&format!("[{alice}]"));
    let host = host.with("owners_file", &path.display().to_string());
    let served = host.start().await;
    host.login(&served, "alice").await;

    let bob = alice.replace("alice", "bob").replace("false", "true");
    put(&format!("[{alice},{bob}]"));
    // UA-24: the imported hash signs in, and is argon2id afterwards (UA-39).
    let mut sessions = host.sessions(&served);
    let store = rusqlite::Connection::open(host.data("auth.db")).unwrap();
    within(async {
        // Not by trying to sign in: each try would have to wait longer than the one before.
        let there =
            || store.query_row("SELECT COUNT(*) FROM owner WHERE id = 'bob'", [], |row| row.get::<_, i64>(0));
        while there().unwrap() == 0_i64 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let asked = || LoginRequest {
            username: "bob".to_owned(),
            password: "correct horse battery staple".to_owned(),
        };
        while sessions.login(plain(asked())).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    served.stop().await;
    let stored: Vec<String> = store
        .prepare("SELECT password FROM owner")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(
        stored.len() == 3 && stored.iter().all(|hash| hash.starts_with("$argon2id$")),
        "{}",
        stored.len()
    );
}

// DESIGN 11: what strangers try at the methods that anyone may call is counted by source, not one row each.
#[tokio::test]
async fn floods_of_strangers_are_counted() {
    let host = Host::new();
    let served = host.start().await;
    let login = host.login(&served, "alice").await;
    let mut sessions = host.sessions(&served);
    let stranger = |seed: u8| {
        interlock_proto::credential::Credential::new(interlock_proto::credential::Kind::Refresh, &[seed; 32])
    };
    for seed in 0..40 {
        // Nobody's, of another kind, and none at all: alike.
        let request = match seed % 3 {
            0 => bearer(RefreshRequest {}, stranger(seed).expose()),
            1 => bearer(RefreshRequest {}, &login.access_token),
            _ => plain(RefreshRequest {}),
        };
        let refused = sessions.refresh(request).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_CREDENTIALS");
        let asked = LoginRequest { username: format!("nobody{seed}"), password: "wrong".to_owned() };
        assert_eq!(reason(&within(sessions.login(plain(asked))).await.unwrap_err()), "INVALID_CREDENTIALS");
        assert_eq!(
            reason(&sessions.logout(plain(LogoutRequest {})).await.unwrap_err()),
            "PROVIDER_AUTH_FAILED"
        );
    }
    // DESIGN 14.18: so are those of a known principal, by a verb as by gate 1.
    let add = interlock_proto::auth::v1::AddMemberRequest {
        project_id: "prj_of_others".to_owned(),
        owner_id: "alice".to_owned(),
    };
    let mut projects = host.projects(&served);
    for _ in 0..40 {
        let refused = projects.add_member(bearer(add.clone(), &login.access_token)).await.unwrap_err();
        assert_eq!(reason(&refused), "FORBIDDEN");
    }
    served.stop().await;
    let count = |action| {
        let rows = host.audit(action);
        rows.iter().filter(|(_, outcome, _)| outcome == "refused").count()
    };
    let own = count("owner_session.refresh") + count("owner_session.login");
    assert!((8..40).contains(&own), "{own} rows for 80 refusals of one kind");
    assert!((8..40).contains(&count("owner_session.logout")));
    assert!((8..40).contains(&count("project.add_member")));
    let counted = host.audit("denials.counted");
    let of = |reason: &str| counted.iter().filter(|row| row.2 == reason).count();
    for reason in ["INVALID_CREDENTIALS", "PROVIDER_AUTH_FAILED", "FORBIDDEN"] {
        assert!(of(reason) >= 1, "the rest are counted: {counted:?}");
    }
    assert!(counted.iter().any(|row| row.0 == "alice" && row.2 == "FORBIDDEN"), "{counted:?}");
}
