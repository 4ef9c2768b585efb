use crate::DecodeError;
use crate::property::{Property, Set};
use crate::reader::Reader;
use std::num::NonZeroU16;

/// The properties of an application message: those of a PUBLISH or of a will.
#[derive(Default)]
pub(super) struct MessageProperties {
    pub(super) message_expiry_interval: Option<u32>,
    pub(super) topic_alias: Option<NonZeroU16>,
    pub(super) subscription_identifiers: Vec<u32>,
    pub(super) will_delay_interval: u32,
    pub(super) payload_is_utf8: bool,
    pub(super) forwarded: Forwarded,
}

/// The properties that are passed on, validated, in wire form.
pub(super) enum Forwarded {
    /// They stand side by side in the packet, as they nearly always do: `length` bytes that start `back` bytes before the end of
    /// the properties. No borrow, so that the buffer can be cut.
    Slice { back: usize, length: usize },
    /// Others stood between them.
    Gathered(Vec<u8>),
}

impl Default for Forwarded {
    fn default() -> Self {
        Self::Slice { back: 0, length: 0 }
    }
}

impl MessageProperties {
    pub(super) fn read(r: &mut Reader<'_>, allowed: Set) -> Result<Self, DecodeError> {
        let mut out = Self::default();
        let mut properties = r.properties(allowed)?;
        let block = properties.reader.rest;
        // Where the run of forwarded properties starts and ends, and where the property that was read last ends.
        let (mut start, mut end, mut at) = (0, 0, 0);
        while let Some(property) = properties.next()? {
            let from = std::mem::replace(&mut at, block.len() - properties.reader.rest.len());
            match property {
                Property::MessageExpiryInterval(secs) => out.message_expiry_interval = Some(secs),
                Property::TopicAlias(alias) => out.topic_alias = Some(alias),
                Property::SubscriptionIdentifier(id) => out.subscription_identifiers.push(id.get()),
                Property::WillDelayInterval(secs) => out.will_delay_interval = secs,
                other => {
                    if let Property::PayloadFormatIndicator(utf8) = other {
                        out.payload_is_utf8 = utf8;
                    }
                    match &mut out.forwarded {
                        Forwarded::Gathered(bytes) => bytes.extend_from_slice(&block[from..at]),
                        Forwarded::Slice { .. } if end > start && end != from => {
                            out.forwarded = Forwarded::Gathered([&block[start..end], &block[from..at]].concat());
                        }
                        Forwarded::Slice { .. } => {
                            if end == start {
                                start = from;
                            }
                            end = at;
                        }
                    }
                }
            }
        }
        if let Forwarded::Slice { back, length } = &mut out.forwarded {
            (*back, *length) = (block.len() - start, end - start);
        }
        Ok(out)
    }
}
