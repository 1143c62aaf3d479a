//! What is stored: sessions, jobs; and what rules ask of it.

/// DESIGN section 8: a lease lives for so many steps of the store's clock, unless renewed.
pub(crate) const LEASE: u8 = 1;
/// So many lost leases, and the job fails (`max_attempts`).
pub(crate) const ATTEMPTS_MAX: u8 = 2;

pub(crate) const SESSIONS: u8 = 2;
pub(crate) const AGENTS: u8 = 2;
pub(crate) const PROJECTS: u8 = 2;

/// Everything that a commit makes durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rows {
    /// Session `n` is owner `n`'s.
    pub(crate) sessions: [Session; SESSIONS as usize],
    /// In the order of their making.
    pub(crate) jobs: Vec<Job>,
    /// What a flawed guard stores beside the jobs.
    pub(crate) busy: [u8; AGENTS as usize],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) phase: Phase,
    pub(crate) binding: Option<Binding>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    #[default]
    Open,
    Closing,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Binding {
    pub(crate) agent: u8,
    pub(crate) project: u8,
    pub(crate) epoch: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    pub(crate) session: u8,
    pub(crate) request: u8,
    /// As it was when the job was queued.
    pub(crate) binding: Binding,
    pub(crate) state: State,
    /// Grows with each lease.
    pub(crate) fencing: u8,
    /// Leases that ran out.
    pub(crate) lost: u8,
    pub(crate) cancel_requested: bool,
    /// Not stored by the product: how often it came to an end.
    pub(crate) endings: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Queued,
    /// Under a lease that lives for so many steps more.
    Running {
        left: u8,
    },
    Succeeded,
    Failed,
    Cancelled,
}

impl Job {
    pub(crate) fn in_flight(&self) -> bool {
        matches!(self.state, State::Queued | State::Running { .. })
    }

    pub(crate) fn end(&mut self, state: State) {
        self.state = state;
        self.endings += 1;
    }
}

impl Rows {
    /// I4: busy is asked of the jobs.
    pub(crate) fn in_flight_of(&self, agent: u8) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(move |job| job.in_flight() && job.binding.agent == agent)
    }

    pub(crate) fn in_flight_in(&self, session: u8) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(move |job| job.in_flight() && job.session == session)
    }

    /// A session that is closing is gone when its last job has ended.
    pub(crate) fn settle(&mut self) {
        for session in 0..SESSIONS {
            let idle = self.in_flight_in(session).next().is_none();
            let row = &mut self.sessions[usize::from(session)];
            if row.phase == Phase::Closing && idle {
                row.phase = Phase::Gone;
            }
        }
    }
}

/// Agent 0 is shared by an administrator, agent 1 is the first owner's.
pub(crate) fn may_use(owner: u8, agent: u8) -> bool {
    agent == 0 || owner == 0
}
