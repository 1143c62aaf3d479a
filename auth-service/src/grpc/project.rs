//! `ProjectService`.

use std::{sync::Arc, time::Duration};

use interlock_kit::{error::Error, field, random};
use interlock_proto::{
    auth::v1::{
        AddMemberRequest, AddMemberResponse, CreateProjectRequest, CreateProjectResponse, IssueTokenRequest,
        IssueTokenResponse, ListProjectsRequest, ListProjectsResponse, ListTokensRequest, ListTokensResponse,
        RemoveMemberRequest, RemoveMemberResponse, RevokeTokenRequest, RevokeTokenResponse,
        RotateTokenRequest, RotateTokenResponse, project_service_server::ProjectService,
    },
    metadata,
};
use tonic::{Request, Response, Status};

use super::{Asked, answer, wire};
use crate::{
    caller::Call,
    ids::{CredentialId, OwnerId, ProjectId, ProjectName, RequestId},
    limits,
    parts::Parts,
    project::{AddMember, CreateProject, ListProjects, RemoveMember},
    project_token::{Grant, ListTokens, RevokeToken},
    token_issue::{self, Asked as By, Rotation},
};

/// A new member is told of verifiers' earlier "no"; one that is cut off is not worth the wait.
const MEMBER_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Projects(pub(super) Arc<Parts>);

#[tonic::async_trait]
impl ProjectService for Projects {
    async fn create_project(
        &self,
        request: Request<CreateProjectRequest>,
    ) -> Result<Response<CreateProjectResponse>, Status> {
        answer(request, async |asked| {
            let verb = CreateProject {
                project: ProjectId::made(random::id("prj")),
                name: ProjectName::parse("name", &asked.message.name)?,
                request: RequestId::parse("request_id", &asked.message.request_id)?,
            };
            let project = self.0.shell.run(&asked.call(), verb).await?;
            Ok(CreateProjectResponse { project: Some(wire::project(&project)) })
        })
        .await
    }

    async fn list_projects(
        &self,
        request: Request<ListProjectsRequest>,
    ) -> Result<Response<ListProjectsResponse>, Status> {
        answer(request, async |asked| {
            let query = page(&asked.message)?;
            let page = self.0.shell.ask(&asked.call(), query).await?;
            let projects = page.projects.iter().map(wire::project).collect();
            Ok(ListProjectsResponse { projects, next_page_token: page.next.unwrap_or_default() })
        })
        .await
    }

    async fn add_member(
        &self,
        request: Request<AddMemberRequest>,
    ) -> Result<Response<AddMemberResponse>, Status> {
        self.within(request, async |asked| {
            let project = project(&asked.message.project_id)?;
            let owner = OwnerId::parse("owner_id", &asked.message.owner_id)?;
            if let Some(row) = self.0.shell.run(&self.call(asked)?, AddMember { project, owner }).await? {
                let _ = tokio::time::timeout(MEMBER_WAIT, self.0.wait_for(row)).await;
            }
            Ok(AddMemberResponse {})
        })
        .await
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberResponse>, Status> {
        self.within(request, async |asked| {
            let project = project(&asked.message.project_id)?;
            let owner = OwnerId::parse("owner_id", &asked.message.owner_id)?;
            let remove = RemoveMember { project, owner, cancel_jobs: asked.message.cancel_jobs };
            let row = self.0.shell.run(&self.call(asked)?, remove).await?;
            let Some(row) = row else { return Ok(RemoveMemberResponse { reached: None }) };
            let reached = Some(wire::reached(self.0.wait_for(row).await));
            Ok(RemoveMemberResponse { reached })
        })
        .await
    }

    async fn issue_token(
        &self,
        request: Request<IssueTokenRequest>,
    ) -> Result<Response<IssueTokenResponse>, Status> {
        self.within(request, async |asked| {
            let message = &asked.message;
            let (project, by) = (project(&message.project_id)?, by(asked, &message.request_id)?);
            let ttl = ttl(message.ttl)?;
            let grant = Grant::new(&message.label, message.scopes.clone(), message.agent_ids.clone(), ttl)?;
            let made = token_issue::issue(&self.0, &self.call(asked)?, project, grant, &by).await?;
            let project_token = Some(wire::project_token(&made.token));
            Ok(IssueTokenResponse { token: made.secret.expose().to_owned(), project_token })
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        self.within(request, async |asked| {
            let query = token_page(&asked.message)?;
            let page = self.0.shell.ask(&self.call(asked)?, query).await?;
            let tokens = page.tokens.iter().map(wire::project_token).collect();
            let next = page.next.map(|after| after.to_string()).unwrap_or_default();
            Ok(ListTokensResponse { tokens, next_page_token: next })
        })
        .await
    }

    async fn rotate_token(
        &self,
        request: Request<RotateTokenRequest>,
    ) -> Result<Response<RotateTokenResponse>, Status> {
        self.within(request, async |asked| {
            let (rotation, by) = (rotation(&asked.message)?, by(asked, &asked.message.request_id)?);
            let made = token_issue::rotate(&self.0, &self.call(asked)?, rotation, &by).await?;
            Ok(RotateTokenResponse {
                token: made.secret.expose().to_owned(),
                project_token: Some(wire::project_token(&made.token)),
                reached: made.reached.map(wire::reached),
            })
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        self.within(request, async |asked| {
            let project = project(&asked.message.project_id)?;
            let token = CredentialId::parse("token_id", &asked.message.token_id)?;
            let row = self.0.shell.run(&self.call(asked)?, RevokeToken { project, token }).await?;
            let reached = Some(wire::reached(self.0.wait_for(row).await));
            Ok(RevokeTokenResponse { reached })
        })
        .await
    }
}

impl Projects {
    /// The call, with the project that it names.
    fn call<T>(&self, asked: &Asked<T>) -> Result<Call, Error> {
        let named = asked.served.named_project.as_deref();
        let named = named.map(|named| ProjectId::parse(metadata::PROJECT, named)).transpose()?;
        Ok(Call { named, unscoped: self.0.unscoped, ..asked.call() })
    }

    /// The answer to a call in one project: marked, where it names none.
    async fn within<T, R>(
        &self,
        request: Request<T>,
        work: impl AsyncFnOnce(&Asked<T>) -> Result<R, Error>,
    ) -> Result<Response<R>, Status> {
        let asked = Asked::of(request);
        let mut answer = work(&asked).await.map(Response::new).map_err(|error| asked.refuse(&error))?;
        if asked.served.named_project.is_none() {
            self.0.unscoped.mark(answer.metadata_mut());
        }
        Ok(answer)
    }
}

fn project(id: &str) -> Result<ProjectId, Error> {
    ProjectId::parse("project_id", id)
}

/// Who asks for a secret: the answer is sealed for a retry.
fn by<T>(asked: &Asked<T>, request: &str) -> Result<By, Error> {
    Ok(By { request: RequestId::parse("request_id", request)?, presented: asked.bearer()?.clone() })
}

fn ttl(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    field::span("ttl", asked, &limits::PROJECT_TOKEN_TTL.bounds(), "1 s to 366 days")
}

fn rotation(asked: &RotateTokenRequest) -> Result<Rotation, Error> {
    let grace = field::span("grace", asked.grace, &limits::ROTATION_GRACE.bounds(), "0 to 24 h")?;
    Ok(Rotation {
        project: project(&asked.project_id)?,
        token: CredentialId::parse("token_id", &asked.token_id)?,
        grace: grace.unwrap_or_default(),
        ttl: ttl(asked.ttl)?,
    })
}

fn token_page(asked: &ListTokensRequest) -> Result<ListTokens, Error> {
    if asked.page_size > limits::PAGE_MAX {
        return Err(Error::invalid_field("page_size", format!("0 to {}", limits::PAGE_MAX)));
    }
    let after = match asked.page_token.as_str() {
        "" => 0,
        number => number
            .parse()
            .ok()
            .filter(|after: &u64| i64::try_from(*after).is_ok())
            .ok_or_else(|| Error::invalid_field("page_token", "from the answer before"))?,
    };
    Ok(ListTokens { project: project(&asked.project_id)?, after, limit: asked.page_size })
}

fn page(asked: &ListProjectsRequest) -> Result<ListProjects, Error> {
    if asked.page_size > limits::PAGE_MAX {
        return Err(Error::invalid_field("page_size", format!("0 to {}", limits::PAGE_MAX)));
    }
    let after = match asked.page_token.as_str() {
        "" => None,
        // A page begins after a project's name.
        "system" => Some("system".to_owned()),
        name => Some(ProjectName::parse("page_token", name)?.to_string()),
    };
    Ok(ListProjects { after, limit: asked.page_size })
}
