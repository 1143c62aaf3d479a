//! What is called in a store of any size: the same calls on rows that lie spread over it.

use interlock_proto::{
    auth::v1::{ValidateRequest, trust_service_client::TrustServiceClient},
    gateway::v1::{
        AttachSessionRequest, GetSessionRequest, ListJobsRequest, ListSessionsRequest, SubmitJobRequest,
        job_service_client::JobServiceClient, session_service_client::SessionServiceClient,
    },
    metadata::INTERNAL_TOKEN,
};
use interlock_tests::{pair::Peer, wire::Metadata};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use crate::{
    fill::JOBS_EACH,
    load::{Caller, Side},
    plan::Plan,
    programs,
    stage::Stage,
};

/// Entries of a page: as many as the smallest store has for everyone.
const PAGE: u32 = 10;
const PAYLOAD: &[u8] = &[b'x'; 256];
/// From one row to the next: far away, and through all of them.
const STRIDE: usize = 7_919;

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// `TrustService.Validate` of known tokens.
    Validate,
    /// `SessionService.GetSession`.
    GetSession,
    /// `SessionService.ListSessions`, the first page.
    ListSessions,
    /// `JobService.ListJobs`, the first page.
    ListJobs,
    /// `SessionService.AttachSession` that changes the binding.
    Attach,
    /// `JobService.SubmitJob`.
    Submit,
}

impl Work {
    /// In an order in which none leaves behind what the next one must not find: attaches want idle agents.
    pub(crate) const ALL: [Self; 6] =
        [Self::Validate, Self::GetSession, Self::ListSessions, Self::ListJobs, Self::Attach, Self::Submit];

    /// As tables show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::GetSession => "get session",
            Self::ListSessions => "list sessions",
            Self::ListJobs => "list jobs",
            Self::Attach => "attach",
            Self::Submit => "submit",
        }
    }

    /// Who does it on a stage.
    pub(crate) fn side(self, plan: &Plan, stage: &Stage) -> Side<Going> {
        let pair = &stage.pair;
        let connect = || match self {
            Self::Validate => pair.auth_internal(Peer::Listed),
            _ => pair.gateway_public(),
        };
        let channels: Vec<Channel> = (0..plan.connections).map(|_| connect()).collect();
        let caller = |number: usize| Going {
            work: self,
            channel: channels[number % channels.len()].clone(),
            targets: self.targets(stage).skip(number).step_by(plan.callers).collect(),
            next: 0,
            done: 0,
            name: format!("c{number}"),
        };
        let server = if self == Self::Validate { "auth" } else { "gateway" };
        let callers = (0..plan.callers).map(caller).collect();
        Side { server: programs::pid(&pair.world, server), callers }
    }

    fn targets(self, stage: &Stage) -> Box<dyn Iterator<Item = Target> + '_> {
        if self == Self::Validate {
            let metadata = Metadata::none().with(INTERNAL_TOKEN, stage.pair.world.internal_token());
            let target = move |hash: &Vec<u8>| Target {
                id: hash.clone(),
                agents: Default::default(),
                project: String::new(),
                metadata: metadata.clone(),
                bound: 0,
            };
            return Box::new(stage.hashes.iter().map(target));
        }
        let known = stage.layout.known().filter(move |(_, _, has_jobs)| self != Self::ListJobs || *has_jobs);
        let target = |(session, owner, _): (String, usize, bool)| {
            let owner = &stage.owners[owner];
            Target {
                id: session.into_bytes(),
                agents: ["b", "c"].map(|agent| format!("{agent}-{}", owner.agent)),
                project: owner.project.clone(),
                metadata: owner.metadata(),
                bound: 0,
            }
        };
        // Where few have jobs, some callers share them: lists do not mind.
        if self == Self::ListJobs {
            let all: Vec<_> = known.map(target).collect();
            let count = all.len().max(1_024);
            return Box::new(all.into_iter().cycle().take(count));
        }
        Box::new(known.map(target))
    }
}

/// One row that is called for. A session's id, or a token's hash.
#[derive(Clone)]
struct Target {
    id: Vec<u8>,
    agents: [String; 2],
    project: String,
    metadata: Metadata,
    bound: usize,
}

/// Does one kind of call on one row after another.
pub(crate) struct Going {
    work: Work,
    channel: Channel,
    targets: Vec<Target>,
    next: usize,
    done: usize,
    name: String,
}

impl Caller for Going {
    async fn call(&mut self) -> Result<(), Status> {
        self.next = (self.next + STRIDE) % self.targets.len();
        self.done += 1;
        let target = &mut self.targets[self.next];
        let (with, channel) = (&target.metadata, self.channel.clone());
        let session_id = || String::from_utf8_lossy(&target.id).into_owned();
        let answered = match self.work {
            Work::Validate => {
                let message = ValidateRequest { credential_sha256: target.id.clone().into() };
                let answer = TrustServiceClient::new(channel).validate(with.on(message)).await?;
                answer.into_inner().principal.is_some()
            }
            Work::GetSession => {
                let message = GetSessionRequest { session_id: session_id() };
                let answer = SessionServiceClient::new(channel).get_session(with.on(message)).await?;
                answer.into_inner().session.is_some()
            }
            Work::ListSessions => {
                let message = ListSessionsRequest { page_size: PAGE, ..ListSessionsRequest::default() };
                let answer = SessionServiceClient::new(channel).list_sessions(with.on(message)).await?;
                answer.into_inner().sessions.len() == PAGE as usize
            }
            Work::ListJobs => {
                let page_size = JOBS_EACH as u32;
                let message =
                    ListJobsRequest { session_id: session_id(), page_size, ..ListJobsRequest::default() };
                let answer = JobServiceClient::new(channel).list_jobs(with.on(message)).await?;
                answer.into_inner().jobs.len() == JOBS_EACH as usize
            }
            Work::Attach => {
                let message = AttachSessionRequest {
                    session_id: session_id(),
                    agent_id: target.agents[target.bound % 2].clone(),
                    project_id: target.project.clone(),
                    ..AttachSessionRequest::default()
                };
                target.bound += 1;
                let answer =
                    SessionServiceClient::new(channel).attach_session(target.metadata.on(message)).await?;
                answer.into_inner().changed
            }
            Work::Submit => {
                let message = SubmitJobRequest {
                    session_id: session_id(),
                    request_id: format!("{}-{}", self.name, self.done),
                    payload: PAYLOAD.into(),
                };
                let answer = JobServiceClient::new(channel).submit_job(with.on(message)).await?;
                answer.into_inner().job.is_some()
            }
        };
        if answered { Ok(()) } else { Err(Status::internal("not what such a row is answered with")) }
    }
}
