//! Every number of this service's domain, with unit and default, and the relations between them. [`Limits`] are
//! those that are configured or that tests make small; what a field of a request may hold is fixed.

use std::{ops::RangeInclusive, time::Duration};

/// Bytes of a caller's own name for one of its calls.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Bytes of a worker's name for itself.
pub const WORKER_BYTES_MAX: usize = 64;
/// Bytes of an agent's description; none is a description too.
pub const DESCRIPTION_BYTES_MAX: usize = 256;
/// Bytes of a page token: twice those of the longest id.
pub const PAGE_TOKEN_BYTES_MAX: usize = 128;
/// Bytes of a session's password, at least.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// Bytes of a session's password, at most: what the hasher takes.
pub const PASSWORD_BYTES_MAX: usize = interlock_kit::hasher::PASSWORD_BYTES_MAX;
/// Bytes of one part of a file in a request.
pub const FILE_PART_BYTES_MAX: usize = 256 * 1024;
/// How long WaitJob waits.
pub const WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
/// How long AttachSession waits, with an `on_busy` that waits.
pub const ATTACH_WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
/// How long WaitJob and AttachSession wait where the caller does not say.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// How long a job that has lost leases pauses at most, unless its first pause is longer.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What bounds sessions, jobs, leases and logs. [`Limits::check`] holds the relations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a lease lives without a heartbeat. Default 10 s, 1 s to 1 h.
    pub lease_ttl: Duration,
    /// How many leases of a job may run out before it fails. Default 3, 1 to 100.
    pub attempts_max: u32,
    /// The pause before a job that has lost a lease is handed out again; twice as long after each further one, up to
    /// [`RETRY_PAUSE_MAX`]. Default 1 s.
    pub retry_backoff: Duration,
    /// How old a queued job may be. Default 24 h.
    pub queue_age_max: Duration,
    /// How long a job may run, from its first start. Default 6 h.
    pub run_time_max: Duration,
    /// How far beyond a cancel request a lease is renewed. Default 30 s.
    pub cancel_grace: Duration,
    /// Payload and result, bytes. Default 256 KiB.
    pub payload_bytes_max: usize,
    /// One line of progress, bytes. Default 16 KiB.
    pub progress_bytes_max: usize,
    /// Why a job failed, bytes. Default 256.
    pub cause_bytes_max: usize,
    /// Jobs in flight of one owner. Default 1000.
    pub jobs_in_flight_max: u32,
    /// Living sessions of one owner. Default 1000.
    pub sessions_max: u32,
    /// Agents of one owner. Default 100.
    pub agents_max: u32,
    /// Clients of one session. Default 100, at most 1000: all of them are read at once.
    pub clients_max: usize,
    /// How long a client may not be seen. Default 720 h.
    pub client_idle_max: Duration,
    /// How long a waiting attach lives without its gateway's word. 10 s.
    pub waiter_lease: Duration,
    /// Waiting attaches of one owner. 64.
    pub waiters_max: u32,
    /// Waiting attaches that concern one agent. 1024.
    pub line_max: usize,
    /// One message, bytes. 16 KiB.
    pub message_bytes_max: usize,
    /// One file, bytes. Default 64 MiB.
    pub file_bytes_max: u64,
    /// All files of one session together, bytes. Default 1 GiB.
    pub files_bytes_max: u64,
    /// Files of one session. Default 1000, at most 5000: all of them are read at once.
    pub files_max: usize,
    /// Files of one session that are being stored, or taken away, at once. 16.
    pub files_moving_max: usize,
    /// How long storing one file may take. Default 10 min.
    pub upload_time_max: Duration,
    /// Agents that one worker serves. 32.
    pub served_agents_max: usize,
    /// Jobs that one worker runs at once. 64.
    pub capacity_max: u32,
    /// How long the answer to a creation is kept for retries. 10 min.
    pub creation_kept: Duration,
    /// How long the answer to a submit is kept for retries. Default 24 h.
    pub submit_kept: Duration,
    /// Events kept of one session. Default 10 000.
    pub log_events_max: u64,
    /// Bytes of events kept of one session. Default 16 MiB.
    pub log_bytes_max: u64,
    /// How long events are kept. Default 7 days.
    pub log_age_max: Duration,
    /// How long ended jobs are kept. Default 7 days.
    pub ended_jobs_kept: Duration,
    /// Rows that one sweeping verb touches. 256.
    pub sweep_rows_max: usize,
    /// Logs that one look of the sweeps goes through. 65 536: some 10 ms.
    pub sweep_logs_max: usize,
    /// Jobs named in the evidence of `SESSION_BUSY`. 32.
    pub evidence_max: usize,
    /// Entries of a page. 500.
    pub page_max: u32,
    /// Entries of a page where the caller names no number. 100.
    pub page_default: u32,
    /// Events in one batch of a stream. 256.
    pub event_batch_max: u32,
    /// Bytes of events in one batch of a stream: 1 MiB.
    pub event_batch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease_ttl: Duration::from_secs(10),
            attempts_max: 3,
            retry_backoff: Duration::from_secs(1),
            queue_age_max: Duration::from_secs(24 * 3600),
            run_time_max: Duration::from_secs(6 * 3600),
            cancel_grace: Duration::from_secs(30),
            payload_bytes_max: 256 * 1024,
            progress_bytes_max: 16 * 1024,
            cause_bytes_max: 256,
            jobs_in_flight_max: 1000,
            sessions_max: 1000,
            agents_max: 100,
            clients_max: 100,
            client_idle_max: Duration::from_secs(720 * 3600),
            waiter_lease: Duration::from_secs(10),
            waiters_max: 64,
            line_max: 1024,
            message_bytes_max: 16 * 1024,
            file_bytes_max: 64 << 20,
            files_bytes_max: 1 << 30,
            files_max: 1000,
            files_moving_max: 16,
            upload_time_max: Duration::from_secs(600),
            served_agents_max: 32,
            capacity_max: 64,
            creation_kept: Duration::from_secs(600),
            submit_kept: Duration::from_secs(24 * 3600),
            log_events_max: 10_000,
            log_bytes_max: 16 * 1024 * 1024,
            log_age_max: Duration::from_secs(7 * 24 * 3600),
            ended_jobs_kept: Duration::from_secs(7 * 24 * 3600),
            sweep_rows_max: 256,
            sweep_logs_max: 65_536,
            evidence_max: 32,
            page_max: 500,
            page_default: 100,
            event_batch_max: 256,
            event_batch_bytes_max: 1024 * 1024,
        }
    }
}

impl Limits {
    /// How often it is noted that a client was seen: so that what it calls costs no write of its own.
    #[must_use]
    pub fn seen_step(&self) -> Duration {
        (self.client_idle_max / 16).min(Duration::from_secs(3600))
    }

    /// The pause before the next attempt of a job that has lost so many leases.
    #[must_use]
    pub fn retry_pause(&self, lost: u32) -> Duration {
        let doubled = self.retry_backoff.saturating_mul(1 << lost.saturating_sub(1).min(30));
        doubled.min(RETRY_PAUSE_MAX.max(self.retry_backoff))
    }

    /// Every relation that does not hold, as a sentence each; empty where all hold.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let rules = [
            (
                (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&self.lease_ttl),
                "a lease lives 100 ms to 1 h",
            ),
            ((1..=100).contains(&self.attempts_max), "1 to 100 attempts"),
            (self.run_time_max > self.lease_ttl, "a job may run longer than a lease lives"),
            (self.queue_age_max > self.lease_ttl, "a job may queue longer than a lease lives"),
            (self.queue_age_max > self.retry_backoff, "a job may queue longer than it pauses"),
            (self.submit_kept >= self.creation_kept, "a submit's answer is kept as long as a creation's"),
            (
                self.log_bytes_max > self.progress_bytes_max as u64,
                "a log holds at least one line of progress",
            ),
            (
                self.event_batch_bytes_max > self.progress_bytes_max,
                "a batch holds at least one line of progress",
            ),
            (self.log_events_max >= u64::from(self.event_batch_max), "a log holds at least one batch"),
            (
                self.log_bytes_max > self.message_bytes_max as u64
                    && self.event_batch_bytes_max > self.message_bytes_max,
                "a log and a batch hold at least one message",
            ),
            ((1..=1000).contains(&self.clients_max), "a session has 1 to 1000 clients"),
            (self.client_idle_max >= Duration::from_secs(60), "a client is not idle within a minute"),
            (self.file_bytes_max <= self.files_bytes_max, "a session's files hold the largest one"),
            ((1..=5000).contains(&self.files_max), "a session has 1 to 5000 files"),
            (self.page_default <= self.page_max, "the usual page is no larger than the largest"),
            (self.sweep_rows_max > 0, "a sweep touches at least one row"),
            (self.sweep_logs_max > 0, "a sweep looks at at least one log"),
        ];
        rules.iter().filter(|(holds, _)| !holds).map(|(_, rule)| (*rule).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_each_other() {
        assert_eq!(Limits::default().check(), Vec::<String>::new());
        let odd = Limits { attempts_max: 0, page_default: 501, ..Limits::default() };
        assert_eq!(odd.check().len(), 2);
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses = |limits: &Limits| [1, 2, 3, 7, 100].map(|lost| limits.retry_pause(lost).as_secs());
        assert_eq!(pauses(&Limits::default()), [1, 2, 4, 60, 60]);
        let long = Limits { retry_backoff: Duration::from_secs(600), ..Limits::default() };
        assert_eq!(pauses(&long), [600; 5]);
        let none = Limits { retry_backoff: Duration::ZERO, ..Limits::default() };
        assert_eq!(pauses(&none), [0; 5]);
    }
}
