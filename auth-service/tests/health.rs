//! What is open to everyone: health, and the probes; and what is not.

#![expect(clippy::unwrap_used, reason = "a test")]

mod served;

use served::{Host, reason, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

// UA-15, UA-28, UA-30: health answers with no credential; on its own listener nothing else does.
#[tokio::test]
async fn health_is_open_and_its_listener_serves_nothing_else() {
    let host = Host::new().with("health.address", "127.0.0.1:0").with("metrics.address", "127.0.0.1:0");
    let served = host.start().await;
    let at = |name: &str| served.addresses.iter().find(|(known, _)| *known == name).unwrap().1;

    let plain = Channel::from_shared(format!("http://{}", at("health"))).unwrap().connect_lazy();
    for channel in [plain.clone(), host.public(&served)] {
        let mut health = HealthClient::new(channel);
        for service in ["", "interlock.auth.v1.OwnerSessionService"] {
            let asked = HealthCheckRequest { service: service.to_owned() };
            let answer = within(health.check(asked)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving);
        }
    }
    let mut identity = interlock_proto::auth::v1::identity_service_client::IdentityServiceClient::new(plain);
    let request = served::bearer(Default::default(), &host.token("admin"));
    let refused = within(identity.who_am_i(request)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unimplemented, "UNIMPLEMENTED"));

    let mut probe = tokio::net::TcpStream::connect(at("metrics")).await.unwrap();
    probe.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(probe.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    served.stop().await;
}
