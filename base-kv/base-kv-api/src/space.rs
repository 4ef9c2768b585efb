use bytes::Bytes;
use std::ops::Range;

/// The engine failed. Fatal for the replica: it stops and says so, it never guesses.
#[derive(Clone, Debug, thiserror::Error)]
#[error("storage failed while it was asked to {doing}: {cause}")]
pub struct KvError {
    /// What was being done.
    pub doing: &'static str,
    /// What the engine said.
    pub cause: String,
}

/// What a visitor of a scan wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Go on.
    More,
    /// Stop here.
    Enough,
}

/// A consistent view of the keys of one range.
pub trait KvRead {
    /// The value of a key.
    ///
    /// # Errors
    /// When the engine fails.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Visits the pairs of `[start, end)` in key order until the visitor has enough.
    ///
    /// # Errors
    /// When the engine fails.
    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError>;
}

/// The space that a mutation works on: it reads its own writes, and all of them become visible and durable together with the
/// applied index, or not at all.
pub trait KvSpace: KvRead {
    /// Sets a key.
    fn put(&mut self, key: &[u8], value: &[u8]);
    /// Removes a key; removing what is not there is fine.
    fn delete(&mut self, key: &[u8]);
    /// Removes all keys of `[start, end)`.
    fn delete_range(&mut self, keys: Range<&[u8]>);
}
