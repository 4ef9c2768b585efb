use crate::connect::Connecting;
use crate::inbound::{AckQueue, AliasesIn, IdSet, Rate};
use crate::keep_alive::KeepAlive;
use crate::outbound::{LiveQueue, Puller, Sender, Window};
use crate::pending::{Commits, PendingSubscribes};
use crate::reason::{self, Fault};
use crate::{Action, CloseReason, Event, Settings};
use base_types::{ClientId, WallMs};
use bytestring::ByteString;
use inbox_api::WillFate;
use mqtt_codec::{Disconnect, Packet, ReasonCode, Version};
use std::sync::Arc;
use std::time::Instant;

/// One session while it is connected, from the accept to the close.
///
/// One event in, drain all actions, then the next; [`Session::flush`] after each batch of events. Nothing comes after
/// [`Action::Close`], and what happens afterwards changes nothing.
///
/// What a driver owes beside that: every answer, once; no packets while [`Session::inbound_paused`]; [`Event::Timeout`] in time. It may drop
/// a delivery instead of handing it over, but must send what the session gave it: a dropped [`Action::Deliver`] may be one that
/// sets a topic alias. When it closes before the answer to [`Action::Attach`] came, it detaches what was attached.
#[derive(Debug)]
pub struct Session {
    pub(crate) settings: Arc<Settings>,
    pub(crate) phase: Phase,
    /// As the client asked in CONNECT, and as it was granted.
    pub(crate) expiry: Expiry,
    pub(crate) client_id: Option<ClientId>,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) inbound: Inbound,
    pub(crate) subscribes: PendingSubscribes,
    pub(crate) sender: Sender,
    pub(crate) window: Window,
    pub(crate) queue: LiveQueue,
    pub(crate) inbox: Option<Box<InboxLink>>,
    /// The authentication method, when enhanced authentication is used.
    pub(crate) auth: Option<Box<Auth>>,
}

/// Where a session is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// CONNECT is due.
    Accepted {
        /// For a client id.
        seed: u128,
    },
    /// CONNECT came; CONNACK is due.
    Connecting(Box<Connecting>),
    /// CONNACK was sent.
    Connected,
    /// Over, but for the answer to `Attach`: what it attached must be detached. One that never comes is not waited for for ever; the
    /// driver then undoes it.
    Leaving {
        close: CloseReason,
        will: WillFate,
    },
    Closed,
}

/// Session expiry intervals, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expiry {
    pub(crate) asked: u32,
    pub(crate) granted: u32,
}

/// What the client has open towards the broker.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    pub(crate) acks: AckQueue,
    /// QoS 2: received and not released.
    pub(crate) ids: IdSet,
    /// Of the Receive Maximum, for this connection.
    pub(crate) quota_used: u16,
    pub(crate) aliases: Option<Box<AliasesIn>>,
    pub(crate) rate: Option<Box<Rate>>,
}

/// What only a session with an inbox has.
#[derive(Debug)]
pub(crate) struct InboxLink {
    pub(crate) commits: Commits,
    pub(crate) puller: Puller,
}

/// Enhanced authentication (5.0 §4.12).
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) method: ByteString,
    /// A re-authentication is going on.
    pub(crate) again: bool,
}

impl Session {
    /// A session for a connection that was just accepted. `seed` makes the client id of a client that has none: random, unique.
    #[must_use]
    pub fn new(settings: Arc<Settings>, now: Instant, seed: u128) -> Self {
        Self {
            keep_alive: KeepAlive::connecting(now, settings.connect_timeout_seconds),
            window: Window::new(1, settings.sending_maximum),
            settings,
            phase: Phase::Accepted { seed },
            expiry: Expiry::default(),
            client_id: None,
            inbound: Inbound::default(),
            subscribes: PendingSubscribes::default(),
            sender: Sender { version: None, max_packet_size: None, aliases: None },
            queue: LiveQueue::default(),
            inbox: None,
            auth: None,
        }
    }

    /// Takes one event and appends what follows from it.
    pub fn handle(&mut self, now: Instant, wall: WallMs, event: Event, out: &mut Vec<Action>) {
        let result = match event {
            Event::Packet(packet) => self.packet(now, wall, packet, out),
            Event::Deliver(delivery) => {
                self.deliver(wall, delivery, out);
                Ok(())
            }
            Event::PublishDone(op, outcome) => self.publish_done(op, outcome, out),
            Event::Queued => {
                self.queued();
                Ok(())
            }
            Event::Fetched(entries) => {
                self.fetched(wall, entries, out);
                Ok(())
            }
            Event::Committed(op, result) => self.committed(wall, op, result, out),
            Event::SubscribeDone(op, outcomes) => self.subscribe_done(op, &outcomes, out),
            Event::UnsubscribeDone(op, outcomes) => self.unsubscribe_done(op, &outcomes, out),
            Event::Authenticated(outcome) => self.authenticated(outcome, out),
            Event::Attached(result) => self.attached(now, wall, result, out),
            Event::Timeout => self.timeout(now, out),
            Event::Malformed { reason, detail } => Err(Fault { reason, text: detail.into() }),
            Event::TransportClosed => {
                self.end(CloseReason::TransportClosed, WillFate::Publish, None, out);
                Ok(())
            }
            Event::Disconnect { reason, publish_will } => {
                let will = if publish_will { WillFate::Publish } else { WillFate::Discard };
                self.fail(Fault { reason, text: "".into() }, will, out);
                Ok(())
            }
        };
        if let Err(fault) = result {
            self.fail(fault, WillFate::Publish, out);
        }
    }

    /// Ends a batch of events: commits and fetches that they led to go out once.
    pub fn flush(&mut self, out: &mut Vec<Action>) {
        if let (Phase::Connected, Some(inbox)) = (&self.phase, &mut self.inbox) {
            if let Some(sent_upto) = inbox.puller.reserve(self.window.next()) {
                inbox.commits.gathered.sent_upto = Some(sent_upto);
            }
            if let Some((op, commit)) = inbox.commits.leave() {
                out.push(Action::Commit { op, commit });
            }
            inbox.puller.fetch(self.window.limit(), out);
        }
    }

    /// When to send [`Event::Timeout`], if nothing happens before. It moves with every packet; a timeout that comes early does nothing, so
    /// a driver may look again only when the time that it knows is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Accepted { .. } | Phase::Connecting(_) | Phase::Connected => self.keep_alive.deadline(),
            Phase::Leaving { .. } => self.keep_alive.last_deadline(),
            Phase::Closed => None,
        }
    }

    /// In which version to encode what is sent. `None` before CONNECT: then 3.1.1, whose CONNACK every client understands.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.sender.version
    }

    /// Says which version a CONNECT named that can't be read behind it. The client is then told what is wrong with it.
    pub fn set_version(&mut self, version: Version) {
        if matches!(self.phase, Phase::Accepted { .. }) {
            self.sender.version = Some(version);
        }
    }

    pub(crate) fn is_v5(&self) -> bool {
        self.sender.version == Some(Version::V5)
    }

    /// Who it is, once CONNECT came; assigned when the client had none.
    #[must_use]
    pub fn client_id(&self) -> Option<&ClientId> {
        self.client_id.as_ref()
    }

    /// Whether CONNACK was sent with success, and the connection has not ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    /// Whether QoS 1 and 2 come through an inbox.
    #[must_use]
    pub fn has_inbox(&self) -> bool {
        self.inbox.is_some()
    }

    /// The driver should neither read from the transport nor hand over packets now: too many operations are open, or the client is not
    /// let in yet. Worth a look after each packet.
    #[must_use]
    pub fn inbound_paused(&self) -> bool {
        match &self.phase {
            Phase::Accepted { .. } => false,
            Phase::Connecting(connecting) => !connecting.awaits_client(),
            // A 5.0 client is held to its quota; the others know none.
            Phase::Connected => {
                let full = self.inbound.acks.len() >= usize::from(self.settings.receiving_maximum);
                (full && !self.is_v5()) || self.subscribes.is_full()
            }
            Phase::Leaving { .. } | Phase::Closed => true,
        }
    }

    fn packet(&mut self, now: Instant, wall: WallMs, packet: Packet, out: &mut Vec<Action>) -> Result<(), Fault> {
        match &mut self.phase {
            Phase::Connected => self.keep_alive.heard(now),
            Phase::Accepted { seed } => {
                let seed = *seed;
                let Packet::Connect(connect) = packet else {
                    // [MQTT-3.1.0-1]; no packet of ours means anything to a peer that has not said CONNECT.
                    self.end(CloseReason::Refused(ReasonCode::ProtocolError), WillFate::Discard, None, out);
                    return Ok(());
                };
                return self.connect(seed, *connect, out);
            }
            Phase::Connecting(connecting) => {
                return match packet {
                    Packet::Auth(auth) => self.continue_auth(auth, out),
                    packet => connecting.hold(packet),
                };
            }
            Phase::Leaving { .. } | Phase::Closed => return Ok(()),
        }
        match packet {
            Packet::Publish(publish) => self.publish(now, wall, publish, out),
            Packet::PubAck(ack) => self.pub_ack(wall, &ack, out),
            Packet::PubRec(ack) => self.pub_rec(wall, &ack, out),
            Packet::PubRel(ack) => self.pub_rel(&ack, out),
            Packet::PubComp(ack) => self.pub_comp(wall, &ack, out),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, out),
            Packet::PingReq => {
                out.push(Action::Send(Packet::PingResp));
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.disconnect(&disconnect, out),
            Packet::Auth(auth) => self.re_authenticate(auth, out),
            Packet::Connect(_) => Err(Fault::protocol("a second CONNECT")),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Fault::protocol("a packet that only a server sends"))
            }
        }
    }

    /// DISCONNECT of the client (5.0 §3.14).
    fn disconnect(&mut self, disconnect: &Disconnect, out: &mut Vec<Action>) -> Result<(), Fault> {
        let expiry = match disconnect.session_expiry_interval {
            Some(asked) if asked != 0 && self.expiry.asked == 0 => {
                return Err(Fault::protocol("Session Expiry Interval was 0 in CONNECT and must stay so"));
            }
            Some(asked) => Some(self.settings.session_expiry(asked)),
            None => None,
        };
        let will = match disconnect.reason_code {
            ReasonCode::Success => WillFate::Discard,
            _ => WillFate::Publish,
        };
        self.end(CloseReason::ByClient(disconnect.reason_code), will, expiry, out);
        Ok(())
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<Action>) -> Result<(), Fault> {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        match &self.phase {
            Phase::Accepted { .. } => Err(Fault::new(ReasonCode::MaximumConnectTime, "")),
            Phase::Connecting(_) => Err(Fault::new(ReasonCode::ServerUnavailable, "it took too long to be let in")),
            Phase::Connected => Err(Fault::new(ReasonCode::KeepAliveTimeout, "nothing came within the keep-alive")),
            Phase::Leaving { close, .. } => {
                out.push(Action::Close(close.clone()));
                self.phase = Phase::Closed;
                Ok(())
            }
            Phase::Closed => Ok(()),
        }
    }

    /// The broker ends the connection, and tells why where the version lets it.
    pub(crate) fn fail(&mut self, fault: Fault, will: WillFate, out: &mut Vec<Action>) {
        let Fault { reason, text } = fault;
        match self.phase {
            Phase::Accepted { .. } => {
                let close = match reason {
                    ReasonCode::MaximumConnectTime => CloseReason::ConnectTimeout,
                    _ => CloseReason::Refused(reason),
                };
                // A peer that is no MQTT client gets no answer. One of a version that is too new does, in the form of 3.1.1
                // [3.1.1 MQTT-3.1.2-2].
                let understood = self.is_v5() || reason == ReasonCode::UnsupportedProtocolVersion;
                if understood && close != CloseReason::ConnectTimeout {
                    self.refuse(reason, text, out);
                }
                self.end(close, WillFate::Discard, None, out);
            }
            Phase::Connecting(_) => {
                self.refuse(reason, text, out);
                self.end(CloseReason::Refused(reason), WillFate::Discard, None, out);
            }
            Phase::Connected => {
                if self.is_v5() {
                    let reason_string = self.reason_string(text);
                    let disconnect = Disconnect {
                        reason_code: reason::in_disconnect(reason),
                        reason_string,
                        ..Disconnect::default()
                    };
                    out.push(Action::Send(Packet::Disconnect(disconnect)));
                }
                self.end(CloseReason::ByServer(reason), will, None, out);
            }
            Phase::Leaving { .. } | Phase::Closed => {}
        }
    }

    /// The text, if there is one that fits the client's Maximum Packet Size beside a code [MQTT-3.14.2-3].
    pub(crate) fn reason_string(&self, text: std::borrow::Cow<'static, str>) -> Option<ByteString> {
        let fits = self.sender.max_packet_size.is_none_or(|max| text.len() as u64 + 16 <= u64::from(max.get()));
        (fits && !text.is_empty() && text.len() <= 1024).then(|| ByteString::from(text.into_owned()))
    }

    pub(crate) fn end(&mut self, close: CloseReason, will: WillFate, expiry_secs: Option<u32>, out: &mut Vec<Action>) {
        match &self.phase {
            Phase::Connected => {
                if let Some(inbox) = &mut self.inbox {
                    let exact = inbox.puller.give_back(self.window.next());
                    let commit = &mut inbox.commits.gathered;
                    commit.sent_upto = exact.or(commit.sent_upto);
                    // Nobody is left to wait for it.
                    if let Some((_, commit)) = inbox.commits.leave() {
                        out.push(Action::Commit { op: None, commit });
                    }
                }
                out.push(Action::Detach { expiry_secs, will });
            }
            Phase::Connecting(connecting) if connecting.is_attaching() => {
                self.phase = Phase::Leaving { close, will };
                return;
            }
            Phase::Leaving { .. } | Phase::Closed => return,
            Phase::Accepted { .. } | Phase::Connecting(_) => {}
        }
        self.phase = Phase::Closed;
        out.push(Action::Close(close));
    }
}
