//! A service of one's own that admits calls on Interlock's credentials.
//!
//! It answers one method, `IdentityService.WhoAmI`, from what the verifier knows: no call to auth for
//! a credential that it has seen, and none admitted after its revocation has returned.
//!
//! ```text
//! verified_service AUTH_INTERNAL_URL CA CERTIFICATE KEY INTERNAL_TOKEN_FILE LISTEN
//! ```
//!
//! The certificate must carry a SPIFFE name on auth's allow list. A real service would serve TLS.

use std::{error::Error, net::SocketAddr, sync::Arc};

use interlock_client::{
    Connection, Tls,
    verifier::{Verdict, Verifier, VerifierLayer, VerifierOptions},
};
use interlock_proto::auth::v1::{
    Principal, WhoAmIRequest, WhoAmIResponse,
    identity_service_server::{IdentityService, IdentityServiceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// The handler: by the time it runs, the caller is known.
struct Greeter;

#[tonic::async_trait]
impl IdentityService for Greeter {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let verdict = request.extensions().get::<Arc<Verdict>>();
        let verdict = verdict.ok_or_else(|| Status::internal("the verifier layer is missing"))?;
        let principal = Principal {
            owner_id: verdict.owner_id.clone(),
            role: verdict.role.clone(),
            credential_id: verdict.credential_id.clone(),
            ..Principal::default()
        };
        let display_name = format!("hello, {}", verdict.owner_id);
        Ok(Response::new(WhoAmIResponse { principal: Some(principal), display_name, ..Default::default() }))
    }
}

/// Serves on `listener` with `verifier` in front, until `shutdown` is ready.
pub(crate) async fn serve(
    verifier: Verifier,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .layer(VerifierLayer::new(verifier))
        .add_service(IdentityServiceServer::new(Greeter))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown)
        .await
}

#[tokio::main]
#[allow(dead_code, reason = "the test of this example brings its own")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [auth, ca, certificate, key, token, listen] = arguments.as_slice() else {
        return Err("usage: verified_service AUTH_URL CA CERTIFICATE KEY INTERNAL_TOKEN_FILE LISTEN".into());
    };
    let tls = Tls::ca_file(ca).identity_files(certificate, key);
    let trust = Connection::to(auth).tls(tls).internal_token_file(token).open()?;
    let verifier = Verifier::start(trust, VerifierOptions::named("verified-service"));

    let listener = TcpListener::bind(listen.parse::<SocketAddr>()?).await?;
    let interrupted = async {
        // Without a signal handler the service runs until it is ended from outside.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    Ok(serve(verifier, listener, interrupted).await?)
}
