//! `job`: a job's whole way, from its submit over its lease to the worker's stream and back until its outcome is
//! durable, beside a bare pair of handlers that writes the same rows in three grouped transactions. As many jobs a
//! second as go; then, as a figure of its own, half as many as ours did, each due at its instant.
//!
//! Workers hold bare streams with many slots and finish at once what they get, so that the services' own work is
//! what is measured. A caller has its number in its jobs' payload: the worker tells it of the end.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use interlock_client::SetAgent;
use interlock_proto::gateway::v1::{
    JobState, SubmitJobRequest, WorkRequest, WorkResponse,
    job_service_client::JobServiceClient,
    work_request::{Finish, Hello, Message as Ask},
    work_response::Message as Say,
    worker_service_client::WorkerServiceClient,
};
use interlock_tests::{
    Pair,
    wire::{self, Metadata, Shows},
    within,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    bare::{Bare, Kind},
    duel::Duel,
    load::{Caller, Side},
    owners::Owner,
    plan::Plan,
    programs,
};

/// Streams of workers, each on a connection of its own with its callers, each of an owner of its own.
const WORKERS: usize = 4;
/// The most that a worker may have.
const SLOTS: u32 = 64;
const NUMBER_BYTES: usize = 8;
const PAYLOAD_BYTES: usize = 256;
const RESULT: &[u8] = &[b'y'; 64];
/// An end that does not come by then never comes.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Whose jobs a worker runs.
#[derive(Clone)]
struct Place {
    session: String,
    agent: String,
    metadata: Metadata,
}

/// Submits one job after another, each when the one before has ended.
struct Submitter {
    client: JobServiceClient<Channel>,
    place: Place,
    name: String,
    payload: Vec<u8>,
    submitted: usize,
    ends: mpsc::UnboundedReceiver<()>,
    every: Option<Duration>,
}

impl Caller for Submitter {
    async fn call(&mut self) -> Result<(), Status> {
        self.submitted += 1;
        let message = SubmitJobRequest {
            session_id: self.place.session.clone(),
            request_id: format!("{}-{}", self.name, self.submitted),
            payload: self.payload.clone().into(),
        };
        self.client.submit_job(self.place.metadata.on(message)).await?;
        let ended = tokio::time::timeout(END_WITHIN, self.ends.recv()).await;
        let ended = ended.map_err(|_| Status::deadline_exceeded("a job did not end"))?;
        ended.ok_or_else(|| Status::aborted("the worker's stream has ended"))
    }

    fn every(&self) -> Option<Duration> {
        self.every
    }
}

/// At full load, and at half of what ours did then.
pub(crate) async fn duels(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Vec<Duel> {
    let places = places(pair, owners).await;
    let bare = Bare::start(Kind::Cycle, &pair.world);
    let shows = Shows { ca: pair.world.ca(), leaf: None };
    let gateway = programs::pid(&pair.world, "gateway");
    let mut ours = side(gateway, plan, &places, &|| pair.gateway_public()).await;
    let mut pure = side(bare.pid(), plan, &places, &|| wire::connect(bare.address(), &shows)).await;
    let auth = [programs::pid(&pair.world, "auth")];
    let note = format!("; {WORKERS} workers with {SLOTS} slots each");
    let mut full = Duel::fight("job, full load", plan, &mut ours, &mut pure, &auth).await;
    full.note.clone_from(&note);
    let every = Duration::from_secs_f64(2.0 * plan.callers as f64 / median_rate(&full).max(1.0));
    for caller in ours.callers.iter_mut().chain(&mut pure.callers) {
        caller.every = Some(every);
    }
    let mut half = Duel::fight("job, half load", plan, &mut ours, &mut pure, &auth).await;
    half.note =
        format!("{note}; both sides paced to half of ours at full load, timed from when a job is due");
    vec![full, half]
}

fn median_rate(duel: &Duel) -> f64 {
    let mut rates: Vec<f64> = duel.ours.iter().map(|slice| slice.per_second).collect();
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Agents that nothing else uses, each with a session.
async fn places(pair: &Pair, owners: &[Owner]) -> Vec<Place> {
    let place = async |owner: &Owner| {
        let gateway = pair.sdk_gateway(&owner.token).with_project(&owner.project);
        let agent = format!("job-{}", owner.agent);
        gateway.agents().set(&agent, SetAgent::default()).await.expect("an agent");
        let session = gateway.sessions().create("job").await.expect("a session").session.session_id;
        gateway.sessions().attach(&session, &agent, &owner.project).await.expect("bound");
        Place { session, agent, metadata: owner.metadata() }
    };
    stream::iter(&owners[..WORKERS]).then(place).collect().await
}

/// The workers of a server, and who submits to them.
async fn side(server: u32, plan: &Plan, places: &[Place], connect: &dyn Fn() -> Channel) -> Side<Submitter> {
    let mut callers = Vec::new();
    for (worker, place) in places.iter().enumerate() {
        let channel = connect();
        let mut tells = HashMap::new();
        for number in (worker..plan.callers).step_by(places.len()) {
            let (tell, ends) = mpsc::unbounded_channel();
            let number = number as u64;
            tells.insert(number, tell);
            let mut payload = vec![b'x'; PAYLOAD_BYTES];
            payload[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
            callers.push(Submitter {
                client: JobServiceClient::new(channel.clone()),
                place: place.clone(),
                name: format!("c{number}"),
                payload,
                submitted: 0,
                ends,
                every: None,
            });
        }
        open(channel, place, tells).await;
    }
    Side { server, callers }
}

/// Opens a worker's stream, which then works by itself until the other side ends it.
async fn open(channel: Channel, place: &Place, tells: HashMap<u64, mpsc::UnboundedSender<()>>) {
    let (asks, out) = mpsc::unbounded_channel();
    // The bare pair hands a session's jobs to the worker of its name.
    let hello = Hello {
        worker: place.session.clone(),
        agent_ids: vec![place.agent.clone()],
        capacity: SLOTS,
        held: Vec::new(),
    };
    asks.send(WorkRequest { message: Some(Ask::Hello(hello)) }).expect("open");
    let request = place.metadata.on(UnboundedReceiverStream::new(out));
    let mut says = WorkerServiceClient::new(channel).work(request).await.expect("a stream").into_inner();
    let first = within("a welcome", says.message()).await.expect("living").and_then(|said| said.message);
    assert!(matches!(first, Some(Say::Welcome(_))), "no welcome: {first:?}");
    tokio::spawn(work(says, asks, tells));
}

/// Ends by panicking where it is told of anything that a yardstick has no place for; its callers then fail.
async fn work(
    mut says: Streaming<WorkResponse>,
    asks: mpsc::UnboundedSender<WorkRequest>,
    tells: HashMap<u64, mpsc::UnboundedSender<()>>,
) {
    let mut held: HashMap<String, u64> = HashMap::new();
    while let Ok(Some(said)) = says.message().await {
        match said.message {
            Some(Say::Assignment(assignment)) => {
                let right = assignment.held.expect("the right to it");
                let number = assignment.payload[..NUMBER_BYTES].try_into().expect("a number");
                held.insert(right.job_id.clone(), u64::from_le_bytes(number));
                let finish = Finish {
                    held: Some(right),
                    state: JobState::Succeeded.into(),
                    result: RESULT.into(),
                    cause: String::new(),
                };
                // Where the stream has gone, the next message says so.
                let _ = asks.send(WorkRequest { message: Some(Ask::Finish(finish)) });
            }
            Some(Say::Finished(finished)) => {
                let job = finished.held.expect("which").job_id;
                let number = held.remove(&job).expect("it was assigned here");
                // A caller has gone only where the run ends.
                let _ = tells[&number].send(());
            }
            other => panic!("a worker that only works was told {other:?}"),
        }
    }
}
