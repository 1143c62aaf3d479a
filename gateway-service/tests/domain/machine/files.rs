//! Files among the random verbs: begun, finished or given up, replaced, read and deleted, by clients and workers.

use std::sync::Arc;

use interlock_gateway::{
    caller::Caller,
    file::{AbandonPut, BeginPut, DeleteFile, FilesOf, FinishPut, ListFiles, OpenFile},
    ids::{FileId, FileName},
    standing::Standing,
    waiter::Ground,
};

use super::Machine;

const NAMES: [&str; 2] = ["a", "out/a"];

impl Machine {
    /// Where files are, and who asks: a session, or a job that a worker holds or held.
    fn shelf(&mut self) -> (FilesOf, Caller) {
        if self.dice.below(4) == 0 {
            let (held, caller) = self.holding();
            return (FilesOf::Attempt(held), caller);
        }
        let session = self.session();
        let caller = self.caller_of(&session);
        (FilesOf::Session(session), caller)
    }

    fn name(&mut self) -> FileName {
        FileName::parse(*self.dice.one(&NAMES)).unwrap()
    }

    /// Begins a file, or ends one that was begun.
    pub(super) async fn put(&mut self) {
        if self.coming.is_empty() || self.dice.below(2) == 0 {
            let (of, caller) = self.shelf();
            let id = FileId::parse(format!("fil_{:06}", self.worlds[0].number())).unwrap();
            let size = (self.dice.below(2) == 0).then_some(self.dice.below(1 << 20) as u64);
            let begin = BeginPut { of: of.clone(), id: id.clone(), name: self.name(), size };
            if let Ok(begun) = self.all(&caller, begin).await {
                self.coming.push((of, begun.session, id));
            }
            return;
        }
        let at = self.dice.below(self.coming.len());
        let (of, session, id) = self.coming.swap_remove(at);
        let caller = match &of {
            FilesOf::Session(session) => self.caller_of(&session.clone()),
            FilesOf::Attempt(_) => self.holding().1,
        };
        let size = self.dice.below(1 << 20) as u64;
        let ground = Arc::new(Ground::new(Standing::on_rows()));
        let finish = FinishPut { of, id: id.clone(), size, hash: [size as u8; 32], ground };
        match self.all(&caller, finish).await {
            Ok(stored) => {
                self.told.stored += 1;
                self.told.replaced += u32::from(stored.replaced.is_some());
            }
            // As the shell does; some are left to the sweep.
            Err(_) if self.dice.below(2) == 0 => {
                drop(self.all(&Caller::gateway(), AbandonPut { session, id }).await);
            }
            Err(_) => {}
        }
    }

    /// Deletes one, or looks.
    pub(super) async fn files(&mut self) {
        let (of, caller) = self.shelf();
        let name = self.name();
        match self.dice.below(4) {
            0 => drop(self.see(&caller, OpenFile { of, name }).await),
            1 => drop(self.see(&caller, ListFiles { of, page_size: 2, page_token: String::new() }).await),
            _ => {
                let deleted = self.all(&caller, DeleteFile { of, name }).await;
                self.told.deleted += u32::from(deleted.is_ok_and(|deleted| deleted.is_some()));
            }
        }
    }
}
