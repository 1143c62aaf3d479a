//! What must hold: RELIABILITY's I1 to I7, said once more on the model's rows, without asking its rules.

use stateright::Property;

use super::{
    rows::{AGENTS, LEASE, Phase, Rows, SESSIONS, State, may_use},
    verbs::{Verb, number},
    walk::{Guard, World},
};

pub(crate) const I1: &str = "I1: all jobs in flight of one agent are in one project";
pub(crate) const I2: &str = "I2: a binding changes only while its agent has no job in flight";
pub(crate) const I3: &str = "I3: a job in flight is of its session's binding";
pub(crate) const I4: &str = "I4: whatever happens, callers and time alone make a session attachable again";
pub(crate) const I5: &str = "I5: one end for each job, by its newest attempt, under a lease that lives";
pub(crate) const I6: &str = "I6: what was acknowledged is stored";
pub(crate) const I7: &str = "I7: one job for each request, whoever asks how often";
const AGENTS_OF: &str = "a session is bound only to agents that its owner may use";

/// All of them, and what must be possible at all: a model in which nothing happens breaks nothing.
pub(crate) fn all() -> Vec<Property<Guard>> {
    vec![
        Property::always(I1, |_, world: &World| one_project(&world.rows)),
        Property::always(I2, |_, world: &World| world.broken != Some(I2)),
        Property::always(I3, |_, world: &World| as_bound(&world.rows)),
        Property::always(I4, comes_to_rest),
        Property::always(I5, |_, world: &World| {
            world.broken != Some(I5) && world.rows.jobs.iter().all(|job| job.endings <= 1)
        }),
        Property::always(I6, |_, world: &World| acknowledged_is_stored(world)),
        Property::always(I7, |_, world: &World| world.broken != Some(I7) && one_job_each(&world.rows)),
        Property::always(AGENTS_OF, |_, world: &World| {
            (0..SESSIONS).all(|session| {
                world.rows.sessions[usize::from(session)].binding.is_none_or(|b| may_use(session, b.agent))
            })
        }),
        Property::sometimes("a second attempt succeeds", |_, world: &World| {
            world.rows.jobs.iter().any(|job| job.state == State::Succeeded && job.lost > 0)
        }),
        Property::sometimes("a session works in one project after another", |_, world: &World| {
            let moved = |job: &super::rows::Job, binding: super::rows::Binding| {
                job.state == State::Succeeded && job.binding.project != binding.project
            };
            world.rows.sessions.iter().enumerate().any(|(at, session)| {
                let jobs = world.rows.jobs.iter().filter(|job| usize::from(job.session) == at);
                session.binding.is_some_and(|binding| jobs.into_iter().any(|job| moved(job, binding)))
            })
        }),
        Property::sometimes(
            "two owners' jobs run beside each other on a shared agent",
            |_, world: &World| {
                (0..AGENTS).any(|agent| {
                    let mut sessions = world.rows.in_flight_of(agent).map(|job| job.session);
                    sessions.next().is_some_and(|first| sessions.any(|other| other != first))
                })
            },
        ),
        Property::sometimes("a worker believes in a lease that another has", |_, world: &World| {
            world
                .hands
                .iter()
                .flatten()
                .any(|held| world.rows.jobs[usize::from(held.job)].fencing > held.fencing)
        }),
        Property::sometimes("a closing session waits for its running job", |_, world: &World| {
            world.rows.sessions.iter().any(|session| session.phase == Phase::Closing)
        }),
        Property::sometimes("an answer is lost and what it told of is stored", |_, world: &World| {
            world.open.is_none()
                && world.rows.jobs.iter().any(|job| world.told[usize::from(job.request)].is_none())
        }),
    ]
}

/// What a step has broken: asked of the rows before and after it.
pub(crate) fn broken_by(verb: Verb, before: &Rows, after: &Rows) -> Option<&'static str> {
    for session in 0..usize::from(SESSIONS) {
        let (was, is) = (before.sessions[session].binding, after.sessions[session].binding);
        if was != is && was.is_some_and(|b| before.in_flight_of(b.agent).next().is_some()) {
            return Some(I2);
        }
        if was.is_some_and(|was| is.is_none_or(|is| is.epoch < was.epoch)) {
            return Some(I2);
        }
    }
    if let Verb::Finish { held } = verb {
        let job = &before.jobs[usize::from(held.job)];
        let newest = job.fencing == held.fencing && matches!(job.state, State::Running { left } if left > 0);
        if !newest && after.jobs[usize::from(held.job)] != *job {
            return Some(I5);
        }
    }
    None
}

fn one_project(rows: &Rows) -> bool {
    (0..AGENTS).all(|agent| {
        let mut projects = rows.in_flight_of(agent).map(|job| job.binding.project);
        projects.next().is_none_or(|first| projects.all(|project| project == first))
    })
}

fn as_bound(rows: &Rows) -> bool {
    let in_flight = rows.jobs.iter().filter(|job| job.in_flight());
    in_flight.into_iter().all(|job| rows.sessions[usize::from(job.session)].binding == Some(job.binding))
}

fn acknowledged_is_stored(world: &World) -> bool {
    // An open transaction may still commit what a flawed answer told of.
    world.open.is_some()
        || world.told.iter().enumerate().all(|(request, told)| {
            told.is_none_or(|job| {
                world.rows.jobs.get(usize::from(job)).is_some_and(|job| usize::from(job.request) == request)
            })
        })
}

fn one_job_each(rows: &Rows) -> bool {
    rows.jobs
        .iter()
        .enumerate()
        .all(|(at, job)| rows.jobs[..at].iter().all(|other| other.request != job.request))
}

/// From here on no worker says a word. Each job is cancelled, a lease's time passes, leases that are over are
/// swept: then nothing is in flight, and each open session can be attached anywhere that its owner may go.
fn comes_to_rest(guard: &Guard, world: &World) -> bool {
    if world.open.is_some() {
        return true; // The same rows were looked at just before.
    }
    let mut rows = world.rows.clone();
    for job in 0..number(rows.jobs.len()) {
        let _ = Verb::Cancel { job }.run(&mut rows, guard.flaw, None);
    }
    for _ in 0..LEASE {
        rows.tick();
    }
    for job in 0..number(rows.jobs.len()) {
        let _ = Verb::Sweep { job }.run(&mut rows, guard.flaw, None);
    }
    let attaches = (0..SESSIONS).all(|session| {
        let open = rows.sessions[usize::from(session)].phase == Phase::Open;
        !open
            || (0..2).all(|project| {
                Verb::Attach { session, agent: 0, project }.run(&mut rows.clone(), guard.flaw, None).is_some()
            })
    });
    rows.jobs.iter().all(|job| !job.in_flight())
        && rows.sessions.iter().all(|session| session.phase != Phase::Closing)
        && attaches
}
