//! `validate`: checking known tokens over mTLS, beside a server that only answers.

use interlock_proto::{
    auth::v1::{ValidateRequest, trust_service_client::TrustServiceClient},
    metadata::INTERNAL_TOKEN,
};
use interlock_tests::{
    Pair,
    pair::Peer,
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

/// Asks for one token after another.
pub(crate) struct Validator {
    client: TrustServiceClient<Channel>,
    metadata: Metadata,
    hashes: Vec<Vec<u8>>,
    next: usize,
}

impl Caller for Validator {
    async fn call(&mut self) -> Result<(), Status> {
        self.next = (self.next + 1) % self.hashes.len();
        let message = ValidateRequest { credential_sha256: self.hashes[self.next].clone().into() };
        let answer = self.client.validate(self.metadata.on(message)).await?.into_inner();
        if answer.principal.is_some() { Ok(()) } else { Err(Status::internal("a verdict on nobody")) }
    }
}

/// Auth's internal listener beside the bare echo.
pub(crate) async fn duel(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Duel {
    let bare = Bare::start(Kind::Echo, &pair.world);
    let shows = Shows { ca: pair.world.ca(), leaf: Some(pair.world.leaf("pki/tester")) };
    let mut ours = ours(plan, pair, owners);
    let connect = || wire::connect(bare.address(), &shows);
    let callers = callers(plan, owners, pair.world.internal_token(), &connect);
    let mut echo = Side { server: bare.pid(), callers };
    let gateway = programs::pid(&pair.world, "gateway");
    Duel::fight("validate", plan, &mut ours, &mut echo, &[gateway]).await
}

/// Auth's internal listener.
pub(crate) fn ours(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Side<Validator> {
    let connect = || pair.auth_internal(Peer::Listed);
    let callers = callers(plan, owners, pair.world.internal_token(), &connect);
    Side { server: programs::pid(&pair.world, "auth"), callers }
}

fn callers(plan: &Plan, owners: &[Owner], token: &str, connect: &dyn Fn() -> Channel) -> Vec<Validator> {
    let channels: Vec<Channel> = (0..plan.connections).map(|_| connect()).collect();
    let all: Vec<Vec<u8>> = owners.iter().map(|owner| owner.token.hash().to_vec()).collect();
    let caller = |number: usize| Validator {
        client: TrustServiceClient::new(channels[number % channels.len()].clone()),
        metadata: Metadata::none().with(INTERNAL_TOKEN, token),
        hashes: all.iter().cycle().skip(number).step_by(plan.callers).take(4).cloned().collect(),
        next: 0,
    };
    (0..plan.callers).map(caller).collect()
}
