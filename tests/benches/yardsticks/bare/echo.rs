//! Answers `Validate` with a verdict of the usual size, and looks nothing up.

use interlock_proto::auth::v1::{
    CheckMembershipRequest, CheckMembershipResponse, CredentialKind, DescribeOwnerRequest,
    DescribeOwnerResponse, HoldLeaseRequest, HoldLeaseResponse, Principal, ValidateRequest, ValidateResponse,
    trust_service_server::TrustService,
};
use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming};

const DAY_S: i64 = 86_400;

pub(crate) struct Echo;

#[tonic::async_trait]
impl TrustService for Echo {
    type HoldLeaseStream = Empty<Result<HoldLeaseResponse, Status>>;

    async fn validate(
        &self,
        request: Request<ValidateRequest>,
    ) -> Result<Response<ValidateResponse>, Status> {
        if request.into_inner().credential_sha256.len() != 32 {
            return Err(Status::invalid_argument("32 bytes"));
        }
        let principal = Principal {
            kind: CredentialKind::OwnerSession.into(),
            credential_id: "crd_0190a3b0f5d27c5e8a1b2c3d4e5f6071".to_owned(),
            owner_id: "o127".to_owned(),
            role: "user".to_owned(),
            roles: vec!["user".to_owned()],
            owner_session_id: "ows_0190a3b0f5d27c5e8a1b2c3d4e5f6071".to_owned(),
            issuance: 300,
            expires_at: Some(prost_types::Timestamp { seconds: 20_000 * DAY_S, nanos: 123_456_000 }),
            ..Principal::default()
        };
        let epoch = "epo_0190a3b0f5d27c5e8a1b2c3d4e5f6071".to_owned();
        Ok(Response::new(ValidateResponse { principal: Some(principal), sequence: 1, epoch, now: None }))
    }

    async fn hold_lease(
        &self,
        _: Request<Streaming<HoldLeaseRequest>>,
    ) -> Result<Response<Self::HoldLeaseStream>, Status> {
        Err(Status::unimplemented("echoes only"))
    }

    async fn describe_owner(
        &self,
        _: Request<DescribeOwnerRequest>,
    ) -> Result<Response<DescribeOwnerResponse>, Status> {
        Err(Status::unimplemented("echoes only"))
    }

    async fn check_membership(
        &self,
        _: Request<CheckMembershipRequest>,
    ) -> Result<Response<CheckMembershipResponse>, Status> {
        Err(Status::unimplemented("echoes only"))
    }
}
