//! Planned changes to the maps. Each is conditional on the row that it was planned on.

use interlock_kit::{clock::Timestamp, store::Fault};

use crate::{
    binding::Binding,
    event::{Event, EventKind},
    ids::SessionId,
    store::{
        Change, Signal,
        model::{Model, ModelLog},
        record,
        rows::logged,
    },
};

pub(super) fn apply(
    model: &mut Model,
    change: Change,
    now: Timestamp,
    signals: &mut Vec<Signal>,
) -> Result<(), Fault> {
    change.signals(signals);
    match change {
        Change::AddSession(session) => {
            model.logs.insert(session.id.clone(), ModelLog::default());
            fresh("session", model.sessions.insert(session.id.clone(), session))
        }
        Change::SetSession(before, after) => {
            same("session", model.sessions.insert(after.id.clone(), after), Some(before))
        }
        Change::AddClient(client) => {
            if model.clients.values().any(|other| other.hash == client.hash) {
                return Err(broken("client"));
            }
            fresh("client", model.clients.insert(client.id.clone(), client))
        }
        Change::SetCursor { client, from, to } => {
            let client = model.clients.get_mut(&client).filter(|client| client.cursor == from);
            client.ok_or_else(|| broken("client"))?.cursor = to;
            Ok(())
        }
        Change::SetSeen { client, from, to } => {
            let client = model.clients.get_mut(&client).filter(|client| client.seen_at == from);
            client.ok_or_else(|| broken("client"))?.seen_at = to;
            Ok(())
        }
        Change::DropClient(client) => same("client", Some(client.clone()), model.clients.remove(&client.id)),
        Change::SetPassword(before, after) => {
            same("password", model.passwords.insert(after.session.clone(), after), before)
        }
        Change::AddWaiter(waiter) => fresh("waiter", model.waiters.insert(waiter.id.clone(), waiter)),
        Change::SetWaiter(before, after) => {
            same("waiter", model.waiters.insert(after.id.clone(), after), Some(before))
        }
        Change::DropWaiter(waiter) => same("waiter", model.waiters.remove(&waiter.id), Some(waiter)),
        Change::AddFile(file) => fresh("file", model.files.insert(file.id.clone(), file)),
        Change::SetFile(both) => {
            let (before, after) = *both;
            same("file", model.files.insert(after.id.clone(), after), Some(before))
        }
        Change::DropFile(file) => same("file", model.files.remove(&file.id), Some(file)),
        Change::AddAgent(agent) => fresh("agent", model.agents.insert(agent.id.clone(), agent)),
        Change::SetAgent(before, after) => {
            same("agent", model.agents.insert(after.id.clone(), after), Some(before))
        }
        Change::DropAgent(agent) => same("agent", model.agents.remove(&agent.id), Some(agent)),
        Change::AdoptSession(before, after) => {
            same("session", model.sessions.insert(after.id.clone(), after), Some(before))
        }
        Change::AddJob(job, payload) => {
            fresh("payload", model.payloads.insert(job.id.clone(), payload.into()))?;
            fresh("job", model.jobs.insert(job.id.clone(), job))
        }
        Change::SetJob(both, result) => {
            let (before, after) = *both;
            if let Some(result) = result {
                fresh("result", model.results.insert(after.id.clone(), result.into()))?;
            }
            same("job", model.jobs.insert(after.id.clone(), after), Some(before))
        }
        Change::PutRequest(request, now) => {
            let old = model.requests.insert(request.key.clone(), request);
            if old.is_none_or(|old| old.kept_until.is_over(now)) { Ok(()) } else { Err(broken("request")) }
        }
        Change::Append { session, binding, kind } => append(model, &session, binding, kind, now, signals),
        Change::TrimLog { session, from, to, .. } => trim(model, &session, from, to),
        Change::DropJobs(jobs) => jobs.iter().try_for_each(|job| {
            model.results.remove(job);
            let both = model.jobs.remove(job).zip(model.payloads.remove(job));
            both.filter(|(job, _)| !job.is_in_flight()).map(drop).ok_or_else(|| broken("job"))
        }),
        Change::DropRequests(keys) => keys
            .iter()
            .try_for_each(|key| model.requests.remove(key).map(drop).ok_or_else(|| broken("request"))),
        Change::SetFollowed(before, after) => {
            let was = std::mem::replace(&mut model.followed, after);
            same("place in auth's log", Some(was), Some(before))
        }
        Change::DropSession(session) => {
            model.clients.retain(|_, client| client.session != session);
            model.passwords.remove(&session);
            model.logs.remove(&session).filter(|log| log.events.is_empty()).ok_or_else(|| broken("log"))?;
            model.sessions.remove(&session).map(drop).ok_or_else(|| broken("session"))
        }
        // Beside the rows of a service; a plain store's log is looked at by nobody else.
        Change::KeepLog(_) => Ok(()),
    }
}

fn append(
    model: &mut Model,
    session: &SessionId,
    binding: Option<Binding>,
    kind: EventKind,
    now: Timestamp,
    signals: &mut Vec<Signal>,
) -> Result<(), Fault> {
    let log = model.logs.get_mut(session).ok_or_else(|| broken("log"))?;
    let (facts, data) = record::write(&kind)?;
    let bytes = record::weight(&facts, data);
    log.last += 1;
    let (project, epoch) = binding.map_or((None, 0), |binding| (Some(binding.project), binding.epoch));
    let event = Event { sequence: log.last, at: now, project, epoch, kind };
    log.events.insert(log.last, (event.clone(), bytes));
    signals.push(logged(session, event));
    Ok(())
}

fn trim(model: &mut Model, session: &SessionId, from: u64, to: u64) -> Result<(), Fault> {
    let log = model.logs.get_mut(session).ok_or_else(|| broken("log"))?;
    (from..=to).try_for_each(|sequence| log.events.remove(&sequence).map(drop).ok_or_else(|| broken("event")))
}

#[expect(clippy::needless_pass_by_value, reason = "what an insertion displaced")]
fn fresh<T>(what: &str, old: Option<T>) -> Result<(), Fault> {
    if old.is_none() { Ok(()) } else { Err(broken(what)) }
}

#[expect(clippy::needless_pass_by_value, reason = "what an insertion displaced")]
fn same<T: PartialEq>(what: &str, old: Option<T>, expected: Option<T>) -> Result<(), Fault> {
    if old == expected { Ok(()) } else { Err(broken(what)) }
}

fn broken(what: &str) -> Fault {
    Fault::Broken(format!("{what}: not the row that the change was planned on"))
}
