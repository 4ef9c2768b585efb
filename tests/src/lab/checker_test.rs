//! The check of the checker: clean histories pass, and each planted anomaly is found, as what it is.

use super::*;

const SECOND: u64 = 1_000_000_000;

/// Two publishers, QoS 1 and 2, with two topics each; two persistent sinks that get both; a group of two; a live one.
fn checker() -> Checker {
    let sink = |kind| Sink { publishers: vec![0, 1], kind };
    Checker::new(
        vec![Source { qos: 1, topics: 2 }, Source { qos: 2, topics: 2 }],
        vec![
            sink(SinkKind::Persistent),
            sink(SinkKind::Persistent),
            sink(SinkKind::Member(0)),
            sink(SinkKind::Member(0)),
            sink(SinkKind::Live),
        ],
    )
}

fn message(publisher: usize, number: u64) -> Message {
    Message { publisher, number }
}

fn delivery(sink: usize, publisher: usize, number: u64) -> Delivery {
    let qos = publisher as u8 + 1;
    Delivery {
        sink,
        message: message(publisher, number),
        qos,
        dup: false,
        packet_id: 1 + number as u16 + 100 * publisher as u16,
    }
}

/// Four messages of each publisher, all acknowledged, all delivered: nothing is wrong.
fn clean() -> Vec<Event> {
    let mut events: Vec<Event> = (0..5).map(|sink| Event::Connected { sink, session_present: false }).collect();
    for number in 0..4 {
        for publisher in 0..2 {
            events.push(Event::Sent(message(publisher, number)));
            events.push(Event::Acked(message(publisher, number), 0));
            for sink in [0, 1, 2 + number as usize % 2, 4] {
                let delivery = delivery(sink, publisher, number);
                events.push(Event::Delivered(delivery));
                if publisher == 1 {
                    events.push(Event::Released { sink, packet_id: delivery.packet_id });
                }
            }
        }
    }
    events
}

fn judge(events: impl IntoIterator<Item = Event>) -> Findings {
    let mut checker = checker();
    events.into_iter().enumerate().for_each(|(at, event)| checker.see(at as u64, event));
    checker.finish()
}

/// The findings of `events` are one of that name and nothing else.
fn assert_only(name: &str, events: impl IntoIterator<Item = Event>) {
    let findings = judge(events);
    for (found, count) in findings.wrong() {
        assert_eq!(count, u64::from(found == name), "{found}, where {name} was planted: {findings}");
    }
    assert!(!findings.examples.is_empty(), "{name} has no example");
}

fn without(mut events: Vec<Event>, unwanted: &Event) -> Vec<Event> {
    let before = events.len();
    events.retain(|event| event != unwanted);
    assert_eq!(before, events.len() + 1);
    events
}

#[test]
fn a_clean_history_passes() {
    let findings = judge(clean());
    assert_eq!(findings.violations(), 0, "{findings}");
    assert_eq!((findings.acknowledged, findings.delivered, findings.unknown), (8, 32, 0));
}

#[test]
fn what_is_acknowledged_and_never_comes_is_lost() {
    assert_only("lost", without(clean(), &Event::Delivered(delivery(1, 0, 2))));
    // A live session may miss it, and what was not acknowledged may be missing.
    assert_eq!(judge(without(clean(), &Event::Delivered(delivery(4, 0, 2)))).violations(), 0);
    let unknown = without(without(clean(), &Event::Acked(message(0, 2), 0)), &Event::Delivered(delivery(1, 0, 2)));
    let findings = judge(unknown);
    assert_eq!((findings.violations(), findings.unknown), (0, 1), "{findings}");
}

#[test]
fn a_group_loses_what_none_of_it_gets() {
    assert_only("lost", without(clean(), &Event::Delivered(delivery(2, 0, 0))));
}

#[test]
fn a_second_delivery_needs_a_reason() {
    let again = || Event::Delivered(Delivery { dup: true, ..delivery(0, 0, 3) });
    assert_only("unexplained duplicates", clean().into_iter().chain([again()]));
    for reason in [Event::Repeated(message(0, 3)), Event::Fault, Event::Connected { sink: 0, session_present: true }] {
        let findings = judge(clean().into_iter().chain([reason, again()]));
        assert_eq!((findings.violations(), findings.explained_duplicates), (0, 1), "{findings}");
    }
}

#[test]
fn a_repetition_without_dup_is_seen() {
    let again = Event::Delivered(delivery(0, 0, 3));
    assert_only("missing DUP", clean().into_iter().chain([Event::Connected { sink: 0, session_present: true }, again]));
}

#[test]
fn a_repetition_of_qos_2_is_swallowed_until_it_is_released() {
    let mut events = clean();
    let Some(Event::Released { .. }) = events.pop() else { panic!("it ends with a release") };
    // Sink 4 has not released number 3: what comes again under its packet id does not surface.
    events.extend([
        Event::Connected { sink: 4, session_present: true },
        Event::Delivered(Delivery { dup: true, ..delivery(4, 1, 3) }),
    ]);
    assert_eq!(judge(events).violations(), 0);
}

#[test]
fn qos_2_surfaces_once_whatever_happens_between() {
    let between = [Event::Fault, Event::Connected { sink: 0, session_present: true }, Event::Repeated(message(1, 3))];
    let again = |sink| Event::Delivered(Delivery { packet_id: 999, ..delivery(sink, 1, 3) });
    assert_only("QoS 2 duplicates", clean().into_iter().chain(between.clone()).chain([again(0)]));
    assert_only("QoS 2 duplicates, live", clean().into_iter().chain(between).chain([again(4)]));
}

#[test]
fn messages_of_one_topic_keep_their_order() {
    // Numbers 0 and 2 are of one topic, 0 and 1 are not.
    let swap = |one: u64, other: u64| {
        let (one, other) = (Event::Delivered(delivery(1, 0, one)), Event::Delivered(delivery(1, 0, other)));
        let mut events = clean();
        let at = |events: &[Event], wanted: &Event| events.iter().position(|event| event == wanted).unwrap();
        let (first, second) = (at(&events, &one), at(&events, &other));
        // The later one may come only after it was sent.
        let moved = events.remove(first);
        events.insert(second, moved);
        events
    };
    assert_only("reordered", swap(0, 2));
    assert_eq!(judge(swap(0, 1)).violations(), 0);
}

#[test]
fn what_nobody_published_is_phantom() {
    assert_only("phantom", clean().into_iter().chain([Event::Delivered(delivery(0, 0, 9))]));
    let foreign = Event::Foreign { sink: 0, what: "bytes".into() };
    assert_only("phantom", clean().into_iter().chain([foreign]));
    let wrong_qos = Delivery { qos: 2, ..delivery(0, 0, 3) };
    assert_only("phantom", clean().into_iter().chain([Event::Delivered(wrong_qos)]));
}

#[test]
fn a_session_that_is_gone_is_seen() {
    assert_only("sessions lost", clean().into_iter().chain([Event::Connected { sink: 1, session_present: false }]));
    let live = Event::Connected { sink: 4, session_present: false };
    assert_eq!(judge(clean().into_iter().chain([live])).violations(), 0);
}

#[test]
fn an_acknowledgement_without_a_majority_is_a_split() {
    let mut checker = checker();
    for number in 0..3 {
        checker.see(0, Event::Sent(message(0, number)));
        for sink in [0, 1, 2] {
            checker.see(0, Event::Delivered(delivery(sink, 0, number)));
        }
    }
    checker.see(SECOND, Event::Isolated(vec![2]));
    checker.see(SECOND + SECOND / 10, Event::Acked(message(0, 0), 2));
    checker.see(3 * SECOND, Event::Acked(message(0, 1), 0));
    assert_eq!(checker.findings.split, 0, "at once, or by the others");
    checker.see(3 * SECOND, Event::Acked(message(0, 2), 2));
    let findings = checker.finish();
    assert_eq!((findings.split, findings.violations()), (1, 1), "{findings}");
}

fn set(slot: usize, version: u64, clear: bool) -> [Event; 2] {
    [Event::Set { slot, version, clear }, Event::SetAcked { slot, version }]
}

fn lookup(found: Option<u64>) -> Vec<Event> {
    let found = found.map(|version| Event::LookupFound { reader: 0, slot: 7, version });
    [Event::LookupBegins { reader: 0 }].into_iter().chain(found).chain([Event::LookupEnds { reader: 0 }]).collect()
}

#[test]
fn a_new_subscriber_sees_the_last_acknowledged_value() {
    let events = || set(7, 1, false).into_iter().chain(set(7, 2, false));
    assert_eq!(judge(events().chain(lookup(Some(2)))).violations(), 0);
    assert_only("stale retained", events().chain(lookup(Some(1))));
    assert_only("stale retained", events().chain(lookup(None)));
    assert_only("phantom", events().chain(lookup(Some(3))));
    // A later one that is not acknowledged may have happened or not.
    for found in [Some(2), Some(3)] {
        assert_eq!(
            judge(events().chain([Event::Set { slot: 7, version: 3, clear: false }]).chain(lookup(found))).violations(),
            0
        );
    }
    for found in [Some(2), None] {
        assert_eq!(
            judge(events().chain([Event::Set { slot: 7, version: 3, clear: true }]).chain(lookup(found))).violations(),
            0
        );
    }
}

#[test]
fn what_is_cleared_stays_cleared() {
    let events = || set(7, 1, false).into_iter().chain(set(7, 2, true));
    assert_eq!(judge(events().chain(lookup(None))).violations(), 0);
    assert_only("resurrected", events().chain(lookup(Some(1))));
}

#[test]
fn subscriptions_are_as_acknowledged() {
    let switch = |on| [Event::Switching { slot: 3, on }, Event::Switched { slot: 3 }];
    let probe = |reached| [Event::Probed { slot: 3, reached }];
    assert_eq!(judge(switch(true).into_iter().chain(probe(true))).violations(), 0);
    assert_only("subscriptions lost", switch(true).into_iter().chain(probe(false)));
    assert_only("resurrected", switch(true).into_iter().chain(switch(false)).chain(probe(true)));
    for reached in [true, false] {
        let unknown = [Event::Switching { slot: 3, on: false }, Event::SwitchUnknown { slot: 3 }];
        assert_eq!(judge(switch(true).into_iter().chain(unknown).chain(probe(reached))).violations(), 0);
    }
}

#[test]
fn a_will_fires_once_and_only_when_it_must() {
    let will = |clean, seen: usize| {
        let ends = Event::WillEnds { will: 0, clean };
        let seen = (0..seen).map(|_| Event::WillSeen { will: 0, repeated: false });
        [Event::WillSet { will: 0 }, ends].into_iter().chain(seen).collect::<Vec<_>>()
    };
    assert_eq!(judge(will(Some(false), 1)).violations(), 0);
    assert_eq!(judge(will(Some(true), 0)).violations(), 0);
    assert_only("lost", will(Some(false), 0));
    assert_only("phantom", will(Some(true), 1));
    assert_only("QoS 2 duplicates", will(Some(false), 2));
    (0..2).for_each(|seen| assert_eq!(judge(will(None, seen)).violations(), 0));
    let again = Event::WillSeen { will: 0, repeated: true };
    assert_eq!(judge(will(Some(false), 1).into_iter().chain([again])).violations(), 0);
}

#[test]
fn a_client_id_has_one_owner() {
    assert_eq!(judge([Event::Owners { client: 0, alive: 1 }]).violations(), 0);
    assert_only("two owners", [Event::Owners { client: 0, alive: 2 }]);
    assert_only("two owners", [Event::BothReceive { client: 0 }]);
    assert_only("stuck", [Event::Owners { client: 0, alive: 0 }]);
}

#[test]
fn the_gap_is_the_longest_time_without_an_acknowledgement() {
    let mut checker = checker();
    (0..4).for_each(|number| checker.see(0, Event::Sent(message(0, number))));
    checker.see(0, Event::Sent(message(1, 0)));
    checker.see(SECOND, Event::Acked(message(0, 0), 0));
    checker.see(SECOND, Event::Acked(message(1, 0), 0));
    checker.see(3 * SECOND, Event::Acked(message(0, 1), 0));
    assert_eq!(checker.longest_gap(3 * SECOND), 2 * SECOND);
    checker.begin_gaps();
    checker.see(4 * SECOND, Event::Acked(message(0, 2), 0));
    // The other publisher has had none since, and waits still.
    assert_eq!(checker.longest_gap(5 * SECOND), 4 * SECOND);
}
