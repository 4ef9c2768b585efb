use crate::config::Secret;
use bytes::{Buf, BytesMut};
use snow::{Builder, HandshakeState, StatelessTransportState};

/// The pattern, as the Noise specification (revision 34) writes it. AES-GCM costs 2.5 times less than ChaCha20-Poly1305 where the processor
/// has instructions for it, as all have that run clusters.
const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_BLAKE2s";
/// A Noise message has at most 65,535 bytes; 16 of them authenticate.
const MESSAGE: usize = 65_535;
const TAG: usize = 16;
/// After so many messages a direction gets a new key (§11.3), long before AES-GCM would have to worry: after 64 GiB at most.
const REKEY: u64 = if cfg!(test) { 64 } else { 1 << 20 };
/// What the handshake messages have beside their payload: an ephemeral key and a tag.
pub(crate) const HANDSHAKE_EXTRA: usize = 32 + TAG;

/// Not of one who knows the secret, or not what he sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came is not sealed with the secret")]
pub(crate) struct NotSealed;

impl From<snow::Error> for NotSealed {
    fn from(_: snow::Error) -> Self {
        Self
    }
}

/// A handshake under way.
pub(crate) struct Handshake(HandshakeState);

impl Handshake {
    /// The side that connects. `prologue` is what both said in the clear.
    pub(crate) fn caller(secret: &Secret, prologue: &[u8]) -> Result<Self, NotSealed> {
        Ok(Self(builder(&secret.key, prologue)?.build_initiator()?))
    }

    /// The other side, at the first message: tries the secrets that are let in, and returns the payload.
    pub(crate) fn called(secret: &Secret, prologue: &[u8], first: &[u8]) -> Result<(Self, Vec<u8>), NotSealed> {
        for key in [Some(&secret.key), secret.also.as_ref()].into_iter().flatten() {
            let mut state = Self(builder(key, prologue)?.build_responder()?);
            if let Ok(payload) = state.read(first) {
                return Ok((state, payload));
            }
        }
        Err(NotSealed)
    }

    pub(crate) fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let mut message = vec![0; payload.len() + HANDSHAKE_EXTRA];
        let len = self.0.write_message(payload, &mut message)?;
        message.truncate(len);
        Ok(message)
    }

    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let mut payload = vec![0; message.len()];
        let len = self.0.read_message(message, &mut payload)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// After two messages.
    pub(crate) fn finish(self) -> Result<Noise, NotSealed> {
        Ok(Noise { state: self.0.into_stateless_transport_mode()?, sent: 0, received: 0 })
    }
}

fn builder<'a>(key: &'a [u8; 32], prologue: &'a [u8]) -> Result<Builder<'a>, NotSealed> {
    Ok(Builder::new(PATTERN.parse()?).psk(0, key)?.prologue(prologue)?)
}

/// Seals what is written and opens what is read. On the wire: u16 length, and a Noise message of that length, again and again.
pub(crate) struct Noise {
    state: StatelessTransportState,
    sent: u64,
    received: u64,
}

impl Noise {
    /// As much goes into one message.
    pub(crate) const PIECE: usize = MESSAGE - TAG;

    /// Appends a message with `plain`, at most [`Self::PIECE`] bytes, to `to`.
    pub(crate) fn seal(&mut self, plain: &[u8], to: &mut BytesMut) -> Result<(), NotSealed> {
        let sealed = plain.len() + TAG;
        to.extend_from_slice(&u16::try_from(sealed).map_err(|_| NotSealed)?.to_be_bytes());
        let start = to.len();
        to.resize(start + sealed, 0);
        self.state.write_message(self.sent, plain, &mut to[start..])?;
        self.sent += 1;
        if self.sent.is_multiple_of(REKEY) {
            self.state.rekey_outgoing();
        }
        Ok(())
    }

    /// Moves all messages that are complete from `from` to `to`, opened.
    pub(crate) fn open(&mut self, from: &mut BytesMut, to: &mut BytesMut) -> Result<(), NotSealed> {
        while let Some(len) = from.first_chunk().map(|len| usize::from(u16::from_be_bytes(*len))) {
            let Some(sealed) = from.get(2..2 + len) else { break };
            let start = to.len();
            to.resize(start + len, 0);
            let opened = self.state.read_message(self.received, sealed, &mut to[start..])?;
            self.received += 1;
            if self.received.is_multiple_of(REKEY) {
                self.state.rekey_incoming();
            }
            to.truncate(start + opened);
            from.advance(2 + len);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Noise, Noise) {
        let secret = Secret::new("s");
        let mut caller = Handshake::caller(&secret, b"p").unwrap();
        let first = caller.write(b"hello").unwrap();
        let (mut called, payload) = Handshake::called(&secret, b"p", &first).unwrap();
        assert_eq!(payload, b"hello");
        let second = called.write(b"welcome").unwrap();
        assert_eq!(caller.read(&second).unwrap(), b"welcome");
        (caller.finish().unwrap(), called.finish().unwrap())
    }

    #[test]
    fn what_is_sealed_is_opened_in_order_and_once() {
        let (mut a, mut b) = pair();
        let (mut wire, mut plain) = (BytesMut::new(), BytesMut::new());
        a.seal(b"one", &mut wire).unwrap();
        a.seal(&vec![7; Noise::PIECE], &mut wire).unwrap();
        let copy = wire.clone();
        b.open(&mut wire, &mut plain).unwrap();
        assert_eq!((plain.len(), &plain[..3]), (3 + Noise::PIECE, &b"one"[..]));
        assert_eq!(b.open(&mut copy.clone(), &mut plain), Err(NotSealed), "a replayed message");
    }

    #[test]
    fn keys_change_on_the_way() {
        let (mut a, mut b) = pair();
        for i in 0..3 * u8::try_from(REKEY).unwrap() {
            let (mut there, mut back, mut plain) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
            a.seal(&[i], &mut there).unwrap();
            b.seal(&[i, i], &mut back).unwrap();
            b.open(&mut there, &mut plain).unwrap();
            a.open(&mut back, &mut plain).unwrap();
            assert_eq!(&plain[..], [i; 3]);
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let (mut a, mut b) = pair();
        let mut wire = BytesMut::new();
        a.seal(b"one", &mut wire).unwrap();
        wire[5] ^= 1;
        assert_eq!(b.open(&mut wire, &mut BytesMut::new()), Err(NotSealed));
    }

    #[test]
    fn another_secret_and_another_prologue_are_refused_and_a_second_secret_is_let_in() {
        let old = Secret::new("old");
        let first = Handshake::caller(&old, b"p").unwrap().write(b"").unwrap();
        assert!(Handshake::called(&Secret::new("new"), b"p", &first).is_err());
        assert!(Handshake::called(&old, b"q", &first).is_err());
        assert!(Handshake::called(&Secret::new("new").also("old"), b"p", &first).is_ok());
        assert!(Handshake::called(&old, b"p", &[0; 10]).is_err());
    }
}
