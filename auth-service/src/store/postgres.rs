//! The rows in PostgreSQL: a working set of plain maps, loaded row by row. `postgres/ask.rs` says how a row is
//! loaded, `postgres/decode.rs` reads it, `postgres/write.rs` plans the writes.

use std::collections::{BTreeMap, BTreeSet};

use interlock_kit::{
    clock::Timestamp,
    store::{
        model::ModelDomain as _,
        postgres::{Access, Ask, Flush, Out, PostgresDomain, Unmet, bind},
    },
};
use interlock_proto::credential::Hash;

use self::decode::signed;
use super::{
    Auth, Change, Counters, Found, Key, Model, Planned, Rows, Sealed, Signal, Stop, missing::Missing,
};
use crate::{
    accounts::Source,
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, RequestId},
    owner::{Applied, Owner},
    owner_session::{Access as AccessToken, OwnerSession, RefreshToken, SessionPlace},
    project::Project,
    project_token::{ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::Revocation,
    role_token::{Answer, Role, RoleToken, TokenUse},
    root::RootFingerprint,
    sweep::Due,
};

mod ask;
mod decode;
mod write;

/// What programs on one database tell each other: the log has grown; a revocation has reached all verifiers of one.
const LOG: &str = "L";
const REACHED: &str = "R";

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// What a batch has loaded, and what its verbs have planned since.
#[derive(Clone, Debug)]
pub struct Working {
    /// Rows by their keys: a part of all there are.
    model: Model,
    /// The counters as they are stored.
    stored: Counters,
    /// How many projects there are of these owners.
    made_by: BTreeMap<OwnerId, u64>,
    /// How many project tokens there are of these issuers.
    issued_by: BTreeMap<OwnerId, u64>,
    /// Answers to what is asked of many rows. Only queries ask, and their batches change nothing; for what a
    /// sweep may cut from the log an older answer is the safe one.
    lists: BTreeMap<Key, List>,
}

/// An answer that is no row.
#[derive(Clone, Debug)]
enum List {
    Projects(Vec<Project>),
    Tokens(Vec<ProjectToken>),
    Revocations(Vec<Revocation>),
    Due(Vec<Due>),
    Number(u64),
    MaybeNumber(Option<u64>),
    Sessions(Vec<OwnerSessionId>),
    OwnerSessions(Vec<OwnerSession>),
    Owners(Vec<Owner>),
    Salt([u8; 16]),
}

impl Default for Working {
    fn default() -> Self {
        // The project that every plain store begins with is a row like others here.
        let model = Model { projects: BTreeMap::new(), ..Model::default() };
        let (made_by, issued_by) = (BTreeMap::new(), BTreeMap::new());
        Self { model, stored: Counters::default(), made_by, issued_by, lists: BTreeMap::new() }
    }
}

impl PostgresDomain for Auth {
    type Working = Working;

    fn postgres_migrations() -> refinery::Runner {
        embedded::migrations::runner()
    }

    fn ask(keys: &BTreeSet<Key>, access: Access) -> Vec<Ask<Working>> {
        ask::all(keys, access)
    }

    fn place(key: &Key) -> Option<u8> {
        ask::place(key)
    }

    fn working_rows(working: &Working, loaded: &BTreeSet<Key>, work: &mut dyn FnMut(&mut Self::Rows<'_>)) {
        work(&mut Missing { inner: working, loaded });
    }

    fn working_apply(
        working: &mut Working,
        _: &BTreeSet<Key>,
        change: Change,
        now: Timestamp,
        out: &mut Out<'_, Self>,
    ) -> Result<(), Unmet<Self>> {
        if let Planned::InsertProject(project) = &change.0 {
            *working.made_by.entry(project.created_by.clone()).or_default() += 1;
        }
        if let Planned::InsertProjectToken(token) = &change.0 {
            *working.issued_by.entry(token.issuer.clone()).or_default() += 1;
        }
        write::plan(&change.0, out.flush)?;
        Ok(Self::model_apply(&mut working.model, change, now, out.signals)?)
    }

    fn tell(signal: &Signal) -> Option<String> {
        match signal {
            Signal::Revoked(_) => Some(LOG.to_owned()),
            Signal::Reached => Some(REACHED.to_owned()),
            // Its revocation tells of it.
            Signal::RoleTokensChanged(_) => None,
            // It was told by whoever did it.
            Signal::LogGrown => None,
        }
    }

    fn hear(told: &str) -> Option<Signal> {
        match told {
            LOG => Some(Signal::LogGrown),
            REACHED => Some(Signal::Reached),
            _ => None,
        }
    }

    fn finish(working: &Working, flush: &mut Flush) {
        let (from, to) = (working.stored, working.model.counters);
        if from != to {
            let numbers =
                [from.issuance, from.revocation, from.pruned, to.issuance, to.revocation, to.pruned];
            flush.one(
                "counters",
                "UPDATE counter SET issuance = $4, revocation = $5, pruned = $6
                 WHERE issuance = $1 AND revocation = $2 AND pruned = $3",
                numbers.map(|number| bind(signed(number))),
            );
        }
    }
}

impl Working {
    fn list<T>(&self, key: Key, of: impl FnOnce(&List) -> Option<T>) -> Found<T> {
        let found = self.lists.get(&key).and_then(of);
        found.ok_or_else(|| Stop::Miss(vec![key]))
    }

    fn number(&self, key: Key) -> Found<u64> {
        self.list(key, |list| if let List::Number(number) = list { Some(*number) } else { None })
    }
}

impl Sealed for Working {}

impl Rows for Working {
    fn counters(&self) -> Found<Counters> {
        self.model.counters()
    }

    fn role_tokens(&self, role: Role) -> Found<Vec<RoleToken>> {
        self.model.role_tokens(role)
    }

    fn role_token(&self, hash: &Hash) -> Found<Option<RoleToken>> {
        self.model.role_token(hash)
    }

    fn role_token_uses(&self, role: Role) -> Found<Vec<TokenUse>> {
        self.model.role_token_uses(role)
    }

    fn answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Answer>> {
        self.model.answer(owner, request)
    }

    fn owner(&self, id: &OwnerId) -> Found<Option<Owner>> {
        self.model.owner(id)
    }

    fn any_active_owner(&self) -> Found<bool> {
        Ok(self.number(Key::AnyActiveOwner)? > 0)
    }

    fn owners(&self, after: Option<&OwnerId>, limit: u32) -> Found<Vec<Owner>> {
        let key = Key::Owners(after.cloned(), limit);
        self.list(key, |list| if let List::Owners(all) = list { Some(all.clone()) } else { None })
    }

    fn owners_stored(&self) -> Found<u64> {
        self.number(Key::OwnersStored)
    }

    fn another_administrator(&self, but: &OwnerId) -> Found<bool> {
        // All administrators are loaded and locked, and changed by the verbs of this batch like other owners.
        self.model.another_administrator(but)
    }

    fn applied(&self, source: Source, owner: &OwnerId) -> Found<Option<Applied>> {
        self.model.applied(source, owner)
    }

    fn owner_session(&self, id: &OwnerSessionId) -> Found<Option<OwnerSession>> {
        self.model.owner_session(id)
    }

    fn living_sessions(&self, owner: &OwnerId, from: u64, now: Timestamp) -> Found<u64> {
        self.model.living_sessions(owner, from, now)
    }

    fn owner_sessions(
        &self,
        owner: Option<&OwnerId>,
        after: &SessionPlace,
        now: Timestamp,
        limit: u32,
    ) -> Found<Vec<OwnerSession>> {
        let key = Key::OwnerSessions(owner.cloned(), after.clone(), now, limit);
        self.list(key, |list| if let List::OwnerSessions(all) = list { Some(all.clone()) } else { None })
    }

    fn first_session_since(&self, owner: Option<&OwnerId>, at: Timestamp) -> Found<Option<u64>> {
        let key = Key::FirstSessionSince(owner.cloned(), at);
        let stored =
            self.list(key, |list| if let List::MaybeNumber(number) = list { Some(*number) } else { None })?;
        // One that began in this batch is not stored yet; a stored one has a smaller number.
        Ok(stored.or(self.model.first_session_since(owner, at)?))
    }

    fn elevated_but_for(&self, root: Option<RootFingerprint>, limit: u32) -> Found<Vec<OwnerSessionId>> {
        let key = Key::ElevatedButFor(root, limit);
        self.list(key, |list| if let List::Sessions(all) = list { Some(all.clone()) } else { None })
    }

    fn root_salt(&self) -> Found<[u8; 16]> {
        self.list(Key::RootSalt, |list| if let List::Salt(salt) = list { Some(*salt) } else { None })
    }

    fn access(&self, hash: &Hash) -> Found<Option<AccessToken>> {
        self.model.access(hash)
    }

    fn refresh_token(&self, hash: &Hash) -> Found<Option<RefreshToken>> {
        self.model.refresh_token(hash)
    }

    fn project(&self, id: &ProjectId) -> Found<Option<Project>> {
        self.model.project(id)
    }

    fn project_named(&self, name: &ProjectName) -> Found<Option<Project>> {
        self.model.project_named(name)
    }

    fn project_of_request(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Project>> {
        self.model.project_of_request(owner, request)
    }

    fn projects_made_by(&self, owner: &OwnerId) -> Found<u64> {
        Ok(self.made_by.get(owner).copied().unwrap_or(0))
    }

    fn member_since(&self, project: &ProjectId, owner: &OwnerId) -> Found<Option<u64>> {
        self.model.member_since(project, owner)
    }

    fn project_token(&self, hash: &Hash) -> Found<Option<ProjectToken>> {
        self.model.project_token(hash)
    }

    fn project_token_named(&self, id: &CredentialId) -> Found<Option<ProjectToken>> {
        self.model.project_token_named(id)
    }

    fn tokens_issued_by(&self, issuer: &OwnerId) -> Found<u64> {
        Ok(self.issued_by.get(issuer).copied().unwrap_or(0))
    }

    fn project_tokens(&self, project: &ProjectId, after: u64, limit: u32) -> Found<Vec<ProjectToken>> {
        let key = Key::ProjectTokens(project.clone(), after, limit);
        self.list(key, |list| if let List::Tokens(all) = list { Some(all.clone()) } else { None })
    }

    fn token_answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<TokenAnswer>> {
        self.model.token_answer(owner, request)
    }

    fn projects(&self, member: Option<&OwnerId>, after: Option<&str>, limit: u32) -> Found<Vec<Project>> {
        let key = Key::Projects(member.cloned(), after.map(str::to_owned), limit);
        self.list(key, |list| if let List::Projects(all) = list { Some(all.clone()) } else { None })
    }

    fn revocations(&self, after: u64, limit: u32) -> Found<Vec<Revocation>> {
        let key = Key::Revocations(after, limit);
        self.list(key, |list| if let List::Revocations(all) = list { Some(all.clone()) } else { None })
    }

    fn revocations_before(&self, at: Timestamp) -> Found<u64> {
        // What was old at an earlier instant is so at this one, and an older answer cuts less.
        let earlier = self.lists.range(Key::before_all()..=Key::RevocationsBefore(at)).next_back();
        self.number(earlier.map_or(Key::RevocationsBefore(at), |(key, _)| key.clone()))
    }

    fn replicas(&self) -> Found<Vec<Replica>> {
        self.model.replicas()
    }

    fn due(&self, now: Timestamp, limit: u32) -> Found<Vec<Due>> {
        let key = Key::Due(now, limit);
        self.list(key, |list| if let List::Due(all) = list { Some(all.clone()) } else { None })
    }
}
