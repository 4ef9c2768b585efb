use std::fmt;
use std::ops::AddAssign;

/// What a checker counted. The names of what is wrong are those of the design's list of faults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Messages published, repetitions not counted.
    pub published: u64,
    /// Of these, acknowledged: PUBACK at QoS 1, PUBREC at QoS 2.
    pub acknowledged: u64,
    /// Of these, not acknowledged: whether they were taken is unknown. QoS 0 counts here.
    pub unknown: u64,
    /// Refused with a reason code.
    pub refused: u64,
    /// First deliveries.
    pub delivered: u64,
    /// Deliveries that came again, explained by a reconnect, a fault, or the publisher's own repetition.
    pub explained_duplicates: u64,
    /// Retained messages, subscriptions, wills and owners that were looked at.
    pub looked_up: u64,
    /// Of these, fights for one client id that were decided.
    pub takeovers: u64,
    /// Acknowledged and not delivered; a will that did not fire.
    pub lost: u64,
    /// Acknowledged and not delivered, and no counter says that it was dropped.
    pub silent: u64,
    /// Delivered again with no reconnect, fault or repetition between.
    pub unexplained_duplicates: u64,
    /// Sent again under the same packet id without DUP.
    pub missing_dup: u64,
    /// Surfaced twice at QoS 2; a will that fired twice.
    pub qos2_duplicates: u64,
    /// Surfaced twice at QoS 2 to a session that ends with its connection.
    pub qos2_live_duplicates: u64,
    /// A first delivery after a later one of the same publisher and topic.
    pub reordered: u64,
    /// Never published, altered, or for somebody else.
    pub phantom: u64,
    /// A persistent session that was acknowledged and is gone.
    pub sessions_lost: u64,
    /// A retained message older than the one acknowledged before the subscription, or gone.
    pub stale: u64,
    /// A cleared retained message, or a removed subscription, that is there again.
    pub resurrected: u64,
    /// An acknowledged subscription that delivers nothing.
    pub subscriptions_lost: u64,
    /// Two live connections of one client id.
    pub two_owners: u64,
    /// Acknowledged by a node that sees no majority.
    pub split: u64,
    /// Something did not go on within its time.
    pub stuck: u64,
    /// The first few cases of each kind, in words.
    pub examples: Vec<(&'static str, String)>,
    /// The time of what is looked at, since the start.
    pub(super) seconds: f64,
}

impl Findings {
    /// How much is wrong.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.wrong().iter().map(|(_, count)| count).sum()
    }

    /// Everything that came more often than it may.
    #[must_use]
    pub fn duplicated(&self) -> u64 {
        self.unexplained_duplicates + self.qos2_duplicates + self.qos2_live_duplicates + self.missing_dup
    }

    /// Everything that was acknowledged and is not there.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.lost + self.sessions_lost + self.subscriptions_lost
    }

    /// What is wrong, by name, and how often.
    #[must_use]
    pub fn wrong(&self) -> [(&'static str, u64); 15] {
        [
            ("lost", self.lost),
            ("silent drops", self.silent),
            ("unexplained duplicates", self.unexplained_duplicates),
            ("QoS 2 duplicates", self.qos2_duplicates),
            ("QoS 2 duplicates, live", self.qos2_live_duplicates),
            ("missing DUP", self.missing_dup),
            ("reordered", self.reordered),
            ("phantom", self.phantom),
            ("sessions lost", self.sessions_lost),
            ("stale retained", self.stale),
            ("resurrected", self.resurrected),
            ("subscriptions lost", self.subscriptions_lost),
            ("two owners", self.two_owners),
            ("split", self.split),
            ("stuck", self.stuck),
        ]
    }

    pub(super) fn example(&mut self, name: &'static str, text: impl FnOnce() -> String) {
        if self.examples.iter().filter(|(of, _)| *of == name).count() < EXAMPLES {
            self.examples.push((name, format!("{:.3} s: {}", self.seconds, text())));
        }
    }
}

/// Of each kind.
const EXAMPLES: usize = 6;

impl AddAssign<&Self> for Findings {
    fn add_assign(&mut self, other: &Self) {
        self.published += other.published;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.delivered += other.delivered;
        self.explained_duplicates += other.explained_duplicates;
        self.looked_up += other.looked_up;
        self.takeovers += other.takeovers;
        self.lost += other.lost;
        self.silent += other.silent;
        self.unexplained_duplicates += other.unexplained_duplicates;
        self.missing_dup += other.missing_dup;
        self.qos2_duplicates += other.qos2_duplicates;
        self.qos2_live_duplicates += other.qos2_live_duplicates;
        self.reordered += other.reordered;
        self.phantom += other.phantom;
        self.sessions_lost += other.sessions_lost;
        self.stale += other.stale;
        self.resurrected += other.resurrected;
        self.subscriptions_lost += other.subscriptions_lost;
        self.two_owners += other.two_owners;
        self.split += other.split;
        self.stuck += other.stuck;
        for (name, text) in &other.examples {
            if self.examples.iter().filter(|(of, _)| of == name).count() < EXAMPLES {
                self.examples.push((name, text.clone()));
            }
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} published, {} acknowledged, {} unknown ({} refused); {} first deliveries, {} explained duplicates; {} looked up",
            self.published,
            self.acknowledged,
            self.unknown,
            self.refused,
            self.delivered,
            self.explained_duplicates,
            self.looked_up,
        )?;
        for (name, count) in self.wrong().into_iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "  {name:<24} {count}")?;
            let examples = self.examples.iter().filter(|(of, _)| *of == name);
            examples.into_iter().try_for_each(|(_, text)| writeln!(f, "    e.g. {text}"))?;
        }
        Ok(())
    }
}
