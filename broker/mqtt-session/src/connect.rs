//! From CONNECT to CONNACK (5.0 §3.1, §3.2), and authentication (§4.12).

use crate::inbound::{IdSet, Rate};
use crate::keep_alive::KeepAlive;
use crate::outbound::{AliasesOut, Puller, Window};
use crate::reason::{self, Fault};
use crate::session::{Auth, Expiry, InboxLink, Phase, Session};
use crate::{Action, AttachRequest, AuthOutcome, AuthRequest, CloseReason, Settings, will};
use base_types::{ClientId, QoS, WallMs};
use bytes::Bytes;
use bytestring::ByteString;
use inbox_api::{Attached, PendingWill, WillFate, packet_id_of};
use mqtt_codec::{Ack, ConnAck, ConnAckProperties, Connect, Packet, ReasonCode, Version};
use std::borrow::Cow;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Instant;

/// A client may send packets before it has seen CONNACK [5.0 §3.1.4]: those of one read are held.
const HELD_MAX: usize = 1024;

/// What is kept of a CONNECT until CONNACK.
#[derive(Debug)]
pub(crate) struct Connecting {
    step: Step,
    clean_start: bool,
    assigned: bool,
    keep_alive: u16,
    response_wanted: bool,
    receive_maximum: u16,
    will: Option<PendingWill>,
    auth_data: Option<Bytes>,
    response_information: Option<ByteString>,
    held: Vec<Packet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The provider is asked.
    Authenticating,
    /// AUTH of the client is due.
    AwaitingAuth,
    /// The inbox is asked.
    Attaching,
}

impl Connecting {
    pub(crate) fn awaits_client(&self) -> bool {
        self.step == Step::AwaitingAuth
    }

    pub(crate) fn is_attaching(&self) -> bool {
        self.step == Step::Attaching
    }

    pub(crate) fn hold(&mut self, packet: Packet) -> Result<(), Fault> {
        if self.held.len() == HELD_MAX {
            return Err(Fault::new(ReasonCode::QuotaExceeded, "too many packets before CONNACK"));
        }
        self.held.push(packet);
        Ok(())
    }
}

impl Settings {
    /// The session expiry that is granted, in seconds.
    pub(crate) fn session_expiry(&self, asked: u32) -> u32 {
        if asked == 0 || self.force_transient {
            0
        } else {
            asked.max(self.min_session_expiry_seconds).min(self.max_session_expiry_seconds)
        }
    }

    /// The keep-alive that counts, in seconds. Only 5.0 clients can be told of a cap.
    fn keep_alive(&self, is_v5: bool, asked: u16) -> u16 {
        let capped = match self.max_keep_alive_seconds {
            max if !is_v5 || max == 0 => asked,
            max if asked == 0 => max,
            max => asked.min(max),
        };
        if capped == 0 { 0 } else { capped.max(self.min_keep_alive_seconds) }
    }

    fn accepts(&self, version: Version) -> bool {
        match version {
            Version::V3 => self.mqtt3_enabled,
            Version::V4 => self.mqtt4_enabled,
            Version::V5 => self.mqtt5_enabled,
        }
    }
}

impl Session {
    pub(crate) fn connect(&mut self, seed: u128, connect: Connect, out: &mut Vec<Action>) -> Result<(), Fault> {
        let settings = self.settings.clone();
        self.sender.version = Some(connect.version);
        self.sender.max_packet_size = connect.properties.maximum_packet_size;
        let properties = &connect.properties;
        // From here on a refusal is a CONNACK.
        self.phase = Phase::Connecting(Box::new(Connecting {
            step: Step::Authenticating,
            clean_start: connect.clean_start,
            assigned: connect.client_id.is_empty(),
            keep_alive: connect.keep_alive,
            response_wanted: properties.request_response_information == Some(true),
            receive_maximum: properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get),
            will: None,
            auth_data: None,
            response_information: None,
            held: Vec::new(),
        }));
        if !settings.accepts(connect.version) {
            return Err(Fault::new(ReasonCode::UnsupportedProtocolVersion, "this version of MQTT is switched off"));
        }
        let client_id = client_id(&connect, seed)?;
        let asked = match connect.version {
            Version::V5 => properties.session_expiry_interval.unwrap_or(0),
            Version::V3 | Version::V4 if connect.clean_start => 0,
            Version::V3 | Version::V4 => settings.max_session_expiry_seconds,
        };
        self.expiry = Expiry { asked, granted: settings.session_expiry(asked) };
        let will = connect.will.as_ref().map(|will| will::accept(will, &client_id, &settings)).transpose()?;
        if let Phase::Connecting(connecting) = &mut self.phase {
            connecting.will = will;
        }
        self.client_id = Some(client_id);
        let aliases = properties.topic_alias_maximum.unwrap_or(0).min(settings.max_topic_alias);
        if aliases > 0 {
            self.sender.aliases = Some(Box::new(AliasesOut::new(aliases)));
        }
        if let Some(method) = &properties.authentication_method {
            let method = ByteString::from(method.to_string());
            self.auth = Some(Box::new(Auth { method, again: false }));
        } else if properties.authentication_data.is_some() {
            return Err(Fault::protocol("Authentication Data without Authentication Method"));
        }
        out.push(Action::Authenticate(Box::new(AuthRequest::Connect(connect))));
        Ok(())
    }

    /// AUTH before CONNACK.
    pub(crate) fn continue_auth(&mut self, auth: mqtt_codec::Auth, out: &mut Vec<Action>) -> Result<(), Fault> {
        let method = self.check_auth(&auth)?;
        let Phase::Connecting(connecting) = &mut self.phase else { return Ok(()) };
        if connecting.step != Step::AwaitingAuth || auth.reason_code != ReasonCode::ContinueAuthentication {
            return Err(Fault::protocol("AUTH out of turn"));
        }
        connecting.step = Step::Authenticating;
        let data = auth.authentication_data;
        out.push(Action::Authenticate(Box::new(AuthRequest::Continue { method, data, reauthenticate: false })));
        Ok(())
    }

    /// AUTH on a connection that is let in (5.0 §4.12.1).
    pub(crate) fn re_authenticate(&mut self, auth: mqtt_codec::Auth, out: &mut Vec<Action>) -> Result<(), Fault> {
        let method = self.check_auth(&auth)?;
        let Some(state) = &mut self.auth else { return Ok(()) };
        let in_turn = match auth.reason_code {
            ReasonCode::ReAuthenticate => !state.again,
            ReasonCode::ContinueAuthentication => state.again,
            _ => false,
        };
        if !in_turn {
            return Err(Fault::protocol("AUTH out of turn"));
        }
        state.again = true;
        let data = auth.authentication_data;
        out.push(Action::Authenticate(Box::new(AuthRequest::Continue { method, data, reauthenticate: true })));
        Ok(())
    }

    /// The method must be that of CONNECT [MQTT-4.12.0-5, MQTT-4.12.1-1].
    fn check_auth(&self, auth: &mqtt_codec::Auth) -> Result<ByteString, Fault> {
        match (&self.auth, &auth.authentication_method) {
            (Some(state), Some(method)) if state.method == *method => Ok(state.method.clone()),
            (Some(_), _) => Err(Fault::protocol("AUTH with another Authentication Method")),
            (None, _) => Err(Fault::protocol("AUTH without Authentication Method in CONNECT")),
        }
    }

    pub(crate) fn authenticated(&mut self, outcome: AuthOutcome, out: &mut Vec<Action>) -> Result<(), Fault> {
        match &self.phase {
            Phase::Connecting(_) => self.authenticated_at_connect(outcome, out),
            Phase::Connected => self.authenticated_again(outcome, out),
            Phase::Accepted { .. } | Phase::Leaving { .. } | Phase::Closed => Ok(()),
        }
    }

    fn authenticated_at_connect(&mut self, outcome: AuthOutcome, out: &mut Vec<Action>) -> Result<(), Fault> {
        let (Phase::Connecting(connecting), Some(client_id)) = (&mut self.phase, &self.client_id) else {
            return Ok(());
        };
        if connecting.step != Step::Authenticating {
            return Ok(());
        }
        match outcome {
            AuthOutcome::Accept { data, response_information, .. } => {
                connecting.step = Step::Attaching;
                connecting.auth_data = data;
                connecting.response_information = response_information;
                let will = connecting.will.take();
                out.push(Action::Attach(Box::new(AttachRequest {
                    client_id: client_id.clone(),
                    clean_start: connecting.clean_start,
                    expiry_secs: self.expiry.granted,
                    will_topic: will.as_ref().map(|will| will.message.topic.clone()),
                    will,
                })));
                Ok(())
            }
            AuthOutcome::Continue { data } if self.auth.is_some() => {
                connecting.step = Step::AwaitingAuth;
                self.send_auth(ReasonCode::ContinueAuthentication, data, out);
                Ok(())
            }
            // Fail closed: a client without a method can't be asked for more.
            AuthOutcome::Continue { .. } => Err(Fault::new(ReasonCode::NotAuthorized, "")),
            AuthOutcome::Refuse { reason } => Err(Fault::new(reason, "")),
        }
    }

    fn authenticated_again(&mut self, outcome: AuthOutcome, out: &mut Vec<Action>) -> Result<(), Fault> {
        let Some(state) = self.auth.as_mut().filter(|state| state.again) else { return Ok(()) };
        match outcome {
            AuthOutcome::Accept { data, .. } => {
                state.again = false;
                self.send_auth(ReasonCode::Success, data, out);
                Ok(())
            }
            AuthOutcome::Continue { data } => {
                self.send_auth(ReasonCode::ContinueAuthentication, data, out);
                Ok(())
            }
            AuthOutcome::Refuse { reason } => Err(Fault::new(reason, "re-authentication failed")),
        }
    }

    fn send_auth(&self, reason_code: ReasonCode, data: Option<Bytes>, out: &mut Vec<Action>) {
        out.push(Action::Send(Packet::Auth(mqtt_codec::Auth {
            reason_code,
            authentication_method: self.auth.as_ref().map(|state| state.method.clone()),
            authentication_data: data,
            ..mqtt_codec::Auth::default()
        })));
    }

    pub(crate) fn attached(
        &mut self,
        now: Instant,
        wall: WallMs,
        result: Result<Attached, ReasonCode>,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        match std::mem::replace(&mut self.phase, Phase::Connected) {
            Phase::Connecting(connecting) if connecting.is_attaching() => match result {
                Ok(attached) => self.enter(now, wall, *connecting, &attached, out),
                Err(reason) => {
                    // Nothing is attached: nothing is to be detached.
                    self.phase = Phase::Closed;
                    self.refuse(reason, Cow::Borrowed(""), out);
                    out.push(Action::Close(CloseReason::Refused(reason)));
                    Ok(())
                }
            },
            Phase::Leaving { close, will } => {
                self.phase = Phase::Closed;
                if result.is_ok() {
                    out.push(Action::Detach { expiry_secs: None, will });
                }
                out.push(Action::Close(close));
                Ok(())
            }
            other => {
                self.phase = other;
                Ok(())
            }
        }
    }

    /// The client is let in.
    fn enter(
        &mut self,
        now: Instant,
        wall: WallMs,
        connecting: Connecting,
        attached: &Attached,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        let settings = self.settings.clone();
        let keep_alive = settings.keep_alive(self.is_v5(), connecting.keep_alive);
        let silence = if self.is_v5() { 0 } else { settings.max_silence_seconds };
        self.keep_alive = KeepAlive::connected(now, keep_alive).capped(silence);
        if settings.msg_pub_per_sec > 0 {
            self.inbound.rate = Some(Box::new(Rate::new(now, settings.msg_pub_per_sec)));
        }
        let limit = connecting.receive_maximum.min(settings.sending_maximum);
        self.window = Window::new(attached.first_seq.max(1), limit);
        self.inbound.ids = attached.inbound.iter().copied().collect::<IdSet>();

        let properties = self.connack_properties(&connecting, keep_alive);
        let connack = ConnAck {
            session_present: attached.session_present,
            reason_code: ReasonCode::Success,
            properties: if self.is_v5() { properties } else { ConnAckProperties::default() },
        };
        let connack = Packet::ConnAck(Box::new(connack));
        if !self.sender.fits(&connack) {
            let reason = ReasonCode::PacketTooLarge;
            self.refuse(reason, Cow::Borrowed(""), out);
            self.end(CloseReason::Refused(reason), WillFate::Discard, None, out);
            return Ok(());
        }
        out.push(Action::Send(connack));

        if attached.version.is_some() {
            self.inbox = Some(Box::new(InboxLink {
                commits: crate::pending::Commits::default(),
                puller: Puller::new(attached.first_seq.max(1), attached.sent_upto, limit, settings.session_inbox_size),
            }));
            for seq in &attached.released {
                if !self.window.restore_released(*seq) {
                    return Err(Fault::new(
                        ReasonCode::ImplementationSpecificError,
                        "the stored session is inconsistent",
                    ));
                }
                out.push(Action::Send(Packet::PubRel(Ack::new(packet_id_of(*seq), ReasonCode::Success))));
            }
        }
        for packet in connecting.held {
            if !self.is_connected() {
                break;
            }
            self.handle(now, wall, crate::Event::Packet(packet), out);
        }
        Ok(())
    }

    fn connack_properties(&self, connecting: &Connecting, keep_alive: u16) -> ConnAckProperties {
        let settings = &self.settings;
        let unless = |available: bool| if available { None } else { Some(false) };
        ConnAckProperties {
            session_expiry_interval: (self.expiry.granted != self.expiry.asked).then_some(self.expiry.granted),
            receive_maximum: NonZeroU16::new(settings.receiving_maximum).filter(|max| max.get() != u16::MAX),
            maximum_qos: (settings.maximum_qos < QoS::ExactlyOnce).then_some(settings.maximum_qos),
            retain_available: unless(settings.retain_enabled),
            maximum_packet_size: NonZeroU32::new(settings.max_user_payload_bytes),
            assigned_client_identifier: if connecting.assigned {
                self.client_id.as_ref().map(|id| id.as_bytestring().clone())
            } else {
                None
            },
            topic_alias_maximum: (settings.max_topic_alias > 0).then_some(settings.max_topic_alias),
            wildcard_subscription_available: unless(settings.wildcard_subscription_enabled),
            subscription_identifiers_available: unless(settings.subscription_identifier_enabled),
            shared_subscription_available: unless(settings.shared_subscription_enabled),
            server_keep_alive: (keep_alive != connecting.keep_alive).then_some(keep_alive),
            response_information: if connecting.response_wanted {
                connecting.response_information.clone()
            } else {
                None
            },
            authentication_method: self.auth.as_ref().map(|state| state.method.clone()),
            authentication_data: self.auth.as_ref().and(connecting.auth_data.clone()),
            ..ConnAckProperties::default()
        }
    }

    /// CONNACK with an error [MQTT-3.2.2-6: without a session].
    pub(crate) fn refuse(&self, reason: ReasonCode, text: Cow<'static, str>, out: &mut Vec<Action>) {
        let reason_string = if self.is_v5() { self.reason_string(text) } else { None };
        let properties = ConnAckProperties { reason_string, ..ConnAckProperties::default() };
        let connack = ConnAck { session_present: false, reason_code: reason::in_conn_ack(reason), properties };
        out.push(Action::Send(Packet::ConnAck(Box::new(connack))));
    }
}

/// The client id of a CONNECT, or a new one where the version lets a client have none.
fn client_id(connect: &Connect, seed: u128) -> Result<ClientId, Fault> {
    let invalid = |text| Fault::new(ReasonCode::ClientIdentifierNotValid, text);
    if !connect.client_id.is_empty() {
        // Kept as long as the connection: it must not keep a read buffer. 3.1's limit of 23 characters bothers nobody today.
        return ClientId::new(connect.client_id.to_string()).map_err(|_| invalid("not a client identifier"));
    }
    match connect.version {
        Version::V3 => Err(invalid("MQTT 3.1 demands a client identifier")),
        // [MQTT-3.1.3-8] of 3.1.1
        Version::V4 if !connect.clean_start => Err(invalid("a session that is kept demands a client identifier")),
        Version::V4 | Version::V5 => {
            ClientId::new(format!("auto-{seed:032x}")).map_err(|_| invalid("not a client identifier"))
        }
    }
}
