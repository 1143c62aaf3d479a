//! The paths of the methods that this crate calls. A test holds each against the descriptor set.

macro_rules! paths {
    ($($name:ident = $path:literal;)*) => {
        $(pub(crate) const $name: &str = $path;)*
        #[cfg(test)]
        pub(crate) const ALL: &[&str] = &[$($name,)*];
    };
}

paths! {
    LOGIN = "/interlock.auth.v1.OwnerSessionService/Login";
    REFRESH = "/interlock.auth.v1.OwnerSessionService/Refresh";
    LOGOUT = "/interlock.auth.v1.OwnerSessionService/Logout";
    SIGN_IN_STATUS = "/interlock.auth.v1.OwnerSessionService/GetStatus";
    LIST_OWNER_SESSIONS = "/interlock.auth.v1.OwnerSessionService/ListOwnerSessions";
    REVOKE_OWNER_SESSIONS = "/interlock.auth.v1.OwnerSessionService/RevokeOwnerSessions";
    WHO_AM_I = "/interlock.auth.v1.IdentityService/WhoAmI";
    UNLOCK = "/interlock.auth.v1.ElevationService/Unlock";
    LOCK = "/interlock.auth.v1.ElevationService/Lock";
    ELEVATION_STATUS = "/interlock.auth.v1.ElevationService/GetStatus";
    SET_OWNER = "/interlock.auth.v1.OwnerService/SetOwner";
    READ_OWNER = "/interlock.auth.v1.OwnerService/GetOwner";
    LIST_OWNERS = "/interlock.auth.v1.OwnerService/ListOwners";
    REMOVE_OWNER = "/interlock.auth.v1.OwnerService/RemoveOwner";
    IMPORT_OWNER = "/interlock.auth.v1.OwnerService/ImportOwner";
    CHANGE_PASSWORD = "/interlock.auth.v1.OwnerService/ChangePassword";
    ROLE_TOKEN_STATUS = "/interlock.auth.v1.RoleTokenService/GetStatus";
    ROTATE = "/interlock.auth.v1.RoleTokenService/Rotate";
    BEGIN_ROTATION = "/interlock.auth.v1.RoleTokenService/BeginRotation";
    COMMIT_ROTATION = "/interlock.auth.v1.RoleTokenService/CommitRotation";
    ABORT_ROTATION = "/interlock.auth.v1.RoleTokenService/AbortRotation";
    CREATE_PROJECT = "/interlock.auth.v1.ProjectService/CreateProject";
    LIST_PROJECTS = "/interlock.auth.v1.ProjectService/ListProjects";
    ADD_MEMBER = "/interlock.auth.v1.ProjectService/AddMember";
    REMOVE_MEMBER = "/interlock.auth.v1.ProjectService/RemoveMember";
    ISSUE_TOKEN = "/interlock.auth.v1.ProjectService/IssueToken";
    LIST_TOKENS = "/interlock.auth.v1.ProjectService/ListTokens";
    ROTATE_TOKEN = "/interlock.auth.v1.ProjectService/RotateToken";
    REVOKE_TOKEN = "/interlock.auth.v1.ProjectService/RevokeToken";
    HOLD_LEASE = "/interlock.auth.v1.TrustService/HoldLease";
    VALIDATE = "/interlock.auth.v1.TrustService/Validate";
    CHECK_MEMBERSHIP = "/interlock.auth.v1.TrustService/CheckMembership";
    DESCRIBE_OWNER = "/interlock.auth.v1.TrustService/DescribeOwner";
    CREATE_SESSION = "/interlock.gateway.v1.SessionService/CreateSession";
    READ_SESSION = "/interlock.gateway.v1.SessionService/GetSession";
    LIST_SESSIONS = "/interlock.gateway.v1.SessionService/ListSessions";
    ATTACH_SESSION = "/interlock.gateway.v1.SessionService/AttachSession";
    CLOSE_SESSION = "/interlock.gateway.v1.SessionService/CloseSession";
    ADOPT_SESSION = "/interlock.gateway.v1.SessionService/AdoptSession";
    STREAM_EVENTS = "/interlock.gateway.v1.SessionService/StreamEvents";
    RENEW_STREAM = "/interlock.gateway.v1.SessionService/RenewStream";
    ACK = "/interlock.gateway.v1.SessionService/Ack";
    SET_SESSION_PASSWORD = "/interlock.gateway.v1.SessionService/SetSessionPassword";
    JOIN_SESSION = "/interlock.gateway.v1.SessionService/JoinSession";
    LIST_CLIENTS = "/interlock.gateway.v1.SessionService/ListClients";
    EVICT_CLIENT = "/interlock.gateway.v1.SessionService/EvictClient";
    QUIT = "/interlock.gateway.v1.SessionService/Quit";
    POST_MESSAGE = "/interlock.gateway.v1.SessionService/PostMessage";
    SUBMIT_JOB = "/interlock.gateway.v1.JobService/SubmitJob";
    READ_JOB = "/interlock.gateway.v1.JobService/GetJob";
    LIST_JOBS = "/interlock.gateway.v1.JobService/ListJobs";
    WAIT_JOB = "/interlock.gateway.v1.JobService/WaitJob";
    CANCEL_JOB = "/interlock.gateway.v1.JobService/CancelJob";
    FORCE_FAIL_JOB = "/interlock.gateway.v1.JobService/ForceFailJob";
    PUT_FILE = "/interlock.gateway.v1.FileService/PutFile";
    READ_FILE = "/interlock.gateway.v1.FileService/GetFile";
    LIST_FILES = "/interlock.gateway.v1.FileService/ListFiles";
    DELETE_FILE = "/interlock.gateway.v1.FileService/DeleteFile";
    WORK = "/interlock.gateway.v1.WorkerService/Work";
    SET_AGENT = "/interlock.gateway.v1.AgentService/SetAgent";
    READ_AGENT = "/interlock.gateway.v1.AgentService/GetAgent";
    LIST_AGENTS = "/interlock.gateway.v1.AgentService/ListAgents";
    REMOVE_AGENT = "/interlock.gateway.v1.AgentService/RemoveAgent";
    LIST_AUDIT = "/interlock.audit.v1.AuditService/List";
    TAIL_AUDIT = "/interlock.audit.v1.AuditService/Tail";
    VERIFY_AUDIT = "/interlock.audit.v1.AuditService/Verify";
}
