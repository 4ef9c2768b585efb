use super::figures::Span;
use super::flow::PAYLOAD;
use super::{Figures, PATIENCE, Target, connect, subscribe};
use crate::wire::{self, AckKind, Incoming};
use crate::{Event, Histogram, Swarm, Tracker, Usage};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// QoS 1 from `publishers` × `window` to as many persistent sessions that are offline, `each` messages per publisher, one session
/// for each. Then the sessions come back, and everything is checked.
pub(super) fn run(target: &Target, publishers: usize, window: u64, each: u64) -> io::Result<Figures> {
    let fsyncs = target.disk.as_deref().map(fsync_rate).transpose()?;
    let before = Usage::of(target.pid)?;
    let mut swarm = Swarm::new(true)?;
    let (sessions, _) = connect(&mut swarm, target, "load-session", publishers, false)?;
    let sessions: Vec<usize> = sessions.collect();
    subscribe(&mut swarm, &sessions, 1, 1, |session, _| format!("durable/{session}"))?;
    for &session in &sessions {
        wire::disconnect(swarm.out(session));
    }
    let mut open = sessions.len();
    let start = Instant::now();
    while open > 0 && start.elapsed() < PATIENCE {
        swarm.turn(Duration::from_millis(20), |_, event, _| open -= usize::from(matches!(event, Event::Closed)))?;
    }
    let (clients, receive_maximum) = connect(&mut swarm, target, "load-publisher", publishers, true)?;
    let mut figures = Figures { unit: "acknowledged", rss_before: before.rss, ..Figures::default() };
    let span = Span::start(target)?;
    let latency = publish(&mut swarm, clients.start, publishers, window.min(receive_maximum.into()), each)?;
    span.end(&mut figures, each * publishers as u64)?;
    figures.set_latency(&latency);
    figures.more.push(("acknowledged per second", figures.rate()));
    if let Some(fsyncs) = fsyncs {
        figures.more.push(("one fsync per message, per second", fsyncs));
        figures.more.push(("ratio of the two", figures.rate() / fsyncs));
    }
    drain(&mut swarm, target, publishers, each, &mut figures)?;
    Ok(figures)
}

/// Answers with the time from PUBLISH to PUBACK.
fn publish(swarm: &mut Swarm, first: usize, publishers: usize, window: u64, each: u64) -> io::Result<Histogram> {
    let mut latency = Histogram::default();
    let (mut sent, mut acked) = (vec![0u64; publishers], vec![0u64; publishers]);
    let mut at = vec![std::collections::VecDeque::new(); publishers];
    let mut progress = Instant::now();
    let mut dirty: Vec<usize> = (0..publishers).collect();
    while acked.iter().any(|acked| *acked < each) {
        for publisher in dirty.drain(..) {
            while sent[publisher] < each && sent[publisher] - acked[publisher] < window {
                let client = first + publisher;
                let mut payload = [b'd'; PAYLOAD];
                payload[..8].copy_from_slice(&sent[publisher].to_be_bytes());
                let topic = format!("durable/{publisher}");
                let (topic, packet_id) = (topic.as_bytes(), swarm.packet_id(client));
                let publish = wire::Publish { dup: false, qos: 1, retain: false, packet_id, topic, payload: &payload };
                let level = swarm.level(client);
                wire::publish(swarm.out(client), level, &publish);
                at[publisher].push_back(Instant::now());
                sent[publisher] += 1;
            }
        }
        let mut refused = None;
        swarm.turn(Duration::from_millis(50), |client, event, _| match event {
            Event::Packet(Incoming::Ack(AckKind::PubAck, _, code)) if code < 0x80 => {
                let publisher = client - first;
                acked[publisher] += 1;
                if let Some(at) = at[publisher].pop_front() {
                    latency.record(at.elapsed().as_nanos() as u64);
                }
                dirty.push(publisher);
                progress = Instant::now();
            }
            Event::Packet(Incoming::Ack(_, _, code)) => {
                refused = Some(format!("a message is refused with {code:#04x}"))
            }
            Event::Closed => refused = Some("a connection is closed".to_owned()),
            Event::Packet(_) => {}
        })?;
        if progress.elapsed() > PATIENCE {
            refused = Some(format!("no acknowledgement for {PATIENCE:?}"));
        }
        if let Some(refused) = refused {
            return Err(io::Error::other(refused));
        }
    }
    Ok(latency)
}

fn drain(swarm: &mut Swarm, target: &Target, sessions: usize, each: u64, figures: &mut Figures) -> io::Result<()> {
    let span = Span::start(target)?;
    let first = swarm.len();
    for session in 0..sessions {
        let client_id = format!("load-session-{session}");
        let connect = wire::Connect::persistent(target.level, &client_id);
        swarm.connect(target.address, &connect)?;
    }
    let mut tracker = Tracker::new(sessions, sessions);
    let (mut delivered, mut last) = (0, Instant::now());
    while delivered < each * sessions as u64 && last.elapsed() < Duration::from_secs(10) {
        swarm.turn(Duration::from_millis(50), |client, event, _| {
            if let Event::Packet(Incoming::Publish(publish)) = event
                && let Some(number) = publish.payload.first_chunk()
            {
                let session = client - first;
                delivered += u64::from(tracker.delivered(session, session, u64::from_be_bytes(*number)));
                last = Instant::now();
            }
        })?;
    }
    let mut draining = Figures::default();
    span.end(&mut draining, delivered)?;
    figures.more.push(("drained per second", draining.rate()));
    figures.more.push(("CPU per million drained", draining.cpu_per_million));
    figures.rss_peak = draining.rss_peak;
    figures.found = tracker.finish(&vec![each; sessions], |session, publisher| session == publisher);
    Ok(())
}

/// How often a second a file in that directory takes a record of a message's size and an fsync.
fn fsync_rate(directory: &Path) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(directory)?;
    let sync = |file: &mut File| file.write_all(&[0; PAYLOAD + 44]).and_then(|()| file.sync_data());
    sync(&mut file)?;
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(2) {
        sync(&mut file)?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}
