//! Who is calling and what they may do.

pub mod accounts;
pub mod caller;
pub mod ids;
pub mod limits;
pub mod owner;
pub mod owner_session;
pub mod password;
pub mod policy;
pub mod project;
pub mod revocation;
pub mod role_token;
pub mod store;
pub mod sweep;
pub mod trust;
