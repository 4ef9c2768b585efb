use crate::encode::{Length, Sink};
use crate::property::{Properties, Property, id, sets};
use crate::reader::Reader;
use crate::{DecodeError, EncodeError, PacketType};
use bytes::{Bytes, BytesMut};

/// One of the properties that a server forwards unaltered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub enum ForwardedProperty<'a> {
    /// `true`: the payload is UTF-8.
    PayloadFormatIndicator(bool),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    UserProperty(&'a str, &'a str),
}

/// Reads [`crate::Publish::forwarded`] and [`crate::Will::forwarded`], in order.
///
/// What a [`crate::Decoder`] made gives no error; other bytes may. It ends after an error.
pub struct ForwardedProperties<'a>(Option<Properties<'a>>);

impl<'a> ForwardedProperties<'a> {
    /// Of a block in wire form, without the length in front.
    #[must_use]
    pub fn new(block: &'a [u8]) -> Self {
        Self(Some(Properties::new(Reader::new(PacketType::Publish, block), sets::FORWARDED)))
    }
}

impl<'a> Iterator for ForwardedProperties<'a> {
    type Item = Result<ForwardedProperty<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let property = match self.0.as_mut()?.next() {
            Ok(property) => property?,
            Err(error) => {
                self.0 = None;
                return Some(Err(error));
            }
        };
        Some(Ok(match property {
            Property::PayloadFormatIndicator(utf8) => ForwardedProperty::PayloadFormatIndicator(utf8),
            Property::ContentType(text) => ForwardedProperty::ContentType(text),
            Property::ResponseTopic(topic) => ForwardedProperty::ResponseTopic(topic),
            Property::CorrelationData(data) => ForwardedProperty::CorrelationData(data),
            Property::User(name, value) => ForwardedProperty::UserProperty(name, value),
            _ => return None,
        }))
    }
}

/// Writes a block for [`crate::Publish::forwarded`], [`crate::Will::forwarded`] or [`base_types::Message::properties`].
///
/// It does not judge what it is given, but for what a length cannot express.
#[derive(Clone, Debug, Default)]
pub struct ForwardedBuilder(BytesMut);

impl ForwardedBuilder {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a property.
    ///
    /// # Errors
    /// When a text or the data is longer than 65,535 bytes. Nothing is appended then.
    pub fn push(&mut self, property: ForwardedProperty<'_>) -> Result<&mut Self, EncodeError> {
        fn write(property: ForwardedProperty<'_>, out: &mut impl Sink) {
            match property {
                ForwardedProperty::PayloadFormatIndicator(utf8) => {
                    out.bool_property(id::PAYLOAD_FORMAT_INDICATOR, Some(utf8))
                }
                ForwardedProperty::ContentType(text) => out.binary_property(id::CONTENT_TYPE, Some(text)),
                ForwardedProperty::ResponseTopic(topic) => out.binary_property(id::RESPONSE_TOPIC, Some(topic)),
                ForwardedProperty::CorrelationData(data) => out.binary_property(id::CORRELATION_DATA, Some(data)),
                ForwardedProperty::UserProperty(name, value) => {
                    out.u8(id::USER_PROPERTY);
                    out.binary(name);
                    out.binary(value);
                }
            }
        }
        let mut length = Length::default();
        write(property, &mut length);
        self.0.reserve(length.of(PacketType::Publish)?);
        write(property, &mut self.0);
        Ok(self)
    }

    /// The block.
    #[must_use]
    pub fn build(self) -> Bytes {
        self.0.freeze()
    }
}
