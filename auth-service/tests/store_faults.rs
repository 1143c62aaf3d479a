//! What several do to one owner at the same time, on the engines that have a queue: administrators who edit it, and
//! sign-ins and refreshes beside what ends them. Each round is made up from a printed seed; `INTERLOCK_SEED` runs one
//! again.

mod support;

use std::sync::Arc;

use interlock_auth::{
    caller::Call,
    ids::{OwnerId, OwnerSessionId},
    owner::{Edit, GetOwner, Owner, OwnerStored, ReadForLogin, RemoveOwner, SetOwner},
    owner_session::{Login, Refreshed, RevokeAll},
    password::PasswordHash,
    store::Shell,
    trust::{Authenticate, Validation},
};
use interlock_kit::error::{Error, Reason};
use interlock_proto::credential::{Credential, Kind};

use support::{Bench, Engine, HASH, OTHER_HASH, Pair, nobody};

const ENGINES: [Engine; 2] = [Engine::File, Engine::Postgres];
const SEEDS: u64 = 48;
/// A round takes some ten times as long there.
const SEEDS_ON_POSTGRES: u64 = 9;

fn seeds(engine: Engine) -> Vec<u64> {
    let all = std::env::var_os("INTERLOCK_LONG").is_some() || engine != Engine::Postgres;
    match std::env::var("INTERLOCK_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None if all => (1..=SEEDS).collect(),
        None => (1..=SEEDS_ON_POSTGRES).collect(),
    }
}

/// Says which seed it was where a round fails.
struct Round(u64, Engine);

impl Drop for Round {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("INTERLOCK_SEED={} on {:?}", self.0, self.1);
        }
    }
}

/// Lets others go first, so many times.
async fn after(turns: u64) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

fn hash(text: &str) -> PasswordHash {
    PasswordHash::parse(text).expect("a hash")
}

fn change(owner: &OwnerId, expected: Option<u64>, edit: Edit) -> SetOwner {
    SetOwner { owner: owner.clone(), edit, keep_sessions: false, expected, cancel_jobs: false }
}

fn named(owner: &OwnerId, seen: &Owner, name: &str) -> SetOwner {
    change(owner, Some(seen.version), Edit { display_name: Some(name.to_owned()), ..Edit::default() })
}

/// Two administrators of different kinds, each with a call of its own.
async fn administrators(bench: &Bench) -> [Call; 2] {
    let (admin, _) = bench.first_tokens().await;
    let rita = bench.owner("rita", &["root"]).await;
    let rita = bench.login(&rita).await.expect("in");
    [bench.call(&admin, "owner.set").await, bench.call(&rita.access, "owner.set").await]
}

async fn read(shell: &Shell, call: &Call, owner: &OwnerId) -> Owner {
    shell.ask(call, GetOwner { owner: owner.clone() }).await.expect("there")
}

/// Counts one further in the owner's name, as often as it is told that it has changed meanwhile. How often it was.
async fn count_up(shell: Shell, call: Call, owner: OwnerId, turns: u64) -> u64 {
    let mut conflicts = 0;
    loop {
        after(turns).await;
        let seen = read(&shell, &call, &owner).await;
        let count: u64 = seen.display_name.parse().expect("a number");
        after(turns).await;
        match shell.run(&call, named(&owner, &seen, &(count + 1).to_string())).await {
            Ok(OwnerStored { owner: stored, .. }) => {
                assert_eq!(
                    (stored.display_name, stored.version),
                    ((count + 1).to_string(), seen.version + 1)
                );
                return conflicts;
            }
            Err(told) => assert_eq!(told.reason(), Reason::Conflict, "{told}"),
        }
        conflicts += 1;
    }
}

// Issue 6, faults: two administrators at one owner. I11, I12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_who_edit_one_owner_at_once_lose_nothing_and_each_is_told() {
    const TIMES: u64 = 12;
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let calls = administrators(&bench).await;
        let ann = OwnerId::made("ann");
        let made = Edit { display_name: Some("0".to_owned()), password: Some(hash(HASH)), ..Edit::default() };
        bench.run(&calls[0], change(&ann, None, made)).await.expect("made");

        // Both have seen the same version: one is first, the other one is told.
        let seen = read(&bench.shell, &calls[0], &ann).await;
        let (one, two) = tokio::join!(
            bench.run(&calls[0], named(&ann, &seen, "1")),
            bench.run(&calls[1], named(&ann, &seen, "1"))
        );
        let mut conflicts = 0;
        for told in [&one, &two].into_iter().filter_map(|answer| answer.as_ref().err()) {
            assert_eq!(told.reason(), Reason::Conflict);
            conflicts += 1;
        }
        assert_eq!(conflicts, 1, "{engine:?}: {one:?} {two:?}");

        // Who reads, counts one further and writes, until it is taken: no count is lost.
        let mut tasks = tokio::task::JoinSet::new();
        for (at, call) in calls.iter().enumerate() {
            let (shell, call, owner) = (bench.shell.clone(), call.clone(), ann.clone());
            tasks.spawn(async move {
                let mut conflicts = 0;
                for time in 0..TIMES {
                    conflicts +=
                        count_up(shell.clone(), call.clone(), owner.clone(), time * at as u64 % 5).await;
                }
                conflicts
            });
        }
        conflicts += tasks.join_all().await.into_iter().sum::<u64>();
        let counted = read(&bench.shell, &calls[0], &ann).await;
        assert_eq!(counted.display_name, (1 + 2 * TIMES).to_string(), "{engine:?}: an update was lost");

        // Who names no version changes what it names, and nothing of what the other one changed.
        let roles = Edit { roles: Some(vec!["operator".to_owned()]), ..Edit::default() };
        let name = Edit { display_name: Some("Ann".to_owned()), ..Edit::default() };
        let (one, two) = tokio::join!(
            bench.run(&calls[0], change(&ann, None, roles)),
            bench.run(&calls[1], change(&ann, None, name))
        );
        one.expect("one after the other");
        two.expect("one after the other");
        let both = read(&bench.shell, &calls[0], &ann).await;
        assert_eq!(
            (both.display_name.as_str(), both.roles.as_slice()),
            ("Ann", &["operator".to_owned()][..])
        );

        // A row for each change and for each refusal, under who it was.
        let rows = bench.audit();
        let of = |outcome: &str, reason: &str| {
            let is = |row: &&support::Row| row.1 == "owner.set" && row.2 == outcome && row.3 == reason;
            rows.iter().filter(is).count() as u64
        };
        assert_eq!(of("done", ""), 1 + 1 + 2 * TIMES + 2, "{engine:?}");
        assert_eq!(of("refused", "CONFLICT"), conflicts, "{engine:?}");
        println!("{engine:?}: {conflicts} of {} edits were told to look again", conflicts + 1 + 2 * TIMES);

        // One removes it while the other one edits: whoever is second is told.
        let seen = read(&bench.shell, &calls[0], &ann).await;
        let remove = RemoveOwner { owner: ann.clone(), expected: Some(seen.version), cancel_jobs: false };
        let (edited, removed) =
            tokio::join!(bench.run(&calls[0], named(&ann, &seen, "late")), bench.run(&calls[1], remove));
        assert!(edited.is_ok() != removed.is_ok(), "{engine:?}: {edited:?} {removed:?}");
        for told in [edited.err(), removed.err()].into_iter().flatten() {
            assert_eq!(told.reason(), Reason::Conflict, "{engine:?}");
        }
    }
}

/// What ends an owner's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Revoke,
    /// Of every owner.
    Everybody,
    Remove,
    Password,
    Inactive,
}

const ENDS: [End; 5] = [End::Revoke, End::Everybody, End::Remove, End::Password, End::Inactive];

impl End {
    async fn run(self, shell: &Shell, call: &Call, owner: &OwnerId) -> Result<(), Error> {
        let edit = match self {
            Self::Revoke | Self::Everybody => {
                let owner = (self == Self::Revoke).then(|| owner.clone());
                let all = RevokeAll { owner, issued_before: None };
                return shell.run(call, all).await.map(drop);
            }
            Self::Remove => {
                let remove = RemoveOwner { owner: owner.clone(), expected: None, cancel_jobs: false };
                return shell.run(call, remove).await.map(drop);
            }
            Self::Password => Edit { password: Some(hash(OTHER_HASH)), ..Edit::default() },
            Self::Inactive => Edit { active: Some(false), ..Edit::default() },
        };
        shell.run(call, change(owner, None, edit)).await.map(drop)
    }
}

/// A sign-in by who has the password of the version that was read, as [`interlock_auth::sign_in`] goes on.
struct SigningIn {
    verb: Login,
    access: Credential,
}

impl SigningIn {
    fn new(bench: &Bench, owner: &OwnerId, version: u64) -> Self {
        let (access, new_access) = bench.credential(Kind::Owner);
        let (_, new_refresh) = bench.credential(Kind::Refresh);
        let verb = Login {
            owner: owner.clone(),
            version,
            session: OwnerSessionId::made(format!("ows_{}", bench.number())),
            access: new_access,
            refresh: new_refresh,
            access_ttl: support::ACCESS_TTL,
            session_ttl: support::SESSION_TTL,
            rehashed: None,
        };
        Self { verb, access }
    }
}

async fn validates(shell: &Shell, access: &Credential) -> bool {
    let query = Authenticate { hash: access.hash() };
    matches!(shell.ask(&nobody(""), query).await.expect("answers"), Validation::Valid(_))
}

#[derive(Debug, Default)]
struct Seen {
    refused: u32,
    ended: u32,
    later: u32,
    refreshed: u32,
}

// Issue 6, faults: concurrent revoke and login. I8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_signs_in_while_all_is_ended_is_refused_or_ended() {
    for engine in ENGINES {
        let bench = Bench::open(engine);
        let [admin, _] = administrators(&bench).await;
        let mut seen = Seen::default();
        for seed in seeds(engine) {
            let round = Round(seed, engine);
            for end in ENDS {
                race(&bench, &admin, end, &round, &mut seen).await;
            }
        }
        println!("{engine:?}: {seen:?}");
        // Some rounds have one order for certain: a test that meets one of them only shows nothing.
        if std::env::var_os("INTERLOCK_SEED").is_none() {
            assert!(seen.refused > 0 && seen.ended > 0 && seen.later > 0, "{seen:?}");
        }
    }
}

async fn race(bench: &Bench, admin: &Call, end: End, round: &Round, seen: &mut Seen) {
    let seed = round.0;
    let owner = bench.owner(&format!("ann{}", bench.number()), &["user"]).await;
    let earlier = bench.login(&owner).await.expect("in");
    let facts = bench.ask(&nobody("owner_session.login"), ReadForLogin { owner: owner.clone() }).await;
    let version = facts.expect("anyone").expect("there").version;
    // The password was found right by now; what comes after it races.
    let tries: Vec<_> = (0..3).map(|_| SigningIn::new(bench, &owner, version)).collect();
    let (refresh, _) = bench.refresh_verb(&earlier.refresh);
    let rows = bench.audit().len();
    let ending = {
        let (shell, admin, owner) = (bench.shell.clone(), Arc::new(admin.clone()), owner.clone());
        async move { end.run(&shell, &admin, &owner).await.expect("an administrator") }
    };
    let signing_in = {
        let (shell, verbs) =
            (bench.shell.clone(), tries.iter().map(|one| one.verb.clone()).collect::<Vec<_>>());
        async move {
            let mut tasks = tokio::task::JoinSet::new();
            for (at, verb) in verbs.into_iter().enumerate() {
                let shell = shell.clone();
                tasks.spawn(async move {
                    after(seed / 3 * at as u64 % 7).await;
                    (at, shell.run(&nobody("owner_session.login"), verb).await)
                });
            }
            let shell = shell.clone();
            let refreshing =
                tokio::spawn(async move { shell.run(&nobody("owner_session.refresh"), refresh).await });
            let mut answers = tasks.join_all().await;
            answers.sort_by_key(|(at, _)| *at);
            let refreshed = refreshing.await.expect("no panic");
            (answers.into_iter().map(|(_, answer)| answer).collect::<Vec<_>>(), refreshed)
        }
    };
    // A third of the rounds with each order for certain, a third as it comes.
    let (answers, refreshed) = match seed % 3 {
        0 => {
            ending.await;
            signing_in.await
        }
        1 => {
            let answers = signing_in.await;
            ending.await;
            answers
        }
        _ => {
            let ending = tokio::spawn(ending);
            after(seed / 3 % 5).await;
            let answers = signing_in.await;
            ending.await.expect("no panic");
            answers
        }
    };
    // In the order in which they were committed.
    let log = bench.audit().split_off(rows);
    let ended_at = log.iter().position(|row| row.0 != owner.as_str()).expect("the end has its row");
    for (one, answer) in tries.iter().zip(answers) {
        let alive = validates(&bench.shell, &one.access).await;
        let Ok(signed_in) = answer else {
            let refused = answer.expect_err("it is one");
            // "Sign in once more", by who was there, or of nobody any more.
            let told = [Reason::Conflict, Reason::InvalidCredentials].contains(&refused.reason());
            assert!(told, "{end:?}: {refused}");
            assert!(!alive, "{end:?}: who was refused is in");
            seen.refused += 1;
            continue;
        };
        let row = log.iter().position(|row| row.4 == signed_in.session.as_str() && row.2 == "done");
        let is_later = row.expect("a sign-in has its row") > ended_at;
        // To end everybody's sessions shuts nobody out: who is let in after it is in. All else is about this owner, and ends
        // what was found of it before, too.
        assert!(!is_later || end == End::Everybody, "{end:?}: let in with what had been ended");
        assert_eq!(alive, is_later, "{end:?}: alive after the end, or ended by nothing");
        seen.ended += u32::from(!is_later);
        seen.later += u32::from(is_later);
    }
    assert!(!validates(&bench.shell, &earlier.access).await, "{end:?}: the earlier session");
    if let Ok(Refreshed::Issued(successors)) = refreshed {
        let pair = Pair::open(&successors.sealed);
        assert!(!validates(&bench.shell, &pair.access).await, "{end:?}: refreshed beyond its end");
        let again = bench.refresh(&pair.refresh).await;
        assert!(!matches!(again, Ok(Refreshed::Issued(_))), "{end:?}: it goes on: {again:?}");
        seen.refreshed += 1;
    }
}
