//! Comparisons in this process: guesses that agree with a secret up to their last byte, and guesses that differ
//! from it in the first.

use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

use interlock_kit::{config::Profile, internal_token::InternalToken, secret_file};
use interlock_proto::credential::{Credential, Kind, TEXT_LEN};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::welch::{Result, compare};

/// Calls in one sample: the clock is coarser than one of them.
const CALLS: usize = 16;
/// Guesses of each class: more than one, so that no single text decides.
const GUESSES: usize = 64;
/// Credentials of one map, and samples of each class with it.
const KNOWN: usize = 1_000;
/// As long as an internal token may be.
const BYTES: usize = 256;

/// By `==`: it must show.
pub(crate) fn naive(samples: usize) -> Result {
    let secret = letters(BYTES, 1);
    // Byte by byte, as code without a thought of it is; the library's compares by words.
    let equal = |guess: &str| guess.bytes().zip(secret.bytes()).all(|(a, b)| black_box(a) == black_box(b));
    measure("naive ==", samples, &secret, |guess| equal(guess))
}

/// By the kit's internal token.
pub(crate) fn token(samples: usize) -> Result {
    let secret = letters(BYTES, 2);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("internal.token");
    secret_file::write(&path, secret.as_bytes()).expect("written");
    let token = InternalToken::load(&path, Profile::Hardened).expect("a token");
    measure("internal token", samples, &secret, |guess| token.accepts(guess))
}

/// By `==` of two credentials.
pub(crate) fn credential_equals(samples: usize) -> Result {
    let secret = Credential::new(Kind::Owner, &[7; 32]);
    let [near, far] = credentials(&secret);
    sample("credential ==", samples, &near, &far, |guess| *guess == secret)
}

/// As services find them: by their hash. What a text costs to read, and where its hash lies in a map, is chance and
/// known to whoever guesses: each sample has a text of its own, near one of a thousand secrets or far from it, and
/// each draw a map of its own.
pub(crate) fn credential_found(samples: usize) -> Result {
    let mut times = [Vec::with_capacity(samples), Vec::with_capacity(samples)];
    let mut rng = StdRng::seed_from_u64(rand::random());
    while times[0].len() < samples {
        let secrets: Vec<[u8; 32]> = (0..KNOWN).map(|_| rng.random()).collect();
        let known: HashMap<_, _> = secrets
            .iter()
            .map(|secret| Credential::new(Kind::Owner, secret))
            .map(|credential| (credential.hash(), credential.kind()))
            .collect();
        let [near, far] = [31, 0].map(|at| guesses(&secrets, at, &mut rng));
        let find =
            |guess: &String| Credential::parse(guess).is_ok_and(|guess| known.contains_key(&guess.hash()));
        let each = KNOWN.min(samples - times[0].len());
        for (times, drawn) in times.iter_mut().zip(draw(each, &near, &far, find)) {
            times.extend(drawn);
        }
    }
    let [near, far] = times;
    compare("credential found", near, far)
}

/// A text beside each secret, which differs from it in one of its random bytes.
fn guesses(secrets: &[[u8; 32]], at: usize, rng: &mut StdRng) -> Vec<String> {
    let guess = |secret: &[u8; 32]| {
        let mut bytes = *secret;
        bytes[at] ^= rng.random_range(1..=u8::MAX);
        Credential::new(Kind::Owner, &bytes).expose().to_owned()
    };
    secrets.iter().map(guess).collect()
}

/// Well-formed ones that begin like the secret, and ones that do not.
fn credentials(secret: &Credential) -> [Vec<Credential>; 2] {
    let random = |n: usize, at: usize| {
        let mut bytes = [7; 32];
        bytes[at] = u8::try_from(n + 8).expect("few guesses");
        Credential::new(Kind::Owner, &bytes)
    };
    let near: Vec<_> = (0..GUESSES).map(|n| random(n, 31)).collect();
    assert!(near.iter().all(|guess| guess.expose()[..TEXT_LEN - 8] == secret.expose()[..TEXT_LEN - 8]));
    [near, (0..GUESSES).map(|n| random(n, 0)).collect()]
}

fn measure(name: &'static str, samples: usize, secret: &str, accepts: impl Fn(&str) -> bool) -> Result {
    let other = |at: usize, n: usize| {
        let mut guess = secret.as_bytes().to_vec();
        guess[at] = if guess[at] == b'a' + (n % 26) as u8 { b'A' } else { b'a' + (n % 26) as u8 };
        String::from_utf8(guess).expect("letters")
    };
    let near: Vec<_> = (0..GUESSES).map(|n| other(secret.len() - 1, n)).collect();
    let far: Vec<_> = (0..GUESSES).map(|n| other(0, n)).collect();
    sample(name, samples, &near, &far, |guess: &String| accepts(guess))
}

/// Samples of both classes.
fn sample<T>(
    name: &'static str,
    samples: usize,
    near: &[T],
    far: &[T],
    accepts: impl Fn(&T) -> bool,
) -> Result {
    let [near, far] = draw(samples, near, far, accepts);
    compare(name, near, far)
}

/// As many times of each class, taken in random order; the guesses of a class in turns.
fn draw<T>(samples: usize, near: &[T], far: &[T], accepts: impl Fn(&T) -> bool) -> [Vec<Duration>; 2] {
    let mut rng = StdRng::seed_from_u64(rand::random());
    let mut times = [Vec::with_capacity(samples), Vec::with_capacity(samples)];
    let class = |of: usize, turn: usize| -> Duration {
        let guess = &[near, far][of][turn % near.len()];
        let began = Instant::now();
        for _ in 0..CALLS {
            assert!(!accepts(black_box(guess)), "a guess is never right");
        }
        began.elapsed()
    };
    // Warm: what is measured first is slower than the rest.
    for turn in 0..samples / 10 {
        class(0, turn);
        class(1, turn);
    }
    while times.iter().any(|times| times.len() < samples) {
        let of = usize::from(rng.random_bool(0.5));
        let time = class(of, times[of].len());
        if times[of].len() < samples {
            times[of].push(time);
        }
    }
    times
}

fn letters(count: usize, seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
}
