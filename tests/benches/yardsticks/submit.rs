//! `submit`: queueing jobs, durable when answered, beside a handler that only writes the same rows.

use interlock_proto::gateway::v1::{SubmitJobRequest, job_service_client::JobServiceClient};
use interlock_tests::{
    Pair,
    wire::{self, Metadata, Shows},
};
use tonic::{Status, transport::Channel};

use crate::{
    bare::{Bare, Kind},
    duel::Duel,
    load::{Caller, Side},
    owners::Owner,
    plan::Plan,
    programs,
};

pub(crate) const PAYLOAD: &[u8] = &[b'x'; 256];

/// Submits to one session after another.
pub(crate) struct Submitter {
    client: JobServiceClient<Channel>,
    owners: Vec<(String, Metadata)>,
    name: String,
    submitted: usize,
}

impl Caller for Submitter {
    async fn call(&mut self) -> Result<(), Status> {
        self.submitted += 1;
        let (session_id, metadata) = &self.owners[self.submitted % self.owners.len()];
        let message = SubmitJobRequest {
            session_id: session_id.clone(),
            request_id: format!("{}-{}", self.name, self.submitted),
            payload: PAYLOAD.into(),
        };
        let answer = self.client.submit_job(metadata.on(message)).await?.into_inner();
        if answer.job.is_some() { Ok(()) } else { Err(Status::internal("no job was made")) }
    }
}

/// With so many callers, the gateway's public listener beside the bare writer.
pub(crate) async fn duels(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Vec<Duel> {
    let mut duels = Vec::new();
    for (callers, name) in [(1, "submit, 1 caller"), (64, "submit, 64 callers"), (256, "submit, 256 callers")]
    {
        duels.push(duel(name, &plan.of(callers), pair, owners, "").await);
    }
    duels.push(one_by_one("submit, 64 callers, each", &plan.of(64), pair, owners, "").await);
    duels
}

/// One of them; the bare writer's rows go into this empty database, where it is named.
pub(crate) async fn duel(name: &'static str, plan: &Plan, pair: &Pair, owners: &[Owner], bare: &str) -> Duel {
    let bare = Bare::start_on(Kind::Write, &pair.world, bare);
    fight(name, plan, pair, owners, &bare, "").await
}

/// Beside a writer that gives each call a transaction of its own.
pub(crate) async fn one_by_one(
    name: &'static str,
    plan: &Plan,
    pair: &Pair,
    owners: &[Owner],
    bare: &str,
) -> Duel {
    let bare = Bare::start_on(Kind::WriteEach, &pair.world, bare);
    let duel = fight(name, plan, pair, owners, &bare, "each").await;
    Duel { sides: ["ours", "one by one"], ..duel }
}

/// `run` is part of the request ids.
async fn fight(
    name: &'static str,
    plan: &Plan,
    pair: &Pair,
    owners: &[Owner],
    bare: &Bare,
    run: &str,
) -> Duel {
    let shows = Shows { ca: pair.world.ca(), leaf: None };
    let mut ours = ours(plan, pair, owners, run);
    let mut write = Side {
        server: bare.pid(),
        callers: callers(plan, owners, run, &|| wire::connect(bare.address(), &shows)),
    };
    let auth = programs::pid(&pair.world, "auth");
    let mut duel = Duel::fight(name, plan, &mut ours, &mut write, &[auth]).await;
    let submitted: usize = ours.callers.iter().map(|caller| caller.submitted).sum();
    duel.note = format!(
        "; at the end {} jobs in flight for each of {} owners",
        submitted / owners.len(),
        owners.len()
    );
    duel
}

/// The gateway's public listener. `run` is part of the request ids: what was asked in another run is answered
/// again, and makes no job.
pub(crate) fn ours(plan: &Plan, pair: &Pair, owners: &[Owner], run: &str) -> Side<Submitter> {
    let server = programs::pid(&pair.world, "gateway");
    Side { server, callers: callers(plan, owners, run, &|| pair.gateway_public()) }
}

/// Callers on connections that `connect` makes one after the other.
pub(crate) fn callers(
    plan: &Plan,
    owners: &[Owner],
    run: &str,
    connect: &dyn Fn() -> Channel,
) -> Vec<Submitter> {
    let channels: Vec<Channel> = (0..plan.connections).map(|_| connect()).collect();
    let target = |owner: &Owner| (owner.session.clone(), owner.metadata());
    let caller = |number: usize| Submitter {
        client: JobServiceClient::new(channels[number % channels.len()].clone()),
        owners: owners.iter().skip(number).step_by(plan.callers).map(target).collect(),
        // Another plan's requests are others.
        name: format!("{run}{}c{number}", plan.callers),
        submitted: 0,
    };
    (0..plan.callers).map(caller).collect()
}
