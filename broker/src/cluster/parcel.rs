//! Messages for the live sessions of another node, many in one body.
//!
//! Layout: `format(1)`, then for each message `kind(1) tenant [aim] message`, all length-prefixed. What is read back are slices of the body.

use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use base_types::{ClientId, Message, SharedFilter, SubscriptionFilter, TenantId};
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

const FORMAT: u8 = 1;
const SUBSCRIBERS: u8 = 1;
const GROUP: u8 = 2;
const CLIENT: u8 = 3;

/// For whom of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Every live session with a filter that matches.
    Subscribers,
    /// One live member of a shared group.
    Group(SharedFilter),
    /// A persistent session that is connected there, with QoS 0.
    Client { client: ClientId, retain: bool, identifiers: SmallVec<[u32; 1]> },
}

/// What is on its way to one node.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    body: BytesMut,
    count: u32,
    /// Something in it is for a member of a shared group, and is tried elsewhere when there is none.
    has_group: bool,
}

impl Parcel {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the sender has to know what became of each message.
    pub(crate) fn wants_answer(&self) -> bool {
        self.has_group
    }

    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// Appends a message and tells where it stands.
    pub(crate) fn push(&mut self, tenant: &TenantId, aim: &Aim, message: &Message) -> u32 {
        let body = &mut self.body;
        if body.is_empty() {
            body.put_u8(FORMAT);
        }
        body.reserve(message.encoded_len_max() + tenant.as_str().len() + 64);
        self.has_group |= matches!(aim, Aim::Group(_));
        body.put_u8(match aim {
            Aim::Subscribers => SUBSCRIBERS,
            Aim::Group(_) => GROUP,
            Aim::Client { .. } => CLIENT,
        });
        put_prefixed(body, tenant.as_str().as_bytes());
        match aim {
            Aim::Subscribers => {}
            Aim::Group(shared) => SubscriptionFilter::Shared(shared.clone()).encode_to(body),
            Aim::Client { client, retain, identifiers } => {
                put_prefixed(body, client.as_str().as_bytes());
                body.put_u8(u8::from(*retain));
                put_varint(body, identifiers.len() as u64);
                for identifier in identifiers {
                    put_varint(body, u64::from(*identifier));
                }
            }
        }
        // The length of the message is known only once it is written: four bytes are kept for it.
        let at = body.len();
        body.put_u32(0);
        message.encode_to(body);
        let length = u32::try_from(body.len() - at - 4).unwrap_or(u32::MAX);
        body[at..at + 4].copy_from_slice(&length.to_be_bytes());
        self.count += 1;
        self.count - 1
    }

    /// What is to be sent, and how many messages that are; the parcel is empty after it and keeps its memory where it can.
    pub(crate) fn take(&mut self) -> (Bytes, u32) {
        self.has_group = false;
        let body = self.body.split().freeze();
        (body, std::mem::take(&mut self.count))
    }
}

/// Reads a body back.
pub(crate) struct Opened(Option<Reader>);

impl Opened {
    pub(crate) fn new(body: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(body);
        match r.u8()? {
            FORMAT => Ok(Self(Some(r))),
            other => Err(WireError::UnknownFormat(other)),
        }
    }

    fn read(r: &mut Reader) -> Result<(TenantId, Aim, Message), WireError> {
        let kind = r.u8()?;
        let tenant = TenantId::new(r.text("tenant")?).map_err(|_| WireError::Text("tenant"))?;
        let aim = match kind {
            SUBSCRIBERS => Aim::Subscribers,
            GROUP => match SubscriptionFilter::decode(r)? {
                SubscriptionFilter::Shared(shared) => Aim::Group(shared),
                SubscriptionFilter::Normal(_) => return Err(WireError::Text("shared filter")),
            },
            CLIENT => {
                let client = ClientId::new(r.text("client id")?).map_err(|_| WireError::Text("client id"))?;
                let retain = r.u8()? != 0;
                let mut identifiers = SmallVec::new();
                for _ in 0..r.varint()? {
                    let value = r.varint()?;
                    let invalid = WireError::Invalid { what: "a subscription identifier", value };
                    identifiers.push(u32::try_from(value).map_err(|_| invalid)?);
                }
                Aim::Client { client, retain, identifiers }
            }
            other => return Err(WireError::Invalid { what: "the aim of a message", value: u64::from(other) }),
        };
        let length = r.bytes(4)?.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
        Ok((tenant, aim, Message::decode(r.bytes(length)?)?))
    }
}

impl Iterator for Opened {
    type Item = Result<(TenantId, Aim, Message), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let r = self.0.as_mut().filter(|r| !r.is_empty())?;
        let read = Self::read(r);
        if read.is_err() {
            self.0 = None;
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base_types::{QoS, TopicName, WallMs};
    use bytestring::ByteString;
    use proptest::prelude::*;

    fn message(payload: Vec<u8>) -> Message {
        Message {
            topic: TopicName::new("a/b").unwrap(),
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Bytes::new(),
            expires_at: Some(WallMs(7)),
            publisher: Some(ClientId::new("p").unwrap()),
        }
    }

    fn aims() -> Vec<Aim> {
        let SubscriptionFilter::Shared(shared) =
            SubscriptionFilter::parse(&ByteString::from_static("$share/g/a/+")).unwrap()
        else {
            panic!("shared")
        };
        let client = ClientId::new("c").unwrap();
        vec![
            Aim::Subscribers,
            Aim::Group(shared),
            Aim::Client { client, retain: true, identifiers: SmallVec::from_slice(&[1, 300]) },
        ]
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..20)) {
            let (mut parcel, tenant) = (Parcel::default(), TenantId::default());
            let mut packed = Vec::new();
            for (at, payload) in payloads.into_iter().enumerate() {
                let (aim, message) = (aims()[at % 3].clone(), message(payload));
                prop_assert_eq!(parcel.push(&tenant, &aim, &message) as usize, at);
                packed.push((tenant.clone(), aim, message));
            }
            let (body, count) = parcel.take();
            prop_assert_eq!(count as usize, packed.len());
            prop_assert!(parcel.is_empty());
            if !packed.is_empty() {
                let out: Result<Vec<_>, _> = Opened::new(body).unwrap().collect();
                prop_assert_eq!(out.unwrap(), packed);
            }
        }

        #[test]
        fn damaged_bytes_are_an_error_and_nothing_worse(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            if let Ok(opened) = Opened::new(bytes.into()) {
                let _ = opened.count();
            }
        }
    }
}
