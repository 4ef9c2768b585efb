/// The protocol level of a connection, from its CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V3 = 3,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V4 = 4,
    /// MQTT 5.0: protocol name `MQTT`, level 5.
    V5 = 5,
}
