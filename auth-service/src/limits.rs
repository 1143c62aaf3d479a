//! Every number with its unit, default, least and most; their relations are asserted at compile time.

use std::{ops::RangeInclusive, time::Duration};

use interlock_kit::hasher;

/// One bounded span of time.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// What holds where nothing is configured.
    pub default: Duration,
    /// The least that can be configured.
    pub min: Duration,
    /// The most that can be configured.
    pub max: Duration,
}

const fn span(default_s: u64, min_s: u64, max_s: u64) -> Span {
    assert!(min_s <= default_s && default_s <= max_s, "a default outside its bounds");
    Span {
        default: Duration::from_secs(default_s),
        min: Duration::from_secs(min_s),
        max: Duration::from_secs(max_s),
    }
}

impl Span {
    /// The nearest allowed value.
    #[must_use]
    pub fn clamp(self, asked: Duration) -> Duration {
        asked.clamp(self.min, self.max)
    }

    /// From the least to the most.
    #[must_use]
    pub fn bounds(self) -> RangeInclusive<Duration> {
        self.min..=self.max
    }

    /// Whether it may be configured.
    #[must_use]
    pub fn allows(self, asked: Duration) -> bool {
        self.min <= asked && asked <= self.max
    }
}

/// How long a verifier may admit calls without hearing from auth.
pub const LEASE: Span = span(3, 1, 30);
/// How long an access token lives.
pub const ACCESS_TTL: Span = span(15 * 60, 60, 60 * 60);
/// How long an owner session lives, whatever is refreshed (`INTERLOCK_OWNER_SESSION_TTL_SEC`).
pub const OWNER_SESSION_TTL: Span = span(12 * 3600, 300, 14 * 24 * 3600);
/// How long root stays unlocked (`INTERLOCK_ROOT_TTL_SEC`).
pub const ROOT_TTL: Span = span(15 * 60, 60, 3600);
/// How long a replaced role token may stay valid.
pub const ROTATION_GRACE: Span = span(0, 0, 24 * 3600);
/// From the first use of a refresh token: for how long it gets the same successor again (DESIGN 14.13).
pub const REFRESH_WINDOW: Duration = Duration::from_secs(30);
/// For how long a repeated request that returns a secret gets the same answer (DESIGN 11).
pub const SEALED_ANSWER_TTL: Duration = Duration::from_secs(600);
/// How long credentials that have ended by themselves are remembered, to answer `TOKEN_EXPIRED`.
pub const ENDED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Rows of the revocation log that are younger are kept.
pub const REVOCATION_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Rows of the revocation log beyond this number are dropped, oldest first, whatever their age.
pub const REVOCATIONS_MAX: u64 = 200_000;
/// Rows of the revocation log in one answer.
pub const REVOCATION_PAGE_MAX: u32 = 1_000;
/// Generations of one role's token that live at once: the present one and those in grace. The next one of an open
/// rotation comes on top.
pub const GENERATIONS_MAX: usize = 4;
/// For how long after a use a role token counts as in use (`rotation.in_use_window`).
pub const IN_USE_WINDOW: Span = span(60, 5, 24 * 3600);
/// Uses of one generation of a role token that are stored: the latest ones, each of one service and source.
pub const USES_MAX: usize = 32;
/// Uses that one renewal of a verifier's lease tells.
pub const USES_A_RENEWAL: usize = 64;
/// Uses that wait in memory to be stored. Beyond, the oldest go.
pub const USES_UNSTORED_MAX: usize = 4_096;
/// How often uses are stored: who asks for them sees them so much later.
pub const USES_STORED_EVERY: Duration = Duration::from_secs(2);
/// Verifiers whose uses are waited for, with those that went lately.
pub const TELLERS_MAX: usize = 1_024;
/// Refreshes of one owner session; then it must sign in again.
pub const REFRESHES_MAX: u32 = 10_000;
/// Owners that are stored, those included that were removed.
pub const OWNERS_MAX: u64 = 100_000;
/// Administrators among the owners that one look for another one reads.
pub const ADMINISTRATORS_MAX: u32 = 1_000;
/// Living owner sessions of one owner.
pub const OWNER_SESSIONS_MAX: u64 = 1_000;
/// Projects that one owner makes.
pub const PROJECTS_MAX: u64 = 1_000;
/// Project tokens of one issuer that are kept, those included that ended within [`ENDED_KEPT`].
pub const PROJECT_TOKENS_MAX: u64 = 5_000;
/// How long a project token lives, where it does not live until it is ended.
pub const PROJECT_TOKEN_TTL: Span = span(30 * 24 * 3600, 1, 366 * 24 * 3600);
/// Scopes of one project token.
pub const TOKEN_SCOPES_MAX: usize = 16;
/// Agents that one project token can be bound to.
pub const TOKEN_AGENTS_MAX: usize = 32;
/// Projects, or owners, in one page where the caller names no number.
pub const PAGE_DEFAULT: u32 = 100;
/// Projects, or owners, in one page.
pub const PAGE_MAX: u32 = 500;
/// Rows of the revocation log that one clearing drops: other writes wait for it.
pub const REVOCATIONS_CLEARED_MAX: u64 = 1_000;
/// Things that one round of a sweep clears.
pub const SWEEP_MAX: u32 = 256;
/// Programs that share one store, those included whose promise is not over yet.
pub const REPLICAS_MAX: usize = 32;
/// Revocations that a program's row tells the reach of.
pub const TOLD_MAX: usize = 64;
/// A password's least length, in characters.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// A password's most length, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Accounts in one source.
pub const ACCOUNTS_MAX: usize = 10_000;
/// Bytes of one accounts source.
pub const ACCOUNTS_BYTES_MAX: usize = 8 << 20;
/// Roles of one owner.
pub const ROLES_MAX: usize = 16;
/// Bytes of a role or a display name.
pub const LABEL_BYTES_MAX: usize = 128;
/// Bytes of a caller's own name for one of its calls.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Bytes of a verifier's id: unique for each of its starts, so not too short.
pub const VERIFIER_ID_BYTES: RangeInclusive<usize> = 16..=64;

/// Who has told nothing of uses for longer than this may have let them in, as a commit with this window sees it: half of
/// it, and no longer than a frozen verifier or database holds up what it has to tell.
#[must_use]
pub fn unheard_max(window: Duration) -> Duration {
    (window / 2).min(Duration::from_secs(10))
}

const _: () = assert!(USES_STORED_EVERY.as_millis() < IN_USE_WINDOW.min.as_millis() / 2, "told in time");
// A verifier that has missed a dropped row is told to forget everything; so the age is about cost, not
// safety. Still no cached verdict of an owner session should outlive the row that ends it.
const _: () = assert!(REVOCATION_AGE.as_secs() >= OWNER_SESSION_TTL.max.as_secs());
const _: () = assert!(ACCESS_TTL.max.as_secs() >= OWNER_SESSION_TTL.min.as_secs(), "spans overlap");
const _: () = assert!(REFRESH_WINDOW.as_secs() < ACCESS_TTL.min.as_secs());
const _: () = assert!(PAGE_DEFAULT <= PAGE_MAX);
const _: () = assert!(PASSWORD_BYTES_MAX <= hasher::PASSWORD_BYTES_MAX, "what may be set can be hashed");
const _: () = assert!(PASSWORD_CHARS_MIN <= PASSWORD_BYTES_MAX);
