//! What one PUBLISH costs on its way in and on its way out: QoS 1, a 23-byte topic, a payload of 100 bytes.
//!
//! Decoding takes 64 packets out of one buffer, as one read brings them; the time is for all 64, and the throughput is in packets.
//! `mqttbytes` runs beside it: the targets are 60 ns to decode, 30 ns to encode, and 0.7 times its time.
//! `cargo bench -p mqtt-codec`
#![allow(missing_docs, clippy::unwrap_used)]

use base_types::{PacketId, QoS};
use bytes::BytesMut;
use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use mqtt_codec::{Ack, Decoder, Packet, PublishParts, PublishTemplate, ReasonCode, Role, Version, encode};
use std::hint::black_box;
use std::time::{Duration, Instant};

const BATCH: u64 = 64;
const TOPIC: &str = "site/42/line/7/pressure";
const PAYLOAD: &[u8] = &[b'x'; 100];
const VERSIONS: [(Version, &str); 2] = [(Version::V4, "3.1.1"), (Version::V5, "5.0")];

fn parts() -> PublishParts<'static> {
    PublishParts {
        topic: TOPIC,
        payload: PAYLOAD,
        qos: QoS::AtLeastOnce,
        packet_id: PacketId::new(1),
        ..PublishParts::default()
    }
}

fn decoder(version: Version) -> Decoder {
    let mut decoder = Decoder::new(Role::Server, 1 << 20);
    decoder.set_version(version);
    decoder
}

fn batch(write: impl Fn(&mut BytesMut)) -> BytesMut {
    let mut buf = BytesMut::with_capacity(64 * 1024);
    for _ in 0..BATCH {
        write(&mut buf);
    }
    buf
}

/// Times `take_all`, which looks at each packet and drops it, on a read buffer that is used over and over, as a connection does; filling it is not timed.
fn decode_batches(b: &mut Bencher, bytes: &[u8], mut take_all: impl FnMut(&mut BytesMut)) {
    let mut buf = BytesMut::with_capacity(64 * 1024);
    b.iter_custom(|rounds| {
        let mut spent = Duration::ZERO;
        for _ in 0..rounds {
            buf.reserve(bytes.len());
            buf.extend_from_slice(bytes);
            let start = Instant::now();
            take_all(&mut buf);
            spent += start.elapsed();
            assert!(buf.is_empty());
        }
        spent
    });
}

fn decode(c: &mut Criterion) {
    for (version, name) in VERSIONS {
        let mut group = c.benchmark_group(format!("decode PUBLISH {name}"));
        group.throughput(Throughput::Elements(BATCH));
        let bytes = batch(|buf| parts().encode(version, buf));
        let mut decoder = decoder(version);
        let mut ours = |buf: &mut BytesMut| {
            while let Ok(Some(packet)) = &decoder.decode(buf) {
                black_box(packet);
            }
        };
        group.bench_function("ours", |b| decode_batches(b, &bytes, &mut ours));
        let theirs = |buf: &mut BytesMut| match version {
            Version::V5 => {
                while let Ok(packet) = &mqttbytes::v5::read(buf, 1 << 20) {
                    black_box(packet);
                }
            }
            _ => {
                while let Ok(packet) = &mqttbytes::v4::read(buf, 1 << 20) {
                    black_box(packet);
                }
            }
        };
        group.bench_function("mqttbytes", |b| decode_batches(b, &bytes, theirs));
        group.finish();
    }

    let mut group = c.benchmark_group("decode PUBACK 5.0");
    group.throughput(Throughput::Elements(BATCH));
    let ack = Packet::PubAck(Ack::new(PacketId::MIN, ReasonCode::Success));
    let bytes = batch(|buf| encode(&ack, Version::V5, buf).unwrap());
    let mut decoder = decoder(Version::V5);
    let mut ours = |buf: &mut BytesMut| {
        while let Ok(Some(packet)) = &decoder.decode(buf) {
            black_box(packet);
        }
    };
    group.bench_function("ours", |b| decode_batches(b, &bytes, &mut ours));
    group.finish();
}

fn encode_publish(c: &mut Criterion) {
    for (version, name) in VERSIONS {
        let mut group = c.benchmark_group(format!("encode PUBLISH {name}"));
        group.throughput(Throughput::Elements(1));
        let mut buf = BytesMut::with_capacity(64 * 1024);
        group.bench_function("ours", |b| {
            let parts = parts();
            b.iter(|| {
                buf.clear();
                black_box(&parts).encode(version, &mut buf);
                black_box(&buf);
            });
        });
        group.bench_function("ours, template", |b| {
            let template = PublishTemplate::whole(&parts(), version);
            b.iter(|| {
                buf.clear();
                black_box(&template).write(PacketId::new(7), false, &mut buf);
                black_box(&buf);
            });
        });
        group.bench_function("mqttbytes", |b| match version {
            Version::V5 => {
                let mut publish = mqttbytes::v5::Publish::new(TOPIC, mqttbytes::QoS::AtLeastOnce, PAYLOAD);
                publish.pkid = 1;
                b.iter(|| {
                    buf.clear();
                    black_box(&publish).write(&mut buf).unwrap();
                    black_box(&buf);
                });
            }
            _ => {
                let mut publish = mqttbytes::v4::Publish::new(TOPIC, mqttbytes::QoS::AtLeastOnce, PAYLOAD);
                publish.pkid = 1;
                b.iter(|| {
                    buf.clear();
                    black_box(&publish).write(&mut buf).unwrap();
                    black_box(&buf);
                });
            }
        });
        group.finish();
    }
}

criterion_group!(benches, decode, encode_publish);
criterion_main!(benches);
