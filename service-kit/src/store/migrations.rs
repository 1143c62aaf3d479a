//! Whether what a store has been through is what this program knows. The same for every engine.

use refinery::Runner;

/// The table of the kit's own migrations.
pub(super) const OURS: &str = "kit_migrations";
/// The table of a service's.
pub(super) const THEIRS: &str = "refinery_schema_history";

/// A migration as the store has noted it.
pub(super) struct Applied {
    pub(super) version: i64,
    pub(super) name: String,
    pub(super) checksum: Option<u64>,
    /// The migrations' own reader does not survive a date that is none.
    pub(super) dated: bool,
}

/// How a store differs from what this program knows. Each with the migration that shows it.
pub(super) enum Unlike {
    /// It is ahead.
    Newer(String),
    /// It is of another program.
    Foreign(String),
    /// It is of another build.
    Changed(String),
    /// It is no longer whole.
    Damaged(String),
}

/// Whether every migration that the store has had is one of this program's.
pub(super) fn compare(applied: &[Applied], runner: &Runner) -> Result<(), Unlike> {
    let known = runner.get_migrations();
    for theirs in applied {
        let migration = format!("migration V{}__{}", theirs.version, theirs.name);
        let ours = known.iter().find(|ours| i64::from(ours.version()) == theirs.version);
        match ours {
            None => return Err(Unlike::Newer(migration)),
            Some(ours) if ours.name() != theirs.name => {
                return Err(Unlike::Foreign(format!("it has {migration}")));
            }
            Some(ours) if theirs.checksum != Some(ours.checksum()) => return Err(Unlike::Changed(migration)),
            Some(_) if !theirs.dated => return Err(Unlike::Damaged(format!("{migration} has no date"))),
            Some(_) => {}
        }
    }
    Ok(())
}
