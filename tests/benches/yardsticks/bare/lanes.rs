//! The runtime layout of our programs (`service-kit/src/serve/lanes.rs`), as plain as it can be: a runtime of one
//! thread for each core, and one accept loop that deals connections out in turn.

use std::{net::TcpListener, thread};

use tokio::{net::TcpStream, runtime, sync::mpsc};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::transport::server::Router;

/// Serves what this listener accepts until the process ends.
pub(super) fn serve(listener: &TcpListener, router: &Router) {
    let lanes: Vec<_> =
        (0..thread::available_parallelism().map_or(1, usize::from)).map(|_| lane(router)).collect();
    for (lane, stream) in lanes.iter().cycle().zip(listener.incoming()) {
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_nonblocking(true).expect("a socket option");
        lane.send(stream).expect("the lane lives");
    }
}

/// Whoever connects is one of this run's own, so what waits here is bounded.
fn lane(router: &Router) -> mpsc::UnboundedSender<std::net::TcpStream> {
    let (deal, dealt) = mpsc::unbounded_channel();
    let router = router.clone();
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    thread::spawn(move || {
        runtime.block_on(async {
            let incoming = UnboundedReceiverStream::new(dealt).map(TcpStream::from_std);
            router.serve_with_incoming(incoming).await.expect("served");
        });
    });
    deal
}
