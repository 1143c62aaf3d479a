//! How a load is made up: from a seed, and counted.

pub(super) struct PrintedSeed(pub(super) u64);

impl Drop for PrintedSeed {
    fn drop(&mut self) {
        eprintln!("INTERLOCK_SEED={}", self.0);
    }
}

/// How the load was made up.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) attaches: u32,
    pub(super) attached: u32,
    pub(super) busy: u32,
    pub(super) finished: u32,
    pub(super) lost: u32,
    pub(super) repeated: u32,
    pub(super) refused: u32,
    pub(super) stored: u32,
    pub(super) replaced: u32,
    pub(super) deleted: u32,
    pub(super) ended: u32,
    pub(super) adopted: u32,
    pub(super) removed: u32,
}

impl Told {
    pub(super) fn add(&mut self, other: &Self) {
        self.attaches += other.attaches;
        self.attached += other.attached;
        self.busy += other.busy;
        self.finished += other.finished;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.refused += other.refused;
        self.stored += other.stored;
        self.replaced += other.replaced;
        self.deleted += other.deleted;
        self.ended += other.ended;
        self.adopted += other.adopted;
        self.removed += other.removed;
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for choosing.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    pub(super) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
