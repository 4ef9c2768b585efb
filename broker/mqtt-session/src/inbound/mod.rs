//! From the client to the broker: what is open, in which order it is answered, and what the client may do.

mod ack_queue;
mod alias;
mod id_set;
mod publish;
mod rate;

pub(crate) use ack_queue::{AckQueue, Answer};
pub(crate) use alias::AliasesIn;
pub(crate) use id_set::IdSet;
pub(crate) use rate::Rate;
