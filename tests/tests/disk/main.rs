//! The disk and the clock fail under the real programs: a full disk, syncs that fail and that are slow, power
//! cuts, a wall clock that jumps. What was acknowledged is there, what was not is there once or not at all
//! (I6, I7), the audit chains are whole (I11), and the service goes on when the fault is over.

mod bare;
mod clock;
mod cut;
mod full;
mod load;
mod shim;
mod sync;

use rand::{SeedableRng as _, rngs::StdRng};

fn seeded() -> StdRng {
    let given = std::env::var("INTERLOCK_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("seed {seed}: INTERLOCK_SEED={seed} repeats its choices");
    StdRng::seed_from_u64(seed)
}
