//! What callers hand to each other: payloads, results, lines of progress. Kept and delivered as it is, and shown in
//! no log: its `Debug` is its length.

use std::{fmt, ops::Deref};

use bytes::Bytes;

/// Bytes of a caller's. A clone shares them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Data(Bytes);

/// Shows how many bytes there are, and none of them: for the `Debug` of what has some in a field.
pub(crate) struct Length(pub(crate) usize);

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Data> for Vec<u8> {
    fn from(data: Data) -> Self {
        data.0.into()
    }
}

impl From<Data> for Bytes {
    fn from(data: Data) -> Self {
        data.0
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Length(self.0.len()).fmt(f)
    }
}

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}
