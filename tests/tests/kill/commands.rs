//! Commands killed at random moments: what they keep is never torn, the next one works, and nothing of a killed
//! one stays behind once another has written.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use interlock_client::OwnerSession;
use interlock_tests::{Pair, home::Home};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{kills, patient, seeded};

const KILLS: usize = 10;
/// Each has a budget of tries of its own.
const OWNERS: [&str; 6] = ["w0", "w1", "w2", "w3", "w4", "w5"];
const NOT_SIGNED_IN: i32 = 4;
/// The exit code of `whoami` where nothing is wrong but that the folder has no project file.
const NO_PROJECT_FILE: i32 = 3;

#[derive(Default)]
struct Tally {
    cut: usize,
    took_effect: usize,
}

struct Scene {
    pair: Pair,
    home: Home,
    rng: StdRng,
    /// A command is killed within this: what one takes here, and as long again.
    moment: Duration,
    tally: Tally,
}

// I6, I7, I9, FN-04
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_command_leaves_a_sign_in_whole() {
    let kills = kills(KILLS);
    let pair = Pair::start_with(patient().auth("lease", "1s")).await;
    let home = Home::of(&pair);
    let began = Instant::now();
    assert!(home.run("status").status.success(), "nobody has to be signed in for that");
    let moment = 2 * began.elapsed();
    let mut scene = Scene { pair, home, rng: seeded(), moment, tally: Tally::default() };
    for n in 0..kills {
        let owner = OWNERS[n / 4 % OWNERS.len()];
        match n % 4 {
            0 => scene.login(owner).await,
            1 => scene.refresh(owner).await,
            2 => scene.create(owner).await,
            _ => scene.logout(owner).await,
        }
        scene.nothing_is_left();
    }
    let Tally { cut, took_effect } = scene.tally;
    println!(
        "command line: {kills} kills of login, refresh, create and logout; {cut} before their end, {took_effect} took effect; \
         the kept session was whole after each, and the next command worked"
    );
}

impl Scene {
    /// Starts a command, and kills it at a random moment. Whether it had ended well by itself.
    async fn cut_short(&mut self, arguments: &str) -> bool {
        let mut command = self.home.command(arguments.split_whitespace());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a command");
        tokio::time::sleep(self.moment.mul_f64(self.rng.random())).await;
        // It may have ended; it is reaped by the wait alone.
        child.kill().expect("a child of ours");
        let status = child.wait().expect("a child of ours");
        self.tally.cut += usize::from(status.code().is_none());
        assert!(status.code().is_none_or(|code| code == 0), "{arguments}: {status}");
        status.success()
    }

    /// What is kept: whole, or nothing.
    fn kept(&self) -> Option<OwnerSession> {
        let text = fs::read_to_string(self.home.session_file()).ok()?;
        Some(OwnerSession::from_json(&text).expect("the kept session is whole"))
    }

    fn runs(&self, arguments: &str) -> Value {
        let output = self.home.run(&format!("-o json {arguments}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments}: {}: {said}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    async fn login(&mut self, owner: &str) {
        let before = self.pair.login("alice").await;
        self.home.keep(&before);
        let password = self.home.path("password");
        fs::write(&password, self.pair.world.password(owner)).expect("written");
        let done = self.cut_short(&format!("login {owner} --password-file {}", password.display())).await;
        let kept = self.kept().expect("one of the two");
        let took = kept.username == owner;
        assert!(took || kept == before, "another session than these two: {kept:?}");
        assert!(took || !done, "I6: what was answered is kept");
        self.tally.took_effect += usize::from(took);
        assert_eq!(self.runs("status")["username"], kept.username.as_str());
    }

    async fn refresh(&mut self, owner: &str) {
        let mut due: Value =
            serde_json::from_str(&self.pair.login(owner).await.to_json()).expect("its own text");
        due["access_expires_at_us"] = json!(due["issued_at_us"].as_u64().expect("a number") + 1);
        fs::write(self.home.session_file(), due.to_string()).expect("written");
        let before = self.kept().expect("just written");
        self.cut_short("status").await;
        let kept = self.kept().expect("one of the two");
        self.tally.took_effect += usize::from(kept != before);
        // I9: where the answer was lost, the same refresh token gets the same successor.
        assert_eq!(self.runs("status")["username"], owner);
        let now = self.kept().expect("kept");
        assert_eq!(now.owner_session_id, before.owner_session_id, "one owner session all the time");
        assert_ne!(now.refresh_token, before.refresh_token, "it was due");
        let whole = self.pair.sdk_auth_as(&now.access_token).whoami().await;
        whole.expect("I9: what is kept is the successor that counts");
    }

    /// A session's cookie is in its jar whole or not at all; a creation that was cut short harms no later one.
    async fn create(&mut self, owner: &str) {
        let session = self.pair.login(owner).await;
        self.home.keep(&session);
        self.cut_short("session create").await;
        assert_eq!(self.kept().expect("kept"), session, "not touched");
        let created = self.runs("session create");
        assert!(created["session_id"].is_string(), "{created}");
        let there = self.pair.sdk_gateway(&session.access_token).sessions().list().await.expect("a list");
        let mut cookies = 0;
        for cookie in fs::read_dir(self.home.kept().join("cookies")).expect("a jar") {
            let path = cookie.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("a cookie");
            assert!(text.starts_with("__Host-interlock_") && text.ends_with('\n'), "{}", path.display());
            let id = path.file_name().expect("a name").to_string_lossy().into_owned();
            cookies += usize::from(there.iter().any(|session| session.session_id == id));
        }
        assert!((1..=there.len()).contains(&cookies), "{cookies} of {}", there.len());
        self.tally.took_effect += usize::from(there.len() > 1);
    }

    async fn logout(&mut self, owner: &str) {
        let session = self.pair.login(owner).await;
        self.home.keep(&session);
        let done = self.cut_short("logout").await;
        let lives = self.pair.sdk_auth_as(&session.access_token).whoami().await.is_ok();
        self.tally.took_effect += usize::from(!lives);
        assert!(!(done && lives), "I8: an acknowledged sign-out stays");
        let output = self.home.run("whoami");
        // What the killed command had sent may still take effect; once it has, it stays.
        let code = output.status.code();
        let fits = code == Some(NOT_SIGNED_IN) || (lives && code == Some(NO_PROJECT_FILE));
        assert!(fits, "{code:?}: {}", String::from_utf8_lossy(&output.stderr));
        // Whatever it left, the next sign-out ends it.
        self.runs("logout");
        assert!(self.kept().is_none(), "it is forgotten");
        self.pair.sdk_auth_as(&session.access_token).whoami().await.expect_err("I8: it has ended");
    }

    /// Another command has written since: what the killed one had in its hands is gone.
    fn nothing_is_left(&self) {
        let session = self.kept();
        let token = self.home.path("token");
        let admin = self.pair.admin();
        fs::write(&token, admin.expose()).expect("written");
        // A sign-in writes in the same folder.
        self.runs(&format!("login --token-file {}", token.display()));
        if let Some(session) = session {
            self.home.keep(&session);
        }
        let _ = fs::remove_file(self.home.kept().join("context.token"));
        for folder in [self.home.kept(), self.home.kept().join("cookies")] {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            let names =
                entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
            let left: Vec<_> = names.filter(|name| name.starts_with(".interlock-")).collect();
            assert!(left.is_empty(), "secrets of a killed command in {}: {left:?}", folder.display());
        }
    }
}
