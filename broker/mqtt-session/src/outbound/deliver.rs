//! Messages to the client and what it answers (5.0 §3.3 to §3.7, §4.3).

use super::{Flight, first_flight};
use crate::reason::Fault;
use crate::session::{InboxLink, Phase, Session};
use crate::{Action, Delivery, DropReason, OpId};
use base_types::{QoS, WallMs};
use inbox_api::{Entry, packet_id_of};
use mqtt_codec::{Ack, Packet, ReasonCode};

impl Session {
    /// A live message. For a session with an inbox only QoS 0 comes this way; anything else could not keep its promise and is sent
    /// as QoS 0.
    pub(crate) fn deliver(&mut self, wall: WallMs, mut delivery: Delivery, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Connected) {
            return;
        }
        if let Err(cause) = self.sender.judge(&delivery, wall) {
            out.push(Action::Dropped { cause, count: 1 });
            return;
        }
        if self.inbox.is_some() {
            delivery.qos = QoS::AtMostOnce;
        }
        if delivery.qos == QoS::AtMostOnce {
            self.sender.send(delivery, None, false, out);
        } else if self.queue.is_empty() && self.window.admits(self.window.next()) {
            self.send_live(delivery, out);
        } else {
            let dropped = self.queue.push(delivery, &self.settings);
            if dropped > 0 {
                out.push(Action::Dropped { cause: DropReason::QueueFull, count: dropped });
            }
        }
    }

    fn send_live(&mut self, delivery: Delivery, out: &mut Vec<Action>) {
        let id = self.window.sent(self.window.next(), first_flight(delivery.qos));
        self.sender.send(delivery, Some(id), false, out);
    }

    pub(crate) fn queued(&mut self) {
        if let Some(inbox) = &mut self.inbox {
            inbox.puller.queued();
        }
    }

    pub(crate) fn fetched(&mut self, wall: WallMs, entries: Vec<Entry>, out: &mut Vec<Action>) {
        if let (Phase::Connected, Some(inbox)) = (&self.phase, &mut self.inbox) {
            inbox.puller.fetched(entries);
            self.pump(wall, out);
        }
    }

    /// Sends what waits while the window has room.
    fn pump(&mut self, wall: WallMs, out: &mut Vec<Action>) {
        match self.inbox.take() {
            None => self.pump_queue(wall, out),
            Some(mut inbox) => {
                self.pump_inbox(&mut inbox, wall, out);
                self.inbox = Some(inbox);
            }
        }
    }

    fn pump_queue(&mut self, wall: WallMs, out: &mut Vec<Action>) {
        while self.window.admits(self.window.next()) {
            let Some(delivery) = self.queue.pop() else { break };
            match self.sender.judge(&delivery, wall) {
                Ok(()) => self.send_live(delivery, out),
                Err(cause) => out.push(Action::Dropped { cause, count: 1 }),
            }
        }
    }

    fn pump_inbox(&mut self, inbox: &mut InboxLink, wall: WallMs, out: &mut Vec<Action>) {
        let InboxLink { commits, puller } = inbox;
        while let Some(entry) = puller.ready.front() {
            let seq = entry.seq;
            if seq >= puller.reserved || !self.window.admits(seq) {
                break;
            }
            let Some(entry) = puller.ready.pop_front() else { break };
            let dup = seq < puller.dup_below;
            let Entry { message, qos, retain, subscription_identifiers, .. } = entry;
            let delivery = Delivery { message, qos, retain, subscription_identifiers };
            match self.sender.judge(&delivery, wall) {
                // Of a QoS 2 message that may have been sent the client may hold the id: it is completed, not given up.
                Err(DropReason::Expired) if dup && qos == QoS::ExactlyOnce => {}
                Err(cause) => {
                    out.push(Action::Dropped { cause, count: 1 });
                    self.window.pass(seq + 1);
                    commits.gathered.done.push(seq);
                    continue;
                }
                Ok(()) => {}
            }
            let id = self.window.sent(seq, first_flight(qos));
            self.sender.send(delivery, Some(id), dup, out);
        }
    }

    pub(crate) fn pub_ack(&mut self, wall: WallMs, ack: &Ack, out: &mut Vec<Action>) -> Result<(), Fault> {
        match self.window.find(ack.packet_id) {
            Some((seq, Flight::AwaitsPubAck)) => self.done(seq, wall, out),
            Some(_) => return Err(Fault::protocol("PUBACK for a message of QoS 2")),
            // Of an earlier connection: nothing to do (5.0 §4.4).
            None => {}
        }
        Ok(())
    }

    pub(crate) fn pub_rec(&mut self, wall: WallMs, ack: &Ack, out: &mut Vec<Action>) -> Result<(), Fault> {
        let release = |code| Action::Send(Packet::PubRel(Ack::new(ack.packet_id, code)));
        match self.window.find(ack.packet_id) {
            // The client does not want it [MQTT-4.3.3-4].
            Some((seq, Flight::AwaitsPubRec)) if ack.reason_code.is_error() => self.done(seq, wall, out),
            Some((seq, Flight::AwaitsPubRec)) => match &mut self.inbox {
                None => {
                    self.window.advance(seq, Flight::AwaitsPubComp);
                    out.push(release(ReasonCode::Success));
                }
                Some(inbox) => {
                    self.window.advance(seq, Flight::Releasing);
                    inbox.commits.gathered.received.push(seq);
                }
            },
            Some((_, Flight::AwaitsPubComp)) => out.push(release(ReasonCode::Success)),
            Some((_, Flight::AwaitsPubAck)) => return Err(Fault::protocol("PUBREC for a message of QoS 1")),
            Some((_, Flight::Releasing | Flight::Absent | Flight::Done)) => {}
            None if ack.reason_code.is_error() => {}
            None => out.push(release(ReasonCode::PacketIdentifierNotFound)),
        }
        Ok(())
    }

    pub(crate) fn pub_comp(&mut self, wall: WallMs, ack: &Ack, out: &mut Vec<Action>) -> Result<(), Fault> {
        match self.window.find(ack.packet_id) {
            Some((seq, Flight::AwaitsPubComp)) => self.done(seq, wall, out),
            Some(_) => return Err(Fault::protocol("PUBCOMP before PUBREL")),
            None => {}
        }
        Ok(())
    }

    fn done(&mut self, seq: u64, wall: WallMs, out: &mut Vec<Action>) {
        self.window.advance(seq, Flight::Done);
        if let Some(inbox) = &mut self.inbox {
            inbox.commits.gathered.done.push(seq);
        }
        self.pump(wall, out);
    }

    pub(crate) fn committed(
        &mut self,
        wall: WallMs,
        op: OpId,
        result: Result<(), ReasonCode>,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        let (Phase::Connected, Some(inbox)) = (&self.phase, &mut self.inbox) else { return Ok(()) };
        let Some(done) = inbox.commits.take(op) else { return Ok(()) };
        // What waits can't go on, and a retry is up to the next connection.
        result.map_err(|reason| Fault::new(reason, "the state of the session can't be stored"))?;
        if let Some(sent_upto) = done.sent_upto {
            inbox.puller.reserved = inbox.puller.reserved.max(sent_upto);
        }
        for seq in done.received {
            self.window.advance(seq, Flight::AwaitsPubComp);
            out.push(Action::Send(Packet::PubRel(Ack::new(packet_id_of(seq), ReasonCode::Success))));
        }
        for id in done.released_inbound {
            self.complete_inbound(id, out);
        }
        self.pump(wall, out);
        Ok(())
    }
}

impl Session {
    /// Whether a live message of QoS 1 or 2 would wait now. What waits should not keep alive the buffer that it was read into.
    #[must_use]
    pub fn would_queue(&self) -> bool {
        self.inbox.is_none() && !(self.queue.is_empty() && self.window.admits(self.window.next()))
    }

    /// How many more live messages of QoS 1 or 2 can be taken before one must be dropped: what reads retained messages page by page
    /// asks before each page. Sessions with an inbox answer 0.
    #[must_use]
    pub fn live_room(&self) -> usize {
        if self.inbox.is_some() { 0 } else { self.queue.room(&self.settings) }
    }
}
