//! Who may do what, as a table that is reviewed like code: `tests/policy.snap`. Where it differs, the
//! table as it would be is printed.

use std::fmt::Write as _;

use interlock_gateway::{
    agent::Agent,
    caller::{Caller, Principal, ServiceWorker},
    client::{Client, ClientRole},
    ids::{AgentId, ClientId, OwnerId, ProjectId, SessionId},
    job::{Job, Phase},
    policy::{Act, Ask, decide},
    session::{self, Session},
};
use interlock_kit::clock::Timestamp;

use crate::world::{admin, cookie, hash, owner, root, token, user};

const NOW: Timestamp = Timestamp::from_micros(1);

// Who shows no credential makes sessions of `local`, and a service that works as itself none at all (NC-01, DESIGN 14.7).
#[test]
fn without_a_credential_a_session_is_made_and_for_nobody_but_local() {
    let id = crate::world::session_id(1);
    let asked = |caller: &Caller, whose: &OwnerId| answer(caller, &Ask::Create { id: &id, owner: whose });
    let (local, ann) = (OwnerId::local(), OwnerId::parse("ann").unwrap());
    assert_eq!(
        (asked(&nobody(), &local), asked(&nobody(), &ann)),
        ("yes".to_owned(), "FORBIDDEN".to_owned())
    );
    let runner = OwnerId::parse("runner").unwrap();
    assert_eq!(asked(&service(&["hers"]), &runner), "FORBIDDEN");
    // A lease is whose it is, and of an agent that the service is listed for.
    let mut held = job(&session());
    (held.holder, held.fencing) = (Some(runner), 1);
    let lease = |caller: &Caller| {
        let (id, job) = (&held.id, Some(&held));
        [Ask::Lease { id, job, fencing: 1 }, Ask::JobFiles { id, job, fencing: 1 }]
            .map(|ask| answer(caller, &ask))
    };
    assert_eq!(lease(&service(&["hers"])), ["yes", "yes"]);
    for other in [service(&["shared"]), nobody(), owner("ann"), admin()] {
        assert_eq!(lease(&other).map(|said| said == "yes"), [false; 2], "{other:?}");
    }
}

// SW-06, UA-03, DESIGN 14.1, 14.4
#[test]
fn the_policy_is_as_reviewed() {
    let table = format!("{}\n{}", sessions(), agents());
    let reviewed = include_str!("../policy.snap");
    assert!(table == reviewed, "tests/policy.snap would be:\n{table}");
}

type As = (&'static str, Caller, Option<Client>);

fn callers() -> Vec<As> {
    let mut callers: Vec<As> = vec![
        ("admin token", admin(), None),
        ("user token", user(), None),
        ("the owner", owner("ann"), None),
        ("another owner", owner("bob"), None),
        ("session-root", root("rosa", false), None),
        ("root, elevated", root("rosa", true), None),
        ("user, elevated", elevated("eve"), None),
        ("owner's token", token("ann", "p"), None),
        ("other's token", token("bob", "p"), None),
        ("bare token", bare(token("ann", "p")), None),
    ];
    for (name, role) in
        [("host", ClientRole::Host), ("operator", ClientRole::Operator), ("observer", ClientRole::Observer)]
    {
        let session = session();
        callers.push((name, cookie(&session.id, 1), Some(client(&session.id, role))));
    }
    let elsewhere = crate::world::session_id(2);
    callers.push(("nobody", nobody(), None));
    callers.push(("a service", service(&["hers", "shared", "primary", "unknown"]), None));
    callers.push(("unlisted there", service(&["none-of-these"]), None));
    callers.push(("host elsewhere", cookie(&elsewhere, 1), Some(client(&elsewhere, ClientRole::Host))));
    callers
}

/// An owner of the role `user` who has unlocked root: what that opens are the built-in agents.
fn elevated(name: &str) -> Caller {
    let mut caller = owner(name);
    if let Principal::Owner(session) = &mut caller.principal {
        session.elevated_until = Some(Timestamp::from_micros(i64::MAX));
    }
    caller
}

/// No credential, where such are let in.
fn nobody() -> Caller {
    Caller { principal: Principal::Anonymous, ..owner("ann") }
}

/// A service that works jobs of these agents as itself.
fn service(agents: &[&str]) -> Caller {
    let agents = agents.iter().map(|id| AgentId::parse(*id).unwrap()).collect();
    let worker = ServiceWorker { id: OwnerId::parse("runner").unwrap(), agents };
    Caller { principal: Principal::Service(worker), ..owner("ann") }
}

/// The same token with no scope.
fn bare(mut caller: Caller) -> Caller {
    if let Principal::Project(token) = &mut caller.principal {
        token.scopes.clear();
    }
    caller
}

fn sessions() -> String {
    let session = session();
    let mut table =
        line("session", Act::ALL.iter().map(|act| format!("{act:?}")).chain(["CancelOther".to_owned()]));
    for (name, caller, client) in callers() {
        let asked = Act::ALL.iter().map(|&act| {
            let ask = Ask::Session { act, id: &session.id, session: Some(&session), client: client.as_ref() };
            answer(&caller, &ask)
        });
        let others = Ask::CancelJob { session: &session, client: client.as_ref(), job: &job(&session) };
        table.push_str(&line(name, asked.chain([answer(&caller, &others)])));
    }
    table
}

fn agents() -> String {
    let agent = |id: &str, owner: Option<&str>, shared| Agent {
        id: AgentId::parse(id).unwrap(),
        owner: owner.map(|owner| OwnerId::parse(owner).unwrap()),
        shared,
        description: String::new(),
        created_at: NOW,
    };
    let agents = [
        ("hers", Some(agent("hers", Some("ann"), false))),
        ("shared", Some(agent("shared", Some("admin"), true))),
        ("primary", Some(agent("primary", None, false))),
        ("unknown", None),
    ];
    let (p, system) = (ProjectId::parse("p").unwrap(), ProjectId::system());
    let mut table = String::new();
    for (id, agent) in &agents {
        let id = AgentId::parse(*id).unwrap();
        let heads = ["See", "Bind in p", "Bind in system", "Set", "Share", "Remove", "Serve"];
        table.push_str(&line(&format!("agent {id}"), heads.map(str::to_owned)));
        for (name, caller, _) in callers() {
            let acting = caller.owner().unwrap_or_else(|| OwnerId::parse("ann").unwrap());
            let (id, agent, acting) = (&id, agent.as_ref(), &acting);
            let asks = [
                Ask::SeeAgent { id, agent },
                Ask::Bind { id, agent, project: &p, acting },
                Ask::Bind { id, agent, project: &system, acting },
                Ask::SetAgent { id, agent, share: false },
                Ask::SetAgent { id, agent, share: true },
                Ask::RemoveAgent { id, agent },
                Ask::Serve { id, agent },
            ];
            table.push_str(&line(name, asks.iter().map(|ask| answer(&caller, ask))));
        }
        table.push('\n');
    }
    table.trim_end().to_owned() + "\n"
}

fn answer(caller: &Caller, ask: &Ask<'_>) -> String {
    match decide(caller, NOW, ask) {
        Ok(_) => "yes".to_owned(),
        Err(refusal) => refusal.reason.to_string(),
    }
}

fn line(name: &str, cells: impl IntoIterator<Item = String>) -> String {
    let mut line = format!("{name:<15}");
    for cell in cells {
        write!(line, " {cell:<14}").unwrap();
    }
    line.trim_end().to_owned() + "\n"
}

fn session() -> Session {
    Session {
        id: crate::world::session_id(1),
        owner: OwnerId::parse("ann").unwrap(),
        name: None,
        binding: None,
        phase: session::Phase::Open,
        created_at: NOW,
        ended_at: None,
    }
}

fn client(session: &SessionId, role: ClientRole) -> Client {
    let id = ClientId::parse("clt_1").unwrap();
    Client { id, session: session.clone(), role, hash: hash(1), cursor: 0, created_at: NOW, seen_at: NOW }
}

/// A job that another client submitted.
fn job(session: &Session) -> Job {
    Job {
        id: interlock_gateway::ids::JobId::parse("job_1").unwrap(),
        session: session.id.clone(),
        owner: session.owner.clone(),
        client: Some(ClientId::parse("clt_2").unwrap()),
        binding: interlock_gateway::binding::Binding {
            agent: AgentId::parse("hers").unwrap(),
            project: ProjectId::parse("p").unwrap(),
            epoch: 1,
        },
        phase: Phase::Queued,
        attempt: 0,
        lost: 0,
        fencing: 0,
        holder: None,
        submitted_at: NOW,
        first_started_at: None,
        started_at: None,
        cancel_requested_at: None,
    }
}
