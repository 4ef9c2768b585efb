//! Frames, RFC 6455 §5, without I/O.

/// Opcodes, §5.2.
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Longest payload of a control frame, §5.5.
const CONTROL_MAX: u64 = 125;

/// Why a frame was refused; the peer is told by the code of a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// [MQTT-6.0.0-1].
    #[error("WebSocket: a text frame; MQTT is binary")]
    Text,
    /// §5.1.
    #[error("WebSocket: a frame without mask")]
    Unmasked,
    /// §5.2; no extension was negotiated.
    #[error("WebSocket: a reserved bit or opcode")]
    Reserved,
    /// §5.4.
    #[error("WebSocket: a continuation without a beginning, or a message within a message")]
    Fragment,
    /// §5.5: too long or fragmented, or a Close with half a code.
    #[error("WebSocket: a malformed control frame")]
    Control,
    /// §5.2.
    #[error("WebSocket: a length that is not minimally encoded")]
    Length,
    /// Longer than [`WsOptions::max_frame`](crate::WsOptions::max_frame).
    #[error("WebSocket: a frame of {0} bytes is too big")]
    TooBig(u64),
}

impl FrameError {
    /// §7.4.1.
    pub(crate) const fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooBig(_) => 1009,
            _ => 1002,
        }
    }
}

/// How the peer's direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By a Close frame.
    Closed,
    /// By a frame that was refused.
    Failed(FrameError),
}

/// Frames from a client to the bytes they carry.
#[derive(Debug)]
pub(crate) struct Decoder {
    max_frame: u64,
    /// The header of a frame as far as it has come.
    header: [u8; 14],
    header_len: u8,
    /// Within a frame: what follows its header.
    frame: Option<Frame>,
    /// Whether a message has begun whose last frame has not come.
    fragmented: bool,
    /// Payload of the control frame that is coming.
    control: Vec<u8>,
    /// Payload of the last ping that is not answered; §5.5.3 lets the earlier ones go unanswered.
    ping: Option<Vec<u8>>,
    /// The code of the Close frame that we owe.
    close: Option<u16>,
    end: Option<End>,
}

#[derive(Debug)]
struct Frame {
    opcode: u8,
    /// Payload bytes still to come.
    left: u64,
    /// Rotated so that its first byte is for the next byte of payload.
    mask: [u8; 4],
}

impl Decoder {
    pub(crate) fn new(max_frame: u64) -> Self {
        Self {
            max_frame,
            header: [0; 14],
            header_len: 0,
            frame: None,
            fragmented: false,
            control: Vec::new(),
            ping: None,
            close: None,
            end: None,
        }
    }

    /// Takes what was read, moves the binary payload in it to the front, and tells how many bytes that is. What comes after an end is
    /// dropped.
    pub(crate) fn decode(&mut self, bytes: &mut [u8]) -> usize {
        let (mut from, mut to) = (0, 0);
        while self.end.is_none() {
            // A frame without payload is complete without another byte.
            let Some(frame) = &mut self.frame else {
                let Some(byte) = bytes.get(from) else { break };
                from += 1;
                if let Err(error) = self.header_byte(*byte) {
                    self.finish(End::Failed(error), error.close_code());
                }
                continue;
            };
            let n = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len() - from);
            let part = from..from + n;
            unmask(&mut bytes[part.clone()], &mut frame.mask);
            from += n;
            frame.left -= n as u64;
            let (opcode, complete) = (frame.opcode, frame.left == 0);
            if opcode & 0x8 == 0 {
                bytes.copy_within(part, to);
                to += n;
            } else {
                self.control.extend_from_slice(&bytes[part]);
            }
            if !complete {
                break;
            }
            self.frame = None;
            if opcode & 0x8 != 0 {
                let payload = std::mem::take(&mut self.control);
                self.control_frame(opcode, payload);
            }
        }
        to
    }

    /// How the peer's direction ended, once it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// A frame that we owe in answer, appended to `out`; tells whether it was a Close.
    pub(crate) fn answer(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(code) = self.close.take() {
            self.ping = None;
            close_frame(code, out);
            return true;
        }
        if let Some(payload) = self.ping.take() {
            out.extend_from_slice(&[0x80 | PONG, payload.len() as u8]);
            out.extend_from_slice(&payload);
        }
        false
    }

    fn header_byte(&mut self, byte: u8) -> Result<(), FrameError> {
        self.header[usize::from(self.header_len)] = byte;
        self.header_len += 1;
        let [first, second, ext @ ..] = self.header;
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
        let is_control = opcode & 0x8 != 0;
        if self.header_len == 1 {
            return match opcode {
                _ if first & 0x70 != 0 => Err(FrameError::Reserved),
                TEXT => Err(FrameError::Text),
                CONTINUATION if !self.fragmented => Err(FrameError::Fragment),
                BINARY if self.fragmented => Err(FrameError::Fragment),
                CLOSE | PING | PONG if !fin => Err(FrameError::Control),
                CONTINUATION | BINARY | CLOSE | PING | PONG => Ok(()),
                _ => Err(FrameError::Reserved),
            };
        }
        let short = u64::from(second & 0x7F);
        if self.header_len == 2 {
            return match second & 0x80 {
                0 => Err(FrameError::Unmasked),
                _ if is_control && short > CONTROL_MAX => Err(FrameError::Control),
                _ => Ok(()),
            };
        }
        let ext_len = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if usize::from(self.header_len) < 2 + ext_len + 4 {
            return Ok(());
        }
        let (left, smallest) = match ext_len {
            0 => (short, 0),
            2 => (u64::from(u16::from_be_bytes([ext[0], ext[1]])), 126),
            _ => (u64::from_be_bytes([ext[0], ext[1], ext[2], ext[3], ext[4], ext[5], ext[6], ext[7]]), 0x1_0000),
        };
        if left < smallest {
            return Err(FrameError::Length);
        }
        if left > self.max_frame && !is_control {
            return Err(FrameError::TooBig(left));
        }
        if !is_control {
            self.fragmented = !fin;
        }
        let mask = [ext[ext_len], ext[ext_len + 1], ext[ext_len + 2], ext[ext_len + 3]];
        self.frame = Some(Frame { opcode, left, mask });
        self.header_len = 0;
        Ok(())
    }

    fn control_frame(&mut self, opcode: u8, payload: Vec<u8>) {
        match (opcode, payload.as_slice()) {
            (PING, _) => self.ping = Some(payload),
            (CLOSE, []) => self.finish(End::Closed, 1000),
            (CLOSE, [high, low, ..]) => {
                let code = u16::from_be_bytes([*high, *low]);
                // §7.4: codes that may stand in a frame; the answer echoes it (§5.5.1).
                let legal = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                self.finish(End::Closed, if legal { code } else { 1002 });
            }
            (CLOSE, _) => self.finish(End::Failed(FrameError::Control), 1002),
            _ => {} // nobody waits for a pong
        }
    }

    fn finish(&mut self, end: End, code: u16) {
        self.end = Some(end);
        self.close = Some(code);
    }
}

fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(*mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(*mask) {
        *byte ^= mask;
    }
    mask.rotate_left(rest.len());
}

/// The header of a whole binary message of `len` bytes and how long that is; ours are not masked (§5.1).
pub(crate) fn binary_header(len: u16) -> ([u8; 4], usize) {
    let [high, low] = len.to_be_bytes();
    match len {
        0..=125 => ([0x80 | BINARY, low, 0, 0], 2),
        _ => ([0x80 | BINARY, 126, high, low], 4),
    }
}

pub(crate) fn close_frame(code: u16, out: &mut Vec<u8>) {
    let [high, low] = code.to_be_bytes();
    out.extend_from_slice(&[0x80 | CLOSE, 2, high, low]);
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod tests;
