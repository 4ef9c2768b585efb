//! Writing lines without making those who log wait.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Lines that may wait, and their bytes.
const MAX_LINES: usize = 4096;
const MAX_BYTES: usize = 4 << 20;

/// A thread that writes lines in the order in which they come.
pub(super) struct LineWriter {
    queue: SyncSender<Job>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    waiting_bytes: AtomicUsize,
    dropped: AtomicU64,
}

enum Job {
    Line(Vec<u8>),
    Flushed(SyncSender<()>),
}

impl LineWriter {
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(MAX_LINES);
        let state = Arc::<State>::default();
        let of_thread = Arc::clone(&state);
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(out, &jobs, &of_thread))?;
        Ok(Self { queue, state })
    }

    /// Takes the bytes of one event, and ends it when dropped.
    pub(super) fn line(self: &Arc<Self>) -> Line {
        Line { writer: Arc::clone(self), bytes: Vec::new() }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (done, flushed) = sync_channel(1);
        let mut job = Job::Flushed(done);
        while let Err(TrySendError::Full(returned)) = self.queue.try_send(job) {
            if Instant::now() >= deadline {
                return;
            }
            job = returned;
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = flushed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    fn push(&self, line: Vec<u8>) {
        let bytes = line.len();
        let waiting = self.state.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > MAX_BYTES || self.queue.try_send(Job::Line(line)).is_err() {
            self.state.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Ends when the last sender is gone. That standard error cannot be written to is nothing that could be logged.
fn write_all(mut out: impl Write, jobs: &Receiver<Job>, state: &State) {
    for job in jobs {
        match job {
            Job::Line(line) => {
                let _ = out.write_all(&line);
                state.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Job::Flushed(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

/// The bytes of one event.
pub(super) struct Line {
    writer: Arc<LineWriter>,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.writer.push(escaped(bytes));
        }
    }
}

/// The line with control characters within it as `\x0a`: values come from clients, and a line is read by terminals and parsers.
fn escaped(mut line: Vec<u8>) -> Vec<u8> {
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.iter().any(is_control) {
        let mut clean = Vec::with_capacity(line.len() + 16);
        for byte in &line {
            if is_control(byte) {
                let _ = write!(clean, "\\x{byte:02x}");
            } else {
                clean.push(*byte);
            }
        }
        line = clean;
    }
    line.push(b'\n');
    line
}

fn is_control(byte: &u8) -> bool {
    byte.is_ascii_control() && *byte != b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Takes a line whenever it is allowed to.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_is_stuck_stops_nobody_and_drops_are_counted() {
        let (go, wait) = channel();
        let writer = Arc::new(LineWriter::start(Stuck(wait)).unwrap());
        for _ in 0..2 * MAX_LINES {
            let _ = writer.line().write(b"line\n");
        }
        let dropped = writer.dropped();
        assert!((MAX_LINES as u64 - 1..=MAX_LINES as u64).contains(&dropped), "{dropped}");
        writer.flush(Duration::from_millis(1));
        drop(go);
        writer.flush(Duration::from_secs(10));
        assert_eq!(writer.state.waiting_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let (_go, wait) = channel();
        let writer = Arc::new(LineWriter::start(Stuck(wait)).unwrap());
        for _ in 0..100 {
            let _ = writer.line().write(&vec![b'x'; 1 << 20]);
        }
        assert!(writer.dropped() >= 96);
    }
}
