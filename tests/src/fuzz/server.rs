//! Bytes on a connection of a server in this process: the accept loop, HTTP/2, the bounds and the strictness of gRPC,
//! on the listener that is served without TLS.

use std::{net::SocketAddr, sync::LazyLock};

use interlock_kit::{
    authn::{Admit, Call, Presented, Refused, login_required},
    error::Error,
    health::Health,
    health_state,
    serve::{Server, ServerLimits, Services},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    patience::within,
    wire::{self, Metadata},
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// The preface, and settings that change nothing.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::make);

struct Stage {
    runtime: Runtime,
    address: SocketAddr,
    honest: Channel,
    /// Tasks that are there when nobody but the honest client is connected.
    tasks: usize,
}

/// Nobody needs to be admitted to ask for health.
struct Nobody;

impl Admit for Nobody {
    type Caller = ();

    async fn admit(&self, _: &Call, _: Presented) -> Result<(), Refused<()>> {
        Err(login_required().into())
    }

    async fn refused(&self, _: &Call, _: Option<&()>, _: &Error) {}
}

/// A first byte: whether the opening of HTTP/2 goes before the rest. Then what a client sends.
///
/// # Panics
/// Where the connection is not closed, another one is not answered, or a task stays behind.
pub fn check(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let stage = &*STAGE;
    stage.runtime.block_on(async {
        within("a connection that is closed", stage.send(if first & 1 == 0 { OPENING } else { &[] }, rest))
            .await;
        assert_eq!(stage.ask().await, "OK", "another connection is answered");
        within("its tasks end", async {
            while stage.runtime.metrics().num_alive_tasks() > stage.tasks {
                tokio::task::yield_now().await;
            }
        })
        .await;
    });
}

impl Stage {
    fn make() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let socket = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = socket.local_addr().expect("bound");
        let state = health_state::Health::new(["fuzz"]);
        state.set("fuzz", Ok(()));
        let health = Health::new(state, &[], CancellationToken::new());
        let server = Server::new(ServerLimits::gateway(), Nobody.into()).health(socket, health.services());
        runtime.spawn(server.run(Services::new(), CancellationToken::new()));
        let honest = runtime.block_on(async { wire::connect_plain(address) });
        let mut stage = Self { runtime, address, honest, tasks: 0 };
        let honest = stage.runtime.block_on(stage.ask());
        assert_eq!(honest, "OK");
        // What a call leaves for a moment is no part of it.
        stage.tasks = (0..200)
            .map(|_| {
                stage.runtime.block_on(tokio::task::yield_now());
                stage.runtime.metrics().num_alive_tasks()
            })
            .min()
            .unwrap_or_default();
        stage
    }

    async fn ask(&self) -> String {
        wire::call(&self.honest, CHECK, Vec::new(), &Metadata::none()).await.outcome.code
    }

    /// Sends everything, says that no more comes, and reads until the other side closes, too.
    async fn send(&self, opening: &[u8], rest: &[u8]) {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let (mut read, mut write) = stream.split();
        let sending = async {
            // The server may have closed already.
            let _ = write.write_all(opening).await;
            let _ = write.write_all(rest).await;
            let _ = write.shutdown().await;
        };
        let reading = async {
            let mut buffer = [0; 4096];
            while read.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
        };
        tokio::join!(sending, reading);
    }
}
