//! The envelope of a packet: who may read it, and whether it is what it says.
//!
//! Layout, big-endian; all of the header is authenticated:
//!
//! ```text
//! "HM" version(1) kind(1) env(8) key(4) node(8) incarnation(8) salt(8) counter(8) to_salt(8) body… tag(16)
//! ```
//!
//! `key` names the secret; 0 is none, and then `tag` is a checksum and nothing is hidden. The key of a sender is derived from the secret, his
//! node, incarnation and salt, so that a nonce (the counter) is never used twice under one key. A receiver takes each counter of a sender once.
//! `to_salt` is the salt of the receiver's run, so that no packet recorded before its start means anything to it; only [`Kind::Hello`] goes
//! without, and that changes nothing at who gets it.

use crate::options::Secret;
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest;
use ring::hkdf::{self, HKDF_SHA256, KeyType, Prk};
use std::cmp::Ordering;
use std::collections::BTreeMap;

const MAGIC: [u8; 2] = *b"HM";
const VERSION: u8 = 1;
pub(crate) const HEADER: usize = 56;
pub(crate) const TAG: usize = 16;
/// The largest packet: fits into one frame of Ethernet, tunnels included.
pub(crate) const PACKET: usize = 1400;
/// Senders that are remembered; who was not heard for the longest time goes first.
const SENDERS: usize = 4096;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// "Who are you?", to an address.
    Hello = 1,
    /// The answer.
    Welcome = 2,
    /// A message of foca.
    Gossip = 3,
}

/// Why a packet was thrown away. Nothing changed, except this count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// Not a packet of ours: length, first bytes, or a body that can't be read.
    Malformed,
    /// Of another version of the protocol.
    Version,
    /// Of a cluster of another name.
    Env,
    /// Sealed with another secret, or not sealed, or sealed where nothing is.
    Secret,
    /// The seal is broken.
    Forged,
    /// Seen before, or so old that nobody knows.
    Replayed,
    /// For another run of this node, or another node.
    Misdirected,
    /// Of another process with the identity of a node that is known.
    Twin,
    /// More questions than are answered in a second.
    Flood,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Version,
        Self::Env,
        Self::Secret,
        Self::Forged,
        Self::Replayed,
        Self::Misdirected,
        Self::Twin,
        Self::Flood,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Env => "env",
            Self::Secret => "secret",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::Misdirected => "misdirected",
            Self::Twin => "twin",
            Self::Flood => "flood",
        }
    }

    /// What a person reads, if it is more than noise.
    pub(crate) fn foreign(self) -> Option<&'static str> {
        match self {
            Self::Version => Some("another version of the protocol"),
            Self::Env => Some("a cluster of another name (env)"),
            Self::Secret => Some("another cluster secret"),
            Self::Forged => Some("a broken seal"),
            Self::Twin => Some("the identity of another node that runs"),
            Self::Malformed | Self::Replayed | Self::Misdirected | Self::Flood => None,
        }
    }
}

/// A packet that is what it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened<'a> {
    pub(crate) kind: Kind,
    pub(crate) from: NodeIncarnation,
    pub(crate) salt: u64,
    pub(crate) body: &'a [u8],
}

/// Seals what this run sends, and opens what others sent to it.
pub(crate) struct Seal {
    env: u64,
    secrets: Vec<Shared>,
    me: Origin,
    key: Option<LessSafeKey>,
    counter: u64,
    senders: BTreeMap<NodeId, Sender>,
    heard: u64,
}

/// A secret and its name on the wire.
struct Shared {
    id: u32,
    prk: Prk,
}

/// A run, and the salt that it drew.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Origin {
    run: NodeIncarnation,
    salt: u64,
}

struct Sender {
    origin: Origin,
    key_id: u32,
    key: Option<LessSafeKey>,
    window: Window,
    heard: u64,
}

impl Sender {
    /// Whether packets of `origin` may follow those of this sender, who has the same node id.
    fn judge(&self, origin: Origin) -> Result<(), Refusal> {
        match origin.run.incarnation.cmp(&self.origin.run.incarnation) {
            Ordering::Less => Err(Refusal::Replayed),
            Ordering::Equal if origin != self.origin => Err(Refusal::Twin),
            _ => Ok(()),
        }
    }
}

struct Header {
    kind: Kind,
    env: u64,
    key: u32,
    origin: Origin,
    counter: u64,
    to: u64,
}

impl Seal {
    pub(crate) fn new(env: &str, secrets: &[Secret], run: NodeIncarnation, salt: u64) -> Self {
        let secrets: Vec<_> = secrets.iter().map(|secret| Shared::new(secret, env)).collect();
        let me = Origin { run, salt };
        let key = secrets.first().and_then(|secret| secret.key(me));
        let env = digest::digest(&digest::SHA256, env.as_bytes());
        Self {
            env: env.as_ref().get(..8).map_or(0, |mut bytes| bytes.get_u64()),
            secrets,
            me,
            key,
            counter: 0,
            senders: BTreeMap::new(),
            heard: 0,
        }
    }

    /// A packet for the run that drew `to`; 0 for whoever gets it.
    pub(crate) fn seal(&mut self, kind: Kind, to: u64, body: &[u8]) -> Bytes {
        self.counter += 1;
        let key = self.secrets.first().map_or(0, |secret| secret.id);
        let header = Header { kind, env: self.env, key, origin: self.me, counter: self.counter, to };
        let mut packet = BytesMut::with_capacity(HEADER + body.len() + TAG);
        header.put(&mut packet);
        packet.put_slice(body);
        let (head, text) = packet.split_at_mut(HEADER);
        match &self.key {
            // It fails only for bodies of many gigabytes; without its tag nobody takes the packet.
            Some(key) => match key.seal_in_place_separate_tag(nonce(header.counter), Aad::from(&*head), text) {
                Ok(tag) => packet.put_slice(tag.as_ref()),
                Err(_) => packet.clear(),
            },
            None => {
                let sum = checksum(head, text);
                packet.put_slice(&sum);
            }
        }
        packet.freeze()
    }

    /// Checks and decrypts a packet, in its place.
    pub(crate) fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<Opened<'a>, Refusal> {
        if packet.len() < HEADER + TAG || packet.len() > PACKET {
            return Err(Refusal::Malformed);
        }
        let (head, sealed) = packet.split_at_mut(HEADER);
        let header = Header::get(head)?;
        if header.env != self.env {
            return Err(Refusal::Env);
        }
        let secret = self.secrets.iter().find(|secret| secret.id == header.key);
        if secret.is_none() && (header.key != 0 || !self.secrets.is_empty()) {
            return Err(Refusal::Secret);
        }
        if header.kind != Kind::Hello && header.to != self.me.salt {
            return Err(Refusal::Misdirected);
        }
        let origin = header.origin;
        let known = self.senders.get_mut(&origin.run.node);
        // An old run or a twin may ask who is here: it has to be told what it is.
        let claim = known.as_ref().map_or(Ok(()), |sender| sender.judge(origin));
        let known = known.filter(|sender| sender.origin == origin && sender.key_id == header.key);
        // Cheap before dear.
        if header.kind != Kind::Hello {
            claim?;
        }
        if known.as_ref().is_some_and(|sender| !sender.window.is_new(header.counter)) {
            return Err(Refusal::Replayed);
        }
        let text = sealed.len() - TAG;
        let made;
        let key = match (&known, secret) {
            (Some(sender), _) => sender.key.as_ref(),
            (None, Some(secret)) => {
                made = secret.key(origin);
                made.as_ref()
            }
            (None, None) => None,
        };
        if let Some(key) = key {
            let opened = key.open_in_place(nonce(header.counter), Aad::from(&*head), &mut *sealed);
            opened.map_err(|_| Refusal::Forged)?;
        } else {
            let (body, sum) = sealed.split_at(text);
            // No secret is compared here.
            if checksum(head, body) != *sum {
                return Err(Refusal::Forged);
            }
        }
        // It is genuine; from here on it may leave traces.
        self.heard += 1;
        if let Some(sender) = known {
            sender.window.take(header.counter);
            sender.heard = self.heard;
        } else if claim.is_ok() && origin.run.node != self.me.run.node {
            self.remember(&header)?;
        }
        Ok(Opened {
            kind: header.kind,
            from: origin.run,
            salt: origin.salt,
            body: sealed.get(..text).unwrap_or_default(),
        })
    }

    fn remember(&mut self, header: &Header) -> Result<(), Refusal> {
        let origin = header.origin;
        let node = origin.run.node;
        let mut window = Window::default();
        if let Some(sender) = self.senders.get(&node)
            && sender.origin == origin
        {
            // The same run with the other secret of a rotation: its counter goes on.
            window = sender.window.clone();
            if !window.is_new(header.counter) {
                return Err(Refusal::Replayed);
            }
        } else if self.senders.len() >= SENDERS {
            let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.heard).map(|(node, _)| *node);
            oldest.and_then(|node| self.senders.remove(&node));
        }
        window.take(header.counter);
        let secret = self.secrets.iter().find(|secret| secret.id == header.key);
        let key = secret.and_then(|secret| secret.key(origin));
        self.senders.insert(node, Sender { origin, key_id: header.key, key, window, heard: self.heard });
        Ok(())
    }
}

impl Shared {
    fn new(secret: &Secret, env: &str) -> Self {
        let prk = hkdf::Salt::new(HKDF_SHA256, b"hermod gossip 1").extract(secret.bytes());
        let mut id = [0; 4];
        let named = prk.expand(&[b"name", env.as_bytes()], Length(4)).and_then(|okm| okm.fill(&mut id));
        debug_assert!(named.is_ok(), "four bytes are not too many");
        Self { id: u32::from_be_bytes(id).max(1), prk }
    }

    /// None never happens: the lengths are right.
    fn key(&self, origin: Origin) -> Option<LessSafeKey> {
        let mut info = [0; 24];
        let mut rest = info.as_mut_slice();
        rest.put_u64(origin.run.node.0);
        rest.put_u64(origin.run.incarnation.0);
        rest.put_u64(origin.salt);
        let info = [b"key".as_slice(), &info];
        let okm = self.prk.expand(&info, &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Header {
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u64(self.env);
        out.put_u32(self.key);
        out.put_u64(self.origin.run.node.0);
        out.put_u64(self.origin.run.incarnation.0);
        out.put_u64(self.origin.salt);
        out.put_u64(self.counter);
        out.put_u64(self.to);
    }

    fn get(mut head: &[u8]) -> Result<Self, Refusal> {
        let head = &mut head;
        let mut magic = [0; 2];
        head.try_copy_to_slice(&mut magic).map_err(|_| Refusal::Malformed)?;
        if magic != MAGIC {
            return Err(Refusal::Malformed);
        }
        if head.try_get_u8().ok() != Some(VERSION) {
            return Err(Refusal::Version);
        }
        let mut parse = || {
            let kind = match head.try_get_u8()? {
                1 => Some(Kind::Hello),
                2 => Some(Kind::Welcome),
                3 => Some(Kind::Gossip),
                _ => None,
            };
            let (env, key) = (head.try_get_u64()?, head.try_get_u32()?);
            let (node, incarnation) = (NodeId(head.try_get_u64()?), Incarnation(head.try_get_u64()?));
            let origin = Origin { run: NodeIncarnation { node, incarnation }, salt: head.try_get_u64()? };
            let (counter, to) = (head.try_get_u64()?, head.try_get_u64()?);
            Ok::<_, bytes::TryGetError>(kind.map(|kind| Self { kind, env, key, origin, counter, to }))
        };
        parse().ok().flatten().ok_or(Refusal::Malformed)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Against accidents, not against people.
fn checksum(head: &[u8], body: &[u8]) -> [u8; TAG] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(head);
    context.update(body);
    let mut sum = [0; TAG];
    sum.copy_from_slice(&context.finish().as_ref()[..TAG]);
    sum
}

/// Which counters of a sender were seen: the newest, and the 256 up to it.
#[derive(Clone, Default)]
struct Window {
    newest: u64,
    /// Bit `i`: `newest - i` was seen.
    seen: [u128; 2],
}

impl Window {
    fn is_new(&self, counter: u64) -> bool {
        let Some(age) = self.newest.checked_sub(counter) else { return true };
        match age {
            0..128 => self.seen[0] >> age & 1 == 0,
            128..256 => self.seen[1] >> (age - 128) & 1 == 0,
            _ => false,
        }
    }

    fn take(&mut self, counter: u64) {
        if let Some(ahead) = counter.checked_sub(self.newest) {
            let [low, high] = self.seen;
            self.seen = match ahead {
                0 => [low, high],
                1..128 => [low << ahead, high << ahead | low >> (128 - ahead)],
                128 => [0, low],
                129..256 => [0, low << (ahead - 128)],
                _ => [0, 0],
            };
            self.newest = counter;
        }
        match self.newest - counter {
            age @ 0..128 => self.seen[0] |= 1 << age,
            age @ 128..256 => self.seen[1] |= 1 << (age - 128),
            _ => {}
        }
    }
}
