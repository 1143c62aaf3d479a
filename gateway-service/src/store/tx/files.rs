//! Files: the writes that their verbs plan.

use super::Tx;
use crate::{
    file::{File, Phase},
    policy::Permit,
    store::rows::Change,
};

impl Tx<'_> {
    /// A file is coming. No row is owed: what becomes of it has its own.
    pub(crate) fn begin_file(&mut self, permit: &Permit, file: File) {
        assert!(permit.covers_file(&file), "a file without a permit");
        self.changes.push(Change::AddFile(file));
    }

    /// A file goes on in its life.
    pub(crate) fn set_file(&mut self, permit: &Permit, before: &File, after: File) {
        assert!(permit.covers_file(before), "a file without a permit");
        assert!(
            before.id == after.id && before.session == after.session && before.project == after.project,
            "a file stays where it is"
        );
        let change = Change::SetFile(Box::new((before.clone(), after)));
        // What a sweep takes away was nobody's any more.
        if permit.covers_upkeep() { self.changes.push(change) } else { self.change(change) }
    }

    /// Nothing is left of a file.
    pub(crate) fn drop_file(&mut self, permit: &Permit, file: &File) {
        let goes = matches!(file.phase, Phase::Going { .. });
        assert!(permit.covers_upkeep() && goes, "only what goes is dropped");
        self.changes.push(Change::DropFile(file.clone()));
    }
}
