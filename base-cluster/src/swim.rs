//! Membership as a value: packets, times and wishes go in; packets, a view and events come out. No I/O and no clock of its own.
//!
//! foca (SWIM with suspicion) decides who is alive. Around it: sealed packets; *hello* and *welcome*, by which a node finds out who lives at an
//! address, as foca speaks only to nodes that it knows by name; and the kicker, without which two sides that both learn that they were declared
//! dead would wait for each other for ever.

use crate::member::{Joined, Member, MemberEvent, MemberState, Members};
use crate::options::Secret;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::seal::{HEADER, Kind, PACKET, Refusal, Seal, TAG};
use crate::seeds::{Resolved, Seeds};
use base_types::{NodeId, NodeIncarnation};
use bytes::Bytes;
use foca::{Foca, NoCustomBroadcast, Notification, PeriodicParams, PostcardCodec, State, Timer};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;
use tokio::time::Instant;

/// One node's part in the gossip.
pub(crate) struct Swim {
    foca: Foca<Peer, PostcardCodec, SmallRng, NoCustomBroadcast>,
    out: Effects,
    seal: Seal,
    seeds: Seeds,
    rng: SmallRng,
    me: Peer,
    standing: Standing,
    /// When the kicker runs next, and how long it waits after that.
    kick: Instant,
    pause: Duration,
    renewed: Option<Instant>,
    active_since: Option<Instant>,
    /// Nobody else has been alive since then.
    lonely_since: Option<Instant>,
    /// Others answer at the source of our packets, but nothing came to the advertised address: since when, and that source.
    unheard: Option<(Instant, SocketAddr)>,
    twin: Option<(Instant, SocketAddr)>,
    welcomes: (Instant, u32),
    view: Members,
    changed: bool,
    events: Vec<MemberEvent>,
    counts: Counts,
}

/// What a core is made of.
pub(crate) struct SwimOptions<'a> {
    pub(crate) me: NodeIncarnation,
    pub(crate) advertised: SocketAddr,
    pub(crate) env: &'a str,
    pub(crate) secrets: &'a [Secret],
    pub(crate) seeds: &'a [String],
    /// Where chance comes from; the salt has to differ between runs.
    pub(crate) chance: u64,
    pub(crate) salt: u64,
}

/// Packets, by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) taken: u64,
    pub(crate) sent: u64,
    pub(crate) refused: BTreeMap<Refusal, u64>,
}

/// Where this node stands with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Somebody knows it.
    Active,
    /// Nobody does yet, or any more.
    Outside,
    /// It left.
    Left(Instant),
    /// It has to stay out until it is started again.
    Fenced(Instant, Problem),
}

/// Asked of an address. Padded, so that the answer is never longer.
#[derive(Serialize, Deserialize)]
struct Hello {
    token: u32,
}

#[derive(Serialize, Deserialize)]
struct Welcome {
    token: u32,
    /// Who answers.
    peer: Peer,
    /// Where the question seemed to come from.
    seen_as: SocketAddr,
    /// What is known of who asks.
    known: Option<Peer>,
}

/// Length of the body of a [`Hello`]; a [`Welcome`] has 138 at most.
const HELLO: usize = 144;
/// Questions that are answered in a second.
const WELCOMES: u32 = 256;
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Nodes that are down and asked each time.
const DOWN_ASKED: usize = 3;
const PROBLEM_AFTER: Duration = Duration::from_millis(4500);
const UNHEARD_AFTER: Duration = Duration::from_secs(3);
/// This late, and the process was stopped or starved; the others get their time anew.
const LATE: Duration = Duration::from_secs(1);
const TOLD_AFTER: Duration = Duration::from_secs(10);
const TWIN_FOR: Duration = Duration::from_secs(60);

fn config() -> foca::Config {
    let periodic = |millis, members: usize| {
        let frequency = Duration::from_millis(millis);
        Some(PeriodicParams { frequency, num_members: NonZeroUsize::MIN.saturating_add(members - 1) })
    };
    foca::Config {
        probe_period: Duration::from_millis(400),
        probe_rtt: Duration::from_millis(160),
        num_indirect_probes: NonZeroUsize::MIN.saturating_add(2),
        // To three nodes each 0.2 s: as long as a suspicion lasts, so that the suspect hears of it whatever gets lost.
        max_transmissions: NonZeroU8::MIN.saturating_add(29),
        suspect_to_down_after: Duration::from_millis(1800),
        remove_down_after: Some(Duration::from_secs(24 * 3600)),
        max_packet_size: NonZeroUsize::MIN.saturating_add(PACKET - HEADER - TAG - 1),
        notify_down_members: true,
        periodic_announce: periodic(10_000, 1),
        // The kicker does that, with jitter.
        periodic_announce_to_down_members: None,
        periodic_gossip: periodic(200, 3),
    }
}

impl Swim {
    pub(crate) fn new(options: &SwimOptions<'_>, now: Instant) -> Self {
        let me = Peer::new(options.me, options.salt, options.advertised);
        let mut rng = SmallRng::seed_from_u64(options.chance);
        let foca = Foca::new(me, config(), SmallRng::from_rng(&mut rng), PostcardCodec);
        let myself = Member { run: options.me, addr: me.addr, state: MemberState::Alive, rpc: None };
        Self {
            foca,
            out: Effects {
                now,
                next: 0,
                packets: Vec::new(),
                gossip: Vec::new(),
                timers: BTreeMap::new(),
                notes: Vec::new(),
            },
            seal: Seal::new(options.env, options.secrets, options.me, options.salt),
            seeds: Seeds::new(options.seeds, now),
            rng,
            me,
            standing: Standing::Outside,
            kick: now,
            pause: PAUSE,
            renewed: None,
            active_since: None,
            lonely_since: Some(now),
            unheard: None,
            twin: None,
            welcomes: (now, 0),
            view: Members { me: options.me.node, nodes: [(options.me.node, myself)].into() },
            changed: true,
            events: vec![MemberEvent::Up(options.me)],
            counts: Counts::default(),
        }
    }

    /// When [`Swim::on_time`] wants to be called.
    pub(crate) fn next(&self) -> Instant {
        self.out.timers.first_key_value().map_or(self.kick, |((due, _), _)| self.kick.min(*due))
    }

    /// Time has passed.
    pub(crate) fn on_time(&mut self, now: Instant) {
        self.out.now = now;
        if let Some(late) = now.checked_duration_since(self.next()).filter(|late| *late > LATE) {
            let timers = std::mem::take(&mut self.out.timers);
            // And what waits in the socket is read first.
            let late = late + LATE / 10;
            self.out.timers = timers.into_iter().map(|((due, n), timer)| ((due + late, n), timer)).collect();
        }
        while let Some(entry) = self.out.timers.first_entry()
            && entry.key().0 <= now
        {
            let timer = entry.remove();
            if self.is_refuted(&timer) {
                continue;
            }
            self.note_error(|foca, out| foca.handle_timer(timer, out));
            self.flush();
        }
        if now >= self.kick {
            self.on_kick();
        }
        self.refresh();
    }

    /// The end of a suspicion that is over already. foca 2.0 would tell the suspect that it is down, whether it has refuted or not.
    fn is_refuted(&self, timer: &Timer<Peer>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        !self.foca.iter_members().any(|member| {
            (member.id(), member.incarnation(), member.state()) == (member_id, *incarnation, State::Suspect)
        })
    }

    /// A packet has come. `packet` is decrypted in its place.
    pub(crate) fn on_packet(&mut self, now: Instant, from: SocketAddr, packet: &mut [u8]) -> Result<(), Refusal> {
        self.out.now = now;
        let length = packet.len();
        let done = self.seal.open(packet).and_then(|opened| {
            let sender = (opened.from, opened.salt);
            match (opened.kind, opened.body) {
                // Our own question came back, through a proxy: the next one may get to another node.
                _ if sender == (self.me.run(), self.me.salt) => Ok(()),
                _ if opened.from.node == self.me.node() => {
                    if opened.from.incarnation < self.me.run().incarnation {
                        return Err(Refusal::Replayed);
                    }
                    self.twin = Some((now, from));
                    Err(Refusal::Twin)
                }
                (Kind::Hello, body) => Self::decode(body).and_then(|hello| self.on_hello(from, sender, &hello, length)),
                (Kind::Welcome, body) => Self::decode(body).and_then(|welcome| self.on_welcome(sender, &welcome)),
                (Kind::Gossip, body) => self.on_gossip(body),
            }
        });
        match done {
            Ok(()) => self.counts.taken += 1,
            Err(refusal) => {
                *self.counts.refused.entry(refusal).or_default() += 1;
                self.seeds.refused(from, refusal);
            }
        }
        self.flush();
        self.refresh();
        done
    }

    fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
        postcard::take_from_bytes(body).map(|(value, _padding)| value).map_err(|_| Refusal::Malformed)
    }

    fn on_hello(
        &mut self,
        from: SocketAddr,
        (run, salt): (NodeIncarnation, u64),
        hello: &Hello,
        length: usize,
    ) -> Result<(), Refusal> {
        if matches!(self.standing, Standing::Left(_) | Standing::Fenced(..)) {
            return Ok(());
        }
        let (since, count) = &mut self.welcomes;
        if self.out.now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (self.out.now, 0);
        }
        *count += 1;
        if *count > WELCOMES {
            return Err(Refusal::Flood);
        }
        let known = self.known(|peer| peer.node() == run.node);
        let welcome = Welcome { token: hello.token, peer: *self.foca.identity(), seen_as: from, known };
        if let Ok(body) = postcard::to_stdvec(&welcome)
            && HEADER + body.len() + TAG <= length
        {
            let packet = self.seal.seal(Kind::Welcome, salt, &body);
            self.send(from, packet);
        }
        Ok(())
    }

    fn on_welcome(&mut self, sender: (NodeIncarnation, u64), welcome: &Welcome) -> Result<(), Refusal> {
        let peer = welcome.peer;
        if (peer.run(), peer.salt) != sender {
            return Err(Refusal::Malformed);
        }
        self.seeds.answered(welcome.token, peer.node());
        if let Some(known) = welcome.known.filter(|known| known.node() == self.me.node()) {
            let (mine, theirs) = (self.me.run().incarnation, known.run().incarnation);
            if theirs > mine {
                self.fence(Problem::Superseded { mine, known: theirs });
            } else if theirs == mine && known.is_evicted() {
                self.fence(Problem::Evicted);
            } else if theirs == mine && known.salt != self.me.salt {
                self.fence(Problem::Twin { from: known.addr });
            }
        }
        match self.standing {
            Standing::Active => {}
            Standing::Outside => _ = self.unheard.get_or_insert((self.out.now, welcome.seen_as)),
            Standing::Left(_) | Standing::Fenced(..) => return Ok(()),
        }
        let is_met = self.foca.iter_members().any(|member| member.id() == &peer);
        if !is_met || self.standing == Standing::Outside {
            self.note_error(|foca, out| foca.announce(peer, out));
        }
        Ok(())
    }

    fn on_gossip(&mut self, body: &[u8]) -> Result<(), Refusal> {
        if matches!(self.standing, Standing::Left(_) | Standing::Fenced(..)) {
            return Ok(());
        }
        self.unheard = None;
        match self.foca.handle_data(body, &mut self.out) {
            Err(foca::Error::Decode(_) | foca::Error::MalformedPacket | foca::Error::DataTooBig) => {
                Err(Refusal::Malformed)
            }
            Err(error) => {
                tracing::debug!(%error, "gossip");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Asks for whom we miss: without anybody all seeds and all addresses that were ever good, each second; otherwise, ever more seldom, the
    /// seeds where nobody was met, and a few of those who are down.
    fn on_kick(&mut self) {
        let outside = match self.standing {
            Standing::Outside => true,
            Standing::Active => false,
            Standing::Left(_) | Standing::Fenced(..) => {
                self.kick = self.out.now + PAUSE_MAX;
                return;
            }
        };
        let mut targets: BTreeMap<SocketAddr, u32> = self.seeds.unmet(&self.view).collect();
        let evicted: BTreeSet<_> = self.evictions().into_iter().map(|run| run.node).collect();
        let others = self.view.nodes.values().filter(|member| {
            let is_wanted = if outside { true } else { !member.state.is_live() };
            let run = member.run.node;
            is_wanted && run != self.view.me && !matches!(member.state, MemberState::Left(_)) && !evicted.contains(&run)
        });
        let mut others: Vec<_> = others.map(|member| member.addr).collect();
        let count = if outside { others.len() } else { DOWN_ASKED };
        for address in others.partial_shuffle(&mut self.rng, count).0 {
            targets.entry(*address).or_insert(0);
        }
        for (address, token) in targets {
            self.ask(address, token);
        }
        self.pause = if outside { PAUSE } else { (self.pause * 2).min(PAUSE_MAX) };
        let jitter = self.rng.random_range(0.7..1.0);
        self.kick = self.out.now + self.pause.mul_f64(jitter);
    }

    fn ask(&mut self, address: SocketAddr, token: u32) {
        let mut body = [0; HELLO];
        if address.port() != 0 && postcard::to_slice(&Hello { token }, &mut body).is_ok() {
            let packet = self.seal.seal(Kind::Hello, 0, &body);
            self.send(address, packet);
        }
    }

    fn send(&mut self, to: SocketAddr, packet: Bytes) {
        self.counts.sent += 1;
        self.out.packets.push((to, packet));
    }

    /// Seals what foca sent, and takes note of what it told.
    fn flush(&mut self) {
        for note in std::mem::take(&mut self.out.notes) {
            self.on_note(note);
        }
        for (peer, data) in std::mem::take(&mut self.out.gossip) {
            if peer.addr.port() != 0 && !matches!(self.standing, Standing::Fenced(..)) {
                let packet = self.seal.seal(Kind::Gossip, peer.salt, &data);
                self.send(peer.addr, packet);
            }
        }
    }

    fn on_note(&mut self, note: Note) {
        let now = self.out.now;
        if matches!(self.standing, Standing::Left(_) | Standing::Fenced(..)) {
            return;
        }
        self.active_since = None;
        match note {
            Note::Active => {
                self.standing = Standing::Active;
                self.active_since = Some(now);
                self.unheard = None;
                self.pause = PAUSE;
                // Seeds that are still missing are asked before long.
                self.kick = self.kick.min(now + PAUSE);
            }
            Note::Outside => {
                self.standing = Standing::Outside;
                self.kick = now + Duration::from_millis(self.rng.random_range(0..300));
            }
            Note::Renewed => {
                self.standing = Standing::Outside;
                let again = self.renewed.is_some_and(|before| now.saturating_duration_since(before) < PAUSE);
                // At once, as the answer says whether there is a way back at all.
                self.kick = if again { now + PAUSE } else { now };
                self.renewed = Some(now);
            }
        }
    }

    fn note_error(
        &mut self,
        act: impl FnOnce(
            &mut Foca<Peer, PostcardCodec, SmallRng, NoCustomBroadcast>,
            &mut Effects,
        ) -> Result<(), foca::Error>,
    ) {
        if let Err(error) = act(&mut self.foca, &mut self.out) {
            tracing::debug!(%error, "gossip");
        }
    }

    /// Whom foca knows, dead or alive.
    fn known(&self, is_wanted: impl Fn(&Peer) -> bool) -> Option<Peer> {
        self.foca.iter_membership_state().map(foca::Member::id).find(|peer| is_wanted(peer)).copied()
    }

    fn fence(&mut self, problem: Problem) {
        if !matches!(self.standing, Standing::Left(_) | Standing::Fenced(..)) {
            self.standing = Standing::Fenced(self.out.now, problem);
            // Not another word.
            self.out.timers.clear();
        }
    }

    /// Brings the view in line with what foca knows.
    fn refresh(&mut self) {
        let now = self.out.now;
        let me = self.me.run();
        let is_out = |peer: &Peer| peer.is_evicted() && peer.run().incarnation >= me.incarnation;
        if self.foca.iter_membership_state().any(|member| member.id().node() == me.node && is_out(member.id())) {
            self.fence(Problem::Evicted);
        }
        let view = &mut self.view;
        for member in self.foca.iter_membership_state().filter(|member| member.id().node() != me.node) {
            let peer = member.id();
            let before = view.nodes.get(&peer.node()).cloned();
            let same = before.as_ref().filter(|before| before.run == peer.run());
            let state = match (member.state(), same.map(|before| before.state)) {
                (_, Some(state @ MemberState::Left(_))) => state,
                _ if peer.left => MemberState::Left(now),
                (State::Down, Some(state @ MemberState::Dead(_))) => state,
                (State::Down, _) => MemberState::Dead(now),
                (State::Alive, _) => MemberState::Alive,
                (State::Suspect, _) => MemberState::Suspect,
            };
            let rpc = same.and_then(|before| before.rpc);
            let after = Member { run: peer.run(), addr: peer.addr, state, rpc };
            if before.as_ref() == Some(&after) {
                continue;
            }
            if let Some(before) = before.as_ref().filter(|before| before.run != after.run && before.state.is_live()) {
                self.events.push(MemberEvent::Dead(before.run));
            }
            let was_live = same.map(|before| before.state.is_live());
            match state {
                MemberState::Alive | MemberState::Suspect if was_live != Some(true) => {
                    self.events.push(MemberEvent::Up(after.run));
                }
                MemberState::Dead(_) if was_live != Some(false) => self.events.push(MemberEvent::Dead(after.run)),
                MemberState::Left(_) if same.map(|before| before.state) != Some(state) => {
                    self.events.push(MemberEvent::Left(after.run));
                }
                _ => {}
            }
            view.nodes.insert(peer.node(), after);
            self.changed = true;
        }
        let mine = match self.standing {
            Standing::Active | Standing::Outside => MemberState::Alive,
            Standing::Left(since) => MemberState::Left(since),
            Standing::Fenced(since, _) => MemberState::Dead(since),
        };
        if let Some(member) = view.nodes.get_mut(&me.node)
            && member.state != mine
        {
            member.state = mine;
            self.changed = true;
            let ended =
                if matches!(mine, MemberState::Left(_)) { MemberEvent::Left(me) } else { MemberEvent::Dead(me) };
            self.events.push(ended);
        }
        self.lonely_since =
            if view.live_peers().next().is_some() { None } else { Some(self.lonely_since.unwrap_or(now)) };
    }

    /// What the names of the seeds stand for now.
    pub(crate) fn on_resolved(&mut self, now: Instant, seeds: Vec<Resolved>) {
        if self.seeds.resolved(seeds) {
            self.kick = self.kick.min(now);
        }
    }

    /// Nodes that others tell of, and that gossip, which tells of the living only, has not named for long enough: they are dead.
    pub(crate) fn on_told(&mut self, now: Instant, told: &[(NodeIncarnation, SocketAddr)]) {
        if self.active_since.is_none_or(|since| now.saturating_duration_since(since) < TOLD_AFTER) {
            return;
        }
        for (run, addr) in told.iter().filter(|(run, _)| run.node != self.me.node()) {
            self.view.nodes.entry(run.node).or_insert_with(|| {
                self.changed = true;
                self.events.push(MemberEvent::Dead(*run));
                Member { run: *run, addr: *addr, state: MemberState::Dead(now), rpc: None }
            });
        }
    }

    /// Whether a node answers calls.
    pub(crate) fn set_rpc(&mut self, node: NodeId, answers: bool) {
        if let Some(member) = self.view.nodes.get_mut(&node)
            && member.rpc != Some(answers)
        {
            member.rpc = Some(answers);
            self.changed = true;
        }
    }

    /// Says good-bye. Call [`Swim::farewell`] a few times after it.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.out.now = now;
        if matches!(self.standing, Standing::Left(_) | Standing::Fenced(..)) {
            return;
        }
        let left = self.foca.identity().leaving();
        self.note_error(|foca, out| foca.change_identity(left, &mut *out).and_then(|()| foca.leave_cluster(out)));
        self.flush();
        self.standing = Standing::Left(now);
        self.refresh();
    }

    /// Says it again: packets get lost.
    pub(crate) fn farewell(&mut self, now: Instant) {
        self.out.now = now;
        self.note_error(|foca, out| foca.gossip(out));
        self.flush();
    }

    /// Runs that are to be treated as dead by everybody, whatever they say.
    pub(crate) fn on_evicted(&mut self, now: Instant, runs: &[NodeIncarnation]) {
        self.out.now = now;
        let known: BTreeSet<_> = self.evictions().into_iter().collect();
        for run in runs.iter().filter(|run| !known.contains(run)) {
            if run.node == self.me.node() {
                if run.incarnation >= self.me.run().incarnation {
                    self.fence(Problem::Evicted);
                }
                continue;
            }
            let peer = self.known(|peer| peer.run() == *run);
            let peer = peer.unwrap_or_else(|| Peer::new(*run, 0, SocketAddr::from(([0, 0, 0, 0], 0))));
            let down = foca::Member::down(peer.evicted());
            self.note_error(|foca, out| foca.apply_many(std::iter::once(down), true, out));
        }
        self.flush();
        self.refresh();
    }

    /// The evictions that are known and still matter.
    pub(crate) fn evictions(&self) -> Vec<NodeIncarnation> {
        let peers = self.foca.iter_membership_state().map(foca::Member::id);
        peers.filter(|peer| peer.is_evicted()).map(Peer::run).collect()
    }

    /// Packets to be sent since the last call.
    pub(crate) fn take_packets(&mut self) -> Vec<(SocketAddr, Bytes)> {
        std::mem::take(&mut self.out.packets)
    }

    /// What happened since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<MemberEvent> {
        std::mem::take(&mut self.events)
    }

    /// The view, if it has changed since the last call.
    pub(crate) fn take_change(&mut self) -> Option<Members> {
        std::mem::take(&mut self.changed).then(|| self.view.clone())
    }

    pub(crate) fn members(&self) -> &Members {
        &self.view
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn joined(&mut self, known: impl Fn(NodeId) -> bool, now: Instant) -> Joined {
        self.seeds.joined(&self.view, known, now)
    }

    pub(crate) fn problems(&self, now: Instant) -> Vec<Problem> {
        let mut problems = Vec::new();
        let for_so_long = |since: Instant, time| now.saturating_duration_since(since) >= time;
        if let Standing::Fenced(_, problem) = &self.standing {
            problems.push(problem.clone());
        } else if self.lonely_since.is_some_and(|since| for_so_long(since, PROBLEM_AFTER))
            && self.unheard.is_none()
            && let Some(tried) = self.seeds.failures(&self.view)
        {
            problems.push(Problem::NoSeed { tried });
        }
        if let Some((since, seen_as)) = self.unheard
            && for_so_long(since, UNHEARD_AFTER)
        {
            problems.push(Problem::AdvertisedAddress { advertised: self.me.addr, seen_as });
        }
        if let Some((when, from)) = self.twin
            && !for_so_long(when, TWIN_FOR)
        {
            problems.push(Problem::Twin { from });
        }
        problems
    }
}

/// What foca wants done.
struct Effects {
    now: Instant,
    next: u64,
    packets: Vec<(SocketAddr, Bytes)>,
    gossip: Vec<(Peer, Bytes)>,
    /// By time; of the same time in the order in which they were asked for.
    timers: BTreeMap<(Instant, u64), Timer<Peer>>,
    notes: Vec<Note>,
}

enum Note {
    Active,
    Outside,
    Renewed,
}

impl foca::Runtime<Peer> for Effects {
    fn notify(&mut self, notification: Notification<'_, Peer>) {
        let note = match notification {
            Notification::Active => Note::Active,
            Notification::Idle | Notification::Defunct => Note::Outside,
            Notification::Rejoin(_) => Note::Renewed,
            // The view is read off foca's own list.
            Notification::MemberUp(_) | Notification::MemberDown(_) | Notification::Rename(..) => return,
        };
        self.notes.push(note);
    }

    fn send_to(&mut self, to: Peer, data: &[u8]) {
        self.gossip.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Peer>, after: Duration) {
        self.next += 1;
        self.timers.insert((self.now + after, self.next), event);
    }
}

#[cfg(test)]
mod swim_test;
