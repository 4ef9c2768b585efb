//! What an MQTT server does with a packet: one session as a value.
//!
//! [`Session`] takes [`Event`]s and gives [`Action`]s. It has no socket, clock, lock or task: time comes in as an argument, and the session
//! names its next deadline. The driving law: one event in, drain all actions, then the next. A driver that follows it needs no
//! knowledge of MQTT.

mod action;
mod event;

pub use action::{Action, Alias, AttachRequest, AuthRequest, CloseReason, DropReason, OpId, SubscribeEntry};
pub use event::{AuthOutcome, Delivery, Event, PublishOutcome, SubscribeOutcome, UnsubscribeOutcome};
