//! MQTT 3.1, 3.1.1 and 5.0 on the wire: bytes to packets and back, strict and without copies.
//!
//! One packet model, shaped like 5.0, for all versions: [`Packet`]. 3.1 and 3.1.1 are narrowed where they are encoded.
//! No I/O, no clock, no session state; what a packet *means* is `mqtt-session`'s business.
//!
//! [`Decoder`] cuts packets out of a read buffer; [`encode`] writes any packet; [`PublishParts`] and
//! [`PublishTemplate`] write a PUBLISH from borrowed parts, for one receiver or for many.
//!
//! What belongs to one packet is refused here, with the reason code of 5.0; what needs to know the session (limits,
//! aliases, which packet answers which, whether a topic filter is good) is not.

mod decode;
mod decoder;
mod encode;
mod error;
mod forwarded;
mod packet;
mod packet_type;
mod property;
mod publish_parts;
mod reader;
mod reason_code;
mod varint;
mod version;

pub use decode::MAX_FILTERS;
pub use decoder::{Decoder, Role};
pub use encode::{encode, encoded_len};
pub use error::{DecodeError, EncodeError, Flaw};
pub use forwarded::{ForwardedBuilder, ForwardedProperties, ForwardedProperty};
pub use packet::*;
pub use packet_type::PacketType;
pub use property::{MAX_PROPERTIES, MAX_PROPERTY_BYTES, UserProperty};
pub use publish_parts::{MAX_PACKET_SIZE, PublishParts, PublishTemplate};
pub use reader::has_discouraged_characters;
pub use reason_code::{InvalidReasonCode, ReasonCode};
pub use version::Version;
