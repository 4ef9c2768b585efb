use crate::frame::Frame;
use std::collections::VecDeque;
use std::task::{Context, Waker};

/// Frames that wait to be written, bounded by number and bytes, and whom to wake when there are some.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    waker: Option<Waker>,
}

/// How many frames may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// There is no room.
#[derive(Debug)]
pub(crate) struct Full;

/// As many bytes are handed to the writer at once, so that what it holds is bounded too.
const HANDFUL: usize = 512 * 1024;

impl Queue {
    /// Appends a frame. The caller wakes who is returned, after he let go of the lock.
    pub(crate) fn push(&mut self, frame: Frame, limit: Limit) -> Result<Option<Waker>, Full> {
        let bytes = self.bytes + frame.len();
        if self.frames.len() >= limit.messages || (bytes > limit.bytes && !self.frames.is_empty()) {
            return Err(Full);
        }
        self.bytes = bytes;
        self.frames.push_back(frame);
        Ok(self.waker.take())
    }

    /// Moves what waits to `into`, which is empty; when nothing waits, remembers whom to wake.
    pub(crate) fn take(&mut self, cx: &mut Context<'_>, into: &mut VecDeque<Frame>) {
        if self.frames.is_empty() {
            if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                self.waker = Some(cx.waker().clone());
            }
            return;
        }
        self.waker = None;
        if self.bytes <= HANDFUL {
            std::mem::swap(&mut self.frames, into);
            self.bytes = 0;
            return;
        }
        let mut taken = 0;
        while taken < HANDFUL
            && let Some(frame) = self.frames.pop_front()
        {
            taken += frame.len();
            into.push_back(frame);
        }
        self.bytes -= taken;
    }

    /// The writer is awake: nobody needs to wake it.
    pub(crate) fn disarm(&mut self) {
        self.waker = None;
    }

    /// Takes out everything.
    pub(crate) fn drain(&mut self) -> VecDeque<Frame> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
