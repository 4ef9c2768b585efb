//! How `hermod sub` shows a message.

use mqtt_codec::{ForwardedProperties, ForwardedProperty, Publish};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is written for each message, without the line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    Payload,
    Hex,
    Length,
    QoS,
    Retain,
    Dup,
    PacketId,
    Seconds,
    Json,
}

impl Format {
    /// The payload, or with `topics` also the topic in front.
    pub(super) fn plain(topics: bool) -> Self {
        if topics { Self(vec![Part::Topic, Part::Text(" ".into()), Part::Payload]) } else { Self(vec![Part::Payload]) }
    }

    /// `json`, or a text with the placeholders of mosquitto_sub.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "json" {
            return Ok(Self(vec![Part::Json]));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let part = match c {
                '%' => match chars.next() {
                    Some('%') => None,
                    Some('t') => Some(Part::Topic),
                    Some('p') => Some(Part::Payload),
                    Some('x') => Some(Part::Hex),
                    Some('l') => Some(Part::Length),
                    Some('q') => Some(Part::QoS),
                    Some('r') => Some(Part::Retain),
                    Some('d') => Some(Part::Dup),
                    Some('m') => Some(Part::PacketId),
                    Some('U') => Some(Part::Seconds),
                    Some('j') => Some(Part::Json),
                    other => {
                        let other = other.map(String::from).unwrap_or_default();
                        return Err(format!("%{other} is unknown; known are %t %p %x %l %q %r %d %m %U %j %%"));
                    }
                },
                '\\' => {
                    literal.push(match chars.next() {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('r') => '\r',
                        Some('0') => '\0',
                        Some('\\') => '\\',
                        _ => return Err("a backslash stands before one of n, t, r, 0, \\".into()),
                    });
                    continue;
                }
                other => {
                    literal.push(other);
                    continue;
                }
            };
            match part {
                Some(part) => {
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(part);
                }
                None => literal.push('%'),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }

    /// The bytes for one message; the payload as it is.
    pub(super) fn show(&self, publish: &Publish) -> Vec<u8> {
        let mut out = Vec::with_capacity(publish.payload.len() + 64);
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Topic => out.extend_from_slice(topic(publish).as_bytes()),
                Part::Payload => out.extend_from_slice(&publish.payload),
                Part::Hex => out.extend_from_slice(hex(&publish.payload).as_bytes()),
                Part::Length => out.extend_from_slice(publish.payload.len().to_string().as_bytes()),
                Part::QoS => out.extend_from_slice(u8::from(publish.qos).to_string().as_bytes()),
                Part::Retain => out.push(if publish.retain { b'1' } else { b'0' }),
                Part::Dup => out.push(if publish.dup { b'1' } else { b'0' }),
                Part::PacketId => out.extend_from_slice(packet_id(publish).to_string().as_bytes()),
                Part::Seconds => out.extend_from_slice(format!("{:.9}", unix_seconds()).as_bytes()),
                Part::Json => out.extend_from_slice(json(publish).to_string().as_bytes()),
            }
        }
        out
    }
}

fn topic(publish: &Publish) -> &str {
    publish.topic.as_ref().map_or("", |topic| topic.as_str())
}

fn packet_id(publish: &Publish) -> u16 {
    publish.packet_id.map_or(0, u16::from)
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// One object: the payload as text, or in hexadecimal when it is none.
fn json(publish: &Publish) -> Value {
    let mut object = Map::new();
    object.insert("tst".into(), json!(unix_seconds()));
    object.insert("topic".into(), json!(topic(publish)));
    object.insert("qos".into(), json!(u8::from(publish.qos)));
    object.insert("retain".into(), json!(publish.retain));
    object.insert("payloadlen".into(), json!(publish.payload.len()));
    if publish.dup {
        object.insert("dup".into(), json!(true));
    }
    if let Some(id) = publish.packet_id {
        object.insert("mid".into(), json!(id));
    }
    let mut properties = Map::new();
    if let Some(seconds) = publish.message_expiry_interval {
        properties.insert("message-expiry-interval".into(), json!(seconds));
    }
    if !publish.subscription_identifiers.is_empty() {
        properties.insert("subscription-identifiers".into(), json!(publish.subscription_identifiers));
    }
    let mut user = Vec::new();
    // Our decoder has checked them.
    for property in ForwardedProperties::new(&publish.forwarded).flatten() {
        let (name, value) = match property {
            ForwardedProperty::PayloadFormatIndicator(utf8) => ("payload-format-indicator", json!(u8::from(utf8))),
            ForwardedProperty::ContentType(text) => ("content-type", json!(text)),
            ForwardedProperty::ResponseTopic(topic) => ("response-topic", json!(topic)),
            ForwardedProperty::CorrelationData(data) => ("correlation-data", text_or_hex(data)),
            ForwardedProperty::UserProperty(name, value) => {
                user.push(json!({ name: value }));
                continue;
            }
        };
        properties.insert(name.into(), value);
    }
    if !user.is_empty() {
        properties.insert("user-properties".into(), Value::Array(user));
    }
    if !properties.is_empty() {
        object.insert("properties".into(), Value::Object(properties));
    }
    match std::str::from_utf8(&publish.payload) {
        Ok(text) => object.insert("payload".into(), json!(text)),
        Err(_) => object.insert("payload_hex".into(), json!(hex(&publish.payload))),
    };
    Value::Object(object)
}

fn text_or_hex(data: &[u8]) -> Value {
    std::str::from_utf8(data).map_or_else(|_| json!(hex(data)), |text| json!(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base_types::{PacketId, QoS, TopicName};
    use bytes::Bytes;
    use mqtt_codec::ForwardedBuilder;

    fn message(payload: &'static [u8]) -> Publish {
        let mut forwarded = ForwardedBuilder::new();
        forwarded.push(ForwardedProperty::ContentType("text/plain")).unwrap();
        forwarded.push(ForwardedProperty::UserProperty("a", "1")).unwrap();
        forwarded.push(ForwardedProperty::UserProperty("a", "2")).unwrap();
        Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: Some(TopicName::new("a/b").unwrap()),
            packet_id: PacketId::new(7),
            payload: Bytes::from_static(payload),
            message_expiry_interval: Some(9),
            topic_alias: None,
            subscription_identifiers: Vec::new(),
            payload_is_utf8: false,
            forwarded: forwarded.build(),
        }
    }

    #[test]
    fn placeholders_stand_for_parts_of_the_message() {
        let format = Format::parse("%t [%q%r%d] %m %l %x 100%%\\t%p").unwrap();
        assert_eq!(format.show(&message(b"hi")), b"a/b [110] 7 2 6869 100%\thi");
        assert_eq!(Format::plain(true).show(&message(b"\xff")), b"a/b \xff");
        assert!(Format::parse("%z").unwrap_err().contains("%z is unknown"));
        assert!(Format::parse("%").is_err());
        assert!(Format::parse("\\q").is_err());
    }

    #[test]
    fn json_has_the_properties_too() {
        let shown: Value = serde_json::from_slice(&Format::parse("json").unwrap().show(&message(b"hi"))).unwrap();
        assert_eq!(shown["payload"], "hi");
        assert_eq!(shown["retain"], true);
        assert_eq!(shown["properties"]["content-type"], "text/plain");
        assert_eq!(shown["properties"]["user-properties"], json!([{"a": "1"}, {"a": "2"}]));
        let shown: Value = serde_json::from_slice(&Format::parse("%j").unwrap().show(&message(b"\xff"))).unwrap();
        assert_eq!(shown["payload_hex"], "ff");
    }
}
