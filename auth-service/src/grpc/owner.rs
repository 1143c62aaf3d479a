//! `OwnerService`.

use std::sync::Arc;

use interlock_kit::{
    authn::Admit as _,
    error::{Error, Reason},
};
use interlock_proto::{
    auth::v1::{
        ChangePasswordRequest, ChangePasswordResponse, GetOwnerRequest, GetOwnerResponse, ImportOwnerRequest,
        ImportOwnerResponse, ListOwnersRequest, ListOwnersResponse, RemoveOwnerRequest, RemoveOwnerResponse,
        Roles, SetOwnerRequest, SetOwnerResponse, owner_service_server::OwnerService,
    },
    text,
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{Asked, answer, wire};
use crate::{
    barrier::Reached,
    ids::OwnerId,
    limits,
    owner::{Edit, GetOwner, ListOwners, RemoveOwner, SetOwner},
    owner_edit::{self, Ask, OwnChange},
    parts::Parts,
    password::PasswordHash,
};

pub(super) struct Owners(pub(super) Arc<Parts>);

#[tonic::async_trait]
impl OwnerService for Owners {
    async fn set_owner(
        &self,
        mut request: Request<SetOwnerRequest>,
    ) -> Result<Response<SetOwnerResponse>, Status> {
        let password = Zeroizing::new(std::mem::take(&mut request.get_mut().password));
        answer(request, async |asked| {
            let m = &asked.message;
            let ask = Ask {
                owner: OwnerId::parse("owner_id", &m.owner_id)?,
                edit: edit(m.display_name.as_deref(), m.roles.as_ref(), m.active)?,
                password: Some(password).filter(|password| !password.is_empty()),
                keep_sessions: m.keep_sessions,
                expected: Some(m.expected_version).filter(|version| *version > 0),
                cancel_jobs: m.cancel_jobs,
            };
            let (shell, hasher) = (&self.0.shell, &self.0.hasher);
            let stored = owner_edit::set(shell, hasher, &asked.call(), ask).await;
            let stored = self.noted(asked, stored).await?;
            let reached = self.reached(stored.revocation).await;
            Ok(SetOwnerResponse {
                owner: Some(wire::owner(&stored.owner)),
                created: stored.created,
                reached: reached.map(wire::reached),
            })
        })
        .await
    }

    async fn get_owner(
        &self,
        request: Request<GetOwnerRequest>,
    ) -> Result<Response<GetOwnerResponse>, Status> {
        answer(request, async |asked| {
            let query = GetOwner { owner: OwnerId::parse("owner_id", &asked.message.owner_id)? };
            let owner = self.0.shell.ask(&asked.call(), query).await?;
            Ok(GetOwnerResponse { owner: Some(wire::owner(&owner)) })
        })
        .await
    }

    async fn list_owners(
        &self,
        request: Request<ListOwnersRequest>,
    ) -> Result<Response<ListOwnersResponse>, Status> {
        answer(request, async |asked| {
            let query = page(&asked.message)?;
            let page = self.0.shell.ask(&asked.call(), query).await?;
            let next_page_token = page.next.map(|id| id.to_string()).unwrap_or_default();
            Ok(ListOwnersResponse { owners: page.owners.iter().map(wire::owner).collect(), next_page_token })
        })
        .await
    }

    async fn remove_owner(
        &self,
        request: Request<RemoveOwnerRequest>,
    ) -> Result<Response<RemoveOwnerResponse>, Status> {
        answer(request, async |asked| {
            let owner = OwnerId::parse("owner_id", &asked.message.owner_id)?;
            let expected = Some(asked.message.expected_version).filter(|version| *version > 0);
            let remove = RemoveOwner { owner, expected, cancel_jobs: asked.message.cancel_jobs };
            let revocation = self.0.shell.run(&asked.call(), remove).await?;
            let reached = self.reached(Some(revocation)).await;
            Ok(RemoveOwnerResponse { reached: reached.map(wire::reached) })
        })
        .await
    }

    async fn import_owner(
        &self,
        mut request: Request<ImportOwnerRequest>,
    ) -> Result<Response<ImportOwnerResponse>, Status> {
        let hash = Zeroizing::new(std::mem::take(&mut request.get_mut().password_hash));
        answer(request, async |asked| {
            let m = &asked.message;
            let edit = Edit {
                password: Some(imported(&hash)?),
                ..edit(m.display_name.as_deref(), m.roles.as_ref(), m.active)?
            };
            let owner = OwnerId::parse("owner_id", &m.owner_id)?;
            let keep_sessions = m.keep_sessions;
            let verb = SetOwner { owner, edit, keep_sessions, expected: None, cancel_jobs: false };
            let stored = self.0.shell.run(&asked.call(), verb).await?;
            let reached = self.reached(stored.revocation).await;
            Ok(ImportOwnerResponse {
                owner: Some(wire::owner(&stored.owner)),
                created: stored.created,
                reached: reached.map(wire::reached),
            })
        })
        .await
    }

    async fn change_password(
        &self,
        mut request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        let message = std::mem::take(request.get_mut());
        let current = Zeroizing::new(message.current_password.into_bytes());
        let new = Zeroizing::new(message.new_password);
        answer(request, async |asked| {
            wire::bytes("current_password", &current, limits::PASSWORD_BYTES_MAX)?;
            let ask = OwnChange {
                source: asked.served.source(),
                current,
                new,
                keep_sessions: message.keep_sessions,
            };
            let changed = owner_edit::change(&self.0, &asked.call(), ask).await;
            let revocation = self.noted(asked, changed).await?;
            Ok(ChangePasswordResponse { reached: self.reached(revocation).await.map(wire::reached) })
        })
        .await
    }
}

impl Owners {
    async fn reached(&self, revocation: Option<u64>) -> Option<Reached> {
        match revocation {
            Some(row) => Some(self.0.wait_for(row).await),
            None => {
                // A repeated call changes nothing more, and its first one may still wait: both promise the same.
                self.0.wait_for_all().await;
                None
            }
        }
    }

    /// A call that was turned away before its verb has its row as any other.
    async fn noted<T, R>(&self, asked: &Asked<T>, outcome: Result<R, Error>) -> Result<R, Error> {
        if let Err(refusal) = &outcome
            && matches!(refusal.reason(), Reason::RateLimited | Reason::LimitReached)
            // With a delay it is of the limiter or the hasher; without one the verb has refused, and has its row.
            && refusal.retry_delay().is_some()
        {
            self.0.gate.refused(&asked.served, Some(&asked.caller), refusal).await;
        }
        outcome
    }
}

fn edit(display_name: Option<&str>, roles: Option<&Roles>, active: Option<bool>) -> Result<Edit, Error> {
    const SHOWS: &str = "1 to 128 bytes that all show, without blanks at the ends";
    let is_label = |label: &str| text::is_label(label, limits::LABEL_BYTES_MAX);
    if display_name.is_some_and(|name| !is_label(name)) {
        return Err(Error::invalid_field("display_name", SHOWS));
    }
    let roles = roles.map(|roles| &roles.roles);
    if roles.is_some_and(|roles| roles.len() > limits::ROLES_MAX) {
        return Err(Error::invalid_field("roles.roles", "at most 16"));
    }
    if let Some(at) = roles.and_then(|roles| roles.iter().position(|role| !is_label(role))) {
        return Err(Error::invalid_field(format!("roles.roles[{at}]"), SHOWS));
    }
    Ok(Edit { display_name: display_name.map(str::to_owned), roles: roles.cloned(), active, password: None })
}

fn imported(hash: &str) -> Result<PasswordHash, Error> {
    if hash.is_empty() {
        return Err(Error::missing_field("password_hash"));
    }
    // What is wrong with it is said without showing it.
    PasswordHash::parse(hash).map_err(|why| Error::invalid_field("password_hash", why.to_string()))
}

fn page(asked: &ListOwnersRequest) -> Result<ListOwners, Error> {
    if asked.page_size > limits::PAGE_MAX {
        return Err(Error::invalid_field("page_size", format!("0 to {}", limits::PAGE_MAX)));
    }
    let after = match asked.page_token.as_str() {
        "" => None,
        id => Some(OwnerId::parse("page_token", id)?),
    };
    Ok(ListOwners { after, limit: asked.page_size })
}
