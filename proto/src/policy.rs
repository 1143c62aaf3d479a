//! The policy of every RPC, and gate 1: who may call an RPC at all.
//!
//! Policies stand in the .proto as method options (`interlock.options.v1.Policy`); this module reads
//! them back from the descriptor set. Health and reflection are not ours to annotate: their policies
//! stand in a table of their own here. A method that is in neither place has no policy, and no server serves it.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_reflect::DescriptorPool;

use crate::{
    DESCRIPTORS,
    errors::v1::Reason,
    options::v1::{Caller, Elevation, Listener, Policy, Role},
};

/// The policy of one method.
#[derive(Clone, Debug)]
pub struct MethodPolicy {
    /// Its place in [`Policies::iter`]: for tables of what there is one of for each method.
    pub number: usize,
    /// `/package.Service/Method`.
    pub path: String,
    /// Where it is served.
    pub listeners: Vec<Listener>,
    /// Which kinds of caller gate 1 lets through.
    pub who: Vec<Caller>,
    /// The least role; `Unspecified` where anyone or only services may call.
    pub role: Role,
    /// The condition of root elevation.
    pub elevation: Elevation,
    /// The scopes of which a project token must hold one.
    pub scopes: Vec<String>,
    /// Own deadlines and bounds.
    pub parks: bool,
    /// May be repeated after a lost answer.
    pub idempotent: bool,
    /// Changes nothing but audit rows.
    pub reads: bool,
    /// The action's name in audit rows.
    pub audit: String,
    /// Whether the client sends a stream.
    pub client_streaming: bool,
    /// Whether the server answers with a stream.
    pub server_streaming: bool,
}

/// What gate 1 knows of a caller.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The kind of credential.
    pub caller: Caller,
    /// Whether it acts as an administrator.
    pub administrator: bool,
    /// The scopes of a project token.
    pub scopes: &'a [String],
}

impl MethodPolicy {
    /// Whether the method is served on `listener`.
    #[must_use]
    pub fn served_on(&self, listener: Listener) -> bool {
        self.listeners.contains(&listener)
    }

    /// Whether anyone may call it, with or without a credential.
    #[must_use]
    pub fn public(&self) -> bool {
        self.who.contains(&Caller::Anyone)
    }

    /// Gate 1 for a known caller.
    ///
    /// # Errors
    /// The reason of the refusal: a kind of credential that the method does not take, too low a
    /// role, or a project token without the scope.
    pub fn admit(&self, presented: Presented<'_>) -> Result<(), Reason> {
        if self.public() {
            return Ok(());
        }
        if !self.who.contains(&presented.caller) {
            let wants_login = self.who == [Caller::OwnerSession];
            return Err(if wants_login { Reason::LoginRequired } else { Reason::Forbidden });
        }
        if self.role == Role::Admin && !presented.administrator {
            return Err(Reason::Forbidden);
        }
        if presented.caller == Caller::ProjectToken
            && !self.scopes.iter().any(|scope| presented.scopes.contains(scope))
        {
            return Err(Reason::ScopeRequired);
        }
        Ok(())
    }
}

/// Services that are not ours: method paths, and who may call them.
const FOREIGN: &[(&str, Caller, &str, bool)] = &[
    ("/grpc.health.v1.Health/Check", Caller::Anyone, "health.check", false),
    ("/grpc.health.v1.Health/List", Caller::Anyone, "health.list", false),
    ("/grpc.health.v1.Health/Watch", Caller::Anyone, "health.watch", true),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Caller::RoleToken, "reflection.v1", true),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Caller::RoleToken,
        "reflection.v1alpha",
        true,
    ),
];

/// The policies of all methods, by path.
#[derive(Debug)]
pub struct Policies {
    /// Ordered by path.
    all: Vec<MethodPolicy>,
    by_path: HashMap<String, usize>,
}

static ALL: LazyLock<Policies> = LazyLock::new(Policies::load);
static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build made and read this set"));

/// The descriptors of all our services.
#[must_use]
pub fn descriptors() -> &'static DescriptorPool {
    &POOL
}

impl Policies {
    /// All of them, read once.
    #[must_use]
    pub fn all() -> &'static Self {
        &ALL
    }

    /// The policy of the method at `path` (`/package.Service/Method`); `None`: refuse.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<&MethodPolicy> {
        self.by_path.get(path).map(|number| &self.all[*number])
    }

    /// Every policy, ordered by path.
    pub fn iter(&self) -> impl Iterator<Item = &MethodPolicy> {
        self.all.iter()
    }

    fn load() -> Self {
        let extension = POOL
            .get_extension_by_name("interlock.options.v1.policy")
            .expect("the build checked that the option is defined");
        let ours = POOL.services().flat_map(|s| s.methods().collect::<Vec<_>>()).map(|method| {
            let options = method.options();
            let value = options.get_extension(&extension);
            let message = value.as_message().expect("the build checked every policy");
            let policy =
                Policy::decode(message.encode_to_vec().as_slice()).expect("written by the same schema");
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            MethodPolicy {
                number: 0,
                path,
                listeners: policy.listeners().collect(),
                who: policy.who().collect(),
                role: policy.role(),
                elevation: policy.elevation(),
                scopes: policy.scopes.clone(),
                parks: policy.parks,
                idempotent: policy.idempotent,
                reads: policy.reads,
                audit: policy.audit.clone(),
                client_streaming: method.is_client_streaming(),
                server_streaming: method.is_server_streaming(),
            }
        });
        let mut all: Vec<MethodPolicy> = ours.chain(foreign()).collect();
        all.sort_by(|one, other| one.path.cmp(&other.path));
        for (number, policy) in all.iter_mut().enumerate() {
            policy.number = number;
        }
        let by_path = all.iter().map(|policy| (policy.path.clone(), policy.number)).collect();
        Self { all, by_path }
    }
}

fn foreign() -> impl Iterator<Item = MethodPolicy> {
    FOREIGN.iter().map(|&(path, who, audit, streams)| {
        let public = who == Caller::Anyone;
        let mut listeners = vec![Listener::Public, Listener::Internal];
        if public {
            listeners.push(Listener::Health);
        }
        MethodPolicy {
            number: 0,
            path: path.to_owned(),
            listeners,
            who: if public { vec![who] } else { vec![who, Caller::OwnerSession] },
            role: if public { Role::Unspecified } else { Role::User },
            elevation: Elevation::Unspecified,
            scopes: Vec::new(),
            parks: streams,
            idempotent: true,
            reads: true,
            audit: audit.to_owned(),
            client_streaming: streams && !public,
            server_streaming: streams,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(caller: Caller, administrator: bool, scopes: &[String]) -> Presented<'_> {
        Presented { caller, administrator, scopes }
    }

    #[test]
    fn gate_one_denies_what_is_not_listed() {
        let rotate = Policies::all().of("/interlock.auth.v1.RoleTokenService/Rotate").expect("ours");
        assert_eq!(rotate.admit(presented(Caller::RoleToken, true, &[])), Ok(()));
        assert_eq!(rotate.admit(presented(Caller::RoleToken, false, &[])), Err(Reason::Forbidden));
        assert_eq!(rotate.admit(presented(Caller::Client, true, &[])), Err(Reason::Forbidden));
    }

    #[test]
    fn a_project_token_needs_the_methods_own_scope() {
        let submit = Policies::all().of("/interlock.gateway.v1.JobService/SubmitJob").expect("ours");
        let scopes = ["jobs:read".to_owned()];
        assert_eq!(submit.admit(presented(Caller::ProjectToken, false, &scopes)), Err(Reason::ScopeRequired));
        let scopes = ["jobs:submit".to_owned()];
        assert_eq!(submit.admit(presented(Caller::ProjectToken, false, &scopes)), Ok(()));
    }

    #[test]
    fn an_unknown_path_has_no_policy() {
        assert!(Policies::all().of("/interlock.auth.v1.RoleTokenService/rotate").is_none());
        assert!(Policies::all().of("").is_none());
    }
}
