use super::figures::Span;
use super::flow::PAYLOAD;
use super::{Figures, PATIENCE, Target, connect, subscribe};
use crate::wire::{self, Incoming};
use crate::{Event, Found, Histogram, Swarm, Tracker, Usage, raise_file_limit};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// Resident memory per connection that does nothing, transient, with one subscription or none.
pub(super) fn idle(target: &Target, connections: usize, subscribed: bool) -> io::Result<Figures> {
    let limit = raise_file_limit();
    let connections = connections.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(200));
    let mut swarm = Swarm::new(true)?;
    // What the first connections make is not theirs.
    warm_up(&mut swarm, target)?;
    let before = settled(target)?;
    let span = Span::start(target)?;
    let (clients, _) = connect(&mut swarm, target, "load-idle", connections, true)?;
    if subscribed {
        let clients: Vec<usize> = clients.collect();
        subscribe(&mut swarm, &clients, 0, 1, |client, _| format!("idle/{client}"))?;
    }
    let mut figures = Figures { unit: "connected", rss_before: before, ..Figures::default() };
    span.end(&mut figures, connections as u64)?;
    let per = (settled(target)? as f64 - before as f64) / connections as f64;
    figures.more.push(("RSS per connection, bytes", per));
    Ok(figures)
}

/// Resident memory per subscription, of 200 clients with `each` filters, and what a message costs that matches one of them,
/// beside the same with 1,000.
pub(super) fn subscriptions(target: &Target, each: usize) -> io::Result<Figures> {
    const CLIENTS: usize = 200;
    const FEW: usize = 5;
    let mut swarm = Swarm::new(true)?;
    let (clients, _) = connect(&mut swarm, target, "load-subscriber", CLIENTS, true)?;
    let clients: Vec<usize> = clients.collect();
    let (publisher, _) = connect(&mut swarm, target, "load-publisher", 1, true)?;
    let topic = |client: usize, number: usize| format!("site/{client}/sensor/{number}");
    subscribe(&mut swarm, &clients, 0, FEW, topic)?;
    // The first publications allocate what stays; they belong to neither.
    matching(&mut swarm, target, publisher.start, Duration::from_millis(500), |n| {
        topic(n % CLIENTS, n / CLIENTS % FEW)
    })?;
    let few = matching(&mut swarm, target, publisher.start, target.measure, |n| topic(n % CLIENTS, n / CLIENTS % FEW))?;
    let before = settled(target)?;
    let span = Span::start(target)?;
    subscribe(&mut swarm, &clients, 0, each, |client, number| topic(client, FEW + number))?;
    let mut subscribing = Figures::default();
    span.end(&mut subscribing, (CLIENTS * each) as u64)?;
    let per = (settled(target)? as f64 - before as f64) / (CLIENTS * each) as f64;
    let many = matching(&mut swarm, target, publisher.start, target.measure, |n| {
        topic(n % CLIENTS, FEW + (n / CLIENTS % FEW) * (each / FEW))
    })?;
    let mut figures = Figures { unit: "delivered", rss_before: before, ..many };
    figures.found.lost += few.found.lost;
    figures.found.duplicates += few.found.duplicates;
    figures.more = vec![
        ("RSS per subscription, bytes", per),
        ("CPU per million messages with 1,000 subscriptions", few.cpu_per_million),
        ("CPU per million SUBSCRIBE filters", subscribing.cpu_per_million),
        ("filters per second", subscribing.rate()),
    ];
    Ok(figures)
}

/// One publisher, window 100, QoS 0, over 1,000 topics in turn.
fn matching(
    swarm: &mut Swarm,
    target: &Target,
    publisher: usize,
    time: Duration,
    topic: impl Fn(usize) -> String,
) -> io::Result<Figures> {
    let topics: Vec<String> = (0..1000).map(topic).collect();
    let mut tracker = Tracker::new(1, 1);
    let (mut sent, mut delivered) = (0u64, 0u64);
    let (start, mut last) = (Instant::now(), Instant::now());
    let span = Span::start(target)?;
    let mut payload = [b's'; PAYLOAD];
    while start.elapsed() < time || (delivered < sent && last.elapsed() < Duration::from_secs(3)) {
        while start.elapsed() < time && sent - delivered < 100 {
            payload[..8].copy_from_slice(&sent.to_be_bytes());
            let topic = topics[sent as usize % topics.len()].as_bytes();
            let publish = wire::Publish { dup: false, qos: 0, retain: false, packet_id: 0, topic, payload: &payload };
            wire::publish(swarm.out(publisher), target.level, &publish);
            sent += 1;
        }
        swarm.turn(Duration::from_millis(20), |_, event, _| {
            if let Event::Packet(Incoming::Publish(publish)) = event
                && let Some(number) = publish.payload.first_chunk()
            {
                delivered += u64::from(tracker.delivered(0, 0, u64::from_be_bytes(*number)));
                last = Instant::now();
            }
        })?;
    }
    let mut figures = Figures::default();
    span.end(&mut figures, delivered)?;
    figures.set_latency(&Histogram::default());
    // Different topics have no order among each other.
    figures.found = Found { reordered: 0, ..tracker.finish(&[sent], |_, _| true) };
    Ok(figures)
}

fn warm_up(swarm: &mut Swarm, target: &Target) -> io::Result<()> {
    let (clients, _) = connect(swarm, target, "load-warm", 20, true)?;
    let clients: Vec<usize> = clients.collect();
    subscribe(swarm, &clients, 0, 1, |client, _| format!("warm/{client}"))?;
    clients.into_iter().for_each(|client| swarm.close(client));
    Ok(())
}

/// Resident memory once it stands still: three looks, a quarter of a second apart, within 64 KiB.
fn settled(target: &Target) -> io::Result<u64> {
    let start = Instant::now();
    let mut looks = [0u64; 3];
    loop {
        looks.rotate_left(1);
        looks[2] = Usage::of(target.pid)?.rss;
        let (low, high) = (looks.iter().min().copied().unwrap_or(0), looks.iter().max().copied().unwrap_or(0));
        if high - low <= 65_536 || start.elapsed() > PATIENCE {
            return Ok(looks[2]);
        }
        thread::sleep(Duration::from_millis(250));
    }
}
