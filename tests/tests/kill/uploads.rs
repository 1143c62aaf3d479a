//! Files on their way in while the gateway is killed: each is the one that was acknowledged last, or the one after it,
//! and whole.

use std::{
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use interlock_client::{Files, FilesOf, PutFile};
use interlock_tests::{Pair, eventually};
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};
use tokio::{sync::RwLock, task::JoinSet};

use crate::{
    gateway_rows, kills,
    load::{again_after, was_away},
    patient, seeded, spans,
};

const KILLS: usize = 3;
const UPLOADERS: usize = 3;
/// Acknowledged files between two kills.
const FILES: std::ops::Range<u64> = 3..9;
/// More than one part on disk; every third version is as long.
const BYTES: usize = 6 << 20;

/// One name, which version after version is stored under.
struct Uploader {
    files: Files,
    session: String,
    name: String,
    acknowledged: AtomicU64,
    over: AtomicBool,
    /// Taken by all who upload; in whole, by whoever looks: what comes next would hide what was lost.
    still: Arc<RwLock<()>>,
}

/// What a version is: its number, and what follows from that and the name.
fn contents(name: &str, version: u64) -> Vec<u8> {
    let block: [u8; 32] = Sha256::digest(format!("{name} {version}")).into();
    let bytes = if version.is_multiple_of(3) { BYTES } else { 1_000 };
    version.to_le_bytes().into_iter().chain(block.into_iter().cycle().take(bytes)).collect()
}

impl Uploader {
    async fn run(self: Arc<Self>) {
        while !self.over.load(Ordering::Relaxed) {
            let _upload = self.still.read().await;
            let version = self.acknowledged.load(Ordering::Relaxed) + 1;
            let put = self.files.put(
                FilesOf::Session(&self.session),
                &self.name,
                PutFile::default(),
                Cursor::new(contents(&self.name, version)),
            );
            match put.await {
                Ok(_) => self.acknowledged.store(version, Ordering::Relaxed),
                Err(error) if was_away(&error) => again_after(&error).await,
                Err(error) => panic!("a put was refused: {error}"),
            }
        }
    }

    /// Which version there is; 0 where there is none. It is whole, or this panics.
    async fn stored(&self) -> u64 {
        let of = FilesOf::Session(&self.session);
        if !self.files.list(of).await.expect("listed").iter().any(|file| file.name == self.name) {
            return 0;
        }
        // Sizes and hash are the SDK's to hold to.
        let mut download = self.files.get(of, &self.name).await.expect("listed, so there");
        let mut all = Vec::new();
        while let Some(part) = download.next().await.expect("whole") {
            all.extend_from_slice(&part);
        }
        let version = all.first_chunk().copied().map(u64::from_le_bytes).expect("eight bytes");
        assert!(all == contents(&self.name, version), "{} {version}: of more than one version", self.name);
        version
    }
}

// I6, SF-04
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_within_uploads_keeps_whole_files_only() {
    let (mut rng, kills) = (seeded(), kills(KILLS));
    let mut pair = Pair::start_with(patient()).await;
    let alice = pair.login("alice").await;
    let gateway = pair.sdk_gateway(&alice.access_token);
    let session = gateway.sessions().create("files").await.expect("a session").session.session_id;
    let still = Arc::new(RwLock::new(()));
    let uploaders: Vec<_> = (0..UPLOADERS)
        .map(|number| {
            Arc::new(Uploader {
                files: gateway.files(),
                session: session.clone(),
                name: format!("out/{number}"),
                acknowledged: AtomicU64::new(0),
                over: AtomicBool::new(false),
                still: Arc::clone(&still),
            })
        })
        .collect();
    let acknowledged = || uploaders.iter().map(|one| one.acknowledged.load(Ordering::Relaxed)).sum::<u64>();
    let mut uploading = JoinSet::new();
    uploaders.iter().for_each(|one| drop(uploading.spawn(Arc::clone(one).run())));
    let mut to_serving = Vec::new();
    for _ in 0..kills {
        let target = acknowledged() + rng.random_range(FILES);
        eventually("acknowledged files", async || (acknowledged() >= target).then_some(())).await;
        pair.gateway.kill();
        let looking = still.write().await;
        to_serving.push(pair.start_gateway().await);
        pair.serving().await;
        for one in &uploaders {
            let acknowledged = one.acknowledged.load(Ordering::Relaxed);
            let stored = one.stored().await;
            let name = &one.name;
            assert!(
                (acknowledged..=acknowledged + 1).contains(&stored),
                "{name}: {acknowledged} was acknowledged, {stored} is there"
            );
        }
        drop(looking);
    }
    uploaders.iter().for_each(|one| one.over.store(true, Ordering::Relaxed));
    while let Some(ended) = uploading.join_next().await {
        ended.expect("an uploader ends");
    }
    for one in &uploaders {
        assert_eq!(one.stored().await, one.acknowledged.load(Ordering::Relaxed), "{}", one.name);
    }
    assert!(pair.gateway.drain().await.success(), "it drains");
    let (rows, _) = gateway_rows(&pair);
    println!(
        "uploads: {kills} kills; acknowledged {} files of up to {} MiB, lost 0, each whole; {rows} audit rows in whole \
         chains; to serving {}",
        acknowledged(),
        BYTES >> 20,
        spans(&to_serving)
    );
}
