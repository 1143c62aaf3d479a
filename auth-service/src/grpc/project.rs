//! `ProjectService`.

use std::{sync::Arc, time::Duration};

use interlock_kit::{error::Error, random};
use interlock_proto::auth::v1::{
    AddMemberRequest, AddMemberResponse, CreateProjectRequest, CreateProjectResponse, ListProjectsRequest,
    ListProjectsResponse, project_service_server::ProjectService,
};
use tonic::{Request, Response, Status};

use super::{answer, wire};
use crate::{
    ids::{OwnerId, ProjectId, ProjectName, RequestId},
    limits,
    parts::Parts,
    project::{AddMember, CreateProject, ListProjects},
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
        answer(request, async |asked| {
            let project = ProjectId::parse("project_id", &asked.message.project_id)?;
            let owner = OwnerId::parse("owner_id", &asked.message.owner_id)?;
            if let Some(row) = self.0.shell.run(&asked.call(), AddMember { project, owner }).await? {
                let _ = tokio::time::timeout(MEMBER_WAIT, self.0.barrier.wait_for(row)).await;
            }
            Ok(AddMemberResponse {})
        })
        .await
    }
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
