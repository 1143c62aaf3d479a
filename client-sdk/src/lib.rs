//! placeholder
#![forbid(unsafe_code)]
mod agent; mod auth; mod call; mod clock; mod code; mod connect; mod cookie; mod credentials; mod error; mod event; mod gateway; mod internal_token; mod job; mod owner_session; mod path; mod random; mod retry; mod session; mod tls; pub mod verifier; mod events;
pub use events::*;
