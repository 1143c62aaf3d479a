//! Around the verbs that make project tokens: the credential, the sealed answer, and the barrier.

use std::time::Duration;

use interlock_kit::{error::Error, random, seal::Seal};
use interlock_proto::credential::{Credential, Kind};

use crate::{
    barrier::Reached,
    caller::Call,
    ids::{CredentialId, ProjectId, RequestId},
    parts::Parts,
    project_token::{Grant, IssueToken, Issued, ProjectToken, RotateToken},
    sign_in::stored_form,
};

/// Keeps these seals apart from any other under the same credential.
const LABEL: &str = "project_token";

/// Who asks, and under which id.
#[derive(Debug)]
pub struct Asked {
    /// The caller's id of this request.
    pub request: RequestId,
    /// The caller's own credential: its secret seals the answer for a retry.
    pub presented: Credential,
}

/// What the caller is told.
#[derive(Debug)]
pub struct Answer {
    /// The new token's secret, or that of the first call with the same request id.
    pub secret: Credential,
    /// The token.
    pub token: ProjectToken,
    /// What the end of the one before reached; `None` where there was none, or a grace was asked for.
    pub reached: Option<Reached>,
}

/// A new credential, and its sealed form for the store.
struct Fresh {
    seal: Seal,
    secret: Credential,
    sealed: Vec<u8>,
}

impl Asked {
    fn fresh(&self) -> Fresh {
        let secret = Credential::new(Kind::Project, &random::bytes());
        let seal = Seal::of(self.presented.expose().as_bytes(), LABEL);
        let sealed = seal.seal(random::bytes(), self.request.as_str().as_bytes(), secret.expose().as_bytes());
        Fresh { seal, secret, sealed }
    }

    fn open(&self, seal: &Seal, sealed: &[u8]) -> Result<Credential, Error> {
        let text = seal.open(self.request.as_str().as_bytes(), sealed);
        let secret = text.and_then(|text| Credential::parse(std::str::from_utf8(&text).ok()?).ok());
        secret.ok_or_else(|| Error::internal("a sealed answer does not open"))
    }
}

/// Issues a token.
///
/// # Errors
/// The verb's.
pub async fn issue(
    parts: &Parts,
    call: &Call,
    project: ProjectId,
    grant: Grant,
    asked: &Asked,
) -> Result<Answer, Error> {
    let Fresh { seal, secret, sealed } = asked.fresh();
    let verb =
        IssueToken { project, grant, new: stored_form(&secret), request: asked.request.clone(), sealed };
    let Issued { sealed, token, .. } = parts.shell.run(call, verb).await?;
    Ok(Answer { secret: asked.open(&seal, &sealed)?, token, reached: None })
}

/// Which token is replaced, and how.
#[derive(Debug)]
pub struct Rotation {
    /// Where.
    pub project: ProjectId,
    /// Which one.
    pub token: CredentialId,
    /// How long it stays valid beside its successor.
    pub grace: Duration,
    /// How long the successor lives; `None`: as long as this one did.
    pub ttl: Option<Duration>,
}

/// Rotates a token. Returns when no verifier admits the old one, unless a grace was asked for.
///
/// # Errors
/// The verb's.
pub async fn rotate(parts: &Parts, call: &Call, rotation: Rotation, asked: &Asked) -> Result<Answer, Error> {
    let Fresh { seal, secret, sealed } = asked.fresh();
    let Rotation { project, token, grace, ttl } = rotation;
    let (new, request) = (stored_form(&secret), asked.request.clone());
    let verb = RotateToken { project, token, grace, ttl, new, request, sealed };
    let Issued { sealed, token, revocation, in_grace, .. } = parts.shell.run(call, verb).await?;
    let reached = parts.wait_for(revocation).await;
    let secret = asked.open(&seal, &sealed)?;
    Ok(Answer { secret, token, reached: (!in_grace).then_some(reached) })
}
