//! The loop itself: one task that owns all slots and the link; handlers talk to it over a bounded
//! channel.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use interlock_proto::gateway::v1::{
    self as wire, WorkRequest, work_request,
    work_response::{self, Message},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{self, AbortHandle, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Worker,
    link::{Link, News, Up, hello},
    slot::{Held, Slot},
    task::{Command, Outcome, Signals, Task, UNSTORED_MAX},
};
use crate::{
    clock::{from_wire, span},
    error::Error,
    renewal::Renewal,
    retry::Patience,
};

/// How finely leases are counted.
const TICK: Duration = Duration::from_millis(100);
/// How long a handler may take to stop after its lease was lost.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long outcomes may take to be acknowledged, and a goodbye to be heard, at shutdown.
const PART_WITHIN: Duration = Duration::from_secs(2);
/// Before the gateway has said how long a lease is.
const LEASE_GUESS: Duration = Duration::from_secs(10);
const BEATS_MAX: usize = 16;
const COMMANDS: usize = 256;

pub(super) struct Engine<H> {
    worker: Worker,
    handler: H,
    slots: BTreeMap<(String, u64), Slot>,
    lease: Duration,
    handlers: JoinSet<()>,
    running: HashMap<task::Id, Held>,
    /// Handlers whose lease was lost, and until when they may stop by themselves.
    stopping: Vec<(Instant, AbortHandle)>,
    commands: mpsc::Receiver<Command>,
    commander: mpsc::Sender<Command>,
    patience: Patience,
    /// Until when running jobs may go on; `None` before the shutdown.
    drain_until: Option<Instant>,
}

fn key(held: &Held) -> (String, u64) {
    (held.job_id.clone(), held.fencing_token)
}

fn held_of((job_id, fencing_token): &(String, u64)) -> Held {
    Held { job_id: job_id.clone(), fencing_token: *fencing_token }
}

impl<H, F> Engine<H>
where
    H: Fn(Task) -> F + Send,
    F: Future<Output = Outcome> + Send + 'static,
{
    pub(super) fn new(worker: Worker, handler: H) -> Self {
        let (commander, commands) = mpsc::channel(COMMANDS);
        Self {
            worker,
            handler,
            slots: BTreeMap::new(),
            lease: LEASE_GUESS,
            handlers: JoinSet::new(),
            running: HashMap::new(),
            stopping: Vec::new(),
            commands,
            commander,
            patience: Patience::new(),
            drain_until: None,
        }
    }

    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        tokio::pin!(shutdown);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut link = Link::down(Duration::ZERO);
        let end = loop {
            let outbox = self.outbox(&mut link);
            tokio::select! {
                news = link.news() => if let Err(error) = self.on_news(&mut link, news) { break Err(error) },
                room = room(outbox) => if let Some(room) = room { self.send_next(&mut link, room) },
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(joined) = self.handlers.join_next_with_id() => self.on_joined(joined),
                _ = ticks.tick() => self.on_tick(&mut link),
                () = &mut shutdown, if self.drain_until.is_none() => {
                    self.drain_until = Some(Instant::now() + self.worker.drain);
                }
            }
            if self.is_drained(&mut link) {
                break Ok(());
            }
        };
        if let Some(up) = link.up() {
            up.goodbye(PART_WITHIN).await;
        }
        self.stop_all().await;
        end
    }

    fn on_news(&mut self, link: &mut Link, news: News) -> Result<(), Error> {
        match news {
            News::Nothing => {}
            News::Due => {
                self.slots.values_mut().for_each(Slot::resend);
                let Worker { name, agents, capacity, .. } = &self.worker;
                let hello = hello(name, agents, *capacity, self.held());
                *link = Link::opening(self.worker.gateway.clone(), hello);
            }
            News::Opened(up) => *link = Link::Up(up),
            News::Message(message) => self.on_message(link, message.message),
            News::Broken(error) => {
                link.learn(&self.worker.gateway, &error);
                let refreshable = self.worker.gateway.identity().credentials.is_refreshable();
                let Some(pause) = self.patience.judge(&error, refreshable) else { return Err(error) };
                tracing::info!(%error, held = self.slots.len(), "worker stream is down; it is opened again");
                *link = Link::down(pause);
            }
        }
        Ok(())
    }

    fn on_message(&mut self, link: &mut Link, message: Option<Message>) {
        let Some(up) = link.up() else { return };
        match message {
            Some(Message::Welcome(welcome)) => self.on_welcome(up, welcome),
            Some(Message::Assignment(assignment)) => {
                up.beat_due = Instant::now();
                self.on_assignment(assignment);
            }
            Some(Message::Renewed(renewed)) => self.on_renewed(up, renewed),
            Some(Message::ProgressStored(stored)) => {
                if let Some(slot) = self.slot(stored.held) {
                    slot.stored(stored.number);
                }
            }
            Some(Message::Finished(finished)) => {
                if let Some(held) = Held::from_wire(finished.held) {
                    self.slots.remove(&key(&held));
                }
            }
            Some(Message::LeaseLost(lost)) => {
                up.is_to_be_heard = true;
                up.beat_due = Instant::now();
                if let Some(held) = Held::from_wire(lost.held) {
                    self.lose(&key(&held));
                }
            }
            Some(Message::CancelRequested(asked)) => {
                if let Some(slot) = self.slot(asked.held) {
                    slot.signals.cancelled.cancel();
                }
            }
            Some(Message::Draining(_)) => {
                // With nowhere else to go this stream is as good as any: it goes on to its end.
                if self.worker.gateway.connection().has_choice() {
                    up.leave(&self.worker.gateway);
                    *link = Link::down(Duration::ZERO);
                }
            }
            None => tracing::warn!("the gateway said something that this version does not know"),
        }
    }

    fn on_welcome(&mut self, up: &mut Up, welcome: work_response::Welcome) {
        self.patience.progressed();
        self.lease = span(welcome.lease).max(TICK);
        up.welcomed = true;
        // The hello renewed nothing: the first heartbeat does.
        up.beat_due = Instant::now();
        up.renewal =
            Renewal::of(self.worker.gateway.clone(), welcome.stream_id, from_wire(welcome.expires_at));
        let kept: Vec<_> = welcome.kept.into_iter().map(|h| (h.job_id, h.fencing_token)).collect();
        // An outcome may have been stored although its job is not kept: asking again tells.
        let unkept = self.slots.iter().filter(|(k, slot)| !kept.contains(k) && !slot.is_finishing());
        for lost in unkept.map(|(k, _)| k.clone()).collect::<Vec<_>>() {
            self.lose(&lost);
        }
    }

    fn on_assignment(&mut self, assignment: work_response::Assignment) {
        let Some(held) = Held::from_wire(assignment.held.clone()) else { return };
        if self.slots.contains_key(&key(&held)) {
            return;
        }
        let signals = Signals {
            cancelled: CancellationToken::new(),
            lost: CancellationToken::new(),
            room: Arc::new(Semaphore::new(UNSTORED_MAX)),
        };
        let mut slot = Slot::new(signals, Instant::now() + span(assignment.lease));
        slot.waiting = Some(assignment);
        self.slots.insert(key(&held), slot);
        self.start_waiting();
    }

    /// Starts what was assigned, as far as there is room: a handler whose lease was lost counts until
    /// it has stopped.
    fn start_waiting(&mut self) {
        for (k, slot) in &mut self.slots {
            if self.drain_until.is_some() || self.handlers.len() >= self.worker.capacity as usize {
                return;
            }
            let Some(assignment) = slot.waiting.take() else { continue };
            let held = held_of(k);
            let task = Task {
                held: held.clone(),
                session_id: assignment.session_id,
                binding: assignment.binding.unwrap_or_default(),
                attempt: assignment.attempt,
                payload: assignment.payload,
                run_time_left: span(assignment.run_time_left),
                signals: slot.signals.clone(),
                commands: self.commander.clone(),
            };
            let (work, commander) = ((self.handler)(task), self.commander.clone());
            let done = held.clone();
            let handle = self.handlers.spawn(async move {
                let outcome = work.await;
                let _ = commander.send(Command::Done(done, outcome)).await;
            });
            self.running.insert(handle.id(), held);
            slot.handler = Some(handle);
        }
    }

    fn on_renewed(&mut self, up: &mut Up, renewed: work_response::Renewed) {
        let Some(sent) = up.beats.pop_front() else { return };
        self.lease = span(renewed.lease).max(TICK);
        for held in renewed.held {
            if let Some(slot) = self.slots.get_mut(&(held.job_id, held.fencing_token)) {
                slot.lease_ends = sent + self.lease;
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Progress(held, data) => {
                if let Some(slot) = self.slots.get_mut(&key(&held)) {
                    slot.line(data);
                }
            }
            Command::Done(held, outcome) => {
                if let Some(slot) = self.slots.get_mut(&key(&held)) {
                    slot.finish(outcome);
                }
            }
        }
    }

    fn on_joined(&mut self, joined: Result<(task::Id, ()), JoinError>) {
        let id = joined.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let held = self.running.remove(&id);
        if let (Err(error), Some(held)) = (joined, held)
            && error.is_panic()
            && let Some(slot) = self.slots.get_mut(&key(&held))
        {
            tracing::error!(job_id = held.job_id, "the handler of a job panicked");
            slot.finish(Outcome::Failed {
                cause: "the handler panicked".to_owned(),
                result: Default::default(),
            });
        }
        self.stopping.retain(|(_, handler)| !handler.is_finished());
        self.start_waiting();
    }

    fn on_tick(&mut self, link: &mut Link) {
        let now = Instant::now();
        let over = |slot: &Slot| match slot.is_finishing() {
            // The outcome may be stored already: it is asked for, but not for ever.
            true => slot.lease_ends + self.lease <= now,
            false => slot.lease_ends <= now + TICK,
        };
        let ended: Vec<_> = self.slots.iter().filter(|(_, s)| over(s)).map(|(k, _)| k.clone()).collect();
        for lost in ended {
            tracing::warn!(job_id = lost.0, "the lease of a job ran out here");
            self.lose(&lost);
        }
        self.stopping.retain(|(until, handler)| {
            if *until <= now {
                handler.abort();
            }
            *until > now
        });
        let silent = |up: &Up| up.beats.front().is_some_and(|sent| *sent + self.lease * 2 / 3 <= now);
        if let Some(up) = link.up()
            && silent(up)
        {
            tracing::warn!("the gateway does not answer heartbeats; another stream is tried");
            self.worker.gateway.connection().move_on(up.line());
            *link = Link::down(Duration::ZERO);
        }
    }

    /// The attempt is over: its handler is told, and dropped if it does not stop.
    fn lose(&mut self, k: &(String, u64)) {
        let Some(slot) = self.slots.remove(k) else { return };
        slot.signals.lost.cancel();
        slot.signals.room.close();
        if let Some(handler) = slot.handler {
            self.stopping.push((Instant::now() + STOP_WITHIN, handler));
        }
    }

    fn slot(&mut self, held: Option<wire::Held>) -> Option<&mut Slot> {
        held.and_then(|h| self.slots.get_mut(&(h.job_id, h.fencing_token)))
    }

    fn held(&self) -> Vec<wire::Held> {
        self.slots.keys().map(|k| held_of(k).to_wire()).collect()
    }

    /// The way out, where there is something to send.
    fn outbox(&self, link: &mut Link) -> Option<mpsc::Sender<WorkRequest>> {
        let up = link.up().filter(|up| up.welcomed)?;
        let ready = self.is_beat_due(up) || self.slots.values().any(Slot::has_next);
        ready.then(|| up.outbox.clone())
    }

    fn is_beat_due(&self, up: &Up) -> bool {
        let due = !self.slots.is_empty() || up.is_to_be_heard;
        due && up.beats.len() < BEATS_MAX && up.beat_due <= Instant::now()
    }

    fn send_next(&mut self, link: &mut Link, room: mpsc::OwnedPermit<WorkRequest>) {
        let Some(up) = link.up() else { return };
        let message = if self.is_beat_due(up) {
            let now = Instant::now();
            up.beats.push_back(now);
            up.is_to_be_heard = false;
            up.beat_due = now + self.lease / 3;
            Some(work_request::Message::Heartbeat(work_request::Heartbeat { held: self.held() }))
        } else {
            self.slots.iter_mut().find_map(|(k, slot)| slot.next(&held_of(k)))
        };
        if message.is_some() {
            room.send(WorkRequest { message });
        }
    }

    fn is_drained(&self, link: &mut Link) -> bool {
        let Some(until) = self.drain_until else { return false };
        let now = Instant::now();
        // What was assigned since is not started here: others should have it soon.
        if self.slots.values().all(|slot| slot.waiting.is_some()) {
            return true;
        }
        let parting = link.up().is_some() && self.slots.values().any(Slot::is_finishing);
        now >= if parting { until + PART_WITHIN } else { until }
    }

    async fn stop_all(&mut self) {
        for k in self.slots.keys().cloned().collect::<Vec<_>>() {
            self.lose(&k);
        }
        let stopped = async {
            while !self.handlers.is_empty() {
                tokio::select! {
                    _ = self.handlers.join_next() => {}
                    _ = self.commands.recv() => {}
                }
            }
        };
        if timeout(STOP_WITHIN, stopped).await.is_err() {
            self.handlers.shutdown().await;
        }
    }
}

/// A place in the outbox. Never ready where there is nothing to send.
async fn room(outbox: Option<mpsc::Sender<WorkRequest>>) -> Option<mpsc::OwnedPermit<WorkRequest>> {
    match outbox {
        Some(outbox) => match outbox.reserve_owned().await {
            Ok(room) => Some(room),
            // The stream is over; its end is on its way as news.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
