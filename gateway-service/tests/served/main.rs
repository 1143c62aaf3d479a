//! The gateway as its callers meet it: real sockets, TLS, generated clients; auth is a fake.

#[path = "../support/mod.rs"]
mod support;

mod endings;
mod files;
mod members;
mod on_behalf;
mod sdk;
mod services;
mod sessions;
mod streams;
mod waiting;
mod workers;
