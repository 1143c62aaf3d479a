//! What a session is bound to and what is running.
//!
//! | file | what |
//! |---|---|
//! | [`config`], [`limits`] | what it is told at its start; every number, with its bounds |
//! | `server`, `listeners` | [`run`]: store, auth's lease, sockets, drain |
//! | `command` | [`main_with`]: the command line |
//! | `admit`, `on_behalf`, `service_workers`, `anonymous` | gate 1: bearer → verdict, cookie → client; which service names which owner, which works as itself; callers with no credential |
//! | [`policy`] | who may do what to which resource; pure |
//! | [`session`], [`adopt`], [`binding`], [`client`], [`password`], [`join`], [`message`], [`ending`], [`event`], [`file`](mod@file), [`waiter`], [`job`], [`lease`], [`worker`], [`agent`] | one noun each: type, states, verbs |
//! | [`request`], [`ids`], [`caller`], [`data`] | what a call carries |
//! | [`sweep`], `sweeper` | what ends by time, and the loop that ends it |
//! | [`store`] | the door to the rows, and the engines behind it |
//! | [`heads`] | what each service remembers of the other's audit log |
//! | [`hub`] | who is woken after a commit |
//! | [`standing`], `streams`, `outlet` | what a stream stands on; which are open; how messages leave |
//! | `stream`, `work`, `waits`, `attaching` | StreamEvents, Work, WaitJob, an attach that waits |
//! | `vault`, `transfer` | where the contents of files are; how they come and go |
//! | `grpc` | wire → domain → wire, one file a noun |
//! | `joining`, `guesses`, `presence` | passwords and joining outside of transactions; how often one may guess; who was seen |
//! | `following` | sees to the ends that auth tells of, before they are acknowledged |
//! | `readiness` | whether it can do its work |

pub mod adopt;
pub mod agent;
pub mod binding;
pub mod caller;
pub mod client;
pub mod config;
pub mod data;
pub mod ending;
pub mod event;
pub mod file;
pub mod heads;
pub mod hub;
pub mod ids;
pub mod job;
pub mod join;
pub mod lease;
pub mod limits;
pub mod message;
pub mod password;
pub mod policy;
pub mod request;
pub mod session;
pub mod standing;
pub mod store;
pub mod sweep;
pub mod waiter;
pub mod worker;

mod admit;
mod anonymous;
mod attaching;
mod command;
mod following;
mod grpc;
mod guesses;
mod joining;
mod listeners;
mod on_behalf;
mod outlet;
mod page;
mod presence;
mod readiness;
mod server;
mod service_workers;
mod stream;
mod streams;
mod sweeper;
mod transfer;
mod vault;
mod waits;
mod work;

pub use command::main_with;
pub use config::Config;
pub use listeners::Listeners;
pub use server::{RunError, run};
