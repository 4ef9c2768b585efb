//! The retained messages: a coprocessor on a range with one key for each topic, and the client.
//!
//! There is no index beside the keys. They are ordered by topic level, so whatever a filter matches is found by walking the keys and
//! leaping over the subtrees that can't match: a reader of `#` reads the range in order, `a/+/c` leaps from one `a/x/c` to the next.
//! Read [`RetainStore`] first, then `walk.rs`.

mod command;
mod coproc;
mod schema;
mod store;
#[cfg(test)]
mod testing;
mod walk;

pub use coproc::{RetainCoproc, RetainFigures};
pub use store::{RetainConfig, RetainStore};
