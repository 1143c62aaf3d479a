//! The evidence of `SESSION_BUSY` on the wire: `interlock.errors.v1.SessionBusy`, and the same for people.

use interlock_kit::error::{Detail, Precondition};
use interlock_proto::errors::v1 as wire;
use prost::Message as _;

use super::wire::duration;
use crate::binding::{Busy, BusyJob, BusyKind};

const TYPE_URL: &str = "type.googleapis.com/interlock.errors.v1.SessionBusy";

impl Detail for Busy {
    fn preconditions(&self) -> Vec<Precondition> {
        let kind = match self.kind {
            BusyKind::Rebind => "REBIND",
            BusyKind::Project => "PROJECT",
            BusyKind::Agent => "AGENT",
        };
        let counts = format!("{} queued and {} running", self.queued, self.running);
        let whole = Precondition {
            kind: kind.to_owned(),
            subject: format!("agent/{}", self.agent),
            description: match self.waiting {
                0 => format!("jobs in flight: {counts}"),
                waiting => format!("jobs in flight: {counts}; {waiting} attaches wait"),
            },
        };
        let each = self.jobs.iter().map(|job| Precondition {
            kind: kind.to_owned(),
            subject: format!("job/{}", job.job),
            description: match job.lease_left {
                Some(left) => format!("running; its lease lives {} ms more", left.as_millis()),
                None => format!("queued, number {}", job.queue_position),
            },
        });
        std::iter::once(whole).chain(each).collect()
    }

    fn encoded(&self) -> (String, Vec<u8>) {
        let kind = match self.kind {
            BusyKind::Rebind => wire::BusyKind::Rebind,
            BusyKind::Project => wire::BusyKind::Project,
            BusyKind::Agent => wire::BusyKind::Agent,
        };
        let message = wire::SessionBusy {
            kind: kind.into(),
            agent_id: self.agent.to_string(),
            queued: self.queued,
            running: self.running,
            jobs: self.jobs.iter().map(job).collect(),
            waiting: self.waiting,
        };
        (TYPE_URL.to_owned(), message.encode_to_vec())
    }
}

fn job(job: &BusyJob) -> wire::BusyJob {
    let state = if job.lease_left.is_some() { "running" } else { "queued" };
    wire::BusyJob {
        job_id: job.job.to_string(),
        state: state.to_owned(),
        lease_left: job.lease_left.map(duration),
        queue_position: job.queue_position,
    }
}
