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

/// As services find them: by their hash.
pub(crate) fn credential_found(samples: usize) -> Result {
    let secret = Credential::new(Kind::Owner, &[7; 32]);
    let known: HashMap<_, _> = (0..1_000_u16)
        .map(|n| Credential::new(Kind::Owner, &std::array::from_fn(|at| (n >> (at % 2 * 8)) as u8)))
        .chain([secret.clone()])
        .map(|credential| (credential.hash(), credential.kind()))
        .collect();
    let [near, far] = credentials(&secret).map(texts);
    let find = |guess: &String| Credential::parse(guess).is_ok_and(|guess| known.contains_key(&guess.hash()));
    sample("credential found", samples, &near, &far, find)
}

fn texts(credentials: Vec<Credential>) -> Vec<String> {
    credentials.into_iter().map(|credential| credential.expose().to_owned()).collect()
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

/// Samples of both classes, in random order.
fn sample<T>(
    name: &'static str,
    samples: usize,
    near: &[T],
    far: &[T],
    accepts: impl Fn(&T) -> bool,
) -> Result {
    let seed: u64 = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut times = [Vec::with_capacity(samples), Vec::with_capacity(samples)];
    let class = |of: usize, rng: &mut StdRng| -> Duration {
        let guess = &[near, far][of][rng.random_range(0..near.len())];
        let began = Instant::now();
        for _ in 0..CALLS {
            assert!(!accepts(black_box(guess)), "a guess is never right");
        }
        began.elapsed()
    };
    // Warm: what is measured first is slower than the rest.
    for _ in 0..samples / 10 {
        class(0, &mut rng);
        class(1, &mut rng);
    }
    while times.iter().any(|times| times.len() < samples) {
        let of = usize::from(rng.random_bool(0.5));
        let time = class(of, &mut rng);
        if times[of].len() < samples {
            times[of].push(time);
        }
    }
    let [near, far] = times;
    compare(name, near, far)
}

fn letters(count: usize, seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
}
