//! `attach`: binding idle sessions to one agent and the other, durable when answered, beside a handler that only
//! writes the same rows. Each call changes a binding: one that changes none writes nothing and ends the run.

use futures_util::{StreamExt as _, stream};
use interlock_client::SetAgent;
use interlock_proto::gateway::v1::{AttachSessionRequest, session_service_client::SessionServiceClient};
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

/// Owners that are set up at once.
const AT_ONCE: usize = 16;

/// A session that nothing else uses, as its callers go on with it.
#[derive(Clone)]
struct Target {
    session: String,
    agents: [String; 2],
    project: String,
    metadata: Metadata,
    bound: usize,
}

/// Binds one session after another, each to the agent that it is not bound to.
struct Binder {
    client: SessionServiceClient<Channel>,
    targets: Vec<Target>,
    next: usize,
}

impl Caller for Binder {
    async fn call(&mut self) -> Result<(), Status> {
        self.next = (self.next + 1) % self.targets.len();
        let target = &mut self.targets[self.next];
        let message = AttachSessionRequest {
            session_id: target.session.clone(),
            agent_id: target.agents[target.bound % 2].clone(),
            project_id: target.project.clone(),
            ..AttachSessionRequest::default()
        };
        target.bound += 1;
        let answer = self.client.attach_session(target.metadata.on(message)).await?.into_inner();
        if answer.changed { Ok(()) } else { Err(Status::internal("a binding that did not change")) }
    }
}

/// With so many callers, the gateway's public listener beside the bare writer.
pub(crate) async fn duels(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Vec<Duel> {
    let mut duels = Vec::new();
    for (callers, name) in [(1, "attach, 1 caller"), (64, "attach, 64 callers"), (256, "attach, 256 callers")]
    {
        duels.push(duel(name, &plan.of(callers), pair, owners, "").await);
    }
    duels
}

/// One of them; the bare writer's rows go into this empty database, where it is named.
pub(crate) async fn duel(name: &'static str, plan: &Plan, pair: &Pair, owners: &[Owner], bare: &str) -> Duel {
    let targets = targets(plan, pair, owners).await;
    let bare = Bare::start_on(Kind::Sessions, &pair.world, bare);
    let shows = Shows { ca: pair.world.ca(), leaf: None };
    let side =
        |server, connect: &dyn Fn() -> Channel| Side { server, callers: callers(plan, &targets, connect) };
    let mut ours = side(programs::pid(&pair.world, "gateway"), &|| pair.gateway_public());
    let mut write = side(bare.pid(), &|| wire::connect(bare.address(), &shows));
    let auth = programs::pid(&pair.world, "auth");
    Duel::fight(name, plan, &mut ours, &mut write, &[auth]).await
}

/// A new session of each owner's, bound to nothing, and the two agents that it goes between.
async fn targets(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Vec<Target> {
    let target = async |owner: &Owner| {
        let gateway = pair.sdk_gateway(&owner.token).with_project(&owner.project);
        let agents = ["b", "c"].map(|agent| format!("{agent}-{}", owner.agent));
        for agent in &agents {
            gateway.agents().set(agent, SetAgent::default()).await.expect("an agent");
        }
        let created =
            gateway.sessions().create(&format!("attach-{}", plan.callers)).await.expect("a session");
        let (session, project) = (created.session.session_id, owner.project.clone());
        Target { session, agents, project, metadata: owner.metadata(), bound: 0 }
    };
    stream::iter(owners).map(target).buffered(AT_ONCE).collect().await
}

fn callers(plan: &Plan, targets: &[Target], connect: &dyn Fn() -> Channel) -> Vec<Binder> {
    let channels: Vec<Channel> = (0..plan.connections).map(|_| connect()).collect();
    let caller = |number: usize| Binder {
        client: SessionServiceClient::new(channels[number % channels.len()].clone()),
        targets: targets.iter().skip(number).step_by(plan.callers).cloned().collect(),
        next: 0,
    };
    (0..plan.callers).map(caller).collect()
}
