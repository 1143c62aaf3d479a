//! What any server of ours needs, and no domain noun.
//!
//! | module | what |
//! |---|---|
//! | [`error`] | reasons, and the one map to statuses |
//! | [`field`] | values of requests that more than one service reads |
//! | [`clock`], [`random`] | where instants and randomness come from |
//! | [`command`] | what the command lines of our servers share |
//! | [`config`] | file under environment under flags; all mistakes together |
//! | [`secret_file`], [`internal_token`], [`reload`], [`ready_file`] | files: secrets, what changes at run time, readiness |
//! | [`process`] | no core dumps: what is in memory stays there |
//! | [`pki`], [`spiffe`] | development certificates, and who a certificate is for |
//! | [`hasher`], [`seal`] | passwords; sealing of answers that hold a secret |
//! | [`telemetry`], [`health_state`], [`probes`] | logs, metrics, request ids; readiness and its HTTP listener |
//! | [`tls`], [`own_certificate`], [`serve`] | listeners: TLS that reloads, the accept loop, bounds of connections and calls |
//! | [`authn`], [`denials`] | gate 1: who may call a method at all; refusals counted |
//! | [`audit_log`] | `AuditService`, the one that all our servers serve alike |
//! | [`audit_heads`], [`audit_retention`] | what each service remembers of the other's log; what goes of its own |
//! | [`unscoped`] | what calls get that name no project |
//! | [`health`], [`reflection`] | the two services that are not ours |
//! | [`store`] | queue, writer, batches, engines, audit chain: generic over a service's [`store::Domain`] |

pub mod audit_heads;
pub mod audit_log;
pub mod audit_retention;
pub mod authn;
pub mod clock;
pub mod command;
pub mod config;
pub mod denials;
pub mod error;
pub mod field;
pub mod hasher;
pub mod health;
pub mod health_state;
pub mod home;
pub mod internal_token;
pub mod own_certificate;
pub mod pki;
pub mod probes;
pub mod process;
pub mod random;
pub mod ready_file;
pub mod reflection;
pub mod reload;
pub mod seal;
pub mod secret_file;
pub mod serve;
pub mod spiffe;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod unscoped;
