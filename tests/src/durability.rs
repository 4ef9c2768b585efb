//! The durability checker: what was acknowledged is there after the broker died, in order, and not more often than it may be.
//!
//! Publishers at QoS 1 and 2 publish to persistent sessions, half of them connected and half not, while retained messages and
//! subscriptions come and go. A [`Fault`] strikes at a random moment; the broker starts again, everybody reconnects as MQTT says, and
//! when all has been drained it is compared. An operation whose acknowledgement never came is *unknown*: it may have happened or
//! not, but a QoS 2 message only once, and never out of order.

mod cast;
mod churn;
mod fault;
mod lab;
mod publisher;
mod receiver;
mod report;

pub use fault::Fault;
pub use lab::{Lab, Plan};
pub use report::Report;
