//! The example service, run through: `examples/verified_service.rs`.

use interlock_client::{Auth, Code, Credential, Credentials, Kind, Reason};

use crate::{connection, fake_trust::stage, soon, verified_service};

#[tokio::test]
async fn the_example_admits_knows_and_refuses() {
    let s = stage().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(verified_service::serve(s.verifier.clone(), listener, async {
        let _ = stopped.await;
    }));
    let credential = s.owner(1, "ann");
    let caller = |bearer: Credentials| Auth::new(connection(address)).with_credentials(bearer);

    let who = caller(Credentials::bearer(credential.clone())).whoami().await.unwrap();
    assert_eq!((who.owner_id.as_str(), who.display_name.as_str()), ("ann", "hello, ann"));

    let nobody = caller(Credentials::none()).whoami().await.unwrap_err();
    assert_eq!((nobody.code(), nobody.reason()), (Code::Unauthenticated, Some(Reason::ProviderAuthFailed)));
    let unknown = Credentials::bearer(Credential::new(Kind::Owner, &[9; 32]));
    assert_eq!(caller(unknown).whoami().await.unwrap_err().reason(), Some(Reason::ProviderAuthFailed));

    let sequence = s.auth.revoke(&credential).await;
    s.auth.acknowledged(sequence).await;
    let revoked = caller(Credentials::bearer(credential)).whoami().await.unwrap_err();
    assert_eq!(revoked.reason(), Some(Reason::ProviderAuthFailed));

    drop(stop);
    soon("the end", serving).await.unwrap().unwrap();
}
