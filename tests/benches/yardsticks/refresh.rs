//! `refresh`: an owner session's next pair of tokens, durable when answered, beside the bare writer of a submit's rows:
//! a call that writes about as much.

use interlock_proto::{
    auth::v1::{RefreshRequest, owner_session_service_client::OwnerSessionServiceClient},
    credential::Credential,
};
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
    programs, sign_ins, submit,
};

/// Refreshes one owner session over and over.
struct Refresher {
    client: OwnerSessionServiceClient<Channel>,
    refresh: Credential,
}

impl Caller for Refresher {
    async fn call(&mut self) -> Result<(), Status> {
        let metadata = Metadata::bearer(&self.refresh);
        let answer = self.client.refresh(metadata.on(RefreshRequest {})).await?.into_inner();
        self.refresh =
            Credential::parse(&answer.refresh_token).map_err(|_| Status::internal("no credential"))?;
        Ok(())
    }
}

/// Each caller has an owner session of its own.
pub(crate) async fn duel(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Duel {
    let channels: Vec<Channel> = (0..plan.connections).map(|_| pair.auth_public()).collect();
    let mut callers = Vec::with_capacity(plan.callers);
    for (number, owner) in sign_ins::OWNERS.into_iter().cycle().take(plan.callers).enumerate() {
        let session = pair.login(owner).await;
        let client = OwnerSessionServiceClient::new(channels[number % channels.len()].clone());
        callers.push(Refresher { client, refresh: session.refresh_token });
    }
    let mut ours = Side { server: programs::pid(&pair.world, "auth"), callers };
    let bare = Bare::start(Kind::Write, &pair.world);
    let shows = Shows { ca: pair.world.ca(), leaf: None };
    let mut write = Side {
        server: bare.pid(),
        callers: submit::callers(plan, owners, "refresh", &|| wire::connect(bare.address(), &shows)),
    };
    Duel::fight("refresh", plan, &mut ours, &mut write, &[programs::pid(&pair.world, "gateway")]).await
}
