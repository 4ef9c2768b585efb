//! Persistent sessions and their queues: [`InboxCoproc`] lives in a range, [`InboxStore`] is how a node talks to it.
//!
//! An inbox is a record (who owns it, until when), subscriptions, and a queue of numbered entries. A message is stored once in a range
//! however many queues hold it: entries refer to it, and it goes with the last of them. What a command needs to know is kept in
//! memory, so inserting and acknowledging read nothing from disk; that memory does not grow with the queues.
//!
//! Every node has a replica of all inboxes. A change may be made on any node and is answered when that node has applied it; reads look at
//! the node's own replica, which may lag, and nothing is decided on them that a command would not refuse. What happens is told on the one
//! node that it concerns: messages and takeovers where the connection is; wills and sessions that ended on the node that leads, by each
//! leader anew, until they are settled.
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
