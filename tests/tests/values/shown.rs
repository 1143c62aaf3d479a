//! What is taken from others, shown by the command line: it steers no terminal and forges no line.

use std::process::Output;

use interlock_client::{Outcome, Session, SetAgent, Task, Worker};
use interlock_proto::text::is_hidden;
use interlock_tests::{Pair, home::Home};

/// A title, a cleared screen, a line of its own, text that reads backwards, a C1 control.
const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\njob forged succeeded\r\u{202e}gpj\u{9b}31m";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_steers_no_terminal() {
    let pair = Pair::start().await;
    let alice = pair.login("alice").await;
    let project = pair.project(&alice, "shown").await;
    let sdk = pair.sdk_gateway(&alice.access_token);
    sdk.agents().set("builder", SetAgent::default()).await.expect("an agent");
    let session = sdk.sessions().create("shown").await.expect("a session").session;
    sdk.sessions().attach(&session.session_id, "builder", &project).await.expect("attached");
    let job = run_evil(&pair, &alice, &session).await;

    let home = Home::of(&pair);
    home.keep(&alice);
    let lines = [
        format!("session stream {} --no-follow", session.session_id),
        format!("job get {job}"),
        "session list".to_owned(),
        "agent list".to_owned(),
        "project list".to_owned(),
        format!("job list {}", session.session_id),
    ];
    for line in &lines {
        for form in ["text", "json"] {
            let output = run(&home, &format!("{line} -o {form}"));
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            let shown = plain(&output.stdout, line);
            // A result is a text of its own lines, and stands last.
            let forged = shown.lines().any(|line| line.starts_with("job forged"));
            assert!(!forged || line.starts_with("job get"), "a forged line: {shown}");
            if line.starts_with("job get") || line.starts_with("session stream") {
                assert!(shown.contains("owned"), "what was written is shown, escaped: {shown}");
            }
        }
    }
    // What is refused is shown as it was written, and steers nothing either.
    for arguments in [
        ["session", "create", EVIL],
        ["job", "get", EVIL],
        ["agent", "set", EVIL],
        ["project", "create", EVIL],
    ] {
        let mut command = home.command(arguments);
        let output = command.env("CLICOLOR_FORCE", "1").output().expect("interlock runs");
        assert!(!output.status.success(), "{arguments:?} is refused");
        plain(&output.stdout, arguments[0]);
        plain(&output.stderr, arguments[0]);
    }
}

/// A job whose worker writes whatever it likes into its line, its result and its cause.
async fn run_evil(pair: &Pair, alice: &interlock_client::OwnerSession, session: &Session) -> String {
    let sdk = pair.sdk_gateway(&alice.access_token);
    let worker = Worker::new(sdk.clone(), vec!["builder".to_owned()], 1, "Zo\u{eb}'s \u{1f980}");
    let handler = |task: Task| async move {
        task.progress(EVIL).await.expect("its lease lives");
        Outcome::Failed { cause: EVIL.to_owned(), result: EVIL.into() }
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.run(handler, async {
        let _ = stopped.await;
    }));
    let job = sdk.jobs().submit(&session.session_id, "work").await.expect("a job");
    let ended = sdk.jobs().wait(&job.job_id).await.expect("it ends");
    assert_eq!((ended.cause.as_str(), &ended.result[..]), (EVIL, EVIL.as_bytes()), "kept as it was");
    drop(stop);
    working.await.expect("no panic").expect("it was asked to stop");
    job.job_id
}

/// As on a terminal.
fn run(home: &Home, line: &str) -> Output {
    home.command(line.split_whitespace()).env("CLICOLOR_FORCE", "1").output().expect("interlock runs")
}

/// The text without the bold and the colours that are ours; nothing else in it is hidden but the ends of lines.
fn plain(bytes: &[u8], line: &str) -> String {
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let ours = ["", ";31", ";32", ";33", ";34", ";35", ";36"].map(|colour| format!("\u{1b}[1{colour}m"));
    let text = ours.iter().fold(text.replace("\u{1b}[0m", ""), |text, mark| text.replace(mark, ""));
    assert!(!text.chars().any(|c| is_hidden(c) && c != '\n'), "{line} shows {text:?}");
    text
}
