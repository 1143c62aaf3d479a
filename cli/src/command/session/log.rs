//! `session stream`: a session's log, as a person follows it and as a program reads it.

use interlock_client::{Event, EventKind, JobState, LeaveCause, ReleaseCause, StreamFrom, StreamItem};
use interlock_proto::text::escaped;
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::member::gateway_of,
    context::Caller,
    failure::Failure,
    output::{Colour, Mark, instant},
};

/// Prints the log from there on, and follows it, unless it is to end where all that is stored has been printed.
///
/// # Errors
/// What gateway-service refuses; where there is no cursor to resume at.
pub(super) async fn stream(
    caller: &Caller,
    id: &str,
    from: StreamFrom,
    no_follow: bool,
    common: &Common,
) -> Result<(), Failure> {
    let format = common.output;
    let mut gateway = gateway_of(caller, common, id).await?;
    let by_cursor = matches!(from, StreamFrom::Cursor);
    if by_cursor {
        let cookie = caller.jar.of(id)?.ok_or_else(|| {
            Failure::usage("no cookie of this session is kept here").next("--after N instead of --resume")
        })?;
        gateway = gateway.with_cookie(cookie);
    }
    let mut events = gateway.sessions().stream(id, from);
    while let Some(item) = events.next().await {
        match item? {
            StreamItem::Event(event) => {
                let (what, rest) = told(&event);
                let before = format!("{:>6}  {}  ", event.sequence, instant(event.occurred_at));
                let mark = Mark { colour: colour(&event.kind), text: what };
                format.print_marked(&before, mark, &format!("  {rest}"), &event_json(&event))?;
                if by_cursor {
                    events.ack(event.sequence).await?;
                }
            }
            StreamItem::Gap { from, to } => {
                format
                    .print(&format!("-- events {from} to {to} are gone --"), &json!({ "gap": [from, to] }))?;
            }
            StreamItem::CaughtUp { .. } if no_follow => break,
            StreamItem::CaughtUp { .. } => {}
        }
    }
    Ok(())
}

fn cause_text(cause: ReleaseCause) -> &'static str {
    match cause {
        ReleaseCause::LeaseExpired => "lease expired",
        ReleaseCause::Goodbye => "handed back",
        ReleaseCause::Unknown => "unknown",
    }
}

/// What stands out for who follows a log.
fn colour(kind: &EventKind) -> Colour {
    match kind {
        EventKind::JobEnded { state: JobState::Succeeded, .. } => Colour::Green,
        EventKind::JobEnded { .. } | EventKind::JobReleased { .. } | EventKind::SessionClosing => Colour::Red,
        EventKind::JobCancelRequested { .. } | EventKind::ClientLeft { .. } => Colour::Yellow,
        EventKind::Message { .. } | EventKind::ClientJoined { .. } => Colour::Cyan,
        _ => Colour::Plain,
    }
}

fn leave_text(cause: LeaveCause) -> &'static str {
    match cause {
        LeaveCause::Quit => "quit",
        LeaveCause::Evicted => "was taken out",
        LeaveCause::Idle => "was not seen for too long",
        LeaveCause::OwnerEnded => "its owner, or the owner's membership, has ended",
        LeaveCause::Unknown => "unknown",
    }
}

/// One event for people: what happened, and to what. One line, whatever a worker wrote.
fn told(event: &Event) -> (&'static str, String) {
    match &event.kind {
        EventKind::SessionCreated { client_id } => ("session created", client_id.clone()),
        EventKind::SessionAttached(b) => {
            ("attached", format!("agent {} project {} epoch {}", b.agent_id, b.project_id, b.epoch))
        }
        EventKind::SessionClosing => ("session closing", String::new()),
        EventKind::JobQueued { job_id } => ("job queued", job_id.clone()),
        EventKind::JobStarted { job_id, attempt, worker } => {
            ("job started", format!("{job_id} attempt {attempt} on {}", escaped(worker)))
        }
        EventKind::JobProgress { job_id, data, .. } => {
            ("progress", format!("{job_id} {}", escaped(&String::from_utf8_lossy(data))))
        }
        EventKind::JobReleased { job_id, attempt, cause } => {
            ("job released", format!("{job_id} attempt {attempt}: {}", cause_text(*cause)))
        }
        EventKind::JobCancelRequested { job_id } => ("cancel asked", job_id.clone()),
        EventKind::JobEnded { job_id, state, cause } => {
            ("job ended", format!("{job_id} {state} {}", escaped(cause)).trim_end().to_owned())
        }
        EventKind::ClientJoined { client_id } => ("client joined", client_id.clone()),
        EventKind::ClientLeft { client_id, cause } => {
            ("client left", format!("{client_id} {}", leave_text(*cause)))
        }
        EventKind::PasswordSet => ("password set", String::new()),
        EventKind::Message { from_client_id, data, .. } => {
            let from = if from_client_id.is_empty() { "the owner" } else { from_client_id };
            ("message", format!("{from}: {}", escaped(&String::from_utf8_lossy(data))))
        }
        _ => ("event", "of a kind that this version does not know".to_owned()),
    }
}

fn event_json(event: &Event) -> Value {
    let mut json = json!({
        "sequence": event.sequence, "occurred_at": instant(event.occurred_at), "project_id": event.project_id,
        "epoch": event.epoch,
    });
    let kind = match &event.kind {
        EventKind::SessionCreated { client_id } => json!({ "session_created": { "client_id": client_id } }),
        EventKind::SessionAttached(b) => json!({ "session_attached": {
            "agent_id": b.agent_id, "project_id": b.project_id, "epoch": b.epoch } }),
        EventKind::SessionClosing => json!({ "session_closing": {} }),
        EventKind::JobQueued { job_id } => json!({ "job_queued": { "job_id": job_id } }),
        EventKind::JobStarted { job_id, attempt, worker } => {
            json!({ "job_started": { "job_id": job_id, "attempt": attempt, "worker": worker } })
        }
        EventKind::JobProgress { job_id, attempt, data } => json!({ "job_progress": {
            "job_id": job_id, "attempt": attempt, "data": String::from_utf8_lossy(data) } }),
        EventKind::JobReleased { job_id, attempt, cause } => {
            json!({ "job_released": { "job_id": job_id, "attempt": attempt, "cause": cause_text(*cause) } })
        }
        EventKind::JobCancelRequested { job_id } => json!({ "job_cancel_requested": { "job_id": job_id } }),
        EventKind::JobEnded { job_id, state, cause } => {
            json!({ "job_ended": { "job_id": job_id, "state": state.to_string(), "cause": cause } })
        }
        EventKind::ClientJoined { client_id } => json!({ "client_joined": { "client_id": client_id } }),
        EventKind::ClientLeft { client_id, cause } => {
            json!({ "client_left": { "client_id": client_id, "cause": leave_text(*cause) } })
        }
        EventKind::PasswordSet => json!({ "password_set": {} }),
        EventKind::Message { from_client_id, to_client_id, to_others, data } => {
            json!({ "message_posted": { "from_client_id": from_client_id, "to_client_id": to_client_id,
                "to_others": to_others, "data": String::from_utf8_lossy(data) } })
        }
        _ => json!({ "unknown": {} }),
    };
    if let (Value::Object(all), Value::Object(kind)) = (&mut json, kind) {
        all.extend(kind);
    }
    json
}
