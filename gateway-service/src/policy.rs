//! Who may do what to which resource: pure, and with no default arm.
//!
//! [`decide`] answers with a [`Permit`], which every write takes; [`ProjectScope::agree`] is the only
//! way to the value that project queries take. Both values can be made here only. Owner is decided
//! before project, and both before anything that tells of jobs.

use interlock_kit::error::{Error, Reason};

use crate::{
    agent::Agent,
    client::{Client, ClientRole},
    file::File,
    ids::{AgentId, JobId, OwnerId, ProjectId, SessionId},
    job::Job,
    password::SessionPassword,
    session::Session,
};

mod rules;

pub(crate) use rules::WRONG_PASSWORD;
pub use rules::decide;

/// What is asked of a session, or of a job through its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read it.
    Get,
    /// Read its log.
    Stream,
    /// Store the calling client's cursor, or read it.
    Ack,
    /// Read its jobs.
    ReadJobs,
    /// Submit a job.
    Submit,
    /// Cancel a job.
    Cancel,
    /// Change its binding.
    Attach,
    /// End it.
    Close,
    /// List its clients.
    ListClients,
    /// Leave it.
    Quit,
    /// Say something in it.
    Post,
    /// Set the password that clients join with.
    SetPassword,
    /// Take a client out of it.
    Evict,
    /// Fail a job, whatever its worker says.
    ForceFail,
    /// Read its files.
    ReadFiles,
    /// Store and delete files.
    WriteFiles,
    /// Give it to another owner, where its own is unknown.
    Adopt,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 17] = [
        Self::Get,
        Self::Stream,
        Self::Ack,
        Self::ReadJobs,
        Self::Submit,
        Self::Cancel,
        Self::Attach,
        Self::Close,
        Self::ListClients,
        Self::Quit,
        Self::Post,
        Self::SetPassword,
        Self::Evict,
        Self::ForceFail,
        Self::ReadFiles,
        Self::WriteFiles,
        Self::Adopt,
    ];

    /// The least role of a client (DESIGN 14.4).
    #[must_use]
    pub fn least_role(self) -> ClientRole {
        match self {
            Self::Get | Self::Stream | Self::Ack | Self::ReadJobs | Self::ListClients | Self::Quit => {
                ClientRole::Observer
            }
            Self::Submit | Self::Cancel | Self::Post | Self::ReadFiles | Self::WriteFiles => {
                ClientRole::Operator
            }
            Self::Attach | Self::Close | Self::SetPassword | Self::Evict | Self::ForceFail | Self::Adopt => {
                ClientRole::Host
            }
        }
    }

    /// The scope that a project token needs.
    #[must_use]
    pub fn scope(self) -> &'static str {
        match self {
            Self::Get | Self::Stream | Self::Ack | Self::ListClients | Self::Quit | Self::ReadFiles => {
                "sessions:read"
            }
            Self::ReadJobs => "jobs:read",
            Self::Submit | Self::Cancel | Self::ForceFail => "jobs:submit",
            Self::Attach
            | Self::Close
            | Self::Post
            | Self::SetPassword
            | Self::Evict
            | Self::WriteFiles
            | Self::Adopt => "sessions:write",
        }
    }
}

/// What a caller asks for. Fields are the ids asked for and the rows found, `None` where there is none.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each field is named by its type, and each variant says what it asks")]
pub enum Ask<'a> {
    /// Something of a session. `client` is the calling client, where a cookie came along.
    Session { act: Act, id: &'a SessionId, session: Option<&'a Session>, client: Option<&'a Client> },
    /// To cancel this job of a session.
    CancelJob { session: &'a Session, client: Option<&'a Client>, job: &'a Job },
    /// To become a client of a session, by its password as it was when it was verified.
    Join {
        id: &'a SessionId,
        session: Option<&'a Session>,
        password: Option<&'a SessionPassword>,
        version: u64,
    },
    /// A new session for this owner.
    Create { id: &'a SessionId, owner: &'a OwnerId },
    /// To list this owner's sessions.
    List { owner: &'a OwnerId },
    /// To read an agent.
    SeeAgent { id: &'a AgentId, agent: Option<&'a Agent> },
    /// To bind a session of the acting owner to an agent in a project.
    Bind { id: &'a AgentId, agent: Option<&'a Agent>, project: &'a ProjectId, acting: &'a OwnerId },
    /// To go on using the agent that a session of this owner is bound to.
    Use { id: &'a AgentId, agent: Option<&'a Agent>, owner: &'a OwnerId },
    /// To register or change an agent; `share` where it says who may attach.
    SetAgent { id: &'a AgentId, agent: Option<&'a Agent>, share: bool },
    /// To remove an agent.
    RemoveAgent { id: &'a AgentId, agent: Option<&'a Agent> },
    /// To run an agent's jobs.
    Serve { id: &'a AgentId, agent: Option<&'a Agent> },
    /// To use a lease of this job.
    Lease { id: &'a JobId, job: Option<&'a Job>, fencing: u64 },
    /// To use the files of this job's session, in the job's project, by a lease of it.
    JobFiles { id: &'a JobId, job: Option<&'a Job>, fencing: u64 },
    /// To end what is over.
    Sweep,
}

/// Proof that the policy allowed this caller on this target. Cannot be made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit(Subject);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    /// A session with all that belongs to it.
    Session(SessionId),
    /// One owner's list of sessions.
    Owner(OwnerId),
    /// An agent.
    Agent(AgentId),
    /// The jobs of an agent, for its worker.
    Jobs(AgentId),
    /// One job, for the holder of its lease.
    Job(JobId),
    /// The files of a session in a project, for the holder of a job's lease.
    Files(SessionId, ProjectId),
    /// Whatever is over.
    Over,
}

impl Permit {
    /// Whether it covers a session's own rows.
    pub(crate) fn covers_session(&self, id: &SessionId) -> bool {
        match &self.0 {
            Subject::Session(mine) => mine == id,
            Subject::Over => true,
            Subject::Owner(_)
            | Subject::Agent(_)
            | Subject::Jobs(_)
            | Subject::Job(_)
            | Subject::Files(..) => false,
        }
    }

    /// Whether it covers a job's rows and its entries in the session's log.
    pub(crate) fn covers_job(&self, job: &Job) -> bool {
        match &self.0 {
            Subject::Session(session) => *session == job.session,
            Subject::Jobs(agent) => *agent == job.binding.agent,
            Subject::Job(id) => *id == job.id,
            Subject::Over => true,
            Subject::Owner(_) | Subject::Agent(_) | Subject::Files(..) => false,
        }
    }

    /// Whether it covers an agent's row.
    pub(crate) fn covers_agent(&self, id: &AgentId) -> bool {
        matches!(&self.0, Subject::Agent(mine) if mine == id)
    }

    /// Whether it covers a file's row.
    pub(crate) fn covers_file(&self, file: &File) -> bool {
        match &self.0 {
            Subject::Session(session) => *session == file.session,
            Subject::Files(session, project) => {
                *session == file.session && file.project.as_ref().is_none_or(|of| of == project)
            }
            Subject::Over => true,
            Subject::Owner(_) | Subject::Agent(_) | Subject::Jobs(_) | Subject::Job(_) => false,
        }
    }

    /// Whether it covers this owner's list.
    pub(crate) fn covers_owner(&self, id: &OwnerId) -> bool {
        matches!(&self.0, Subject::Owner(mine) if mine == id)
    }

    /// Whether it is that of a sweep.
    pub(crate) fn covers_upkeep(&self) -> bool {
        self.0 == Subject::Over
    }
}

/// Why the policy said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// For people. Tells nothing that the caller may not know.
    pub message: &'static str,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.reason, refusal.message)
    }
}

/// What lets a caller into a project: always one of these, never nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProjectReach {
    /// The project that a token is scoped to.
    Token(ProjectId),
    /// Auth's answer on the acting owner's membership in the project.
    Membership(bool),
    /// A client in its own session, which is bound to this project.
    Own(ProjectId),
    /// The built-in project; whether the caller is an administrator.
    BuiltIn(bool),
}

/// Which lock stayed shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The token's scope, or the membership, does not lead to the resource's project.
    Reach,
    /// The named project is not the resource's.
    Named,
}

impl Lock {
    /// For audit rows.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Reach => "reach",
            Self::Named => "named",
        }
    }
}

/// Proof that the locks of a project agree. Project queries take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectScope(ProjectId);

impl ProjectScope {
    /// The three locks: what the caller reaches, what the call names (where it names one), and the
    /// project of the resource.
    ///
    /// # Errors
    /// The lock that stayed shut.
    pub fn agree(
        reach: &ProjectReach,
        named: Option<&ProjectId>,
        resource: &ProjectId,
    ) -> Result<Self, Lock> {
        let reached = match reach {
            ProjectReach::Token(project) | ProjectReach::Own(project) => project == resource,
            ProjectReach::Membership(may) => *may,
            ProjectReach::BuiltIn(administrator) => *administrator && *resource == ProjectId::system(),
        };
        if !reached {
            return Err(Lock::Reach);
        }
        if named.is_some_and(|named| named != resource) {
            return Err(Lock::Named);
        }
        Ok(Self(resource.clone()))
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> &ProjectId {
        &self.0
    }
}
