//! Whether the gateway can do its work: the store takes writes, and auth's lease is held.

use std::{sync::Arc, time::Duration};

use interlock_client::verifier::LeaseState;
use interlock_kit::{
    health_state::Health,
    store::audit::{Entry, Origin, Outcome},
};

use crate::{grpc::Front, hub::Hub, store::Shell};

/// How often the store's state is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Keeps `health` as things are, until the shutdown.
pub(crate) async fn watch(front: Arc<Front>, health: Health) {
    let watching = async {
        let mut lease = front.verifier.lease_state();
        loop {
            let held = *lease.borrow_and_update() == LeaseState::Held;
            health.set("auth", if held { Ok(()) } else { Err("no lease from auth".to_owned()) });
            health.set("store", store(&front.hub, &front.shell).await);
            tokio::select! {
                changed = lease.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    };
    front.draining.run_until_cancelled(watching).await;
    health.set("draining", Err("shutting down".to_owned()));
}

/// A store that failed is tried with a row of its own: nobody else would, while nobody is sent here.
async fn store(hub: &Hub, shell: &Shell) -> Result<(), String> {
    if let Some(why) = hub.broken() {
        return Err(why);
    }
    if hub.store_works() {
        return Ok(());
    }
    let origin = Origin { principal: "gateway".to_owned(), role: "service".to_owned(), ..Origin::default() };
    let probe = Entry::new(Arc::new(origin), "store.probe", Outcome::Done);
    match shell.record(vec![probe]).await {
        Ok(()) => {
            hub.mark_working();
            tracing::info!("the store takes writes again");
            Ok(())
        }
        Err(error) => Err(format!("the store takes no writes ({})", error.reason())),
    }
}
