//! The load generator: what the broker spends on a message, beside what a peer spends on the same, and whether all of it arrives.
//!
//! One thread drives all clients, so that on two cores the broker has the other one. A *scenario* has a name and runs against a
//! *target*, a broker on this machine whose process id is known; it answers with [`Figures`].
//!
//! The **window** of a publisher is how many of its messages may be outstanding end to end. A message is outstanding from when it is
//! published until every receiver that is to get it has got it and, at QoS 1 and 2, the publisher has the last acknowledgement
//! too. That is one rule for all QoS: without it QoS 0 would have no window, and QoS 1 could run ahead of its subscribers.

mod durable;
mod figures;
mod flow;
mod memory;
mod retained;
mod scenario;

pub use figures::{Figures, Target};
pub use scenario::{SCENARIOS, Scenario, scenario};

use crate::wire::{self, Incoming};
use crate::{Event, Swarm};
use std::io;
use std::time::Duration;

/// How long a phase without a measured duration may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Connects clients `prefix-0` … and waits for their CONNACKs. Answers with their numbers and the smallest Receive Maximum.
fn connect(
    swarm: &mut Swarm,
    target: &Target,
    prefix: &str,
    count: usize,
    clean: bool,
) -> io::Result<(std::ops::Range<usize>, u16)> {
    let start = swarm.len();
    let mut receive_maximum = u16::MAX;
    while swarm.len() < start + count {
        // A few at a time: the backlog of a listener is finite.
        let batch = (start + count - swarm.len()).min(100);
        for _ in 0..batch {
            let client_id = format!("{prefix}-{}", swarm.len() - start);
            let connect = if clean {
                wire::Connect::clean(target.level, &client_id)
            } else {
                wire::Connect::persistent(target.level, &client_id)
            };
            swarm.connect(target.address, &connect)?;
        }
        let (mut connected, mut refused) = (0, None);
        let limit = std::time::Instant::now() + PATIENCE;
        while connected < batch && refused.is_none() {
            swarm.turn(Duration::from_millis(50), |client, event, _| match event {
                Event::Packet(Incoming::ConnAck { code: 0, receive_maximum: maximum, .. }) => {
                    connected += 1;
                    receive_maximum = receive_maximum.min(maximum);
                }
                Event::Packet(Incoming::ConnAck { code, .. }) => {
                    refused = Some(format!("client {client} is refused with {code:#04x}"));
                }
                Event::Closed => refused = Some(format!("client {client} is closed before CONNACK")),
                Event::Packet(_) => {}
            })?;
            if std::time::Instant::now() > limit {
                refused = Some(format!("only {connected} of {batch} clients are connected within {PATIENCE:?}"));
            }
        }
        if let Some(refused) = refused {
            return Err(io::Error::other(refused));
        }
    }
    Ok((start..start + count, receive_maximum))
}

/// Subscribes clients, each to its filters, at one QoS, and waits for the SUBACKs. At most `pipelined` SUBSCRIBEs of one client,
/// with `each` filters, wait for an answer.
fn subscribe(
    swarm: &mut Swarm,
    clients: &[usize],
    qos: u8,
    filters: usize,
    filter: impl Fn(usize, usize) -> String,
) -> io::Result<()> {
    const EACH: usize = 10;
    const PIPELINED: usize = 10;
    let send = |swarm: &mut Swarm, client: usize, index: usize, from: usize| {
        let upto = (from + EACH).min(filters);
        let list: Vec<_> = (from..upto).map(|number| (filter(index, number), qos)).collect();
        let (level, id) = (swarm.level(client), swarm.packet_id(client));
        wire::subscribe(swarm.out(client), level, id, &list);
        upto
    };
    let mut sent = vec![0; clients.len()];
    for (index, &client) in clients.iter().enumerate() {
        for _ in 0..PIPELINED {
            if sent[index] < filters {
                sent[index] = send(swarm, client, index, sent[index]);
            }
        }
    }
    let index_of: std::collections::HashMap<usize, usize> =
        clients.iter().enumerate().map(|(index, client)| (*client, index)).collect();
    let (mut granted, mut answered) = (0, Vec::new());
    let mut progress = std::time::Instant::now();
    while granted < clients.len() * filters {
        let mut refused = None;
        swarm.turn(Duration::from_millis(50), |client, event, _| match event {
            Event::Packet(Incoming::SubAck(_, codes)) => {
                granted += codes.len();
                answered.push(client);
                if let Some(code) = codes.iter().find(|code| **code >= 0x80) {
                    refused = Some(format!("a subscription is refused with {code:#04x}"));
                }
            }
            Event::Closed => refused = Some("a connection is closed while it subscribes".to_owned()),
            Event::Packet(_) => {}
        })?;
        if !answered.is_empty() {
            progress = std::time::Instant::now();
        } else if progress.elapsed() > PATIENCE {
            refused = Some(format!("no SUBACK for {PATIENCE:?}"));
        }
        if let Some(refused) = refused {
            return Err(io::Error::other(refused));
        }
        for client in answered.drain(..) {
            if let Some(&index) = index_of.get(&client)
                && sent[index] < filters
            {
                sent[index] = send(swarm, client, index, sent[index]);
            }
        }
    }
    Ok(())
}
