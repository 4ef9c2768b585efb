//! MQTT over WebSocket: RFC 6455 as MQTT 5.0 §6 uses it, server side.
//!
//! Written by hand rather than on tungstenite, because a stream of bytes needs less than messages: payload is unmasked in the caller's read
//! buffer, so an idle connection holds no buffer, a frame costs no memory whatever length it claims, and a write goes out as one `writev`
//! without being gathered first. What is left of the RFC then, without text and extensions, is short: [`upgrade`] and
//! [`Decoder`](frame::Decoder).

mod frame;
mod stream;
mod upgrade;

pub use frame::FrameError;
pub use stream::WsStream;
pub use upgrade::UpgradeError;
pub(crate) use upgrade::upgrade;

/// How a listener speaks WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsOptions {
    /// The path that clients must ask for, e.g. `/mqtt`. A query after it is ignored.
    pub path: String,
    /// The longest payload of one frame that a client may send, in bytes. Frames are not buffered, so this costs no memory.
    pub max_frame: u64,
}

impl WsOptions {
    /// Frames of at most 16 MiB at `path`.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), max_frame: 16 << 20 }
    }
}
