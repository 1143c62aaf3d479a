//! `session stream` as a person follows it, and as a script does.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc,
};

use interlock_tests::{PATIENCE, Pair, home::Home};
use serde_json::Value;

/// The lines of a program that runs.
struct Lines {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Lines {
    fn of(home: &Home, arguments: &str) -> Self {
        let mut child = home
            .command(arguments.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .expect("interlock runs");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines }
    }

    /// The next events' numbers, each an object on a line of its own.
    fn numbers(&self, count: usize) -> Vec<u64> {
        let line = || self.lines.recv_timeout(PATIENCE).expect("a line in time");
        (0..count).map(|_| sequence(&line())).collect()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sequence(line: &str) -> u64 {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    event["sequence"].as_u64().unwrap_or_else(|| panic!("no event: {line}"))
}

fn ran(home: &Home, arguments: &str) -> String {
    let output = home.run(arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

// Issue 7 line 9, NC-27, I15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_over_a_killed_gateway_and_read_on_where_it_was_left() {
    let mut pair = Pair::start().await;
    let home = Home::of(&pair);
    home.keep(&pair.login("alice").await);
    let made: Value = serde_json::from_str(&ran(&home, "-o json session create")).expect("JSON");
    let id = made["session_id"].as_str().expect("an id").to_owned();
    let say = |what: &str| ran(&home, &format!("session post {id} {what}"));

    let followed = Lines::of(&home, &format!("-o jsonl session stream {id}"));
    say("one");
    assert_eq!(followed.numbers(2), [1, 2]);
    pair.gateway.kill();
    pair.start_gateway().await;
    pair.serving().await;
    say("two");
    say("three");
    assert_eq!(followed.numbers(2), [3, 4], "it goes on by itself");
    drop(followed);

    // As the client that is kept here: what was read before is not read again.
    let resume = format!("-o jsonl session stream {id} --resume --no-follow");
    let read = |text: String| text.lines().map(sequence).collect::<Vec<_>>();
    assert_eq!(read(ran(&home, &resume)), [1, 2, 3, 4]);
    assert!(read(ran(&home, &resume)).is_empty());
    say("four");
    assert_eq!(read(ran(&home, &resume)), [5]);
    assert_eq!(read(ran(&home, &format!("-o jsonl session stream {id} --after 3 --no-follow"))), [4, 5]);

    // Colours on a terminal, and none elsewhere.
    let arguments = format!("session stream {id} --no-follow");
    assert!(!ran(&home, &arguments).contains('\u{1b}'), "piped");
    let mut terminal = home.command(arguments.split_whitespace());
    let shown = terminal.env("CLICOLOR_FORCE", "1").output().expect("interlock runs").stdout;
    let shown = String::from_utf8(shown).expect("UTF-8");
    assert!(shown.contains("\u{1b}[1;36mmessage"), "{shown:?}");
}
