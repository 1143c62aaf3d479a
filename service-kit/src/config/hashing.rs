//! Sections `argon2` and `hasher`: what hashing a password costs, and how many may wait for it.

use super::reader::Reader;
use crate::hasher::{Hasher, Params};

/// How passwords are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// `argon2.m_kib`, `argon2.t`, `argon2.p`.
    pub params: Params,
    /// `hasher.threads`: 1 to 16.
    pub threads: usize,
    /// `hasher.queue`: 4 to 1024 calls that wait, 32 by default.
    pub queue: usize,
}

impl Hashing {
    /// Reads both sections, with so many threads where none are named.
    pub fn read(r: &mut Reader, threads: usize) -> Self {
        Self {
            params: params(r),
            threads: r.bounded("hasher.threads", threads, 1..=16),
            queue: r.bounded("hasher.queue", Hasher::QUEUE_DEFAULT, 4..=1_024),
        }
    }
}

fn params(r: &mut Reader) -> Params {
    let m_kib = r.bounded("argon2.m_kib", 19_456, 8..=Params::M_KIB_MAX);
    let t = r.bounded("argon2.t", 2, 1..=Params::T_MAX);
    let p = r.bounded("argon2.p", 1, 1..=Params::P_MAX);
    Params::new(m_kib, t, p).unwrap_or_else(|_| {
        r.mistake("argon2.m_kib", "at least 8 for each lane of argon2.p");
        Params::default()
    })
}
