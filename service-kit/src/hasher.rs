//! Password hashing on a few dedicated threads.
//!
//! argon2 through its ordinary interface makes the process grow with nearly every hash, and on a shared pool it
//! starves everything else. So: threads of our own that keep their block memory, a bounded queue before them,
//! and a refusal at once beyond it. A share of the queue is kept for callers from known sources, so that a
//! storm of guesses from elsewhere cannot keep an owner out.

mod queue;
mod stored;

use std::{fmt, sync::Arc, time::Duration};

use argon2::Block;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use self::queue::{Queue, Task, Work};
pub use self::stored::{HashFormatError, check_stored};
use crate::error::{Error, Reason};

/// The longest password, bytes.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Hashing threads: a few.
const THREADS_MAX: usize = 16;
/// By how much hashing is less urgent than the rest: a tenth of a core where calls want all of it.
const NICE: i32 = 10;
/// When to try again after the queue was full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The cost of argon2id (RFC 9106), within its ceilings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    m_kib: u32,
    t: u32,
    p: u32,
}

/// Whether the source of a call is one that signed in before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// May use the whole queue.
    Known,
    /// May use the part of the queue that is not kept for known ones.
    Unknown,
}

/// What a verification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whether the password is the right one.
    pub ok: bool,
    /// Whether the stored hash is of another kind or cost than configured. Says nothing if not `ok`.
    pub needs_rehash: bool,
}

/// Hashes and verifies passwords. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub struct Hasher {
    params: Params,
    mode: Mode,
}

#[derive(Clone)]
enum Mode {
    Threads(Arc<Threads>),
    Inline(Arc<Mutex<Vec<Block>>>),
}

/// Closes the queue when the last hasher is gone.
struct Threads(Arc<Queue>);

impl Params {
    /// The most memory, KiB.
    pub const M_KIB_MAX: u32 = 256 << 10;
    /// The most passes.
    pub const T_MAX: u32 = 16;
    /// The most lanes.
    pub const P_MAX: u32 = 4;

    /// Memory in KiB, passes, lanes.
    ///
    /// # Errors
    /// [`Reason::InvalidField`] outside of the ceilings, or under argon2's own least of 8 KiB a lane.
    pub fn new(m_kib: u32, t: u32, p: u32) -> Result<Self, Error> {
        let refuse = |field: &str, max: u32, min: u32| {
            Err(Error::invalid_field(format!("argon2.{field}"), format!("from {min} to {max}")))
        };
        if !(1..=Self::P_MAX).contains(&p) {
            return refuse("p", Self::P_MAX, 1);
        }
        if !(1..=Self::T_MAX).contains(&t) {
            return refuse("t", Self::T_MAX, 1);
        }
        if !(8 * p..=Self::M_KIB_MAX).contains(&m_kib) {
            return refuse("m_kib", Self::M_KIB_MAX, 8 * p);
        }
        Ok(Self { m_kib, t, p })
    }

    /// Costs next to nothing: for tests and simulations.
    #[must_use]
    pub const fn cheap() -> Self {
        Self { m_kib: 8, t: 1, p: 1 }
    }
}

impl Default for Params {
    /// OWASP's first choice: m = 19456 KiB, t = 2, p = 1.
    fn default() -> Self {
        Self { m_kib: 19_456, t: 2, p: 1 }
    }
}

impl Hasher {
    /// How many calls wait at most, unless said otherwise.
    pub const QUEUE_DEFAULT: usize = 32;

    /// Starts the threads. A quarter of the queue is kept for known sources.
    ///
    /// # Errors
    /// [`Reason::Internal`] where the system gives no thread.
    pub fn start(params: Params, threads: usize, queue: usize) -> Result<Self, Error> {
        let queue = Arc::new(Queue::new(queue.max(1)));
        let owner = Arc::new(Threads(Arc::clone(&queue)));
        for n in 0..threads.clamp(1, THREADS_MAX) {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name(format!("hasher-{n}"))
                .spawn(move || work(&queue, params))
                .map_err(Error::internal)?;
        }
        Ok(Self { params, mode: Mode::Threads(owner) })
    }

    /// Hashes on the caller's thread, one at a time: for simulations and tests, with cheap parameters.
    #[must_use]
    pub fn inline(params: Params) -> Self {
        Self { params, mode: Mode::Inline(Arc::new(Mutex::new(stored::memory(params)))) }
    }

    /// Hashes a password; the answer is a PHC string.
    ///
    /// # Errors
    /// [`Reason::InvalidField`] for a password that is too long; [`Reason::LimitReached`] when too many wait.
    pub async fn hash(&self, password: Zeroizing<Vec<u8>>, salt: [u8; 16]) -> Result<String, Error> {
        check_length(&password)?;
        let (reply, answer) = oneshot::channel();
        self.submit(Task { password, work: Work::Hash { salt, reply } }, Priority::Known)?;
        answer.await.map_err(|_| stopped())?
    }

    /// Verifies a password against a stored hash: argon2id in PHC form, bcrypt, or
    /// `pbkdf2_sha256$iterations$salt$hash`.
    ///
    /// # Errors
    /// [`Reason::InvalidField`] for a password that is too long; [`Reason::LimitReached`] when too many wait;
    /// [`Reason::Internal`] for a stored hash of another form or beyond the bounds on its cost.
    pub async fn verify(
        &self,
        password: Zeroizing<Vec<u8>>,
        stored: String,
        priority: Priority,
    ) -> Result<Verified, Error> {
        check_length(&password)?;
        let (reply, answer) = oneshot::channel();
        self.submit(Task { password, work: Work::Verify { stored, reply } }, priority)?;
        answer.await.map_err(|_| stopped())?
    }

    /// Takes the path and the time of a verification of a hash with the configured cost, and never finds the
    /// password right: for an owner that does not exist.
    ///
    /// # Errors
    /// As [`Hasher::verify`].
    pub async fn verify_nothing(
        &self,
        password: Zeroizing<Vec<u8>>,
        priority: Priority,
    ) -> Result<Verified, Error> {
        let nobody = stored::phc(self.params, &[0; 16], &[0; stored::OUTPUT_BYTES]);
        let verified = self.verify(password, nobody, priority).await?;
        Ok(Verified { ok: false, ..verified })
    }

    fn submit(&self, task: Task, priority: Priority) -> Result<(), Error> {
        match &self.mode {
            Mode::Inline(memory) => {
                task.run(self.params, &mut memory.lock());
                Ok(())
            }
            Mode::Threads(threads) => threads.0.push(task, priority).map_err(|_| {
                metrics::counter!("interlock_hasher_refused_total").increment(1);
                Error::new(Reason::LimitReached, "too many sign-ins at once").retry_after(RETRY_AFTER)
            }),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("params", &self.params).finish_non_exhaustive()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn work(queue: &Queue, params: Params) {
    // A hash takes a whole core for 20 ms: calls that take microseconds go first, whoever signs in meanwhile.
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "hashing is as urgent as everything else");
    }
    let mut memory = stored::memory(params);
    while let Some(task) = queue.pop() {
        task.run(params, &mut memory);
    }
}

fn check_length(password: &[u8]) -> Result<(), Error> {
    if password.len() <= PASSWORD_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid_field("password", format!("at most {PASSWORD_BYTES_MAX} bytes")))
}

fn stopped() -> Error {
    Error::internal("a hasher thread ended before it answered")
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future as _,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn secret(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_hash_verifies_its_password_and_no_other() {
        for hasher in
            [Hasher::inline(Params::cheap()), Hasher::start(Params::cheap(), 2, 4).expect("threads")]
        {
            let phc = hasher.hash(secret("right"), [7; 16]).await.expect("hashed");
            assert!(phc.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{phc}");
            let right =
                hasher.verify(secret("right"), phc.clone(), Priority::Unknown).await.expect("verified");
            assert_eq!(right, Verified { ok: true, needs_rehash: false });
            let wrong = hasher.verify(secret("wrong"), phc, Priority::Unknown).await.expect("verified");
            assert!(!wrong.ok);
            let nobody = hasher.verify_nothing(secret("right"), Priority::Known).await.expect("verified");
            assert!(!nobody.ok);
            let long = hasher.hash(secret(&"x".repeat(PASSWORD_BYTES_MAX + 1)), [0; 16]).await;
            assert_eq!(long.expect_err("too long").reason(), Reason::InvalidField);
        }
    }

    #[tokio::test]
    async fn another_cost_asks_for_a_new_hash() {
        let old = Hasher::inline(Params::cheap()).hash(secret("right"), [1; 16]).await.expect("hashed");
        let dearer = Hasher::inline(Params::new(16, 2, 1).expect("within the ceilings"));
        let verified = dearer.verify(secret("right"), old, Priority::Known).await.expect("verified");
        assert_eq!(verified, Verified { ok: true, needs_rehash: true });
    }

    #[test]
    fn beyond_the_queue_is_a_refusal_at_once_and_known_sources_have_a_share() {
        // No thread takes work off this queue, so that it stays as full as the test makes it.
        let threads = Arc::new(Threads(Arc::new(Queue::new(4))));
        let hasher = Hasher { params: Params::cheap(), mode: Mode::Threads(threads) };
        let mut waiting = Vec::new();
        let mut ask = |priority| {
            let mut call = Box::pin({
                let hasher = hasher.clone();
                async move { hasher.verify_nothing(secret("guess"), priority).await }
            });
            let outcome = match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => None,
                Poll::Ready(outcome) => Some(outcome.expect_err("refused")),
            };
            waiting.push(call);
            outcome
        };
        for _ in 0..3 {
            assert!(ask(Priority::Unknown).is_none());
        }
        let refused = ask(Priority::Unknown).expect("the rest is kept for known sources");
        assert_eq!((refused.reason(), refused.retry_delay()), (Reason::LimitReached, Some(RETRY_AFTER)));
        assert!(ask(Priority::Known).is_none());
        assert!(ask(Priority::Known).is_some());
    }

    #[test]
    fn parameters_have_ceilings() {
        assert_eq!(Params::new(19_456, 2, 1).expect("the default"), Params::default());
        for (m, t, p) in
            [(7, 1, 1), (8, 1, 2), (Params::M_KIB_MAX + 1, 1, 1), (8, 0, 1), (8, 17, 1), (64, 1, 5)]
        {
            assert_eq!(Params::new(m, t, p).expect_err("outside").reason(), Reason::InvalidField);
        }
    }
}
