//! What makes many nodes one broker: membership and policies of the stores, messages for live sessions elsewhere, one owner for each
//! client id, and a view of routes that is known to be young enough.

mod claims;
mod control;
mod facts;
mod freshness;
mod landscape;
mod parcel;
mod part;
mod reaper;
mod remote;
mod status;

pub(crate) use claims::{Claim, Claims, Stamp};
pub(crate) use facts::About;
pub(crate) use freshness::Freshness;
pub(crate) use parcel::{Aim, Parcel};
pub(crate) use part::{JoinError, Part, Sockets, listen};
pub(crate) use reaper::run as clear_away;
pub(crate) use remote::{PARCEL_BYTES, Remote};
pub(crate) use status::{Status, router};
