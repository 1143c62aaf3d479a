//! Rotation of the internal token without downtime: begin, promote, finish, with the file brought to every service after
//! each step.
//!
//! Between the steps the file has two lines, and they do not say which of them is the new one. That stands in a file
//! beside it, as the SHA-256 of the new token: no secret, since a token that is made here is 256 random bits. So each step
//! can be repeated, also after it was cut off, and none is done twice.

use std::path::{Path, PathBuf};

use interlock_proto::credential::{Credential, Kind};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{InternalTokenError, lines};
use crate::{
    config::Profile,
    random,
    secret_file::{self, SecretFileError},
};

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new token becomes the second line: accepted, not sent.
    Begin,
    /// The new token becomes the first line: sent, and the old one is still accepted.
    Promote,
    /// The old token is dropped.
    Finish,
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is done now.
    Now,
    /// It was done before; the file is as it was.
    Before,
}

/// Why a step was not done. The file is as it was.
#[derive(Debug, Error)]
pub enum RotationError {
    /// The token file cannot be taken.
    #[error(transparent)]
    Token(#[from] InternalTokenError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The step does not follow the one before.
    #[error("{path}: {why}", path = path.display())]
    OutOfOrder {
        /// The token file.
        path: PathBuf,
        /// What is to be done first.
        why: &'static str,
    },
}

const UNKNOWN_LINES: &str =
    "it has two lines, of a rotation that was not begun here: go on where it was, or drop one";
const NOT_PROMOTED: &str =
    "the new token is not sent yet: promote it first, and bring the file to every service";
const NOT_BEGUN: &str = "no rotation has begun here: begin one, or go on where it was begun";

/// The hex digits of a SHA-256, and a line end.
const MARK_BYTES_MAX: u64 = 65;

/// Takes a step with the file at `path`. For one command at a time.
///
/// # Errors
/// [`RotationError`]
pub fn step(path: &Path, profile: Profile, step: Step) -> Result<Done, RotationError> {
    let (first, second) = lines(path, profile)?;
    let mark = mark_of(path);
    let new = marked(&mark, profile)?;
    let is_new =
        |line: &str| new.as_ref().is_some_and(|new| new.as_bytes().ct_eq(digest(line).as_bytes()).into());
    let refused = |why| Err(RotationError::OutOfOrder { path: path.to_owned(), why });
    match (step, second) {
        (Step::Begin, Some(second)) if is_new(&second) => Ok(Done::Before),
        (Step::Begin, Some(_)) => refused(UNKNOWN_LINES),
        (Step::Begin, None) => {
            let token = Credential::new(Kind::Internal, &random::bytes());
            // First, so that two lines never stand without it.
            secret_file::write(&mark, format!("{}\n", digest(token.expose())).as_bytes())?;
            put(path, &[&first, token.expose()])
        }
        (Step::Promote, Some(_)) if is_new(&first) => Ok(Done::Before),
        (Step::Promote, Some(second)) if is_new(&second) => put(path, &[&second, &first]),
        (Step::Finish, Some(_)) if is_new(&first) => put(path, &[&first]),
        (Step::Finish, None) if is_new(&first) => Ok(Done::Before),
        (Step::Finish, Some(second)) if is_new(&second) => refused(NOT_PROMOTED),
        (Step::Promote | Step::Finish, _) => refused(NOT_BEGUN),
    }
}

fn put(path: &Path, lines: &[&str]) -> Result<Done, RotationError> {
    let text = Zeroizing::new(lines.iter().flat_map(|line| [*line, "\n"]).collect::<String>());
    secret_file::write(path, text.as_bytes())?;
    Ok(Done::Now)
}

fn mark_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".rotation");
    PathBuf::from(name)
}

fn marked(mark: &Path, profile: Profile) -> Result<Option<String>, RotationError> {
    match secret_file::read(mark, MARK_BYTES_MAX, profile) {
        Ok(read) => Ok(Some(String::from_utf8_lossy(&read.contents).trim().to_owned())),
        Err(SecretFileError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internal_token::InternalToken;

    const OLD: &str = "old-0123456789-0123456789-0123456789";

    struct Place {
        _folder: tempfile::TempDir,
        path: PathBuf,
    }

    impl Place {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("internal.token");
            secret_file::write(&path, text.as_bytes()).expect("written");
            Self { _folder: folder, path }
        }

        fn step(&self, next: Step) -> Result<Done, String> {
            step(&self.path, Profile::Hardened, next).map_err(|error| error.to_string())
        }

        fn text(&self) -> String {
            std::fs::read_to_string(&self.path).expect("there")
        }
    }

    // UA-46
    #[test]
    fn a_rotation_goes_through_its_steps_and_each_can_be_repeated() {
        let place = Place::new(OLD);
        let token = InternalToken::load(&place.path, Profile::Hardened).expect("good");
        let accepted = |text: &str| {
            token.reload().expect("good at every step");
            token.accepts(text)
        };
        assert_eq!(place.step(Step::Begin), Ok(Done::Now));
        let begun = place.text();
        let new = begun.lines().nth(1).expect("two lines").to_owned();
        assert!(new.starts_with("ilk_int_") && accepted(OLD) && accepted(&new) && token.is_rolling());
        assert_eq!(*token.sent(), OLD);
        assert_eq!(place.step(Step::Begin), Ok(Done::Before));
        assert!(place.step(Step::Finish).expect_err("not yet").contains("promote it first"));
        assert_eq!(place.text(), begun, "nothing was changed");

        assert_eq!(place.step(Step::Promote), Ok(Done::Now));
        assert!(accepted(OLD) && accepted(&new));
        assert_eq!(*token.sent(), new);
        assert_eq!(place.step(Step::Promote), Ok(Done::Before), "and not back again");
        assert!(accepted(OLD));
        assert_eq!(*token.sent(), new);

        assert_eq!(place.step(Step::Finish), Ok(Done::Now));
        assert!(!accepted(OLD) && accepted(&new) && !token.is_rolling());
        assert_eq!(place.step(Step::Finish), Ok(Done::Before));
        assert!(place.step(Step::Promote).is_err());
        assert_eq!(place.step(Step::Begin), Ok(Done::Now), "the next one");
    }

    #[test]
    fn what_was_cut_off_or_begun_elsewhere_is_seen() {
        let place = Place::new(OLD);
        for early in [Step::Promote, Step::Finish] {
            assert!(place.step(early).expect_err("nothing has begun").contains("no rotation has begun"));
        }
        // Killed between the two writes of a beginning.
        secret_file::write(&mark_of(&place.path), digest("another").as_bytes()).expect("written");
        assert!(place.step(Step::Promote).is_err());
        assert_eq!(place.step(Step::Begin), Ok(Done::Now));
        let foreign = Place::new(&format!("{OLD}\n{OLD}x\n"));
        for any in [Step::Begin, Step::Promote, Step::Finish] {
            let refused = foreign.step(any).expect_err("which one is new?");
            assert!(!refused.contains(OLD), "{refused}");
        }
        let bad = Place::new("short");
        assert!(bad.step(Step::Begin).is_err());
        assert_eq!(bad.text(), "short");
    }
}
