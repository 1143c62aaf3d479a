//! What a session is bound to and what is running.

pub mod agent;
pub mod binding;
pub mod caller;
pub mod client;
pub mod event;
pub mod ids;
pub mod job;
pub mod lease;
pub mod limits;
pub mod policy;
pub mod request;
pub mod session;
pub mod store;
pub mod sweep;
pub mod worker;
