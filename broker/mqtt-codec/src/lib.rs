//! MQTT 3.1, 3.1.1 and 5.0 on the wire: bytes to packets and back, strict and without copies.
//!
//! One packet model, shaped like 5.0, for all versions: [`Packet`]. 3.1 and 3.1.1 are narrowed where they are encoded.
//! No I/O, no clock, no session state; what a packet *means* is `mqtt-session`'s business.

mod packet;
mod property;
mod reason_code;
mod version;

pub use packet::*;
pub use property::UserProperty;
pub use reason_code::ReasonCode;
pub use version::Version;
