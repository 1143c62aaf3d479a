//! Clients that do nothing wrong, each on a connection of its own that was there before: whatever is tried next to
//! them must not be felt by them.

use std::{path::PathBuf, time::Duration};

use interlock_tests::{Pair, wire::Outcome, within};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    raw::{Ask, Raw},
    tls::Shows,
};

/// How often they call by themselves: a client that reads nothing for long is rightly cut.
const BREATH: Duration = Duration::from_secs(1);

/// One such client at each service that runs.
pub(crate) struct Honest(Vec<(&'static str, mpsc::Sender<oneshot::Sender<Option<Outcome>>>)>);

impl Honest {
    /// At both services.
    pub(crate) async fn at_both(pair: &Pair) -> Self {
        let mut both = Self::at_auth(pair).await;
        let sessions = Ask::of("/interlock.gateway.v1.SessionService/ListSessions");
        let ask = sessions.bearer(&pair.user()).message(&[]);
        both.0.push(("gateway", client(public(pair, "gateway").await, ask)));
        both
    }

    /// At auth alone.
    pub(crate) async fn at_auth(pair: &Pair) -> Self {
        let ask = Ask::of("/interlock.auth.v1.IdentityService/WhoAmI").bearer(&pair.user()).message(&[]);
        Self(vec![("auth", client(public(pair, "auth").await, ask))])
    }

    /// Has them call, on the connections that were there before.
    ///
    /// # Panics
    /// Where one of them is not served.
    pub(crate) async fn are_unharmed(&mut self, by: &str) {
        for (service, client) in &self.0 {
            let (tell, told) = oneshot::channel();
            client.send(tell).await.expect("a client that has not failed");
            let outcome = within("an honest client's answer", told).await.expect("an answer");
            assert_eq!(outcome, Some(Outcome::ok()), "an honest client of {service} after: {by}");
        }
    }
}

/// Calls now and then, and whenever it is asked how that went.
fn client(mut raw: Raw, ask: Ask) -> mpsc::Sender<oneshot::Sender<Option<Outcome>>> {
    let (sender, mut asked) = mpsc::channel::<oneshot::Sender<Option<Outcome>>>(1);
    tokio::spawn(async move {
        loop {
            let tell = timeout(BREATH, asked.recv()).await;
            let outcome = raw.call(&ask).await.outcome();
            match tell {
                // The test may have given up.
                Ok(Some(tell)) => drop(tell.send(outcome)),
                Ok(None) => return,
                Err(_) => {}
            }
        }
    });
    sender
}

/// A connection to a public listener, with no certificate.
pub(crate) async fn public(pair: &Pair, service: &str) -> Raw {
    at(pair, service, "public", None).await
}

/// A connection to a listener, with the certificate of that name.
pub(crate) async fn at(pair: &Pair, service: &str, listener: &str, leaf: Option<(PathBuf, PathBuf)>) -> Raw {
    let at = match service {
        "auth" => &pair.auth,
        _ => &pair.gateway,
    };
    let shows = Shows { leaf, ..Shows::nothing(pair.world.ca()) };
    Raw::open(at.address(listener), &shows).await.expect("a server that takes connections")
}
