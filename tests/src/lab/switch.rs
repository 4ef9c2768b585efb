use crate::random::Random;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// An Ethernet switch in this process, between TAP devices: each frame passes here, so each link can be cut, lossy or slow, and in
/// one direction only, without a packet filter in the kernel.
///
/// Port `n` is the station with [`mac`]`(n)`. Frames to all stations are dropped: the stations know their neighbours.
#[derive(Clone, Debug)]
pub(super) struct Switch(Arc<Inner>);

/// What happens to frames from one port to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) cut: bool,
    /// Of a hundred frames, so many are lost.
    pub(super) loss: u8,
    /// Each frame waits so long …
    pub(super) delay: Duration,
    /// … and up to so much longer or shorter; frames stay in order.
    pub(super) jitter: Duration,
}

#[derive(Debug)]
struct Inner {
    ports: Vec<File>,
    table: Mutex<Table>,
    late: Mutex<Late>,
    more: Condvar,
}

#[derive(Debug)]
struct Table {
    links: Vec<Link>,
    random: Random,
}

#[derive(Debug, Default)]
struct Late {
    frames: BinaryHeap<Frame>,
    /// Of each link, when its last frame is due.
    last: Vec<Option<Instant>>,
    count: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    due: Instant,
    number: u64,
    to: usize,
    bytes: Vec<u8>,
}

impl Ord for Frame {
    /// The next one is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Frame {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Frames that may wait; more are lost, as in a switch.
const LATE: usize = 20_000;

impl Switch {
    /// Starts it; its threads end with the process.
    pub(super) fn start(ports: Vec<File>, seed: u64) -> Self {
        let count = ports.len();
        let inner = Inner {
            ports,
            table: Mutex::new(Table { links: vec![Link::default(); count * count], random: Random::new(seed) }),
            late: Mutex::new(Late { last: vec![None; count * count], ..Late::default() }),
            more: Condvar::new(),
        };
        let switch = Self(Arc::new(inner));
        for port in 0..count {
            let switch = switch.clone();
            thread::spawn(move || switch.receive(port));
        }
        let delayer = switch.clone();
        thread::spawn(move || delayer.deliver_late());
        switch
    }

    pub(super) fn set(&self, from: usize, to: usize, change: impl FnOnce(&mut Link)) {
        let at = self.at(from, to);
        change(&mut lock(&self.0.table).links[at]);
    }

    fn receive(&self, from: usize) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match (&self.0.ports[from]).read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => self.forward(from, &buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn forward(&self, from: usize, frame: &[u8]) {
        let Some(to) = station(frame).filter(|to| *to < self.0.ports.len() && *to != from) else { return };
        let at = self.at(from, to);
        let (link, random) = {
            let mut table = lock(&self.0.table);
            let link = table.links[at];
            if link.cut || (link.loss > 0 && table.random.below(100) < u64::from(link.loss)) {
                return;
            }
            (link, table.random.below(1 << 20) as f64 / f64::from(1 << 19))
        };
        let wait = (link.delay + link.jitter.mul_f64(random)).saturating_sub(link.jitter);
        if wait.is_zero() {
            // A device that is down or full loses it.
            let _ = (&self.0.ports[to]).write(frame);
            return;
        }
        let mut late = lock(&self.0.late);
        if late.frames.len() < LATE {
            let due = late.last[at].map_or(Instant::now() + wait, |last| last.max(Instant::now() + wait));
            late.last[at] = Some(due);
            late.count += 1;
            let number = late.count;
            late.frames.push(Frame { due, number, to, bytes: frame.to_vec() });
            self.0.more.notify_one();
        }
    }

    fn deliver_late(&self) {
        let mut late = lock(&self.0.late);
        loop {
            let now = Instant::now();
            while late.frames.peek().is_some_and(|frame| frame.due <= now) {
                if let Some(frame) = late.frames.pop() {
                    let _ = (&self.0.ports[frame.to]).write(&frame.bytes);
                }
            }
            let wait = late.frames.peek().map_or(Duration::from_secs(1), |frame| frame.due.duration_since(now));
            late = self.0.more.wait_timeout(late, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn at(&self, from: usize, to: usize) -> usize {
        from * self.0.ports.len() + to
    }
}

/// The address of the station at a port.
pub(super) fn mac(port: usize) -> String {
    format!("02:00:00:00:00:{port:02x}")
}

/// The port whose station a frame is for.
fn station(frame: &[u8]) -> Option<usize> {
    match frame {
        [2, 0, 0, 0, 0, port, ..] => Some(usize::from(*port)),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    /// A switch between datagram sockets instead of TAP devices; our ends of them.
    fn switch(ports: usize) -> (Switch, Vec<UnixDatagram>) {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..ports).map(|_| UnixDatagram::pair().unwrap()).unzip();
        for end in &ours {
            end.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        }
        (Switch::start(theirs.into_iter().map(|end| File::from(OwnedFd::from(end))).collect(), 1), ours)
    }

    fn frame(to: u8, number: u8) -> [u8; 15] {
        [2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, 0, 8, 0, number]
    }

    fn received(at: &UnixDatagram) -> Option<u8> {
        let mut buffer = [0; 64];
        at.recv(&mut buffer).ok().map(|length| buffer[length - 1])
    }

    #[test]
    fn a_frame_reaches_its_station_and_no_other() {
        let (_switch, ends) = switch(3);
        ends[0].send(&frame(2, 7)).unwrap();
        assert_eq!(received(&ends[2]), Some(7));
        assert_eq!(received(&ends[1]), None);
    }

    #[test]
    fn a_cut_is_one_way_and_heals() {
        let (switch, ends) = switch(2);
        switch.set(0, 1, |link| link.cut = true);
        ends[0].send(&frame(1, 1)).unwrap();
        ends[1].send(&frame(0, 2)).unwrap();
        assert_eq!(received(&ends[0]), Some(2));
        assert_eq!(received(&ends[1]), None);
        switch.set(0, 1, |link| link.cut = false);
        ends[0].send(&frame(1, 3)).unwrap();
        assert_eq!(received(&ends[1]), Some(3));
    }

    #[test]
    fn delay_keeps_the_order_and_loss_loses_its_share() {
        let (switch, ends) = switch(2);
        switch.set(0, 1, |link| (link.delay, link.jitter) = (Duration::from_millis(60), Duration::from_millis(30)));
        let start = Instant::now();
        for number in 0..20 {
            ends[0].send(&frame(1, number)).unwrap();
        }
        assert_eq!((0..20).map(|_| received(&ends[1]).unwrap()).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        assert!(start.elapsed() >= Duration::from_millis(30));
        switch.set(0, 1, |link| *link = Link { loss: 20, ..Link::default() });
        let mut arrived = 0;
        for number in 0..200 {
            ends[0].send(&frame(1, number)).unwrap();
            ends[1].set_nonblocking(true).unwrap();
            let mut buffer = [0; 64];
            arrived += u32::from(ends[1].recv(&mut buffer).is_ok());
            thread::yield_now();
        }
        ends[1].set_nonblocking(false).unwrap();
        while received(&ends[1]).is_some() {
            arrived += 1;
        }
        assert!((130..190).contains(&arrived), "{arrived}");
    }
}
