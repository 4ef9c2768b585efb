use super::figures::Span;
use super::flow::PAYLOAD;
use super::{Figures, PATIENCE, Target, connect};
use crate::wire::{self, AckKind, Incoming};
use crate::{Event, Found, Swarm, Usage};
use std::io;
use std::time::{Duration, Instant};

const PUBLISHERS: usize = 10;
const WINDOW: usize = 100;

/// Sets that many retained messages at QoS 1 from 10 publishers × window 100, then reads all of them by `#` at QoS 0, `readers`
/// times. Answers with the setting (`set`) or the reading.
pub(super) fn run(target: &Target, topics: usize, readers: usize, set: bool) -> io::Result<Figures> {
    let before = Usage::of(target.pid)?;
    let mut swarm = Swarm::new(true)?;
    let mut figures = Figures { rss_before: before.rss, ..Figures::default() };
    let span = Span::start(target)?;
    publish(&mut swarm, target, topics)?;
    if set {
        figures.unit = "retained";
        span.end(&mut figures, topics as u64)?;
        figures.more.push(("RSS per retained message, bytes", growth(target, before)? / topics as f64));
    }
    let span = Span::start(target)?;
    let mut found = Found::default();
    let readers = if set { 1 } else { readers };
    for _ in 0..readers {
        let again = read(&mut swarm, target, topics)?;
        found = Found { lost: found.lost + again.lost, reordered: 0, duplicates: found.duplicates + again.duplicates };
    }
    if !set {
        figures.unit = "read";
        span.end(&mut figures, (topics * readers) as u64)?;
    }
    figures.found = found;
    Ok(figures)
}

fn growth(target: &Target, before: Usage) -> io::Result<f64> {
    Ok(Usage::of(target.pid)?.rss as f64 - before.rss as f64)
}

fn publish(swarm: &mut Swarm, target: &Target, topics: usize) -> io::Result<()> {
    let (publishers, receive_maximum) = connect(swarm, target, "load-retainer", PUBLISHERS, true)?;
    let window = WINDOW.min(receive_maximum.into());
    let (mut sent, mut acked) = (0, 0);
    let mut room = [window; PUBLISHERS];
    let mut progress = Instant::now();
    while acked < topics {
        for (publisher, room) in room.iter_mut().enumerate() {
            let client = publishers.start + publisher;
            while *room > 0 && sent < topics {
                let topic = format!("retained/{}/{sent}", sent % 100);
                let mut payload = [b'r'; PAYLOAD];
                payload[..8].copy_from_slice(&(sent as u64).to_be_bytes());
                let packet_id = swarm.packet_id(client);
                let publish = wire::Publish {
                    dup: false,
                    qos: 1,
                    retain: true,
                    packet_id,
                    topic: topic.as_bytes(),
                    payload: &payload,
                };
                wire::publish(swarm.out(client), target.level, &publish);
                *room -= 1;
                sent += 1;
            }
        }
        let mut closed = false;
        let before = acked;
        swarm.turn(Duration::from_millis(50), |client, event, _| match event {
            Event::Packet(Incoming::Ack(AckKind::PubAck, _, code)) if code < 0x80 => {
                acked += 1;
                room[client - publishers.start] += 1;
            }
            Event::Packet(Incoming::Ack(..)) | Event::Closed => closed = true,
            Event::Packet(_) => {}
        })?;
        if acked > before {
            progress = Instant::now();
        }
        if closed || progress.elapsed() > PATIENCE {
            return Err(io::Error::other("a retained message is refused"));
        }
    }
    Ok(())
}

fn read(swarm: &mut Swarm, target: &Target, topics: usize) -> io::Result<Found> {
    let (reader, _) = connect(swarm, target, &format!("load-reader-{}", swarm.len()), 1, true)?;
    let reader = reader.start;
    let mut seen = vec![0u8; topics];
    // The messages may come before the SUBACK, so they are counted from the SUBSCRIBE on.
    let (level, id) = (swarm.level(reader), swarm.packet_id(reader));
    wire::subscribe(swarm.out(reader), level, id, &[("#", 0)]);
    let mut last = Instant::now();
    let mut count = 0;
    while count < topics && last.elapsed() < Duration::from_secs(5) {
        swarm.turn(Duration::from_millis(50), |client, event, _| {
            if let Event::Packet(Incoming::Publish(publish)) = event
                && client == reader
                && let Some(number) = publish.payload.first_chunk()
                && let Some(seen) = seen.get_mut(u64::from_be_bytes(*number) as usize)
            {
                count += usize::from(*seen == 0);
                *seen = seen.saturating_add(1);
                last = Instant::now();
            }
        })?;
    }
    swarm.close(reader);
    let duplicates = seen.iter().map(|seen| u64::from(seen.saturating_sub(1))).sum();
    Ok(Found { lost: (topics - count) as u64, reordered: 0, duplicates })
}
