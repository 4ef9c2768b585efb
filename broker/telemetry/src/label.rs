//! Labels with few values that are known beforehand.

use base_types::QoS;

/// A label whose values are known, so that a family of counters is an array.
pub trait Label: Copy {
    /// The name of the label.
    const NAME: &'static str;
    /// Its values, at most [`Family::MAX`](crate::Family::MAX).
    const VALUES: &'static [&'static str];

    /// Which of the values.
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[$meta:meta])* $name:ident $label:literal { $($(#[$vmeta:meta])* $value:ident = $text:literal),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* #[doc = concat!("`", $text, "`")] $value),* }

        impl Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($text),*];

            fn index(self) -> usize {
                self as usize
            }
        }
    )*};
}

labels! {
    /// The layers between the socket and MQTT.
    Layer "transport" { Tcp = "tcp", Tls = "tls", Ws = "ws", Wss = "wss" }

    /// The version of MQTT that a client speaks.
    ProtocolVersion "version" { V31 = "3.1", V311 = "3.1.1", V5 = "5.0" }

    /// The stores.
    Store "store" { Dist = "dist", Inbox = "inbox", Retain = "retain" }

    /// The packet types of MQTT.
    PacketKind "type" {
        Connect = "connect", ConnAck = "connack", Publish = "publish", PubAck = "puback", PubRec = "pubrec",
        PubRel = "pubrel", PubComp = "pubcomp", Subscribe = "subscribe", SubAck = "suback",
        Unsubscribe = "unsubscribe", UnsubAck = "unsuback", PingReq = "pingreq", PingResp = "pingresp",
        Disconnect = "disconnect", Auth = "auth",
    }
}

impl PacketKind {
    /// By the number in the first four bits of a packet (5.0 §2.1.2).
    pub const fn from_number(number: u8) -> Option<Self> {
        use PacketKind::*;
        const ALL: [PacketKind; 15] = [
            Connect,
            ConnAck,
            Publish,
            PubAck,
            PubRec,
            PubRel,
            PubComp,
            Subscribe,
            SubAck,
            Unsubscribe,
            UnsubAck,
            PingReq,
            PingResp,
            Disconnect,
            Auth,
        ];
        match number {
            1..=15 => Some(ALL[number as usize - 1]),
            _ => None,
        }
    }
}

impl Label for QoS {
    const NAME: &'static str = "qos";
    const VALUES: &'static [&'static str] = &["0", "1", "2"];

    fn index(self) -> usize {
        self as usize
    }
}
