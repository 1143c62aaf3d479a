//! `refresh`: an owner session's next pair of tokens, durable when answered, beside the bare writer of a submit's rows:
//! a call that writes about as much.

use interlock_client::OwnerSession;
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
    owners::{self, Accounts, Owner},
    plan::Plan,
    programs, submit,
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
pub(crate) async fn duel(plan: &Plan, pair: &Pair, accounts: &Accounts, owners: &[Owner]) -> Duel {
    let channels: Vec<Channel> = (0..plan.connections).map(|_| pair.auth_public()).collect();
    let sessions = owners::again(pair, accounts, plan.callers).await.into_iter();
    let caller = |(number, session): (usize, OwnerSession)| {
        let client = OwnerSessionServiceClient::new(channels[number % channels.len()].clone());
        Refresher { client, refresh: session.refresh_token }
    };
    let callers = sessions.enumerate().map(caller).collect();
    let mut ours = Side { server: programs::pid(&pair.world, "auth"), callers };
    let bare = Bare::start(Kind::Write, &pair.world);
    let shows = Shows { ca: pair.world.ca(), leaf: None };
    let mut write = Side {
        server: bare.pid(),
        callers: submit::callers(plan, owners, "refresh", &|| wire::connect(bare.address(), &shows)),
    };
    Duel::fight("refresh", plan, &mut ours, &mut write, &[programs::pid(&pair.world, "gateway")]).await
}
