//! TLS: who is believed, who is shown, and files that change.

use std::{fs, net::SocketAddr, path::Path};

use interlock_client::{Auth, Code, Connection, Reason, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use interlock_proto::auth::v1::{
    WhoAmIRequest, WhoAmIResponse,
    identity_service_server::{IdentityService, IdentityServiceServer},
};

use crate::refusal;

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for `name`.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// Says how many certificates the caller has shown.
struct Mirror;

#[tonic::async_trait]
impl IdentityService for Mirror {
    async fn who_am_i(
        &self,
        request: tonic::Request<WhoAmIRequest>,
    ) -> Result<tonic::Response<WhoAmIResponse>, tonic::Status> {
        let shown = request.peer_certs().map_or(0, |certificates| certificates.len());
        let reason = if shown > 0 { Reason::Forbidden } else { Reason::LoginRequired };
        Err(refusal(tonic::Code::PermissionDenied, reason))
    }
}

async fn mirror(ca: &Ca) -> SocketAddr {
    let (certificate, key) = ca.issue("interlock.test");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(ca.pem()))
        .client_auth_optional(true);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Server::builder().tls_config(tls).unwrap().add_service(IdentityServiceServer::new(Mirror));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn open(address: SocketAddr, tls: Tls) -> Connection {
    let deadline = std::time::Duration::from_millis(500);
    Connection::to(format!("https://{address}")).tls(tls).deadline(deadline).open().unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_known_server_is_believed_and_a_client_certificate_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let address = mirror(&ca).await;
    let tls = Tls::ca_file(write(folder.path(), "ca.pem", &ca.pem())).server_name("interlock.test");
    let error = Auth::new(open(address, tls.clone())).whoami().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::LoginRequired), "no certificate was shown: {error:?}");

    let (certificate, key) = ca.issue("client.test");
    let tls = tls.identity_files(
        write(folder.path(), "client.pem", &certificate),
        write(folder.path(), "client.key", &key),
    );
    let error = Auth::new(open(address, tls)).whoami().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Forbidden), "one was shown: {error:?}");
}

#[tokio::test]
async fn a_wrong_name_and_a_foreign_ca_are_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, foreign) = (Ca::new(), Ca::new());
    let address = mirror(&ca).await;
    let right_ca = Tls::ca_file(write(folder.path(), "ca.pem", &ca.pem()));
    let foreign_ca =
        Tls::ca_file(write(folder.path(), "foreign.pem", &foreign.pem())).server_name("interlock.test");
    for tls in [right_ca.server_name("other.test"), foreign_ca] {
        let error = Auth::new(open(address, tls)).whoami().await.unwrap_err();
        assert!(error.is_transport() && error.code() == Code::Unavailable, "{error:?}");
    }
}

#[tokio::test]
async fn a_changed_ca_file_takes_effect_at_the_next_connection_and_a_bad_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, foreign) = (Ca::new(), Ca::new());
    let address = mirror(&ca).await;
    let path = write(folder.path(), "ca.pem", &foreign.pem());
    let connection = open(address, Tls::ca_file(&path).server_name("interlock.test"));
    let auth = Auth::new(connection);
    assert!(auth.whoami().await.unwrap_err().is_transport());
    fs::write(&path, "not a certificate").unwrap();
    assert!(auth.whoami().await.unwrap_err().is_transport());
    fs::write(&path, ca.pem()).unwrap();
    assert_eq!(auth.whoami().await.unwrap_err().reason(), Some(Reason::LoginRequired));
}

#[tokio::test]
async fn files_that_cannot_be_used_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let empty = write(folder.path(), "empty.pem", "");
    for tls in [Tls::ca_file(&empty), Tls::ca_file(folder.path().join("absent.pem"))] {
        let error = Connection::to("https://127.0.0.1:1").tls(tls).open().unwrap_err();
        assert_eq!(error.field_violations()[0].field, "tls");
    }
}
