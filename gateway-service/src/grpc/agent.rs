//! AgentService.

use std::sync::Arc;

use interlock_proto::gateway::v1::{
    GetAgentRequest, GetAgentResponse, ListAgentsRequest, ListAgentsResponse, RemoveAgentRequest,
    RemoveAgentResponse, SetAgentRequest, SetAgentResponse, agent_service_server::AgentService,
};
use tonic::{Request, Response, Status};

use super::{Front, parts, wire};
use crate::{
    agent::{GetAgent, ListAgents, RemoveAgent, SetAgent},
    ids::AgentId,
};

pub(super) struct Rpc(pub(super) Arc<Front>);

#[tonic::async_trait]
impl AgentService for Rpc {
    async fn set_agent(
        &self,
        request: Request<SetAgentRequest>,
    ) -> Result<Response<SetAgentResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let agent = AgentId::parse(request.agent_id)?;
            let set = SetAgent { agent, shared: request.shared, description: request.description };
            let told = self.0.run(&call, &admitted.caller, set).await?;
            Ok(told.map(|stored| SetAgentResponse {
                agent: Some(wire::agent(&stored.seen)),
                created: stored.created,
            }))
        };
        self.0.answer(&call, work).await
    }

    async fn remove_agent(
        &self,
        request: Request<RemoveAgentRequest>,
    ) -> Result<Response<RemoveAgentResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let agent = AgentId::parse(request.agent_id)?;
            let told = self.0.run(&call, &admitted.caller, RemoveAgent { agent }).await?;
            Ok(told.map(|()| RemoveAgentResponse {}))
        };
        self.0.answer(&call, work).await
    }

    async fn get_agent(
        &self,
        request: Request<GetAgentRequest>,
    ) -> Result<Response<GetAgentResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let agent = AgentId::parse(request.agent_id)?;
            let told = self.0.ask(&call, &admitted.caller, GetAgent { agent }).await?;
            Ok(told.map(|seen| GetAgentResponse { agent: Some(wire::agent(&seen)) }))
        };
        self.0.answer(&call, work).await
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let list = ListAgents { page_size: request.page_size, page_token: request.page_token };
            let told = self.0.ask(&call, &admitted.caller, list).await?;
            Ok(told.map(|page| ListAgentsResponse {
                agents: page.agents.iter().map(wire::agent).collect(),
                next_page_token: page.next_page_token,
            }))
        };
        self.0.answer(&call, work).await
    }
}
