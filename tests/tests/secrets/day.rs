//! What is done with secrets in a day, well and badly.

use std::{fs, process::Output, time::Duration};

use interlock_client::{Auth, Reason, SetAgent, SetOwner};
use interlock_proto::credential::{Credential, Kind};
use interlock_tests::{eventually, service::program};

use crate::stage::{IMPORTED, IMPORTED_PASSWORD, OF_VARIABLE, Stage, text};

const AGENT: &str = "canary-agent";

pub(crate) async fn pass(stage: &mut Stage) {
    sign_ins(stage).await;
    root_unlock(stage).await;
    owners(stage).await;
    role_tokens(stage).await;
    let job = session(stage).await;
    worker(stage, &job).await;
    command_line(stage);
    crate::terminal::password_at_a_prompt(stage);
}

async fn sign_ins(stage: &mut Stage) {
    let auth = stage.pair.sdk_auth();
    let first = stage.pair.login("alice").await;
    stage.plant_session("replaced", &first);
    let second = auth.refresh(&first).await.expect("a successor");
    stage.plant_session("alive", &second);
    let ended = stage.pair.login("bob").await;
    stage.plant_session("signed out", &ended);
    auth.logout(&ended.access_token).await.expect("signed out");
    // A replay: the family ends with all its tokens.
    let stolen = stage.pair.login("w0").await;
    stage.plant_session("stolen", &stolen);
    let used = auth.refresh(&stolen).await.expect("a successor");
    stage.plant_session("of a family that ended", &used);
    let last = auth.refresh(&used).await.expect("a successor");
    stage.plant_session("last of a family that ended", &last);
    assert_eq!(auth.refresh(&stolen).await.expect_err("a replay").reason(), Some(Reason::InvalidCredentials));
    for (owner, password) in
        [(OF_VARIABLE, stage.env_password.clone()), (IMPORTED, IMPORTED_PASSWORD.to_owned())]
    {
        let session = auth.login(owner, &password).await.expect("signed in");
        stage.plant_session(owner, &session);
    }
    // Typed wrong, and in the wrong field.
    let (wrong, misplaced) = (text(), text());
    stage.canaries.plant("wrong password", &wrong);
    stage.canaries.plant("password in the field of the name", &misplaced);
    refused(stage, &auth, "alice", &wrong).await;
    refused(stage, &auth, &misplaced.to_lowercase(), &misplaced).await;
    stage.canaries.plant("password in the field of the name, in lower case", &misplaced.to_lowercase());
    refused(stage, &auth, &misplaced, &misplaced).await;
    let access = second.access_token.expose().to_owned();
    refused(stage, &auth, &access, &access).await;
    stage.alice = Some(second);
}

async fn refused(stage: &mut Stage, auth: &Auth, name: &str, password: &str) {
    let error = auth.login(name, password).await.expect_err("nobody's");
    stage.answers.extend(format!("{error} {error:?}").into_bytes());
}

/// FN-02, FN-07, FN-34: in memory there is a hash of it, and elsewhere nothing.
async fn root_unlock(stage: &mut Stage) {
    let alice = stage.alice.clone().expect("signed in");
    let auth = stage.pair.sdk_auth_as(&alice.access_token);
    let wrong = text();
    stage.canaries.plant("wrong root password", &wrong);
    let refused = auth.unlock_root(&wrong, None).await.expect_err("wrong");
    let unlocked = auth.unlock_root(&stage.root_password.clone(), None).await.expect("right");
    let status = auth.root_status().await.expect("public");
    auth.lock_root().await.expect("locked");
    stage.answers.extend(format!("{refused} {refused:?} {unlocked:?} {status:?}").into_bytes());
}

/// Owners that are added, changed and removed, and one who changes the own password.
async fn owners(stage: &mut Stage) {
    let owners = stage.pair.sdk_auth_as(&stage.pair.admin()).owners();
    let (first, second, third) = (text(), text(), text());
    for (name, secret) in [("set password", &first), ("changed password", &second), ("last password", &third)]
    {
        stage.canaries.plant(name, secret);
    }
    let set = owners.set("dora", Some(&first), SetOwner::default()).await.expect("added");
    let session = stage.pair.sdk_auth().login("dora", &first).await.expect("signed in");
    stage.plant_session("of one whose password changes", &session);
    let own = stage.pair.sdk_auth_as(&session.access_token);
    let refused = own.change_password(&third, &second, false).await.expect_err("not hers");
    own.change_password(&first, &second, false).await.expect("changed");
    let again = owners.set("dora", Some(&third), SetOwner::default()).await.expect("changed");
    let listed = owners.list().await.expect("may");
    owners.remove("dora", false).await.expect("removed");
    stage.answers.extend(format!("{set:?} {refused} {refused:?} {again:?} {listed:?}").into_bytes());
}

async fn role_tokens(stage: &mut Stage) {
    let admin = stage.pair.sdk_auth_as(&stage.pair.admin());
    let in_grace = admin.rotate_role_token("user", Duration::from_secs(600)).await.expect("rotated");
    stage.plant("user token in grace", &in_grace.token);
    let rotated = admin.rotate_role_token("user", Duration::from_secs(600)).await.expect("rotated");
    stage.plant("user token", &rotated.token);
    stage.answers.extend(format!("{in_grace:?} {rotated:?}").into_bytes());
    let aborted = admin.begin_rotation("user").await.expect("begun");
    stage.plant("next user token, aborted", &aborted.token);
    admin.abort_rotation("user", &aborted.credential_id).await.expect("aborted");
    let begun = admin.begin_rotation("user").await.expect("begun");
    stage.plant("next user token", &begun.token);
    let refused = admin.rotate_role_token("user", Duration::ZERO).await.expect_err("one is open");
    stage.answers.extend(format!("{begun:?} {aborted:?} {refused:?}").into_bytes());
    let shown = admin.role_tokens(true).await.expect("shown to admin");
    stage.answers.extend(format!("{shown:?}").into_bytes());
    for (name, kind, random) in
        [("unknown credential", Kind::Owner, 5), ("unknown internal token", Kind::Internal, 6)]
    {
        stage.plant(name, &Credential::new(kind, &[random; 32]));
    }
}

/// A session with a job in its queue; the job's id.
async fn session(stage: &mut Stage) -> String {
    let alice = stage.alice.clone().expect("signed in");
    let gateway = stage.pair.sdk_gateway(&alice.access_token);
    let gone = gateway.sessions().create("").await.expect("a session");
    let created = gateway.sessions().create("").await.expect("a session");
    // NC-01: with no credential, under a request id that the SDK made up.
    let nobody = stage.pair.sdk_gateways_of_nobody(&[&stage.pair.gateway]);
    let anonymous = nobody.sessions().create("").await.expect("let in");
    let planted =
        [("cookie of nobody's", &anonymous), ("cookie of a session that ended", &gone), ("cookie", &created)];
    for (name, created) in planted {
        let cookie = created.cookie.as_ref().expect("the first answer has the cookie").expose().to_owned();
        stage.canaries.plant(name, cookie.split_once('=').expect("name and value").1);
        stage.cookie = cookie;
    }
    gateway.sessions().close(&gone.session.session_id, true).await.expect("closed");
    gateway.agents().set(AGENT, SetAgent::default()).await.expect("an agent");
    let project = stage.pair.project(&alice, "canaries").await;
    let session = &created.session.session_id;
    gateway.sessions().attach(session, AGENT, &project).await.expect("idle");
    let payload = text();
    stage.canaries.plant("payload", &payload);
    let job = gateway.jobs().submit(session, payload).await.expect("a job");
    stage.answers.extend(format!("{created:?} {job:?}").into_bytes());
    job.job_id
}

/// A worker of the command line runs the job. Its program writes down what it sees of itself and its parents.
async fn worker(stage: &mut Stage, job: &str) {
    let alice = stage.alice.clone().expect("signed in");
    stage.home.keep(&alice);
    let (line, said, seen) = (text(), stage.home.path("said"), stage.home.path("seen"));
    stage.canaries.plant("line of progress", &line);
    fs::write(&said, &line).expect("written");
    let (accounts, owners) = (text(), text());
    for (name, secret) in [("variable of accounts", &accounts), ("variable of owners", &owners)] {
        stage.canaries.plant(name, secret);
    }
    let script = format!(
        "cat /proc/$$/environ /proc/$$/cmdline /proc/$PPID/cmdline >{0}; cat >/dev/null; cat {1}",
        seen.display(),
        said.display(),
    );
    let arguments = ["worker", "run", "--agent", AGENT, "--", "sh", "-c", &script];
    let mut worker = stage
        .home
        .command(arguments)
        .env("INTERLOCK_ACCOUNTS_JSON", &accounts)
        .env("INTERLOCK_OWNERS_JSON", &owners)
        .env("INTERLOCK_CONTEXT", stage.home.kept().join("context.json"))
        .stdout(fs::File::create(stage.home.path("worker.out")).expect("a log"))
        .stderr(fs::File::create(stage.home.path("worker.err")).expect("a log"))
        .spawn()
        .expect("a worker");
    let jobs = stage.pair.sdk_gateway(&alice.access_token).jobs();
    let done = eventually("the end of the job", async || {
        let job = jobs.get(job).await.expect("hers");
        (job.state == interlock_client::JobState::Succeeded).then_some(job)
    })
    .await;
    stage.answers.extend(format!("{done:?}").into_bytes());
    stage.printed.extend(fs::read(format!("/proc/{}/cmdline", worker.id())).expect("alive"));
    let seen = fs::read(seen).expect("what the program saw");
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("INTERLOCK_FENCING_TOKEN=") && !text.contains("INTERLOCK_CONTEXT"), "{text}");
    assert!(
        !text.contains(&accounts) && !text.contains(&owners),
        "a job's program needs no accounts: {text}"
    );
    fs::remove_file(said).expect("it was there");
    worker.kill().expect("it runs");
    worker.wait().expect("a dead process has a status");
}

/// Commands that hold secrets in their hands, and print none that was not asked for.
fn command_line(stage: &mut Stage) {
    let good = stage.home.path("good.password");
    let bad = stage.home.path("bad.password");
    let wrong = text();
    stage.canaries.plant("wrong password in a file", &wrong);
    fs::write(&good, format!("{}\n", stage.pair.world.password("w1"))).expect("written");
    fs::write(&bad, &wrong).expect("written");
    let (good, bad) = (good.display().to_string(), bad.display().to_string());
    for (line, code) in [
        (format!("login w1 --password-file {bad}"), 4),
        (format!("login w1 --password-file {good}"), 0),
        ("whoami".to_owned(), 3),
        ("-o json status".to_owned(), 0),
        ("session list".to_owned(), 0),
        ("session create mine".to_owned(), 0),
        ("auth status --reveal".to_owned(), 5),
        (format!("--token-file {bad} whoami"), 2),
        ("logout".to_owned(), 0),
        ("whoami".to_owned(), 4),
    ] {
        let output = stage.home.run(&line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        note(stage, &output);
    }
    let arguments = ["login", "w1", "--password-stdin"];
    let password = fs::File::open(&good).expect("the password");
    let output =
        stage.home.command(arguments).env("RUST_LOG", "trace").stdin(password).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    note(stage, &output);
    // A service that is told a secret where a path belongs says what is wrong without it.
    let token = stage.pair.world.internal_token().to_owned();
    for service in ["interlock-auth", "interlock-gateway"] {
        let mut command = std::process::Command::new(program(service));
        command.arg("--config").arg(stage.pair.world.path(&format!("{}.toml", &service[10..])));
        let output = command.env_clear().arg("--set").arg(format!("internal_token_file={token}")).output();
        let output = output.expect("it runs");
        assert!(!output.status.success());
        note(stage, &output);
    }
}

fn note(stage: &mut Stage, output: &Output) {
    stage.printed.extend_from_slice(&output.stdout);
    stage.printed.extend_from_slice(&output.stderr);
}
