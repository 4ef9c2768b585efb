//! Sessions with an inbox: what must be durable before what leaves.

use crate::rig::*;
use base_types::{Message, QoS, WallMs};
use inbox_api::{Attached, Commit, Entry};
use mqtt_codec::{Packet, ReasonCode, Version};
use mqtt_session::{Action, CloseReason, DropReason, Event, OpId, PublishOutcome};
use std::sync::Arc;

/// The only commit among the actions.
fn commit(out: &[Action]) -> (Option<OpId>, Commit) {
    let commits: Vec<_> = out
        .iter()
        .filter_map(|action| match action {
            Action::Commit { op, commit } => Some((*op, commit.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(commits.len(), 1, "{out:?}");
    commits[0].clone()
}

fn text(seq: u64, dup: bool) -> (String, Option<u16>, bool) {
    (format!("m{seq}"), Some(inbox_api::packet_id_of(seq).get()), dup)
}

/// A session to which entries from 1 on may be sent.
fn ready() -> Rig {
    let mut rig = Rig::persistent(Version::V5, fresh_inbox());
    rig.event(Event::Fetched(Vec::new()));
    let out = rig.event(Event::Queued);
    let (op, commit) = commit(&out);
    assert!(commit.sent_upto.is_some_and(|upto| upto > 1000));
    rig.event(Event::Committed(op.unwrap(), Ok(())));
    rig
}

#[test]
fn an_idle_inbox_costs_no_commit() {
    let mut rig = Rig::persistent(Version::V5, fresh_inbox());
    assert!(rig.event(Event::Fetched(Vec::new())).is_empty());
    assert!(rig.packet(Packet::PingReq).len() == 1);
}

#[test]
fn an_entry_is_not_sent_before_it_is_marked_as_sent() {
    let mut rig = Rig::persistent(Version::V5, fresh_inbox());
    rig.event(Event::Fetched(Vec::new()));
    let out = rig.event(Event::Queued);
    let (op, reserve) = commit(&out);
    assert!(matches!(out[1], Action::Fetch { from_seq: 1, .. }), "both go out at once: {out:?}");
    assert!(delivered(&rig.event(Event::Fetched(vec![entry(1, QoS::AtLeastOnce)]))).is_empty());
    let out = rig.event(Event::Committed(op.unwrap(), Ok(())));
    assert_eq!(delivered(&out), [text(1, false)]);
    assert!(reserve.sent_upto > Some(1));
}

#[test]
fn acknowledgements_of_a_batch_are_one_commit() {
    let mut rig = ready();
    let entries = (1..=3).map(|seq| entry(seq, QoS::AtLeastOnce)).collect();
    assert_eq!(delivered(&rig.event(Event::Fetched(entries))).len(), 3);
    for n in 1..=3 {
        assert!(rig.event_only(Event::Packet(Packet::PubAck(ack(n)))).is_empty());
    }
    let (op, commit) = commit(&rig.flush());
    assert_eq!((op, commit.done), (None, vec![1, 2, 3]), "nothing waits for it");
    assert!(rig.flush().is_empty());
}

/// [MQTT-4.3.3-5], durable.
#[test]
fn pubrel_leaves_once_the_receipt_is_durable() {
    let mut rig = ready();
    rig.event(Event::Fetched(vec![entry(1, QoS::ExactlyOnce)]));
    let out = rig.packet(Packet::PubRec(ack(1)));
    assert!(sent(&out).is_empty());
    let (op, received) = commit(&out);
    assert_eq!(received.received, [1]);
    assert!(rig.packet(Packet::PubRec(ack(1))).is_empty(), "PUBREL will come");
    assert_eq!(sent(&rig.event(Event::Committed(op.unwrap(), Ok(())))), [Packet::PubRel(ack(1))]);
    assert_eq!(sent(&rig.packet(Packet::PubRec(ack(1)))), [Packet::PubRel(ack(1))]);
    let (op, done) = commit(&rig.packet(Packet::PubComp(ack(1))));
    assert_eq!((op, done.done), (None, vec![1]));
}

#[test]
fn a_qos_2_publish_names_its_id_to_the_inbox_and_is_released_durably() {
    let mut rig = ready();
    let out = rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5)));
    let [Action::Publish { op: Some(op), inbound: Some(inbound), .. }] = out[..] else { panic!("{out:?}") };
    assert_eq!(inbound, id(5));
    let accepted = PublishOutcome::Accepted { receivers: 1 };
    assert_eq!(sent(&rig.event(Event::PublishDone(op, accepted))), [Packet::PubRec(ack(5))]);
    let out = rig.packet(Packet::PubRel(ack(5)));
    assert!(sent(&out).is_empty());
    let (op, released) = commit(&out);
    assert_eq!(released.released_inbound, [id(5)]);
    assert!(rig.packet(Packet::PubRel(ack(5))).is_empty(), "PUBCOMP will come");
    assert_eq!(sent(&rig.event(Event::Committed(op.unwrap(), Ok(())))), [Packet::PubComp(ack(5))]);
    // QoS 1 leaves no trace in the inbox.
    let out = rig.packet(Packet::Publish(publish(QoS::AtLeastOnce, 6)));
    assert!(matches!(out[..], [Action::Publish { inbound: None, .. }]), "{out:?}");
}

/// Nobody knows whether it was stored: the client sends the same message again when it is back.
#[test]
fn a_failed_qos_2_publish_ends_the_connection() {
    let mut rig = ready();
    let out = rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5)));
    let [Action::Publish { op: Some(op), .. }] = out[..] else { panic!("{out:?}") };
    let out = rig.event(Event::PublishDone(op, PublishOutcome::Failed(ReasonCode::ServerUnavailable)));
    assert_eq!(closed(&out).0, Some(ReasonCode::ServerBusy));
    assert!(!out.iter().any(|a| matches!(a, Action::Send(Packet::PubRec(_)))));
}

/// [MQTT-4.4.0-1], [MQTT-3.3.1-1]
#[test]
fn a_reconnected_client_gets_pubrels_then_what_was_sent_again_then_the_rest() {
    let attached =
        Attached { session_present: true, first_seq: 10, sent_upto: 13, released: vec![12, 10], ..fresh_inbox() };
    let mut rig = Rig::new(mqtt_session::Settings::default());
    let out = rig.connect_with(connect(Version::V4), attached);
    assert!(matches!(out[0], Action::Send(Packet::ConnAck(_))));
    assert_eq!(sent(&out)[1..], [Packet::PubRel(ack(12)), Packet::PubRel(ack(10))]);
    assert!(matches!(out[3], Action::Fetch { from_seq: 10, .. }), "{out:?}");
    let entries = vec![entry(11, QoS::AtLeastOnce), entry(13, QoS::AtLeastOnce)];
    let out = rig.event(Event::Fetched(entries));
    assert_eq!(delivered(&out), [text(11, true)]);
    let (op, reserve) = commit(&out);
    assert!(reserve.sent_upto > Some(13));
    assert_eq!(delivered(&rig.event(Event::Committed(op.unwrap(), Ok(())))), [text(13, false)]);
    let (_, done) = commit(&rig.packet(Packet::PubComp(ack(12))));
    assert_eq!(done.done, [12]);
    // Acknowledgements of 11 and 10 in any order.
    rig.packet(Packet::PubAck(ack(11)));
    rig.packet(Packet::PubComp(ack(10)));
    let (_, done) = commit(&rig.packet(Packet::PubAck(ack(13))));
    assert_eq!(done.done, [13]);
}

#[test]
fn inbound_ids_of_an_earlier_connection_are_still_known() {
    let attached = Attached { session_present: true, inbound: vec![id(5)], ..fresh_inbox() };
    let mut rig = Rig::persistent(Version::V4, attached);
    assert_eq!(sent(&rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5)))), [Packet::PubRec(ack(5))]);
    let (_, released) = commit(&rig.packet(Packet::PubRel(ack(5))));
    assert_eq!(released.released_inbound, [id(5)]);
}

/// [MQTT-4.6.0-3]
#[test]
fn a_repetition_is_answered_behind_what_came_before_it() {
    let attached = Attached { session_present: true, inbound: vec![id(5)], ..fresh_inbox() };
    let mut rig = Rig::persistent(Version::V5, attached);
    let out = rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 4)));
    let [Action::Publish { op: Some(op), .. }] = out[..] else { panic!("{out:?}") };
    assert!(rig.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5))).is_empty());
    let out = rig.event(Event::PublishDone(op, PublishOutcome::Accepted { receivers: 1 }));
    assert_eq!(sent(&out), [Packet::PubRec(ack(4)), Packet::PubRec(ack(5))]);
}

#[test]
fn reading_goes_on_until_there_is_nothing_and_only_while_there_is_use_for_it() {
    let mut rig = Rig::new(mqtt_session::Settings::default());
    let mut connect = connect(Version::V5);
    connect.properties.receive_maximum = std::num::NonZeroU16::new(2);
    connect.properties.session_expiry_interval = Some(60);
    let out = rig.connect_with(connect, Attached { sent_upto: 100, ..fresh_inbox() });
    assert!(matches!(out.last(), Some(Action::Fetch { from_seq: 1, max: 16 })), "{out:?}");
    let out = rig.event(Event::Fetched((1..=4).map(|seq| entry(seq, QoS::AtLeastOnce)).collect()));
    assert_eq!(delivered(&out).len(), 2);
    let fetches = |out: &[Action]| out.iter().filter(|a| matches!(a, Action::Fetch { .. })).count();
    assert_eq!(fetches(&out), 0, "two wait already");
    assert_eq!(fetches(&rig.packet(Packet::PubAck(ack(1)))), 0);
    let out = rig.packet(Packet::PubAck(ack(2)));
    assert_eq!(delivered(&out), [text(4, true)]);
    assert!(matches!(out.last(), Some(Action::Fetch { from_seq: 5, .. })), "{out:?}");
    assert_eq!(fetches(&rig.event(Event::Queued)), 0, "one is on its way");
    assert_eq!(fetches(&rig.event(Event::Fetched(Vec::new()))), 1, "something came meanwhile");
    assert_eq!(fetches(&rig.event(Event::Fetched(Vec::new()))), 0);
}

fn expired(seq: u64, qos: QoS) -> Entry {
    let message = Message { expires_at: Some(WallMs(1)), ..(*message(&format!("m{seq}"))).clone() };
    Entry { message: Arc::new(message), ..entry(seq, qos) }
}

#[test]
fn expired_entries_are_done_without_being_sent() {
    let mut rig = ready();
    let entries = vec![expired(1, QoS::AtLeastOnce), entry(2, QoS::AtLeastOnce), expired(3, QoS::ExactlyOnce)];
    let out = rig.event(Event::Fetched(entries));
    assert_eq!(delivered(&out), [text(2, false)]);
    assert_eq!(commit(&out).1.done, [1, 3]);
    let expired = |a: &&Action| matches!(a, Action::Dropped { cause: DropReason::Expired, count: 1 });
    assert_eq!(out.iter().filter(expired).count(), 2);
}

/// The client may hold the packet id of such a message: it must come to an end with it.
#[test]
fn an_expired_qos_2_message_that_may_have_been_sent_is_sent_again() {
    let mut rig = Rig::persistent(Version::V5, Attached { sent_upto: 3, ..fresh_inbox() });
    let out = rig.event(Event::Fetched(vec![expired(1, QoS::ExactlyOnce), expired(2, QoS::AtLeastOnce)]));
    assert_eq!(delivered(&out), [text(1, true)]);
    assert_eq!(commit(&out).1.done, [2]);
}

#[test]
fn the_end_of_a_connection_commits_what_happened_and_gives_back_what_was_not_sent() {
    let mut rig = ready();
    rig.event(Event::Fetched(vec![entry(1, QoS::AtLeastOnce), entry(2, QoS::AtLeastOnce)]));
    rig.event_only(Event::Packet(Packet::PubAck(ack(1))));
    rig.event_only(Event::Queued);
    let out = rig.packet(disconnect(ReasonCode::Success));
    let [Action::Commit { op: None, commit }, Action::Detach { .. }, Action::Close(_)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(commit.done, [1]);
    // So that what is sent for the first time on the next connection has no DUP.
    assert_eq!(commit.sent_upto, Some(3));
}

#[test]
fn a_session_whose_state_can_not_be_stored_ends() {
    let mut rig = ready();
    rig.event(Event::Fetched(vec![entry(1, QoS::ExactlyOnce)]));
    let (op, _) = commit(&rig.packet(Packet::PubRec(ack(1))));
    let out = rig.event(Event::Committed(op.unwrap(), Err(ReasonCode::SessionTakenOver)));
    let taken_over = ReasonCode::SessionTakenOver;
    assert_eq!(closed(&out), (Some(taken_over), CloseReason::ByServer(taken_over)));
    assert!(!out.iter().any(|a| matches!(a, Action::Send(Packet::PubRel(_)))));
}

#[test]
fn live_qos_0_passes_a_session_with_an_inbox() {
    let mut rig = ready();
    let out = rig.event(Event::Deliver(delivery(QoS::AtMostOnce, "live")));
    assert_eq!(delivered(&out), [("live".to_owned(), None, false)]);
}

#[test]
fn packet_ids_start_again_behind_the_last() {
    let attached = Attached { first_seq: 65_535, sent_upto: 65_540, ..fresh_inbox() };
    let mut rig = Rig::persistent(Version::V5, attached);
    let out = rig.event(Event::Fetched(vec![entry(65_535, QoS::AtLeastOnce), entry(65_536, QoS::AtLeastOnce)]));
    let ids: Vec<_> = delivered(&out).into_iter().filter_map(|(_, id, _)| id).collect();
    assert_eq!(ids, [65_535, 1]);
}

#[test]
fn a_stored_session_that_contradicts_itself_is_not_served() {
    let attached = Attached { first_seq: 10, released: vec![9], ..fresh_inbox() };
    let mut rig = Rig::new(mqtt_session::Settings::default());
    let out = rig.connect_with(connect(Version::V5), attached);
    assert_eq!(closed(&out).0, Some(ReasonCode::ImplementationSpecificError));
}
