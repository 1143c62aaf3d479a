//! The client library against in-process services on loopback that do exactly what a test tells them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod calls;
mod fake_trust;
mod follow;
mod goaway;
mod layer;
mod owner_session;
mod project;
mod stream;
mod tls;
mod verifier;
mod worker;

#[path = "../../examples/verified_service.rs"]
mod verified_service;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use interlock_client::{Connection, Reason};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status, transport::server::Router};
use tonic_types::{ErrorDetails, StatusExt as _};

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves on a free port of loopback until the test's runtime ends.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn connection(address: SocketAddr) -> Connection {
    Connection::to(format!("http://{address}")).open().unwrap()
}

/// A refusal as our services make it.
fn refusal(code: Code, reason: Reason) -> Status {
    let details = ErrorDetails::with_error_info(reason.text(), "interlock", HashMap::new());
    Status::with_error_details(code, "no", details)
}

/// Waits until `condition` holds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What `future` ends in, in good time.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never came: {what}"))
}
