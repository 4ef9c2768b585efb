use bytestring::ByteString;

/// A name and a value that belong to the application (MQTT 5.0 §2.2.2.2, property 38). Order and repeats are kept.
pub type UserProperty = (ByteString, ByteString);
