//! The bounded queue before the hasher threads.

use std::collections::VecDeque;

use argon2::Block;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{Params, Priority, Verified, stored};
use crate::error::Error;

/// One password to hash or to verify.
pub(super) struct Task {
    pub(super) password: Zeroizing<Vec<u8>>,
    pub(super) work: Work,
}

pub(super) enum Work {
    Hash { salt: [u8; 16], reply: oneshot::Sender<Result<String, Error>> },
    Verify { stored: String, reply: oneshot::Sender<Result<Verified, Error>> },
}

pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    bound: usize,
}

struct State {
    waiting: VecDeque<Task>,
    closed: bool,
}

/// The queue has no room for this task.
pub(super) struct Full;

impl Queue {
    pub(super) fn new(bound: usize) -> Self {
        let state = State { waiting: VecDeque::with_capacity(bound), closed: false };
        Self { state: Mutex::new(state), arrived: Condvar::new(), bound }
    }

    pub(super) fn push(&self, task: Task, priority: Priority) -> Result<(), Full> {
        let room = match priority {
            Priority::Known => self.bound,
            Priority::Unknown => self.bound - self.bound / 4,
        };
        let mut state = self.state.lock();
        if state.waiting.len() >= room {
            // Those who gave up waiting take no room.
            state.waiting.retain(|task| !task.is_abandoned());
        }
        if state.waiting.len() >= room {
            return Err(Full);
        }
        state.waiting.push_back(task);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next task that someone still waits for; `None` once closed.
    pub(super) fn pop(&self) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            match state.waiting.pop_front() {
                Some(task) if task.is_abandoned() => {}
                Some(task) => return Some(task),
                None => self.arrived.wait(&mut state),
            }
        }
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }
}

impl Task {
    pub(super) fn run(self, params: Params, memory: &mut [Block]) {
        // A caller that is gone by now wants no answer.
        match self.work {
            Work::Hash { salt, reply } => {
                let _ = reply.send(stored::hash(params, &self.password, &salt, memory));
            }
            Work::Verify { stored, reply } => {
                let _ = reply.send(stored::verify(params, &self.password, &stored, memory));
            }
        }
    }

    fn is_abandoned(&self) -> bool {
        match &self.work {
            Work::Hash { reply, .. } => reply.is_closed(),
            Work::Verify { reply, .. } => reply.is_closed(),
        }
    }
}
