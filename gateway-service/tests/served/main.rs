//! The gateway as its callers meet it: real sockets, TLS, generated clients; auth is a fake.

#[path = "../support/mod.rs"]
mod support;

mod anonymous;
mod endings;
mod files;
mod members;
mod on_behalf;
mod reconnects;
mod sdk;
mod service_workers;
mod services;
mod sessions;
mod streams;
mod waiting;
mod workers;
