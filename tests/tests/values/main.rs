//! Hostile values in every field of every request of both services, generated from the descriptor set.
//!
//! | module | what |
//! |---|---|
//! | `fields` | the fields, from the descriptors |
//! | `hostile` | the values, by kind of field; the two fields that take anything |
//! | `edit` | messages changed on the wire |
//! | `stage`, `talk` | a good request of each RPC, and how it is sent |
//! | `verdict` | what answer is right |
//! | `metadata` | the same for what calls carry beside their message |
//! | `shown` | what is taken and shown on terminals |
//!
//! Each value is refused with INVALID_ARGUMENT and exactly its field's path, or with a reason that is right for
//! it (another's id: `OWNER_MISMATCH`); or it is taken, and each later answer that has the field gives it back as it
//! was. What is no protobuf is `malformed request`. Nothing panics, no log line is broken.

mod edit;
mod fields;
mod hostile;
mod metadata;
mod shown;
mod stage;
mod talk;
mod verdict;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use fields::{Field, Request};
use hostile::Case;
use interlock_proto::text::is_hidden;
use interlock_tests::{Pair, wire::Outcome};
use stage::Stage;

/// Requests that are tried at once.
const LANES: usize = 4;

/// Longer values are tried in one field of each request, or in every one with `INTERLOCK_LONG`. Bytes.
const LARGE: usize = 512 * 1024;

/// What became of the values.
#[derive(Default)]
struct Found {
    fields: usize,
    counts: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_refuses_what_it_cannot_keep_and_says_so() {
    let stage = Stage::make().await;
    // A verifier that hangs up keeps its lease for a while, and revocations wait for it: those come last.
    let (last, others): (Vec<_>, Vec<_>) =
        fields::requests().into_iter().partition(|request| request.method.name() == "HoldLease");
    let (alone, first): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|request| stage::alone(request.method.name()));
    let found = Mutex::new(Found::default());
    for (requests, lanes) in [(first, LANES), (alone, 1), (last, 1)] {
        let queue = Mutex::new(VecDeque::from(requests));
        let lane = async || {
            let next = || queue.lock().expect("no lane panicked").pop_front();
            while let Some(request) = next() {
                try_all(&stage, &request, &found).await;
            }
        };
        let lanes: Vec<_> = (0..lanes).map(|_| lane()).collect();
        futures_util::future::join_all(lanes).await;
    }
    let found = found.into_inner().expect("no lane panicked");
    assert!(
        found.wrong.is_empty(),
        "{} answers are not right:\n{}",
        found.wrong.len(),
        found.wrong.join("\n")
    );
    unharmed(&stage.pair).await;
    let values: usize = found.counts.values().sum();
    println!("{} fields, {values} values: {:?}", found.fields, found.counts);
}

/// Every value in every field of one kind of request.
async fn try_all(stage: &Stage, request: &Request, found: &Mutex<Found>) {
    let (mut props, bound) = (stage.props().await, Stage::bound(request));
    let began = stage.send(request, &mut props, <[u8]>::to_vec).await;
    if began.outcome != Outcome::ok() {
        let why = format!("{}: the good request is answered {}", request.name(), began.outcome);
        found.lock().expect("no lane panicked").wrong.push(why);
        return;
    }
    let good = stage.good(request, &request.variant, &props);
    let of_fields = request.fields.iter().flat_map(|field| {
        hostile::of_field(field, &good, bound).into_iter().map(move |case| (Some(field), case))
    });
    let cases: Vec<(Option<&Field>, Case)> =
        of_fields.chain(hostile::of_message(bound).into_iter().map(|case| (None, case))).collect();
    found.lock().expect("no lane panicked").fields += request.fields.len();
    let mut large = 0;
    for (field, case) in cases {
        // Values of the length of the largest message cost the most, and are refused alike.
        large += usize::from(case.edit.size() > LARGE);
        if case.edit.size() > LARGE && large > 1 && !hostile::every_value() {
            continue;
        }
        let reply = stage.send(request, &mut props, |good| case.edit.of(good)).await;
        let judged =
            verdict::judge(stage, request, &props, &case, field.map(|field| &field.of), &reply).await;
        let mut found = found.lock().expect("no lane panicked");
        match judged {
            Ok(count) => *found.counts.entry(count).or_default() += 1,
            Err(why) => found.wrong.push(format!(
                "{} `{}`: {}: {why}; answered {} {:?}",
                request.name(),
                case.path,
                case.what,
                reply.outcome,
                reply.violations
            )),
        }
    }
}

/// Both answer as before, nothing has panicked, and each line of their logs begins as one and shows all it has.
pub(crate) async fn unharmed(pair: &Pair) {
    pair.sdk_auth().sign_in_status().await.expect("auth answers");
    pair.serving().await;
    for service in [&pair.auth, &pair.gateway] {
        let log = service.log();
        assert!(log.lines().count() > 10, "it logs what it does");
        for line in log.lines() {
            let begins = line.split_once(' ').is_some_and(|(at, _)| at.ends_with('Z') && at.contains('T'));
            assert!(begins && !line.chars().any(is_hidden), "a broken log line: {line:?}");
            assert!(!line.contains("panicked"), "{line}");
        }
    }
}
