//! The acts, in order.

use interlock_client::{Event, EventKind, Job, JobState, Reason, SetAgent, StreamFrom, StreamItem};
use sha2::{Digest as _, Sha256};

use crate::{
    command::{
        demo::{
            report::{Report, Seen, now},
            stage::{AGENT, BOT, OTHER_AGENT, Stage},
        },
        up::DEV,
    },
    failure::Failure,
};

/// How many there are.
pub(crate) fn count(stage: &Stage) -> usize {
    11 + usize::from(stage.is_several())
}

type Act = Result<Seen, Failure>;

/// Plays them until one does not hold.
///
/// # Errors
/// Why it stopped.
pub(crate) async fn play(stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    let (several, lease) = (stage.is_several(), stage.lease());
    let (started, serve) = if several {
        ("started two auth-services and two gateways on PostgreSQL, over mTLS", "all four serve")
    } else {
        ("started both services as processes of their own, over mTLS", "both serve")
    };
    report.act(started, serve, stage.start()).await?;
    report
        .act(
            "signed in as two principals; registered an agent, shared it, made a project",
            "both are known by name, neither by the other's credential",
            principals(stage),
        )
        .await?;
    report
        .act(
            "made a session and attached it to `builder` in project `demo`",
            "bound, at epoch 1",
            session(stage),
        )
        .await?;
    let mut job = String::new();
    report
        .act(
            "submitted a job on a real file; a worker runs it and waits at a gate",
            "the job is running, and nothing decides how long",
            submit(stage, &mut job),
        )
        .await?;
    report
        .act(
            "asked to rebind the session meanwhile",
            "SESSION_BUSY, and the answer explains itself",
            rebind_while_busy(stage, &job),
        )
        .await?;
    if several {
        report
            .act(
                "killed one auth-service and the worker's gateway with kill -9, in the middle of the job",
                "the others go on: sign-in, the guard, and the job in its first attempt",
                lose_one_of_each(stage, &job),
            )
            .await?;
    }
    report.act("opened the gate", "the job succeeds with the file's digest", finish(stage, &job)).await?;
    report
        .act("asked for the same rebind again", "now it is done, and the epoch has grown", rebind(stage))
        .await?;
    report
        .act(
            "killed a worker with kill -9 in the middle of a job; another one waits",
            &format!("the other finishes it as attempt 2, after the lease of {lease}"),
            lose_a_worker(stage),
        )
        .await?;
    report
        .act(
            "compared what a second stream saw with the stored log",
            "every event once, in order, without a gap",
            second_stream(stage),
        )
        .await?;
    report
        .act(
            "revoked an owner session that has a stream open",
            "the stream ends with REVOKED, and the credential is refused when the call has returned",
            revoke(stage),
        )
        .await?;
    report
        .act(
            if several {
                "killed the other two with kill -9 and started all four again"
            } else {
                "killed both services with kill -9 and started them again"
            },
            "nothing acknowledged is gone: binding, log, jobs; the queued job is then done",
            crash(stage),
        )
        .await
}

async fn principals(stage: &mut Stage) -> Act {
    let dev = stage.sign_in().await?;
    let auth =
        stage.auth()?.with_credentials(interlock_client::Credentials::bearer(dev.access_token.clone()));
    stage.keep(dev);
    let me = auth.whoami().await?;
    let project = auth.create_project("demo").await?;
    stage.project = project.project_id.clone();
    stage.gateway(stage.dev()?)?.agents().set(OTHER_AGENT, SetAgent::default()).await?;
    let file = stage.bot_password_file();
    stage
        .command(
            "bot",
            ["login".as_ref(), BOT.username.as_ref(), "--password-file".as_ref(), file.as_os_str()],
        )
        .await?;
    stage.command("bot", ["agent", "set", AGENT]).await?;
    let shared = SetAgent { shared: Some(true), description: None };
    let (agent, _) = stage.gateway(stage.admin()?)?.agents().set(AGENT, shared).await?;
    let bot = stage.command("bot", ["status"]).await?;
    let bot: serde_json::Value =
        serde_json::from_str(&bot).map_err(|error| Failure::local(error.to_string()))?;
    let held = me.owner_id == DEV.username
        && bot["username"] == BOT.username
        && agent.owner_id.as_deref() == Some(BOT.username);
    let saw = format!(
        "{} ({}) and {} (role {}); agent {} of {}; project {}",
        me.owner_id,
        me.credential_id,
        bot["username"],
        bot["role"],
        agent.agent_id,
        BOT.username,
        project.project_id
    );
    Ok(Seen::that(held, saw))
}

async fn session(stage: &mut Stage) -> Act {
    let sessions = stage.gateway(stage.dev()?)?.sessions();
    let created = sessions.create("demo").await?;
    stage.session = created.session.session_id;
    let attached = sessions.attach(&stage.session, AGENT, &stage.project).await?.session;
    stage.start_watch()?;
    let binding = attached.binding.ok_or_else(|| Failure::local("attached without a binding"))?;
    let held = binding.agent_id == AGENT && binding.project_id == stage.project && binding.epoch == 1;
    let saw = format!("{}: agent {}, epoch {}", attached.session_id, binding.agent_id, binding.epoch);
    Ok(Seen::that(held, saw))
}

async fn submit(stage: &mut Stage, id: &mut String) -> Act {
    let pid = stage.start_worker("worker-1")?;
    let jobs = stage.gateway(stage.dev()?)?.jobs();
    let job = jobs.submit(&stage.session, payload(stage)).await?;
    id.clone_from(&job.job_id);
    stage.at_the_gate(id, 1).await?;
    let job = jobs.get(id).await?;
    let saw = format!("{} is {}, by worker process {pid}", job.job_id, job.state);
    Ok(Seen::that(job.state == JobState::Running, saw))
}

async fn rebind_while_busy(stage: &Stage, job: &str) -> Act {
    let sessions = stage.gateway(stage.dev()?)?.sessions();
    let before = sessions.get(&stage.session).await?.binding;
    let Err(error) = sessions.attach(&stage.session, OTHER_AGENT, &stage.project).await else {
        return Ok(Seen::that(false, "it was done"));
    };
    let Some(busy) = error.busy() else { return Err(error.into()) };
    let named = busy.jobs.iter().any(|in_flight| in_flight.job_id == job);
    let unchanged = sessions.get(&stage.session).await?.binding == before;
    let saw = format!(
        "{}: {} (agent {}: {} queued, {} running: {job}); the binding is unchanged",
        error.reason().map_or("", Reason::text),
        error.message(),
        busy.agent_id,
        busy.queued,
        busy.running
    );
    Ok(Seen::that(error.is_busy() && named && unchanged, saw))
}

async fn lose_one_of_each(stage: &mut Stage, job: &str) -> Act {
    let before = stage.gateway(stage.dev()?)?.sessions().get(&stage.session).await?.binding;
    let killed = stage.lose_one_of_each().await?;
    let start = now();
    let dev = stage.sign_in().await?;
    stage.keep(dev);
    let gateway = stage.gateway(stage.dev()?)?;
    let refused = gateway.sessions().attach(&stage.session, OTHER_AGENT, &stage.project).await.err();
    let busy = refused.as_ref().is_some_and(interlock_client::Error::is_busy);
    let kept = gateway.sessions().get(&stage.session).await?.binding == before;
    let took = start.elapsed();
    let job = gateway.jobs().get(job).await?;
    let saw = format!(
        "killed {killed}; signed in and answered {} after {} ms; the job is {} in attempt {}",
        refused.and_then(|error| error.reason()).map_or("otherwise", Reason::text),
        took.as_millis(),
        job.state,
        job.attempt
    );
    Ok(Seen::that(busy && kept && job.state == JobState::Running && job.attempt == 1, saw))
}

async fn finish(stage: &Stage, job: &str) -> Act {
    let job = stage.let_through(&stage.gateway(stage.dev()?)?.jobs(), job).await?;
    Ok(Seen::that(
        is_done(stage, &job)? && job.attempt == 1,
        format!("{} {}: {}", job.job_id, job.state, said(&job)),
    ))
}

async fn rebind(stage: &Stage) -> Act {
    let sessions = stage.gateway(stage.dev()?)?.sessions();
    let there = sessions.attach(&stage.session, OTHER_AGENT, &stage.project).await?.session.binding;
    let back = sessions.attach(&stage.session, AGENT, &stage.project).await?.session.binding;
    let (Some(there), Some(back)) = (there, back) else { return Ok(Seen::that(false, "no binding")) };
    let held = there.agent_id == OTHER_AGENT && there.epoch == 2 && back.epoch == 3;
    let saw = format!(
        "{} at epoch {}, and back to {} at {}",
        there.agent_id, there.epoch, back.agent_id, back.epoch
    );
    Ok(Seen::that(held, saw))
}

async fn lose_a_worker(stage: &mut Stage) -> Act {
    // The first worker is busy with this job; the second one has nothing to do until the lease ends.
    let jobs = stage.gateway(stage.dev()?)?.jobs();
    let job = jobs.submit(&stage.session, payload(stage)).await?;
    stage.at_the_gate(&job.job_id, 1).await?;
    let name = started_by(&stage.seen("the job's start", |_| true).await?, &job.job_id);
    let victim = stage.worker_named(&name)?;
    let other = stage.start_worker("worker-2")?;
    stage.kill_worker(victim)?;
    let killed = now();
    stage.at_the_gate(&job.job_id, 2).await?;
    let gap = killed.elapsed();
    let job = stage.let_through(&jobs, &job.job_id).await?;
    let held = is_done(stage, &job)? && job.attempt == 2;
    let saw = format!(
        "worker process {victim} killed; process {other} had the job {} ms later and finished it as attempt {}",
        gap.as_millis(),
        job.attempt
    );
    Ok(Seen::that(held, saw))
}

async fn second_stream(stage: &Stage) -> Act {
    let stored = stored_log(stage).await?;
    let seen = stage.seen("the whole log", |events| events.len() >= stored.len()).await?;
    let held = in_order(&seen) && seen == stored;
    Ok(Seen::that(held, format!("{} events, 1 to {}, as stored", seen.len(), seen.len())))
}

async fn revoke(stage: &Stage) -> Act {
    let second = stage.sign_in().await?;
    let credentials = interlock_client::Credentials::bearer(second.access_token.clone());
    let gateway = stage.gateway(credentials)?;
    let mut stream = gateway.sessions().stream(&stage.session, StreamFrom::Start);
    while let Some(item) = stream.next().await {
        if matches!(item?, StreamItem::CaughtUp { .. }) {
            break;
        }
    }
    let start = now();
    let reached = stage.auth()?.logout(&second.access_token).await?;
    let returned = start.elapsed();
    let end = stream.next().await;
    let ended = start.elapsed();
    let reason = end.and_then(Result::err).and_then(|error| error.reason());
    let refused = gateway.sessions().get(&stage.session).await.err().and_then(|error| error.reason());
    let reached = reached.ok_or_else(|| Failure::local("the session was not alive"))?;
    let held = reason == Some(Reason::Revoked) && refused == Some(Reason::ProviderAuthFailed);
    let saw = format!(
        "the call returned after {} ms ({} acknowledged, {} streams closed); the stream ended with {} after {} ms; \
         the credential gets {}",
        returned.as_millis(),
        reached.acknowledged,
        reached.streams_closed,
        reason.map_or("nothing", Reason::text),
        ended.as_millis(),
        refused.map_or("an answer", Reason::text)
    );
    Ok(Seen::that(held, saw))
}

async fn crash(stage: &mut Stage) -> Act {
    let gateway = stage.gateway(stage.dev()?)?;
    let queued = gateway.jobs().submit(&stage.session, payload(stage)).await?;
    stage.at_the_gate(&queued.job_id, 1).await?;
    let waiting = gateway.jobs().submit(&stage.session, payload(stage)).await?;
    let (log, session) = (stored_log(stage).await?, gateway.sessions().get(&stage.session).await?);
    let jobs = gateway.jobs().list(&stage.session, false).await?;
    let crashed = stage.crash().await?;
    let log_now = stored_log(stage).await?;
    let kept = log_now.starts_with(&log)
        && gateway.sessions().get(&stage.session).await?.binding == session.binding
        && gateway.jobs().list(&stage.session, false).await?.len() == jobs.len();
    let mut done = true;
    for job in [&queued, &waiting] {
        done &= is_done(stage, &stage.let_through(&gateway.jobs(), &job.job_id).await?)?;
    }
    let saw =
        format!("{crashed}; {} events and {} jobs are there, and both jobs are done", log.len(), jobs.len());
    Ok(Seen::that(kept && done, saw))
}

/// The log as the store has it now.
async fn stored_log(stage: &Stage) -> Result<Vec<Event>, Failure> {
    let mut stream = stage.gateway(stage.dev()?)?.sessions().stream(&stage.session, StreamFrom::Start);
    let mut log = Vec::new();
    while let Some(item) = stream.next().await {
        match item? {
            StreamItem::Event(event) => log.push(event),
            StreamItem::Gap { from, to } => return Err(Failure::local(format!("a gap from {from} to {to}"))),
            StreamItem::CaughtUp { .. } => break,
        }
    }
    Ok(log)
}

fn in_order(events: &[Event]) -> bool {
    events.iter().zip(1..).all(|(event, sequence)| event.sequence == sequence)
}

/// The name of the worker that the job's latest attempt started on.
fn started_by(events: &[Event], job: &str) -> String {
    let started = events.iter().rev().find_map(|event| match &event.kind {
        EventKind::JobStarted { job_id, worker, .. } if job_id == job => Some(worker.clone()),
        _ => None,
    });
    started.unwrap_or_default()
}

fn payload(stage: &Stage) -> Vec<u8> {
    format!("{}\n", stage.file.display()).into_bytes()
}

fn said(job: &Job) -> String {
    String::from_utf8_lossy(&job.result).lines().last().unwrap_or_default().to_owned()
}

fn is_done(stage: &Stage, job: &Job) -> Result<bool, Failure> {
    let digest = Sha256::digest(std::fs::read(&stage.file)?);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(job.state == JobState::Succeeded && said(job) == digest)
}
