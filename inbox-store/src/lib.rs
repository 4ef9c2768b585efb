//! Persistent sessions and their queues: [`InboxCoproc`] lives in a range, [`InboxStore`] is how a node talks to it.
//!
//! An inbox is a record (who owns it, until when), subscriptions, and a queue of numbered entries. A message is stored once in a range
//! however many queues hold it: entries refer to it, and it goes with the last of them. What a command needs to know is kept in
//! memory, so inserting and acknowledging read nothing from disk; that memory does not grow with the queues.
//!
//! There is no clock, no randomness and no map in hash order in what is replicated: `state` is a value that takes commands. Read
//! `schema`, then `state`.

mod adoption;
mod command;
mod config;
mod coproc;
mod inbox;
mod ledger;
mod reply;
mod schema;
mod seqs;
mod state;
mod store;
mod tail;
mod timer;

#[cfg(test)]
mod testing;

pub use config::InboxConfig;
pub use coproc::{InboxCoproc, InboxHandle};
pub use store::InboxStore;

use base_kv_api::KvError;
use base_types::wire::WireError;

/// What is on disk is not what was written: the replica stops, it never guesses.
fn corrupt(doing: &'static str) -> impl FnOnce(WireError) -> KvError {
    move |error| KvError { doing, cause: error.to_string() }
}
