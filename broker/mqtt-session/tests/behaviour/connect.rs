//! CONNECT, CONNACK, keep-alive, authentication, and every way to end.

use crate::rig::*;
use base_types::QoS;
use bytes::Bytes;
use inbox_api::{Attached, WillFate};
use mqtt_codec::{Auth, Packet, ReasonCode, Version};
use mqtt_session::{Action, AuthOutcome, AuthRequest, CloseReason, Event, Settings};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in pairs {
        settings.set(name, value).unwrap();
    }
    settings
}

fn refused(out: &[Action]) -> ReasonCode {
    assert!(matches!(out, [Action::Send(_), Action::Close(CloseReason::Refused(_))]), "{out:?}");
    connack(out).reason_code
}

#[test]
fn connack_tells_what_the_server_allows() {
    let mut rig = Rig::new(settings(&[("RetainEnabled", "false"), ("MaximumQoS", "1")]));
    let connack = connack(&rig.connect_with(connect(Version::V5), nothing_attached()));
    let properties = connack.properties;
    assert_eq!(properties.receive_maximum, NonZeroU16::new(100));
    assert_eq!(properties.maximum_packet_size, NonZeroU32::new(1_048_576));
    assert_eq!(properties.topic_alias_maximum, Some(10));
    assert_eq!(properties.retain_available, Some(false));
    assert_eq!(properties.maximum_qos, Some(QoS::AtLeastOnce));
    assert_eq!(properties.wildcard_subscription_available, None);
    assert_eq!(properties.server_keep_alive, None);
    assert_eq!(properties.assigned_client_identifier, None);
}

#[test]
fn connack_before_5_0_has_no_properties() {
    for version in [Version::V3, Version::V4] {
        let mut rig = Rig::new(Settings::default());
        let connack = connack(&rig.connect_with(connect(version), nothing_attached()));
        assert_eq!(connack.properties, mqtt_codec::ConnAckProperties::default());
        assert_eq!(rig.session.version(), Some(version));
    }
}

#[test]
fn session_present_is_told() {
    let mut rig = Rig::new(Settings::default());
    let attached = Attached { session_present: true, ..fresh_inbox() };
    let mut connect = connect(Version::V4);
    connect.clean_start = false;
    assert!(connack(&rig.connect_with(connect, attached)).session_present);
}

/// 5.0 §3.1.3.1 [MQTT-3.1.3-6, MQTT-3.1.3-7]; 3.1.1 [MQTT-3.1.3-7, MQTT-3.1.3-8].
#[test]
fn a_client_without_id_gets_one_where_the_version_lets_it() {
    let anonymous = |version, clean_start| {
        let mut connect = connect(version);
        connect.client_id = "".into();
        connect.clean_start = clean_start;
        connect
    };
    let mut rig = Rig::new(Settings::default());
    let connack = connack(&rig.connect_with(anonymous(Version::V5, false), nothing_attached()));
    let assigned = connack.properties.assigned_client_identifier.unwrap();
    assert_eq!(assigned, rig.session.client_id().unwrap().as_str());
    assert!(!assigned.is_empty());

    let mut rig = Rig::new(Settings::default());
    rig.connect_with(anonymous(Version::V4, true), nothing_attached());
    assert!(rig.session.is_connected());

    for connect in [anonymous(Version::V4, false), anonymous(Version::V3, true)] {
        let mut rig = Rig::new(Settings::default());
        let out = rig.packet(Packet::Connect(Box::new(connect)));
        assert_eq!(refused(&out), ReasonCode::ClientIdentifierNotValid);
    }
}

#[test]
fn a_version_that_is_off_is_refused_as_unsupported() {
    let mut rig = Rig::new(settings(&[("MQTT5Enabled", "false")]));
    let out = rig.packet(Packet::Connect(Box::new(connect(Version::V5))));
    assert_eq!(refused(&out), ReasonCode::UnsupportedProtocolVersion);
}

/// Paho `client_test5.test_server_keep_alive`; 5.0 §3.2.2.3.14 [MQTT-3.2.2-21].
#[test]
fn a_long_keep_alive_is_capped_for_those_who_can_be_told() {
    for (version, asked, told, counts) in [
        (Version::V5, 120, Some(60), Some(90.0)),
        (Version::V5, 0, Some(60), Some(90.0)),
        (Version::V5, 60, None, Some(90.0)),
        (Version::V5, 10, None, Some(15.0)),
        (Version::V4, 120, None, Some(180.0)),
        (Version::V4, 0, None, None),
        (Version::V3, 1, None, Some(1.5)),
    ] {
        let mut rig = Rig::new(Settings::default());
        let mut connect = connect(version);
        connect.keep_alive = asked;
        let connack = connack(&rig.connect_with(connect, nothing_attached()));
        assert_eq!(connack.properties.server_keep_alive, told, "{version:?} {asked}");
        assert_eq!(rig.deadline_secs(), counts, "{version:?} {asked}");
    }
}

#[test]
fn older_clients_are_held_to_a_longest_silence_that_they_are_not_told_of() {
    for (version, asked, counts) in [
        (Version::V4, 0, 3600.0),
        (Version::V4, u16::MAX, 3600.0),
        (Version::V3, 60, 90.0),
        // Those of 5.0 have Server Keep Alive.
        (Version::V5, 0, 90.0),
    ] {
        let mut rig = Rig::new(Settings { max_silence_seconds: 3600, ..Settings::default() });
        let mut connect = connect(version);
        connect.keep_alive = asked;
        rig.connect_with(connect, nothing_attached());
        assert_eq!(rig.deadline_secs(), Some(counts), "{version:?} {asked}");
    }
}

/// [MQTT-3.1.2-22]
#[test]
fn silence_for_one_and_a_half_keep_alives_ends_the_connection_and_publishes_the_will() {
    let mut rig = Rig::transient(Version::V5);
    rig.pass(Duration::from_secs(44));
    assert_eq!(sent(&rig.packet(Packet::PingReq)), [Packet::PingResp]);
    rig.pass(Duration::from_secs(44));
    assert!(rig.event(Event::Timeout).is_empty(), "an early timeout does nothing");
    rig.pass(Duration::from_secs(1));
    let out = rig.event(Event::Timeout);
    assert_eq!(closed(&out), (Some(ReasonCode::KeepAliveTimeout), CloseReason::ByServer(ReasonCode::KeepAliveTimeout)));
    assert!(matches!(out[1], Action::Detach { will: WillFate::Publish, .. }));
    assert_eq!(rig.session.poll_timeout(), None);
}

#[test]
fn a_connection_that_sends_no_connect_is_closed_in_time() {
    let mut rig = Rig::new(Settings::default());
    assert_eq!(rig.deadline_secs(), Some(10.0));
    rig.pass(Duration::from_secs(10));
    let out = rig.event(Event::Timeout);
    assert!(matches!(out[..], [Action::Close(CloseReason::ConnectTimeout)]), "{out:?}");
}

/// [MQTT-3.1.0-1], [MQTT-3.1.0-2]
#[test]
fn the_first_packet_is_connect_and_no_other() {
    let mut rig = Rig::new(Settings::default());
    let out = rig.packet(Packet::PingReq);
    assert!(matches!(out[..], [Action::Close(CloseReason::Refused(ReasonCode::ProtocolError))]), "{out:?}");

    let mut rig = Rig::transient(Version::V5);
    let out = rig.packet(Packet::Connect(Box::new(connect(Version::V5))));
    assert_eq!(closed(&out).0, Some(ReasonCode::ProtocolError));
    let mut rig = Rig::transient(Version::V4);
    let out = rig.packet(Packet::Connect(Box::new(connect(Version::V4))));
    assert_eq!(closed(&out), (None, CloseReason::ByServer(ReasonCode::ProtocolError)));
}

#[test]
fn packets_that_only_servers_send_are_a_protocol_error() {
    for packet in [Packet::PingResp, Packet::ConnAck(Box::default())] {
        let mut rig = Rig::transient(Version::V5);
        assert_eq!(closed(&rig.packet(packet)).0, Some(ReasonCode::ProtocolError));
    }
}

#[test]
fn what_is_no_packet_is_told_where_the_version_is_known() {
    let malformed = |reason| Event::Malformed { reason, detail: "reserved bits".to_owned() };
    let mut rig = Rig::transient(Version::V5);
    let out = rig.event(malformed(ReasonCode::MalformedPacket));
    let [Action::Send(Packet::Disconnect(disconnect)), Action::Detach { .. }, Action::Close(_)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(disconnect.reason_code, ReasonCode::MalformedPacket);
    assert_eq!(disconnect.reason_string.as_deref(), Some("reserved bits"));

    // A level that nobody knows is answered in the form of 3.1.1 [3.1.1 MQTT-3.1.2-2]; noise is not.
    let mut rig = Rig::new(Settings::default());
    assert_eq!(
        refused(&rig.event(malformed(ReasonCode::UnsupportedProtocolVersion))),
        ReasonCode::UnsupportedProtocolVersion
    );
    assert_eq!(rig.session.version(), None);
    let mut rig = Rig::new(Settings::default());
    let out = rig.event(malformed(ReasonCode::MalformedPacket));
    assert!(matches!(out[..], [Action::Close(CloseReason::Refused(ReasonCode::MalformedPacket))]), "{out:?}");
    // A CONNECT that said 5.0 and then nonsense.
    let mut rig = Rig::new(Settings::default());
    rig.session.set_version(Version::V5);
    assert_eq!(refused(&rig.event(malformed(ReasonCode::ProtocolError))), ReasonCode::ProtocolError);
}

#[test]
fn refused_clients_are_told_and_never_detached() {
    let mut rig = Rig::new(Settings::default());
    rig.packet(Packet::Connect(Box::new(connect(Version::V4))));
    let out = rig.event(Event::Authenticated(AuthOutcome::Refuse { reason: ReasonCode::BadUserNameOrPassword }));
    assert_eq!(refused(&out), ReasonCode::BadUserNameOrPassword);

    let mut rig = Rig::new(Settings::default());
    rig.packet(Packet::Connect(Box::new(connect(Version::V5))));
    rig.event(accept());
    let out = rig.event(Event::Attached(Err(ReasonCode::ServerShuttingDown)));
    assert_eq!(refused(&out), ReasonCode::ServerUnavailable, "CONNACK has no code for it");
}

/// 5.0 §3.1.4: a client need not wait for CONNACK.
#[test]
fn what_comes_before_connack_is_handled_after_it() {
    let mut rig = Rig::new(Settings::default());
    assert!(!rig.session.inbound_paused());
    rig.packet(Packet::Connect(Box::new(connect(Version::V5))));
    assert!(rig.session.inbound_paused());
    assert!(rig.packet(Packet::PingReq).is_empty());
    assert!(rig.packet(Packet::Publish(publish(QoS::AtLeastOnce, 1))).is_empty());
    rig.event(accept());
    let out = rig.event(Event::Attached(Ok(nothing_attached())));
    assert!(
        matches!(out[..], [Action::Send(Packet::ConnAck(_)), Action::Send(Packet::PingResp), Action::Publish { .. }]),
        "{out:?}"
    );
    assert!(!rig.session.inbound_paused());
}

#[test]
fn a_client_that_leaves_while_its_session_is_attached_is_detached_afterwards() {
    let mut rig = Rig::new(Settings::default());
    rig.packet(Packet::Connect(Box::new(connect(Version::V5))));
    rig.event(accept());
    assert!(rig.event(Event::TransportClosed).is_empty());
    let out = rig.event(Event::Attached(Ok(fresh_inbox())));
    assert!(
        matches!(
            out[..],
            [Action::Detach { will: WillFate::Publish, .. }, Action::Close(CloseReason::TransportClosed)]
        ),
        "{out:?}"
    );
}

#[test]
fn it_may_not_take_for_ever_to_be_let_in() {
    let mut rig = Rig::new(Settings::default());
    rig.packet(Packet::Connect(Box::new(connect(Version::V5))));
    rig.event(accept());
    rig.pass(Duration::from_secs(10));
    assert_eq!(connack(&rig.event(Event::Timeout)).reason_code, ReasonCode::ServerUnavailable);
    // It was attached after all; its client never heard of it, so its will is discarded (faults.md T14).
    let out = rig.event(Event::Attached(Ok(fresh_inbox())));
    assert!(matches!(out[..], [Action::Detach { will: WillFate::Discard, .. }, Action::Close(_)]), "{out:?}");
}

#[test]
fn an_attach_that_is_never_answered_does_not_keep_the_connection() {
    let mut rig = Rig::new(Settings::default());
    rig.packet(Packet::Connect(Box::new(connect(Version::V5))));
    rig.event(accept());
    rig.event(Event::TransportClosed);
    assert_eq!(rig.deadline_secs(), Some(30.0));
    rig.pass(Duration::from_secs(30));
    let out = rig.event(Event::Timeout);
    assert!(matches!(out[..], [Action::Close(CloseReason::TransportClosed)]), "{out:?}");
    assert!(rig.event(Event::Attached(Ok(fresh_inbox()))).is_empty());
}

fn attach_request(version: Version, settings: Settings, asked: Option<u32>, clean_start: bool) -> (u32, Option<u32>) {
    let mut rig = Rig::new(settings);
    let mut connect = connect(version);
    connect.properties.session_expiry_interval = asked;
    connect.clean_start = clean_start;
    rig.packet(Packet::Connect(Box::new(connect)));
    let out = rig.event(accept());
    let [Action::Attach(attach)] = &out[..] else { panic!("{out:?}") };
    let granted = attach.expiry_secs;
    let out = rig.event(Event::Attached(Ok(nothing_attached())));
    (granted, connack(&out).properties.session_expiry_interval)
}

#[test]
fn session_expiry_stays_within_the_settings_and_is_told_when_it_is_not_what_was_asked() {
    for (pairs, version, asked, clean_start, want) in [
        (&[][..], Version::V5, None, true, (0, None)),
        (&[], Version::V5, Some(5), false, (5, None)),
        (&[], Version::V5, Some(99_999), false, (86_400, Some(86_400))),
        (&[("MinSessionExpirySeconds", "60")], Version::V5, Some(5), false, (60, Some(60))),
        (&[("MinSessionExpirySeconds", "60")], Version::V5, Some(0), false, (0, None)),
        (&[("MaxSessionExpirySeconds", "4294967295")], Version::V5, Some(u32::MAX), false, (u32::MAX, None)),
        (&[("ForceTransient", "true")], Version::V5, Some(5), false, (0, Some(0))),
        (&[], Version::V4, None, false, (86_400, None)),
        (&[], Version::V4, None, true, (0, None)),
        (&[("ForceTransient", "true")], Version::V3, None, false, (0, None)),
    ] {
        let got = attach_request(version, settings(pairs), asked, clean_start);
        assert_eq!(got, want, "{pairs:?} {version:?} {asked:?}");
    }
}

/// [MQTT-3.14.4-3]; 5.0 §3.14.2.2.2.
#[test]
fn disconnect_decides_about_the_will_and_may_change_the_expiry() {
    let leave = |reason_code, asked: Option<u32>, changed: Option<u32>| {
        let mut rig = Rig::transient_with(Version::V5, Settings::default(), |connect| {
            connect.properties.session_expiry_interval = asked;
            connect.will = Some(will());
        });
        rig.packet(Packet::Disconnect(mqtt_codec::Disconnect {
            reason_code,
            session_expiry_interval: changed,
            ..mqtt_codec::Disconnect::default()
        }))
    };
    let detached = |out: &[Action]| match out {
        [Action::Detach { expiry_secs, will }, Action::Close(CloseReason::ByClient(_))] => (*expiry_secs, *will),
        other => panic!("{other:?}"),
    };
    assert_eq!(detached(&leave(ReasonCode::Success, None, None)), (None, WillFate::Discard));
    assert_eq!(detached(&leave(ReasonCode::DisconnectWithWill, None, None)), (None, WillFate::Publish));
    assert_eq!(detached(&leave(ReasonCode::UnspecifiedError, None, None)), (None, WillFate::Publish));
    assert_eq!(detached(&leave(ReasonCode::Success, Some(1), Some(5))), (Some(5), WillFate::Discard));
    assert_eq!(detached(&leave(ReasonCode::Success, Some(1), Some(0))), (Some(0), WillFate::Discard));
    assert_eq!(detached(&leave(ReasonCode::Success, Some(1), Some(999_999_999))), (Some(86_400), WillFate::Discard));
    // From 0 it may not be raised.
    let out = leave(ReasonCode::Success, Some(0), Some(5));
    assert_eq!(closed(&out).0, Some(ReasonCode::ProtocolError));
    assert!(matches!(out[1], Action::Detach { expiry_secs: None, will: WillFate::Publish }));
}

#[test]
fn the_server_says_why_it_ends_a_connection_where_the_version_lets_it() {
    for (reason, publish_will) in [(ReasonCode::SessionTakenOver, true), (ReasonCode::ServerShuttingDown, false)] {
        for version in [Version::V3, Version::V4, Version::V5] {
            let mut rig = Rig::transient(version);
            let out = rig.event(Event::Disconnect { reason, publish_will });
            let told = (version == Version::V5).then_some(reason);
            assert_eq!(closed(&out), (told, CloseReason::ByServer(reason)));
            let fate = if publish_will { WillFate::Publish } else { WillFate::Discard };
            assert!(out.iter().any(|a| matches!(a, Action::Detach { will, .. } if *will == fate)), "{out:?}");
        }
    }
}

#[test]
fn nothing_follows_the_close() {
    let mut rig = Rig::transient(Version::V5);
    rig.packet(disconnect(ReasonCode::Success));
    for event in [
        Event::Packet(Packet::PingReq),
        Event::Packet(Packet::Publish(publish(QoS::AtLeastOnce, 1))),
        Event::Deliver(delivery(QoS::AtMostOnce, "late")),
        Event::TransportClosed,
        Event::Timeout,
        Event::Attached(Ok(fresh_inbox())),
        accept(),
    ] {
        assert!(rig.event(event).is_empty());
    }
    assert!(!rig.session.is_connected());
    assert!(rig.session.inbound_paused());
}

#[test]
fn the_will_goes_to_the_inbox_as_it_will_be_published() {
    let mut rig = Rig::new(Settings::default());
    let mut connect = connect(Version::V5);
    connect.will = Some(mqtt_codec::Will {
        delay_interval: 3,
        message_expiry_interval: Some(7),
        forwarded: Bytes::from_static(&[1, 1]),
        retain: true,
        ..will()
    });
    rig.packet(Packet::Connect(Box::new(connect)));
    let out = rig.event(accept());
    let [Action::Attach(attach)] = &out[..] else { panic!("{out:?}") };
    let pending = attach.will.as_ref().unwrap();
    assert_eq!((pending.delay_secs, pending.expiry_secs), (3, Some(7)));
    assert_eq!(pending.message.topic, topic("will"));
    assert_eq!(&pending.message.properties[..], [1, 1]);
    assert!(pending.message.retain);
    assert_eq!(pending.message.publisher.as_ref(), rig.session.client_id());
    assert_eq!(attach.will_topic, Some(topic("will")));
}

#[test]
fn a_will_beyond_the_limits_refuses_the_client() {
    type Case = (&'static [(&'static str, &'static str)], fn(&mut mqtt_codec::Will), ReasonCode);
    let cases: [Case; 5] = [
        (&[], |w| w.payload = Bytes::from(vec![0; 65_537]), ReasonCode::PacketTooLarge),
        (&[("MaximumQoS", "0")], |_| {}, ReasonCode::QoSNotSupported),
        (&[("RetainEnabled", "false")], |w| w.retain = true, ReasonCode::RetainNotSupported),
        (&[("MaxTopicLevels", "2")], |w| w.topic = topic("a/b/c"), ReasonCode::TopicNameInvalid),
        (
            &[],
            |w| {
                w.payload_is_utf8 = true;
                w.payload = Bytes::from_static(&[0xff]);
            },
            ReasonCode::PayloadFormatInvalid,
        ),
    ];
    for (pairs, change, reason) in cases {
        let mut rig = Rig::new(settings(pairs));
        let mut connect = connect(Version::V5);
        let mut will = will();
        change(&mut will);
        connect.will = Some(will);
        assert_eq!(refused(&rig.packet(Packet::Connect(Box::new(connect)))), reason);
    }
}

fn auth(reason_code: ReasonCode, method: &'static str, data: &'static str) -> Packet {
    Packet::Auth(Auth {
        reason_code,
        authentication_method: Some(method.into()),
        authentication_data: Some(Bytes::from_static(data.as_bytes())),
        ..Auth::default()
    })
}

fn authenticated(data: &'static str) -> Event {
    Event::Authenticated(AuthOutcome::Accept {
        tenant: base_types::TenantId::default(),
        user: "u".into(),
        data: Some(Bytes::from_static(data.as_bytes())),
        response_information: Some("answers/u".into()),
    })
}

/// 5.0 §4.12
#[test]
fn enhanced_authentication_goes_back_and_forth_before_connack_and_may_be_repeated() {
    let mut rig = Rig::new(Settings::default());
    let mut connect = connect(Version::V5);
    connect.properties.authentication_method = Some("SCRAM".into());
    connect.properties.request_response_information = Some(true);
    rig.packet(Packet::Connect(Box::new(connect)));
    let out = rig.event(Event::Authenticated(AuthOutcome::Continue { data: Some(Bytes::from_static(b"challenge")) }));
    assert_eq!(sent(&out), [auth(ReasonCode::ContinueAuthentication, "SCRAM", "challenge")]);
    assert!(!rig.session.inbound_paused(), "the client's AUTH is due");

    let out = rig.packet(auth(ReasonCode::ContinueAuthentication, "SCRAM", "proof"));
    let [Action::Authenticate(request)] = &out[..] else { panic!("{out:?}") };
    assert!(matches!(**request, AuthRequest::Continue { reauthenticate: false, .. }), "{request:?}");
    rig.event(authenticated("verified"));
    let properties = connack(&rig.event(Event::Attached(Ok(nothing_attached())))).properties;
    assert_eq!(properties.authentication_method.as_deref(), Some("SCRAM"));
    assert_eq!(properties.authentication_data.as_deref(), Some(&b"verified"[..]));
    assert_eq!(properties.response_information.as_deref(), Some("answers/u"));

    let out = rig.packet(auth(ReasonCode::ReAuthenticate, "SCRAM", "again"));
    let [Action::Authenticate(request)] = &out[..] else { panic!("{out:?}") };
    assert!(matches!(**request, AuthRequest::Continue { reauthenticate: true, .. }), "{request:?}");
    let out = rig.event(authenticated("fine"));
    assert_eq!(sent(&out), [auth(ReasonCode::Success, "SCRAM", "fine")]);

    rig.packet(auth(ReasonCode::ReAuthenticate, "SCRAM", "again"));
    let out = rig.event(Event::Authenticated(AuthOutcome::Refuse { reason: ReasonCode::NotAuthorized }));
    assert_eq!(closed(&out).0, Some(ReasonCode::NotAuthorized));
}

/// [MQTT-4.12.0-5], [MQTT-4.12.1-1]
#[test]
fn auth_out_of_turn_or_by_another_method_is_a_protocol_error() {
    let with_method = || {
        Rig::transient_with(Version::V5, Settings::default(), |connect| {
            connect.properties.authentication_method = Some("A".into());
        })
    };
    for (mut rig, packet) in [
        (Rig::transient(Version::V5), auth(ReasonCode::ReAuthenticate, "A", "")),
        (with_method(), auth(ReasonCode::ReAuthenticate, "B", "")),
        (with_method(), auth(ReasonCode::ContinueAuthentication, "A", "")),
        (with_method(), auth(ReasonCode::Success, "A", "")),
    ] {
        assert_eq!(closed(&rig.packet(packet)).0, Some(ReasonCode::ProtocolError));
    }
}

#[test]
fn response_information_is_only_for_those_who_asked() {
    let mut rig = Rig::new(Settings::default());
    rig.packet(Packet::Connect(Box::new(connect(Version::V5))));
    rig.event(authenticated(""));
    assert_eq!(connack(&rig.event(Event::Attached(Ok(nothing_attached())))).properties.response_information, None);
}

/// [MQTT-3.1.2-24]
#[test]
fn a_client_that_can_not_take_connack_is_refused_in_what_it_takes() {
    let mut rig = Rig::new(Settings::default());
    let mut connect = connect(Version::V5);
    connect.properties.maximum_packet_size = NonZeroU32::new(10);
    let out = rig.connect_with(connect, fresh_inbox());
    let refused = connack(&out);
    assert_eq!(refused.reason_code, ReasonCode::PacketTooLarge);
    assert_eq!(refused.properties, mqtt_codec::ConnAckProperties::default());
    assert!(matches!(out[1..], [Action::Detach { will: WillFate::Discard, .. }, Action::Close(_)]), "{out:?}");
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<mqtt_session::Session>() <= 512, "{}", size_of::<mqtt_session::Session>());
}
