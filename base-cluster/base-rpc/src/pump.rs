use crate::frame::{Frame, Kind};
use crate::handshake::Proven;
use crate::mesh::{Lane, Service};
use crate::noise::Noise;
use crate::stats::Stats;
use crate::wire::Wire;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Interval, MissedTickBehavior};

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum End {
    #[error("the connection was closed")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("no answer to pings")]
    Silent,
    #[error("what came is not the protocol: {0}")]
    Protocol(String),
    #[error("replaced by a newer connection")]
    Superseded,
}

/// What a connection is for: the end that calls, or the end that answers.
pub(crate) trait Side: Send {
    /// Takes the frames that came. Pongs go to `out` at once.
    fn came(&mut self, frames: &mut Vec<Frame>, out: &mut VecDeque<Frame>) -> Result<(), End>;
    /// Moves what waits to be written to `out`, or remembers whom to wake.
    fn take(&mut self, cx: &mut Context<'_>, out: &mut VecDeque<Frame>) -> Result<(), End>;
    /// The connection is being looked at: nobody needs to wake it.
    fn disarm(&mut self);
    /// Every ping interval: what moved since the last one.
    fn tick(&mut self, moved: Moved, out: &mut VecDeque<Frame>) -> Result<(), End>;
    /// Whether more may be read now.
    fn thirsty(&self) -> bool {
        true
    }
}

/// Bytes moved since the last tick.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) read: bool,
    pub(crate) written: bool,
}

/// Moves frames between a connection and a [`Side`], in one task: what a read brings is answered by the next write.
pub(crate) struct Pump<S> {
    wire: Wire,
    noise: Option<Noise>,
    side: S,
    lane: Lane,
    stats: Arc<Stats>,
    max_body: usize,
    ticks: Interval,
    moved: Moved,
    /// Read and not yet opened; unused without [`Noise`].
    sealed: BytesMut,
    /// Read, not yet a whole frame.
    plain: BytesMut,
    /// How much is read at once. Grows with the traffic, so that idle connections hold little.
    appetite: usize,
    /// Bytes read since the last tick.
    recent: usize,
    frames: Vec<Frame>,
    /// To be written, as frames and as bytes.
    waiting: VecDeque<Frame>,
    scratch: BytesMut,
    /// To be sealed; unused without [`Noise`].
    open: VecDeque<Bytes>,
    envelope: BytesMut,
    bytes: VecDeque<Bytes>,
    flush: bool,
}

const LEAST: usize = 8 * 1024;
const MOST: usize = 128 * 1024;
/// Bodies up to here are copied together: that is cheaper than a slice of their own in a vectored write.
const SMALL: usize = 4096;
const SLICES: usize = 32;
/// Then other connections have a turn: a bulk lane could read and decrypt for ever.
const TURNS: usize = 8;
/// So much is sealed for one write.
const SEALED: usize = 128 * 1024;
/// One who asks and does not read is not read from either.
const MOST_WAITING: usize = 1024;

impl<S: Side> Pump<S> {
    pub(crate) fn new(proven: Proven, side: S, lane: Lane, stats: Arc<Stats>, max_body: usize, ping: Duration) -> Self {
        let mut ticks = tokio::time::interval(ping);
        // After a pause of the process one tick is enough: what came meanwhile is read before it counts as silence.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        Self {
            wire: proven.wire,
            noise: proven.noise,
            side,
            lane,
            stats,
            max_body,
            ticks,
            moved: Moved::default(),
            sealed: BytesMut::new(),
            plain: proven.read,
            appetite: LEAST,
            recent: 0,
            frames: Vec::new(),
            waiting: VecDeque::new(),
            scratch: BytesMut::new(),
            open: VecDeque::new(),
            envelope: BytesMut::new(),
            bytes: VecDeque::new(),
            flush: false,
        }
    }

    /// Until the connection ends.
    pub(crate) async fn run(mut self) -> End {
        // What came with the handshake.
        if let Err(end) = self.digest() {
            return end;
        }
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.side.disarm();
        for _ in 0..TURNS {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, writes what there is. False when all that is left is to wait, and the waker is with all that it waits for.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut busy = false;
        // A tick looks at what has moved: first read.
        if self.waiting.len() < MOST_WAITING && self.side.thirsty() && self.poll_read(cx)?.is_ready() {
            self.moved.read = true;
            self.digest()?;
            busy = true;
        }
        if self.ticks.poll_tick(cx).is_ready() {
            let moved = std::mem::take(&mut self.moved);
            self.slim();
            self.side.tick(moved, &mut self.waiting)?;
            busy = true;
        }
        if self.bytes.is_empty() {
            if self.open.is_empty() {
                if self.waiting.is_empty() {
                    self.side.take(cx, &mut self.waiting)?;
                }
                self.stage();
            }
            self.seal()?;
        }
        while !self.bytes.is_empty() {
            if self.poll_write(cx)?.is_pending() {
                return Ok(busy);
            }
            busy = true;
        }
        if self.flush {
            match Pin::new(&mut self.wire).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flush = false,
                Poll::Ready(Err(error)) => return Err(End::Broken(error.to_string())),
                Poll::Pending => {}
            }
        }
        Ok(busy)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        let into = if self.noise.is_some() { &mut self.sealed } else { &mut self.plain };
        if into.capacity() - into.len() < self.appetite / 2 {
            let missing = if self.noise.is_some() { 0 } else { Frame::missing(into) };
            into.reserve(room(missing, into.len(), self.appetite));
        }
        let room = into.capacity() - into.len();
        match pin!(self.wire.read_buf(into)).poll(cx) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(0)) => Err(End::Closed),
            Poll::Ready(Ok(n)) => {
                if n == room {
                    self.appetite = (self.appetite * 2).min(MOST);
                }
                self.recent += n;
                self.stats.lane(self.lane).read(n);
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(error)) => Err(End::Broken(error.to_string())),
        }
    }

    /// A connection that has become quiet gives its buffers back.
    fn slim(&mut self) {
        if std::mem::take(&mut self.recent) < LEAST && self.appetite > LEAST {
            self.appetite = LEAST;
            for buffer in [&mut self.sealed, &mut self.plain, &mut self.scratch, &mut self.envelope] {
                if buffer.is_empty() {
                    *buffer = BytesMut::new();
                }
            }
        }
    }

    /// Hands over all frames that are complete.
    fn digest(&mut self) -> Result<(), End> {
        if let Some(noise) = &mut self.noise {
            noise.open(&mut self.sealed, &mut self.plain).map_err(|error| End::Protocol(error.to_string()))?;
        }
        loop {
            match Frame::decode(&mut self.plain, self.max_body) {
                Ok(Some(frame)) => self.frames.push(frame),
                Ok(None) => break,
                Err(error) => return Err(End::Protocol(error.to_string())),
            }
        }
        if self.frames.is_empty() {
            return Ok(());
        }
        self.stats.lane(self.lane).came(self.frames.len());
        let done = self.side.came(&mut self.frames, &mut self.waiting);
        self.frames.clear();
        done
    }

    /// Turns frames into bytes.
    fn stage(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.stats.lane(self.lane).went(self.waiting.len());
        let to = if self.noise.is_some() { &mut self.open } else { &mut self.bytes };
        let copied = |frame: &Frame| if frame.body.len() <= SMALL { frame.len() } else { Frame::HEAD };
        self.scratch.reserve(self.waiting.iter().map(copied).sum());
        while let Some(frame) = self.waiting.pop_front() {
            self.scratch.extend_from_slice(&frame.head());
            if frame.body.len() <= SMALL {
                self.scratch.extend_from_slice(&frame.body);
            } else {
                to.push_back(self.scratch.split().freeze());
                to.push_back(frame.body);
            }
        }
        if !self.scratch.is_empty() {
            to.push_back(self.scratch.split().freeze());
        }
    }

    /// Seals some of what is open, so much that a write is worth it.
    fn seal(&mut self) -> Result<(), End> {
        let Some(noise) = &mut self.noise else { return Ok(()) };
        let mut plain = 0;
        while plain < SEALED
            && let Some(first) = self.open.front_mut()
        {
            let piece = first.split_to(first.len().min(Noise::PIECE));
            plain += piece.len();
            if first.is_empty() {
                self.open.pop_front();
            }
            noise.seal(&piece, &mut self.envelope).map_err(|error| End::Broken(error.to_string()))?;
        }
        if !self.envelope.is_empty() {
            self.bytes.push_back(self.envelope.split().freeze());
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.bytes) {
            *slice = IoSlice::new(bytes);
            used += 1;
        }
        let wire = Pin::new(&mut self.wire);
        let written =
            if used == 1 { wire.poll_write(cx, &slices[0]) } else { wire.poll_write_vectored(cx, &slices[..used]) };
        let mut written = match written {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(0)) => return Err(End::Closed),
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Err(End::Broken(error.to_string())),
        };
        self.moved.written = true;
        self.flush = true;
        self.stats.lane(self.lane).wrote(written);
        while let Some(first) = self.bytes.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            self.bytes.pop_front();
        }
        Ok(Poll::Ready(()))
    }
}

/// A frame that has begun gets room as it comes, not as it claims.
fn room(missing: usize, have: usize, appetite: usize) -> usize {
    missing.min(have).max(appetite)
}

/// Answers a ping, and says whether the frame was one.
pub(crate) fn pong(frame: &Frame, out: &mut VecDeque<Frame>) -> bool {
    if frame.kind != Kind::Ping {
        return false;
    }
    out.push_back(Frame { kind: Kind::Pong, service: Service(0), id: frame.id, body: Bytes::new() });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_frame_claims_reserves_nothing_before_it_comes() {
        assert_eq!(room(16 << 20, 14, LEAST), LEAST);
        assert_eq!(room(16 << 20, 100_000, LEAST), 100_000);
        assert_eq!(room(10, 1 << 20, LEAST), LEAST);
    }
}
