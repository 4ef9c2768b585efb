use base_types::Message;
use bytestring::ByteString;
use std::sync::Arc;

/// A will as the inbox keeps it (MQTT 5.0 §3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingWill {
    /// The message; its expiry is counted from the moment of firing, see `expiry_secs`.
    pub message: Arc<Message>,
    /// Seconds between the end of the connection and the will. The end of the session fires it too, whichever comes first.
    pub delay_secs: u32,
    /// Seconds that the message lives once published.
    pub expiry_secs: Option<u32>,
    /// Whose right to publish is asked for when it fires: told with a will that is due, the [`crate::Attach::owner`] that set it; not
    /// looked at before.
    pub owner: ByteString,
}

/// What becomes of a will when the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WillFate {
    /// The connection ended without DISCONNECT, or with Disconnect with will message: it fires after its delay.
    Publish,
    /// DISCONNECT with normal disconnection: it is gone [MQTT-3.14.4-3].
    Discard,
}
