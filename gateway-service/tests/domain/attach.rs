//! The guard.

use std::time::Duration;

use interlock_gateway::{
    binding::Attach,
    caller::Caller,
    ids::SessionId,
    job::{Cancel, Outcome},
};
use interlock_kit::error::Reason;

use crate::{
    on_every_engine,
    world::{CallerExt as _, World, admin, agent, attach, claim, finish, owner, root, user},
};

on_every_engine!(
    the_ten_cases,
    the_ten_cases_while_running,
    what_has_ended_is_not_busy,
    built_in_agent_and_project,
    evidence_is_for_those_who_may_see_it,
    a_shared_agent_shows_counts_and_no_ids,
    agents_of_others_look_unknown,
);

/// One row: the binding before, what is busy (agent, project), the binding asked for, and the kind of
/// refusal.
type Case = (
    Option<(&'static str, &'static str)>,
    Option<(&'static str, &'static str)>,
    (&'static str, &'static str),
    Option<&'static str>,
);

// The ten attach cases; the last one is of submits and stands below. SW-26, SW-27, SW-30
const CASES: [Case; 9] = [
    (None, None, ("a", "p"), None),
    (None, Some(("a", "q")), ("a", "p"), Some("PROJECT")),
    (None, Some(("a", "p")), ("a", "p"), None),
    (Some(("a", "p")), Some(("a", "p")), ("a", "p"), None),
    (Some(("a", "p")), Some(("a", "p")), ("b", "p"), Some("REBIND")),
    (Some(("a", "p")), Some(("a", "p")), ("a", "q"), Some("REBIND")),
    (Some(("a", "p")), Some(("b", "q")), ("b", "p"), Some("PROJECT")),
    (Some(("a", "p")), Some(("b", "p")), ("b", "p"), None),
    (Some(("a", "p")), None, ("b", "q"), None),
];

async fn the_ten_cases(world: World) {
    ten_cases(&world, false).await;
}

// SW-28
async fn the_ten_cases_while_running(world: World) {
    ten_cases(&world, true).await;
}

async fn ten_cases(world: &World, running: bool) {
    let ann = owner("ann");
    for name in ["a", "b"] {
        world.agent(&ann, name, false).await;
    }
    for (number, (before, busy, to, kind)) in CASES.into_iter().enumerate() {
        let (session, other) = (world.session(&ann).await, world.session(&ann).await);
        if let Some(before) = before {
            world.attach(&ann, &session, before).await;
        }
        let job = match busy {
            Some(busy) => {
                world.attach(&ann, &other, busy).await;
                let job = world.submit(&ann.clone().naming(busy.1), &other).await;
                let held = if running { world.claim(&ann, busy.0).await } else { None };
                Some((job, held))
            }
            None => None,
        };
        let asked = ann.clone().naming(to.1);
        match kind {
            Some(kind) => {
                let error = world.denied(&asked, attach(&session, to), Reason::SessionBusy).await;
                assert!(error.retry_delay().is_some(), "it says when to look again");
                if let Some(audit) = world.audit() {
                    let detail = &audit.last().unwrap().detail;
                    assert!(detail.contains(&format!("\"kind\":\"{kind}\"")), "case {number}: {detail}");
                }
                let seen = world.see(&ann, &session).await;
                let now = seen.session.binding.map(|binding| (binding.agent, binding.project));
                let was = before
                    .map(|(agent, project)| (crate::world::agent(agent), crate::world::project(project)));
                assert_eq!(now, was, "case {number}: the binding has not changed");
            }
            None => {
                let attached = world.ok(&asked, attach(&session, to)).await;
                assert_eq!(attached.changed, before != Some(to), "case {number}");
                assert_eq!(
                    attached.seen.session.binding.unwrap().epoch,
                    u64::from(before.is_some() && before != Some(to)) + 1
                );
            }
        }
        // SW-34, I4: once nothing is in flight, the same attach succeeds with no other action.
        if let Some((job, held)) = job {
            match held {
                Some(held) => drop(world.ok(&ann, finish(&held.held, Outcome::Succeeded)).await),
                None => drop(world.ok(&ann, Cancel { job: job.id }).await),
            }
        }
        world.ok(&asked, attach(&session, to)).await;
    }
    // The tenth: a submit while the agent is busy in another project.
    let (session, other) = (world.session(&ann).await, world.session(&ann).await);
    world.attach(&ann, &session, ("a", "p")).await;
    world.attach(&ann, &other, ("a", "q")).await;
    world.submit(&ann.clone().naming("q"), &other).await;
    if running {
        world.claim(&ann, "a").await.unwrap();
    }
    let error = world.denied(&ann.clone().naming("p"), world.submission(&session), Reason::SessionBusy).await;
    assert!(error.to_string().contains("another project"));
}

// SW-28
async fn what_has_ended_is_not_busy(world: World) {
    let ann = owner("ann");
    world.agent(&ann, "a", false).await;
    world.agent(&ann, "b", false).await;
    for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled] {
        let session = world.session(&ann).await;
        world.attach(&ann, &session, ("a", "p")).await;
        world.submit(&ann, &session).await;
        let held = world.claim(&ann, "a").await.unwrap().held;
        world.refused(&ann, attach(&session, ("b", "q")), Reason::SessionBusy).await;
        world.ok(&ann, finish(&held, outcome)).await;
        assert!(world.attach(&ann, &session, ("b", "q")).await.changed);
    }
}

// SW-04, SW-05, SW-07, SW-08, SW-09
async fn built_in_agent_and_project(world: World) {
    let admin = admin();
    world.agent(&admin, "shared", true).await;
    let session = world.session(&admin).await;
    let to = |agent: &str, project: &str| attach(&session, (agent, project));
    world.ok(&admin.clone().naming("system"), to("primary", "system")).await;
    world.ok(&admin.clone().naming("system"), to("shared", "system")).await;
    world.denied(&admin.clone().naming("p"), to("primary", "p"), Reason::Forbidden).await;
    let rosa = root("rosa", false);
    let hers = world.session(&rosa).await;
    world.ok(&rosa.clone().naming("system"), attach(&hers, ("primary", "system"))).await;
    for caller in [user(), owner("ann")] {
        let session = world.session(&caller).await;
        for (agent, project) in [("primary", "system"), ("primary", "p"), ("shared", "system")] {
            world
                .denied(
                    &caller.clone().naming(project),
                    attach(&session, (agent, project)),
                    Reason::Forbidden,
                )
                .await;
        }
        world.ok(&caller.clone().naming("p"), attach(&session, ("shared", "p"))).await;
    }
}

// SW-31
async fn evidence_is_for_those_who_may_see_it(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    world.agent(&admin(), "a", true).await;
    let session = world.session(&ann).await;
    world.attach(&ann, &session, ("a", "p")).await;
    world.submit(&ann, &session).await;
    world.denied(&bob.clone().naming("q"), attach(&session, ("a", "q")), Reason::OwnerMismatch).await;
    world.members.remove("bob", "q");
    let his = world.session(&bob).await;
    world.denied(&bob.clone().naming("q"), attach(&his, ("a", "q")), Reason::ProjectMismatch).await;
    world.members.add("bob", "q");
    world.denied(&bob.clone().naming("q"), attach(&his, ("a", "q")), Reason::SessionBusy).await;
}

async fn a_shared_agent_shows_counts_and_no_ids(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    world.agent(&admin(), "a", true).await;
    let hers = world.session(&ann).await;
    world.attach(&ann, &hers, ("a", "p")).await;
    let job = world.submit(&ann, &hers).await;
    let his = world.session(&bob).await;
    let shown = |error: &interlock_kit::error::Error| {
        let details = error.to_status("r").details().to_vec();
        let text = String::from_utf8_lossy(&details).into_owned();
        (text.contains(job.id.as_str()), text.contains("1 queued"))
    };
    let to_him = world.refused(&bob.clone().naming("q"), attach(&his, ("a", "q")), Reason::SessionBusy).await;
    assert_eq!(shown(&to_him), (false, true));
    let to_her =
        world.refused(&ann.clone().naming("q"), attach(&hers, ("a", "q")), Reason::SessionBusy).await;
    assert_eq!(shown(&to_her), (true, true));
    // The place in the queue counts others' jobs, and says nothing else of them; of what runs it says how long its lease
    // lives. Issue 7 line 1.
    world.attach(&bob, &his, ("a", "p")).await;
    let other = world.submit(&bob, &his).await;
    let second = world.submit(&ann, &hers).await;
    assert_eq!(world.ok(&admin(), claim("a", 1)).await.jobs[0].held.job, job.id, "the oldest");
    world.advance(Duration::from_secs(3));
    let told = async |caller: Caller, session: &SessionId| {
        let refused =
            world.refused(&caller.naming("q"), attach(session, ("a", "q")), Reason::SessionBusy).await;
        String::from_utf8_lossy(refused.to_status("r").details()).into_owned()
    };
    let (to_her, to_him) = (told(ann, &hers).await, told(bob, &his).await);
    for counts in [&to_her, &to_him] {
        assert!(counts.contains("2 queued and 1 running"), "{counts}");
    }
    for said in [job.id.as_str(), "its lease lives 7000 ms more", second.id.as_str(), "queued, number 2"] {
        assert!(to_her.contains(said) && !to_him.contains(said), "{said}: {to_her} {to_him}");
    }
    for said in [other.id.as_str(), "queued, number 1"] {
        assert!(to_him.contains(said) && !to_her.contains(said), "{said}: {to_her} {to_him}");
    }
}

async fn agents_of_others_look_unknown(world: World) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    world.agent(&ann, "hers", false).await;
    let session = world.session(&bob).await;
    let mut messages = Vec::new();
    for name in ["hers", "unknown"] {
        let verb = Attach {
            session: session.clone(),
            agent: agent(name),
            project: crate::world::project("p"),
            keep_clients: false,
        };
        messages.push(world.denied(&bob.clone().naming("p"), verb, Reason::Forbidden).await.to_string());
    }
    assert_eq!(messages[0], messages[1]);
    let admin_session = world.session(&admin()).await;
    world.refused(&admin().naming("p"), attach(&admin_session, ("unknown", "p")), Reason::NotFound).await;
}
