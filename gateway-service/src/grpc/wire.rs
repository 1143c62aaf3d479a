//! Domain to wire and back. Nothing here decides; what a message lacks or has too much of is refused here.

use std::time::{Duration, SystemTime};

use interlock_kit::{clock::Timestamp, error::Error, field};
use interlock_proto::{gateway::v1 as wire, text};

use crate::{
    agent::AgentSeen,
    binding::Binding,
    client::{Client, ClientRole, LeaveCause},
    event::{Event, EventKind, ReleaseCause},
    file::{File, FilesOf},
    ids::{ClientId, JobId, OwnerId, ProjectId, SessionId, SessionName},
    job::{self, Job, JobWhole, Outcome},
    lease::Held,
    limits,
    message::Address,
    session::{self, SessionSeen},
    worker::Assignment,
};

/// An optional name: empty is none.
pub(crate) fn name(text: String) -> Result<Option<SessionName>, Error> {
    if text.is_empty() { Ok(None) } else { SessionName::parse(text).map(Some) }
}

/// An optional owner: empty is the caller.
pub(crate) fn owner(text: String) -> Result<Option<OwnerId>, Error> {
    if text.is_empty() { Ok(None) } else { OwnerId::parse(text).map(Some) }
}

/// An open stream: `str_…`.
pub(crate) fn stream_id(text: String) -> Result<String, Error> {
    if text.is_empty() {
        return Err(Error::missing_field("stream_id"));
    }
    if !text::is_id(&text, "str_") {
        return Err(Error::invalid_field("stream_id", "`str_` and 1 to 60 of a-z and 0-9"));
    }
    Ok(text)
}

/// Whose files: a session's, or those of a job's by its fencing token.
pub(crate) fn files_of(session: String, job: String, fencing: u64) -> Result<FilesOf, Error> {
    match (session.is_empty(), job.is_empty()) {
        (_, true) if fencing != 0 => Err(Error::invalid_field("fencing_token", "0 without job_id")),
        (_, true) => SessionId::parse(session).map(FilesOf::Session),
        (false, false) => Err(Error::invalid_field("job_id", "none beside session_id")),
        (true, false) => Ok(FilesOf::Attempt(Held { job: JobId::parse(job)?, fencing })),
    }
}

pub(crate) fn file(file: &File) -> wire::File {
    wire::File {
        name: file.name.to_string(),
        size: file.size,
        sha256: file.hash.to_vec().into(),
        project_id: file.project.as_ref().map(ProjectId::to_string).unwrap_or_default(),
        epoch: file.epoch,
        stored_at: Some(file.at.to_wire()),
    }
}

/// How long to wait: 0 to 60 s, 30 s where absent.
pub(crate) fn wait(asked: Option<prost_types::Duration>) -> Result<Duration, Error> {
    Ok(field::span("wait", asked, &limits::WAIT, "0 to 60 s")?.unwrap_or(limits::WAIT_DEFAULT))
}

/// How long an attach waits: 0 to 600 s, 30 s where absent.
pub(crate) fn attach_wait(asked: Option<prost_types::Duration>) -> Result<Duration, Error> {
    Ok(field::span("wait", asked, &limits::ATTACH_WAIT, "0 to 600 s")?.unwrap_or(limits::WAIT_DEFAULT))
}

pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

pub(crate) fn instant(at: SystemTime) -> prost_types::Timestamp {
    let micros = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX)).to_wire()
}

pub(crate) fn binding(binding: Binding) -> wire::Binding {
    wire::Binding { agent_id: binding.agent.into(), project_id: binding.project.into(), epoch: binding.epoch }
}

pub(crate) fn session(seen: SessionSeen) -> wire::Session {
    let session = seen.session;
    let state = match session.phase {
        session::Phase::Open => wire::SessionState::Open,
        session::Phase::Closing => wire::SessionState::Closing,
        session::Phase::Gone => wire::SessionState::Unspecified,
    };
    wire::Session {
        session_id: session.id.into(),
        name: session.name.map(String::from).unwrap_or_default(),
        owner_id: session.owner.into(),
        binding: session.binding.map(binding),
        state: state.into(),
        created_at: Some(session.created_at.to_wire()),
        last_sequence: seen.last_sequence,
        jobs_in_flight: seen.jobs_in_flight,
    }
}

pub(crate) fn agent(seen: &AgentSeen) -> wire::Agent {
    let agent = &seen.agent;
    wire::Agent {
        agent_id: agent.id.to_string(),
        owner_id: agent.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
        shared: agent.shared,
        built_in: agent.is_built_in(),
        description: agent.description.clone(),
        created_at: Some(agent.created_at.to_wire()),
        queued: seen.queued,
        running: seen.running,
    }
}

pub(crate) fn client_role(role: ClientRole) -> wire::ClientRole {
    match role {
        ClientRole::Observer => wire::ClientRole::Observer,
        ClientRole::Operator => wire::ClientRole::Operator,
        ClientRole::Host => wire::ClientRole::Host,
    }
}

pub(crate) fn client(client: &Client, calling: Option<&ClientId>) -> wire::Client {
    wire::Client {
        client_id: client.id.to_string(),
        role: client_role(client.role).into(),
        cursor: client.cursor,
        joined_at: Some(client.created_at.to_wire()),
        seen_at: Some(client.seen_at.to_wire()),
        calling: calling == Some(&client.id),
    }
}

fn leave_cause(cause: LeaveCause) -> wire::LeaveCause {
    match cause {
        LeaveCause::Quit => wire::LeaveCause::Quit,
        LeaveCause::Evicted => wire::LeaveCause::Evicted,
        LeaveCause::Idle => wire::LeaveCause::Idle,
        LeaveCause::OwnerEnded => wire::LeaveCause::OwnerEnded,
    }
}

fn posted(from: Option<&ClientId>, to: &Address, data: &[u8]) -> wire::MessagePosted {
    let to_client_id = match to {
        Address::One(client) => client.to_string(),
        Address::All | Address::Others => String::new(),
    };
    wire::MessagePosted {
        from_client_id: from.map(ToString::to_string).unwrap_or_default(),
        to_client_id,
        to_others: *to == Address::Others,
        data: data.to_vec().into(),
    }
}

fn outcome(outcome: Outcome) -> wire::JobState {
    match outcome {
        Outcome::Succeeded => wire::JobState::Succeeded,
        Outcome::Failed => wire::JobState::Failed,
        Outcome::Cancelled => wire::JobState::Cancelled,
    }
}

pub(crate) fn job_state(phase: &job::Phase) -> wire::JobState {
    match phase {
        job::Phase::Queued => wire::JobState::Queued,
        job::Phase::Running(_) => wire::JobState::Running,
        job::Phase::Ended(end) => outcome(end.outcome),
    }
}

/// A job without payload and result.
pub(crate) fn job(job: Job) -> wire::Job {
    let state = job_state(&job.phase).into();
    let (ended_at, cause) = match job.phase {
        job::Phase::Ended(end) => (Some(end.at.to_wire()), end.cause),
        job::Phase::Queued | job::Phase::Running(_) => (None, String::new()),
    };
    wire::Job {
        job_id: job.id.into(),
        session_id: job.session.into(),
        binding: Some(binding(job.binding)),
        state,
        attempt: job.attempt,
        submitted_at: Some(job.submitted_at.to_wire()),
        started_at: job.started_at.map(Timestamp::to_wire),
        ended_at,
        cause,
        cancel_requested: job.cancel_requested_at.is_some(),
        ..wire::Job::default()
    }
}

/// A job with payload and result.
pub(crate) fn whole_job(whole: JobWhole) -> wire::Job {
    wire::Job { payload: whole.payload.into(), result: whole.result.into(), ..job(whole.job) }
}

pub(crate) fn event(event: &Event) -> wire::Event {
    wire::Event {
        sequence: event.sequence,
        occurred_at: Some(event.at.to_wire()),
        project_id: event.project.as_ref().map(ToString::to_string).unwrap_or_default(),
        epoch: event.epoch,
        kind: Some(event_kind(&event.kind)),
    }
}

fn event_kind(kind: &EventKind) -> wire::event::Kind {
    use wire::event::Kind;
    let id = ToString::to_string;
    match kind {
        EventKind::Created { client } => {
            Kind::SessionCreated(wire::SessionCreated { client_id: client.to_string() })
        }
        EventKind::Attached { binding: now } => {
            Kind::SessionAttached(wire::SessionAttached { binding: Some(binding(now.clone())) })
        }
        EventKind::Closing => Kind::SessionClosing(wire::SessionClosing {}),
        EventKind::JobQueued { job } => Kind::JobQueued(wire::JobQueued { job_id: id(job) }),
        EventKind::JobStarted { job, attempt, worker } => Kind::JobStarted(wire::JobStarted {
            job_id: id(job),
            attempt: *attempt,
            worker: worker.to_string(),
        }),
        EventKind::JobProgress { job, attempt, data } => Kind::JobProgress(wire::JobProgress {
            job_id: id(job),
            attempt: *attempt,
            data: data.clone().into(),
        }),
        EventKind::JobReleased { job, attempt, cause } => Kind::JobReleased(wire::JobReleased {
            job_id: id(job),
            attempt: *attempt,
            cause: release_cause(*cause).into(),
        }),
        EventKind::JobCancelRequested { job } => {
            Kind::JobCancelRequested(wire::JobCancelRequested { job_id: id(job) })
        }
        EventKind::JobEnded { job, outcome: how, cause } => Kind::JobEnded(wire::JobEnded {
            job_id: id(job),
            state: outcome(*how).into(),
            cause: cause.clone(),
        }),
        EventKind::ClientJoined { client } => {
            Kind::ClientJoined(wire::ClientJoined { client_id: client.to_string() })
        }
        EventKind::ClientLeft { client, cause } => Kind::ClientLeft(wire::ClientLeft {
            client_id: client.to_string(),
            cause: leave_cause(*cause).into(),
        }),
        EventKind::PasswordSet => Kind::PasswordSet(wire::PasswordSet {}),
        EventKind::Message { from, to, data } => Kind::MessagePosted(posted(from.as_ref(), to, data)),
    }
}

fn release_cause(cause: ReleaseCause) -> wire::ReleaseCause {
    match cause {
        ReleaseCause::LeaseExpired => wire::ReleaseCause::LeaseExpired,
        ReleaseCause::Goodbye => wire::ReleaseCause::Goodbye,
    }
}

pub(crate) fn held(held: &Held) -> wire::Held {
    wire::Held { job_id: held.job.to_string(), fencing_token: held.fencing }
}

pub(crate) fn held_from(held: Option<wire::Held>) -> Result<Held, Error> {
    let held = held.ok_or_else(|| Error::missing_field("held"))?;
    let job = JobId::parse(held.job_id).map_err(|error| error.within("held"))?;
    Ok(Held { job, fencing: held.fencing_token })
}

/// Jobs that a worker says it holds, at most `most`.
pub(crate) fn all_held(all: Vec<wire::Held>, most: u32) -> Result<Vec<Held>, Error> {
    if all.len() > most as usize {
        return Err(Error::invalid_field("held", format!("at most {most} jobs")));
    }
    let read = |(at, held): (usize, wire::Held)| {
        let job = JobId::parse(held.job_id).map_err(|error| error.within(&format!("held[{at}]")))?;
        Ok(Held { job, fencing: held.fencing_token })
    };
    all.into_iter().enumerate().map(read).collect()
}

/// How a worker says that a job ended.
pub(crate) fn outcome_from(state: wire::JobState) -> Result<Outcome, Error> {
    match state {
        wire::JobState::Succeeded => Ok(Outcome::Succeeded),
        wire::JobState::Failed => Ok(Outcome::Failed),
        wire::JobState::Cancelled => Ok(Outcome::Cancelled),
        wire::JobState::Unspecified | wire::JobState::Queued | wire::JobState::Running => {
            Err(Error::invalid_field("state", "succeeded, failed or cancelled"))
        }
    }
}

pub(crate) fn assignment(assignment: Assignment) -> wire::work_response::Assignment {
    wire::work_response::Assignment {
        held: Some(held(&assignment.held)),
        session_id: assignment.session.into(),
        binding: Some(binding(assignment.binding)),
        attempt: assignment.attempt,
        payload: assignment.payload.into(),
        lease: Some(duration(assignment.lease)),
        run_time_left: Some(duration(assignment.run_time_left)),
    }
}

#[cfg(test)]
mod tests {
    use interlock_kit::error::Reason;

    use super::*;

    #[test]
    fn a_wait_is_bounded_and_never_negative() {
        let asked = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        assert_eq!(wait(None).expect("the default"), limits::WAIT_DEFAULT);
        assert_eq!(wait(asked(60)).expect("the most"), *limits::WAIT.end());
        for bad in [asked(61), asked(-1), asked(i64::MAX)] {
            assert_eq!(wait(bad).expect_err("out of bounds").reason(), Reason::InvalidField);
        }
    }

    #[test]
    fn what_a_worker_holds_is_bounded_and_named() {
        let one = wire::Held { job_id: JobId::new().to_string(), fencing_token: 3 };
        assert_eq!(all_held(vec![one.clone(); 2], 2).expect("two").len(), 2);
        assert!(all_held(vec![one.clone(); 3], 2).is_err());
        let bad = wire::Held { job_id: "../job".to_owned(), ..one.clone() };
        let error = all_held(vec![one, bad], 2).expect_err("no id");
        assert!(error.to_string().starts_with("held[1].job_id: "), "{error}");
        assert_eq!(held_from(None).expect_err("none").reason(), Reason::MissingField);
    }
}
