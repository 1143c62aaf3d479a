//! What gateways on one database tell each other of what they have committed: a letter and ids, one line each.

use crate::{
    ids::{AgentId, JobId, SessionId},
    store::Signal,
};

pub(super) fn tell(signal: &Signal) -> Option<String> {
    Some(match signal {
        Signal::Logged { session, .. } => format!("L {session}"),
        Signal::AgentQueued { agent } => format!("Q {agent}"),
        Signal::JobChanged { job, ended } => format!("J {job} {}", u8::from(*ended)),
        Signal::CancelRequested { job, fencing } => format!("C {job} {fencing}"),
        Signal::LeaseTaken { job, fencing } => format!("T {job} {fencing}"),
        Signal::SessionGone { session } => format!("G {session}"),
        Signal::LineMoved { agent } => format!("W {agent}"),
        // It was told by whoever did it.
        Signal::Grown { .. } => return None,
    })
}

/// A line of a program that knows more is not understood, and found by a look.
pub(super) fn hear(told: &str) -> Option<Signal> {
    let (letter, rest) = told.split_once(' ')?;
    let job = || {
        let (job, number) = rest.split_once(' ')?;
        Some((JobId::stored(job.to_owned()), number.parse::<u64>().ok()?))
    };
    Some(match letter {
        "L" => Signal::Grown { session: SessionId::stored(rest.to_owned()) },
        "Q" => Signal::AgentQueued { agent: AgentId::stored(rest.to_owned()) },
        "J" => job().map(|(job, ended)| Signal::JobChanged { job, ended: ended == 1 })?,
        "C" => job().map(|(job, fencing)| Signal::CancelRequested { job, fencing })?,
        "T" => job().map(|(job, fencing)| Signal::LeaseTaken { job, fencing })?,
        "W" => Signal::LineMoved { agent: AgentId::stored(rest.to_owned()) },
        "G" => Signal::SessionGone { session: SessionId::stored(rest.to_owned()) },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use interlock_kit::clock::Timestamp;

    use super::*;
    use crate::event::{Event, EventKind};

    #[test]
    fn what_is_told_is_heard() {
        let (session, job) = (SessionId::new(), JobId::new());
        let agent = AgentId::stored("builder".to_owned());
        for signal in [
            Signal::AgentQueued { agent: agent.clone() },
            Signal::LineMoved { agent },
            Signal::JobChanged { job: job.clone(), ended: true },
            Signal::JobChanged { job: job.clone(), ended: false },
            Signal::CancelRequested { job: job.clone(), fencing: 3 },
            Signal::LeaseTaken { job, fencing: 4 },
            Signal::SessionGone { session: session.clone() },
        ] {
            assert_eq!(tell(&signal).as_deref().and_then(hear), Some(signal));
        }
        let event = Event {
            sequence: 1,
            at: Timestamp::default(),
            project: None,
            epoch: 0,
            kind: EventKind::Closing,
        };
        let logged = Signal::Logged { session: session.clone(), event: event.into() };
        let grown = tell(&logged).as_deref().and_then(hear).expect("heard");
        assert_eq!(grown, Signal::Grown { session });
        assert_eq!(tell(&grown), None, "nothing goes round in circles");
        for strange in ["", "L", "Z x", "J job", "C job many"] {
            assert_eq!(hear(strange), None, "{strange:?}");
        }
    }
}
