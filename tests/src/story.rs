//! A session's log: read whole from the gateway, and checked against what must hold of every log.

use std::collections::BTreeMap;

use interlock_proto::gateway::v1::{
    Binding, Event, JobState, StreamEventsRequest, StreamEventsResponse, event::Kind,
    stream_events_response::Message,
};
use prost::Message as _;
use tonic::{Code, Status, transport::Channel};

use crate::{
    patience::{eventually, within},
    wire::{self, Metadata},
};

const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";

/// One job, as its session's log tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobStory {
    /// The job.
    pub job_id: String,
    /// What it was queued under.
    pub binding: Binding,
    /// When it was queued, in microseconds.
    pub queued_at: i64,
    /// The newest attempt; 0 before the first.
    pub attempt: u32,
    /// Whether that attempt has the job.
    pub running: bool,
    /// When and how it ended.
    pub ended: Option<(i64, JobState)>,
}

/// One binding of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingStory {
    /// It.
    pub binding: Binding,
    /// What it replaced.
    pub before: Option<Binding>,
    /// When, in microseconds.
    pub at: i64,
}

/// What a log tells, in the words of the invariants.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// By id.
    pub jobs: BTreeMap<String, JobStory>,
    /// In order.
    pub bindings: Vec<BindingStory>,
    /// How many events it has.
    pub events: usize,
}

/// The whole log, as it is now. Whoever is told that auth cannot be asked now asks again: a short lease lapses on
/// a busy machine.
///
/// # Panics
/// Where the stream is refused for another reason or ends before it has caught up.
pub async fn read_log(channel: &Channel, metadata: &Metadata, session: &str) -> Vec<Event> {
    eventually("the whole log", async || match read_once(channel, metadata, session).await {
        Ok(events) => Some(events),
        Err(refused) if refused.code() == Code::Unavailable => None,
        Err(refused) => panic!("the log of this session may be read: {refused}"),
    })
    .await
}

async fn read_once(channel: &Channel, metadata: &Metadata, session: &str) -> Result<Vec<Event>, Status> {
    let request = StreamEventsRequest { session_id: session.to_owned(), ..Default::default() };
    let read = async {
        let (_, mut messages) = wire::open(channel, STREAM_EVENTS, request.encode_to_vec(), metadata).await?;
        let mut events = Vec::new();
        loop {
            let message = messages.message().await?.expect("no end before it has caught up");
            match StreamEventsResponse::decode(message).expect("a message").message.expect("one of them") {
                Message::Opened(_) => {}
                Message::Event(event) => events.push(event),
                Message::Gap(gap) => panic!("{session}: retention took {gap:?}"),
                Message::CaughtUp(_) => return Ok(events),
            }
        }
    };
    within("the whole log", read).await
}

/// Tells the story of one session's log, and asserts what must hold of it by itself: no gap in its
/// numbers, no instant that goes back, an epoch that grows by one, one attempt at a time and one end for each
/// job (I5), and no new binding while a job of its own is in flight (I2, I3).
///
/// # Panics
/// Where something of that does not hold.
#[must_use]
pub fn tell(session: &str, log: &[Event]) -> Story {
    let mut story = Story { events: log.len(), ..Story::default() };
    let mut last_at = i64::MIN;
    for (place, event) in log.iter().enumerate() {
        assert_eq!(event.sequence, place as u64 + 1, "{session}: the log has a gap");
        let at = micros(event);
        assert!(at >= last_at, "{session}: event {} is older than the one before", event.sequence);
        last_at = at;
        story.take(session, event, at);
    }
    story
}

impl Story {
    fn take(&mut self, session: &str, event: &Event, at: i64) {
        let bound = self.bindings.last().map(|b| b.binding.clone());
        let under = (event.project_id.as_str(), event.epoch);
        match event.kind.as_ref().expect("every event is of a kind") {
            Kind::SessionCreated(_) => assert_eq!(event.sequence, 1, "{session}: made twice"),
            Kind::SessionAttached(attached) => {
                let binding = attached.binding.clone().expect("a binding");
                let epoch = bound.as_ref().map_or(0, |b| b.epoch);
                assert_eq!(binding.epoch, epoch + 1, "{session}: epochs grow by one");
                assert_eq!(under, (binding.project_id.as_str(), binding.epoch), "{session}: {event:?}");
                let busy: Vec<_> = self.jobs.values().filter(|job| job.ended.is_none()).collect();
                assert!(busy.is_empty(), "{session}: I2: attached to {binding:?} over {busy:?}");
                self.bindings.push(BindingStory { binding, before: bound, at });
            }
            Kind::SessionClosing(_)
            | Kind::ClientJoined(_)
            | Kind::ClientLeft(_)
            | Kind::PasswordSet(_)
            | Kind::MessagePosted(_) => {}
            Kind::JobQueued(queued) => {
                let binding = bound.expect("a job is queued under a binding");
                assert_eq!(under, (binding.project_id.as_str(), binding.epoch), "{session}: I3: {event:?}");
                let job_id = queued.job_id.clone();
                let job = JobStory {
                    job_id: job_id.clone(),
                    binding,
                    queued_at: at,
                    attempt: 0,
                    running: false,
                    ended: None,
                };
                assert!(self.jobs.insert(job_id, job).is_none(), "{session}: queued twice: {event:?}");
            }
            Kind::JobStarted(started) => {
                let job = self.in_flight(session, event, &started.job_id);
                let next = !job.running && started.attempt == job.attempt + 1;
                assert!(next, "{session}: two attempts at once, or one left out: {job:?}: {event:?}");
                (job.attempt, job.running) = (started.attempt, true);
            }
            Kind::JobProgress(progress) => {
                let job = self.in_flight(session, event, &progress.job_id);
                let has_it = job.running && progress.attempt == job.attempt;
                assert!(has_it, "{session}: I5: of a fenced attempt: {job:?}: {event:?}");
            }
            Kind::JobReleased(released) => {
                let job = self.in_flight(session, event, &released.job_id);
                let had_it = job.running && released.attempt == job.attempt;
                assert!(had_it, "{session}: I5: a fenced attempt was released: {job:?}: {event:?}");
                job.running = false;
            }
            Kind::JobCancelRequested(asked) => {
                let _ = self.in_flight(session, event, &asked.job_id);
            }
            Kind::JobEnded(ended) => {
                let job = self.in_flight(session, event, &ended.job_id);
                (job.ended, job.running) = (Some((at, ended.state())), false);
            }
        }
    }

    /// I3, I5: the job lives, and under the binding that it was queued under.
    fn in_flight(&mut self, session: &str, event: &Event, job: &str) -> &mut JobStory {
        let job = self.jobs.get_mut(job).unwrap_or_else(|| panic!("{session}: never queued: {event:?}"));
        assert!(job.ended.is_none(), "{session}: I5: after the end of {job:?}: {event:?}");
        let under = (event.project_id.as_str(), event.epoch);
        assert_eq!(under, (job.binding.project_id.as_str(), job.binding.epoch), "{session}: I3: {event:?}");
        job
    }
}

/// Asserts I1 and I2 over the logs of all sessions that share agents: no two jobs of one agent in
/// different projects overlap in time, and no session leaves an agent while any job of it is in flight.
/// Instants are those of transactions; what shares one instant has no order here, and is not judged.
///
/// # Panics
/// Where something of that does not hold.
pub fn check_together(stories: &[Story]) {
    let jobs: Vec<&JobStory> = stories.iter().flat_map(|s| s.jobs.values()).collect();
    let end = |job: &JobStory| job.ended.map_or(i64::MAX, |(at, _)| at);
    for (place, a) in jobs.iter().enumerate() {
        for b in &jobs[place + 1..] {
            let shares =
                a.binding.agent_id == b.binding.agent_id && a.binding.project_id != b.binding.project_id;
            let overlaps = a.queued_at < end(b) && b.queued_at < end(a);
            assert!(!(shares && overlaps), "I1: one agent in two projects at once:\n{a:?}\n{b:?}");
        }
    }
    for change in stories.iter().flat_map(|s| &s.bindings) {
        let Some(before) = &change.before else { continue };
        let in_flight = |job: &&&JobStory| job.queued_at < change.at && change.at < end(job);
        let busy = jobs.iter().find(|job| job.binding.agent_id == before.agent_id && in_flight(job));
        assert!(busy.is_none(), "I2: {change:?} while {busy:?} was in flight");
    }
}

fn micros(event: &Event) -> i64 {
    let at = event.occurred_at.expect("every event has its instant");
    at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000
}

#[cfg(test)]
mod tests {
    use interlock_proto::gateway::v1::{
        JobEnded, JobProgress, JobQueued, JobReleased, JobStarted, SessionAttached, SessionCreated,
    };
    use prost_types::Timestamp;

    use super::*;

    /// A log in which each event is a microsecond after the one before, from `from` on.
    struct Log {
        events: Vec<Event>,
        from: i64,
        bound: Binding,
    }

    impl Log {
        fn new(from: i64) -> Self {
            let log = Self { events: Vec::new(), from, bound: Binding::default() };
            log.then(Kind::SessionCreated(SessionCreated::default()))
        }

        fn then(mut self, kind: Kind) -> Self {
            let sequence = self.events.len() as u64 + 1;
            let nanos =
                i32::try_from((self.from + self.events.len() as i64) * 1_000).expect("under a second");
            self.events.push(Event {
                sequence,
                occurred_at: Some(Timestamp { seconds: 1, nanos }),
                project_id: self.bound.project_id.clone(),
                epoch: self.bound.epoch,
                kind: Some(kind),
            });
            self
        }

        fn attached(mut self, agent: &str, project: &str) -> Self {
            let epoch = self.bound.epoch + 1;
            self.bound = Binding { agent_id: agent.to_owned(), project_id: project.to_owned(), epoch };
            let binding = Some(self.bound.clone());
            self.then(Kind::SessionAttached(SessionAttached { binding }))
        }

        fn queued(self, job: &str) -> Self {
            self.then(Kind::JobQueued(JobQueued { job_id: job.to_owned() }))
        }

        fn ended(self, job: &str) -> Self {
            let ended =
                JobEnded { job_id: job.to_owned(), state: JobState::Succeeded.into(), ..Default::default() };
            self.then(Kind::JobEnded(ended))
        }

        fn story(&self) -> Story {
            tell("ses", &self.events)
        }
    }

    #[test]
    fn a_good_log_is_told() {
        let story = Log::new(0).attached("a", "p").queued("j").ended("j").attached("b", "q").story();
        assert_eq!((story.jobs.len(), story.bindings.len(), story.events), (1, 2, 5));
        check_together(&[story]);
    }

    #[test]
    #[should_panic(expected = "I2: attached")]
    fn an_attach_over_an_own_job_is_seen() {
        let _ = Log::new(0).attached("a", "p").queued("j").attached("b", "p").story();
    }

    #[test]
    #[should_panic(expected = "I5: after the end")]
    fn a_second_end_is_seen() {
        let _ = Log::new(0).attached("a", "p").queued("j").ended("j").ended("j").story();
    }

    #[test]
    #[should_panic(expected = "I5: of a fenced attempt")]
    fn a_line_of_a_fenced_attempt_is_seen() {
        let job_id = || "j".to_owned();
        let started =
            |attempt| Kind::JobStarted(JobStarted { job_id: job_id(), attempt, ..Default::default() });
        let released = JobReleased { job_id: job_id(), attempt: 1, ..Default::default() };
        let line = JobProgress { job_id: job_id(), attempt: 1, ..Default::default() };
        let log =
            Log::new(0).attached("a", "p").queued("j").then(started(1)).then(Kind::JobReleased(released));
        let _ = log.then(started(2)).then(Kind::JobProgress(line)).story();
    }

    #[test]
    #[should_panic(expected = "the log has a gap")]
    fn a_gap_is_seen() {
        let mut log = Log::new(0).attached("a", "p").queued("j");
        log.events.remove(1);
        let _ = log.story();
    }

    #[test]
    #[should_panic(expected = "I3")]
    fn an_event_under_another_binding_is_seen() {
        let mut log = Log::new(0).attached("a", "p").queued("j").ended("j");
        log.events[3].project_id = "q".to_owned();
        let _ = log.story();
    }

    #[test]
    #[should_panic(expected = "I1: one agent in two projects")]
    fn two_projects_of_one_agent_are_seen() {
        let one = Log::new(0).attached("a", "p").queued("j").ended("j").story();
        let other = Log::new(0).attached("a", "q").queued("k").ended("k").story();
        check_together(&[one, other]);
    }

    #[test]
    #[should_panic(expected = "I2")]
    fn leaving_an_agent_that_works_for_another_session_is_seen() {
        let busy = Log::new(0).attached("a", "p").queued("j").ended("j").ended_late();
        let leaves = Log::new(0).attached("a", "p").then_nothing().attached("b", "p").story();
        check_together(&[busy, leaves]);
    }

    impl Log {
        /// The last event, a good while later.
        fn ended_late(mut self) -> Story {
            let last = self.events.last_mut().expect("an end");
            last.occurred_at = Some(Timestamp { seconds: 2, nanos: 0 });
            self.story()
        }

        fn then_nothing(mut self) -> Self {
            self.from += 10;
            self
        }
    }
}
