//! `read`: reading sessions, beside a server that only answers with one.

use interlock_proto::gateway::v1::{GetSessionRequest, session_service_client::SessionServiceClient};
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

/// Reads one session after another.
struct Reader {
    client: SessionServiceClient<Channel>,
    sessions: Vec<(String, Metadata)>,
    next: usize,
}

impl Caller for Reader {
    async fn call(&mut self) -> Result<(), Status> {
        self.next = (self.next + 1) % self.sessions.len();
        let (session_id, metadata) = &self.sessions[self.next];
        let message = GetSessionRequest { session_id: session_id.clone() };
        let answer = self.client.get_session(metadata.on(message)).await?.into_inner();
        let same = answer.session.is_some_and(|session| session.session_id == *session_id);
        if same { Ok(()) } else { Err(Status::internal("another session than was asked for")) }
    }
}

/// The gateway's public listener beside the bare echo.
pub(crate) async fn duel(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Duel {
    let bare = Bare::start(Kind::Sessions, &pair.world);
    let shows = Shows { ca: pair.world.ca(), leaf: None };
    let side =
        |server, connect: &dyn Fn() -> Channel| Side { server, callers: callers(plan, owners, connect) };
    let mut ours = side(programs::pid(&pair.world, "gateway"), &|| pair.gateway_public());
    let mut echo = side(bare.pid(), &|| wire::connect(bare.address(), &shows));
    let auth = programs::pid(&pair.world, "auth");
    Duel::fight("read", plan, &mut ours, &mut echo, &[auth]).await
}

fn callers(plan: &Plan, owners: &[Owner], connect: &dyn Fn() -> Channel) -> Vec<Reader> {
    let channels: Vec<Channel> = (0..plan.connections).map(|_| connect()).collect();
    let session = |owner: &Owner| (owner.session.clone(), owner.metadata());
    let caller = |number: usize| Reader {
        client: SessionServiceClient::new(channels[number % channels.len()].clone()),
        sessions: owners.iter().cycle().skip(number).step_by(plan.callers).take(4).map(session).collect(),
        next: 0,
    };
    (0..plan.callers).map(caller).collect()
}
