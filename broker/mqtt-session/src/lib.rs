//! What an MQTT server does with a packet: one session as a value.
//!
//! [`Session`] takes [`Event`]s and gives [`Action`]s. It has no socket, clock, randomness, lock or task: time comes in as an argument, and
//! the session names its next deadline. The driving law: one event in, drain all actions, then the next; `flush` at the end of a batch. A
//! driver that follows it needs no knowledge of MQTT. What its clients may do stands in [`Settings`].

mod action;
mod connect;
mod event;
mod inbound;
mod keep_alive;
mod outbound;
mod pending;
mod reason;
mod session;
mod settings;
mod subscribe;
mod will;

pub use action::{Action, Alias, AttachRequest, AuthRequest, CloseReason, DropReason, OpId, SubscribeEntry};
pub use event::{AuthOutcome, Delivery, Event, PublishOutcome, SubscribeOutcome, UnsubscribeOutcome};
pub use session::Session;
pub use settings::{SettingError, SettingInfo, Settings};
