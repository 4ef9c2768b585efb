//! What makes many nodes one broker: messages for live sessions elsewhere, one owner for each client id, and a view of routes that
//! is known to be young enough.

mod claims;
mod freshness;
mod parcel;
mod remote;

pub(crate) use claims::{Claim, Claims, Stamp};
pub(crate) use freshness::Freshness;
pub(crate) use parcel::{Aim, Parcel};
pub(crate) use remote::{PARCEL_BYTES, Remote};
