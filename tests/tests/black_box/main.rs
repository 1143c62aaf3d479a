//! The real programs, from sign-in to shutdown.
//!
//! - `sign_in`: sign-in to job done through the SDK, cookies, who is refused and how;
//! - `attach`: the cases of the attach guard over the wire;
//! - `audit_log`: the audit service and the command line on top of it;
//! - `audit_rows`: each denial of a known principal and each state change has exactly one;
//! - `elevation`: root unlock, what it opens at the gateway, and every way it ends;
//! - `doors`: `interlock verify` and `interlock audit endpoints`;
//! - `endings`: what an owner's end reaches: cookies, and calls by name;
//! - `followed`: a log that the command line follows;
//! - `hostile`: guessing;
//! - `worker`: leases, fencing, and workers and gateways that die;
//! - `owners`: owners added, changed, imported and removed while both run;
//! - `operate`: drain, configuration mistakes, two programs on one store, health, probes, restarts;
//! - `renewed`: streams, workers and jobs that outlive an access token;
//! - `rotation`: role tokens in two phases, and who still uses the old one;
//! - `reload`: certificates and authorities replaced under running services.

mod attach;
mod audit_log;
mod audit_rows;
mod doors;
mod elevation;
mod endings;
mod followed;
mod hostile;
mod operate;
mod owners;
mod reload;
mod renewed;
mod rotation;
mod sign_in;
mod worker;
