//! Interlock for Rust programs: connections, typed errors, sessions, jobs, events, workers, and the
//! verifier that any service can put in front of itself.
//!
//! # Map
//!
//! | you want | you take |
//! |---|---|
//! | to reach a service | [`Connection`], [`Tls`] |
//! | to know why a call failed | [`Error`], [`Reason`], [`Busy`] |
//! | to sign in, and stay signed in | [`Auth`], [`Credentials`], [`SessionStore`] |
//! | sessions, jobs, agents | [`Gateway`] → [`Sessions`], [`Jobs`], [`Agents`] |
//! | calls for the project of a folder | [`Gateway::in_folder`], [`ProjectFile`] |
//! | what was done and what was refused, as an administrator | [`AuditLog`] from [`Auth::audit`], [`Gateway::audit`] |
//! | what a job reads and leaves: files of a session | [`Files`] from [`Gateway::files`] |
//! | to follow a session's log | [`EventStream`] from [`Sessions::stream`] |
//! | to run jobs for agents | [`Worker`], [`Task`], [`Outcome`] |
//! | to admit calls on Interlock's credentials | [`verifier::Verifier`], [`verifier::VerifierLayer`] |
//!
//! # What holds everywhere
//!
//! - A call is repeated only where its method's policy says that repeating has one effect, only after
//!   failures that pass, and never past its deadline.
//! - Streams resume by themselves: nothing is lost, nothing comes twice.
//! - A service that cannot be asked signs nobody out: that is [`Error::is_unavailable`], never
//!   `UNAUTHENTICATED`.
//! - No secret is in any `Debug`, log or error.
//!
//! # Projects
//!
//! The folder decides which project a call is for, not the program: [`Gateway::in_folder`] looks for the folder's
//! project file (`interlock.json`, written by `interlock use`) before each call, and names its project on it. A tool
//! that wraps this crate does the same at each invocation:
//!
//! ```no_run
//! # use interlock_client::{Connection, Credentials, Gateway, ProjectFile};
//! # fn example(connection: Connection, credentials: Credentials) -> Result<(), Box<dyn std::error::Error>> {
//! let folder = std::env::current_dir()?;
//! let gateway = Gateway::new(connection, credentials).in_folder(&folder);
//! match ProjectFile::discover(&folder)? {
//!     Some(found) => println!("{} by {}", found.file.project_name, found.path.display()),
//!     None => println!("calls from here name no project"),
//! }
//! # drop(gateway);
//! # Ok(())
//! # }
//! ```
//!
//! # Example
//!
//! ```no_run
//! use std::sync::Arc;
//! use interlock_client::{
//!     Auth, Connection, Credentials, Gateway, MemoryStore, StreamFrom, StreamItem, Tls,
//! };
//!
//! # async fn example(password: &str) -> Result<(), interlock_client::Error> {
//! let tls = Tls::ca_file("ca.pem");
//! let auth = Auth::new(Connection::to("https://127.0.0.1:7001").tls(tls.clone()).open()?);
//! let store = Arc::new(MemoryStore::new(auth.login("dev", password).await?));
//! let credentials = Credentials::owner_session(auth, store);
//!
//! let connection = Connection::to("https://127.0.0.1:7002").tls(tls).open()?;
//! let gateway = Gateway::new(connection, credentials);
//! let session = gateway.sessions().create("first").await?.session;
//! match gateway.sessions().attach(&session.session_id, "builder", "prj_demo").await {
//!     Ok(attached) => assert!(attached.changed),
//!     Err(error) if error.is_busy() => eprintln!("busy: {:?}", error.busy()),
//!     Err(error) => return Err(error),
//! }
//! let job = gateway.jobs().submit(&session.session_id, "input").await?;
//! let mut events = gateway.sessions().stream(&session.session_id, StreamFrom::Start);
//! while let Some(item) = events.next().await {
//!     if let StreamItem::Event(event) = item? {
//!         println!("{} {:?}", event.sequence, event.kind);
//!     }
//! }
//! assert!(!gateway.jobs().wait(&job.job_id).await?.state.is_in_flight());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod agent;
mod audit;
mod auth;
mod berths;
mod call;
mod clock;
mod code;
mod config;
mod connect;
mod cookie;
mod credentials;
mod elevation;
mod error;
mod event;
mod events;
mod file;
mod gateway;
mod internal_token;
mod job;
mod member;
mod owner;
mod owner_session;
mod path;
mod project_file;
mod project_token;
mod random;
mod renewal;
mod rest;
mod retry;
mod session;
mod sign_ins;
mod tls;
mod unscoped;
pub mod verifier;
mod worker;

pub use agent::{Agent, Agents, SetAgent};
pub use audit::{AuditFilter, AuditHead, AuditLog, AuditPage, AuditPeer, AuditReport, AuditRow, AuditTail};
pub use auth::{
    Auth, Project, Reached, RoleToken, RoleTokens, Rotated, Rotation, RotationEnded, SignInStatus, SignedIn,
    TokenUse, WhoAmI,
};
pub use clock::Clock;
pub use connect::{Connection, ConnectionBuilder};
pub use cookie::Cookie;
pub use credentials::Credentials;
pub use elevation::{RootStatus, Unlocked};
pub use error::{Busy, BusyJob, BusyKind, Code, Error, FieldViolation, Precondition, Reason};
pub use event::{Binding, Event, EventKind, JobState, LeaveCause, ReleaseCause};
pub use events::{EventStream, StreamFrom, StreamItem};
pub use file::{Download, File, Files, FilesOf, PutFile};
pub use gateway::Gateway;
pub use interlock_proto::credential::{Credential, Kind, Malformed};
pub use job::{Job, Jobs};
pub use member::{ClientRole, JoinTarget, Joined, Left, PostTo, SessionClient};
pub use owner::{Owner, OwnerSet, Owners, SetOwner};
pub use owner_session::{MemoryStore, OwnerSession, SessionStore};
pub use project_file::{FoundProject, PROJECT_FILE, ProjectFile};
pub use project_token::{IssuedToken, ProjectToken, TokenGrant};
pub use session::{Attached, Closed, Created, Session, SessionState, Sessions};
pub use sign_ins::{EndSignIns, SignIn, SignInsOf};
pub use tls::Tls;
pub use worker::{Outcome, ProgressError, Task, Worker};
