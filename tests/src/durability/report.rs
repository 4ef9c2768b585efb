use std::fmt;

/// What the checker counted. The names of what is wrong are those of the design's fault vocabulary.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How often the fault struck.
    pub faults: u64,
    /// Messages published, repetitions not counted.
    pub published: u64,
    /// Of these, acknowledged: PUBACK at QoS 1, PUBREC at QoS 2.
    pub acknowledged: u64,
    /// Of these, never acknowledged, because their publisher forgot them when the connection broke.
    pub unknown: u64,
    /// First deliveries.
    pub delivered: u64,
    /// Deliveries of QoS 1 that came again, explained by a reconnect or by the publisher's own repetition.
    pub explained_duplicates: u64,
    /// Retained messages and subscriptions that were looked at.
    pub looked_up: u64,
    /// The slowest restart, from the start of the process to the first accepted client, in milliseconds.
    pub slowest_restart_ms: u64,
    /// Acknowledged and not delivered.
    pub lost: u64,
    /// Delivered again at QoS 1 with no reconnect and no repetition by the publisher between.
    pub unexplained_duplicates: u64,
    /// Sent again under the same packet id without DUP.
    pub missing_dup: u64,
    /// Surfaced twice at QoS 2.
    pub qos2_duplicates: u64,
    /// A first delivery after a later one.
    pub reordered: u64,
    /// Never published, altered, or to somebody else.
    pub phantom: u64,
    /// A persistent session that was acknowledged and is gone.
    pub sessions_lost: u64,
    /// A retained message, set and acknowledged, that is older or gone.
    pub retained_stale: u64,
    /// A retained message, cleared and acknowledged, or a subscription, removed and acknowledged, that is there again.
    pub resurrected: u64,
    /// A subscription, acknowledged, that delivers nothing.
    pub subscriptions_lost: u64,
    /// Something did not go on within its time, or the server refused what it must not.
    pub stuck: u64,
    /// The first few cases, in words.
    pub examples: Vec<String>,
}

impl Report {
    /// How much is wrong.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.wrong().iter().map(|(_, count)| count).sum()
    }

    pub(super) fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < 20 {
            self.examples.push(text());
        }
    }

    fn wrong(&self) -> [(&'static str, u64); 11] {
        [
            ("lost", self.lost),
            ("unexplained duplicates", self.unexplained_duplicates),
            ("QoS 2 duplicates", self.qos2_duplicates),
            ("missing DUP", self.missing_dup),
            ("reordered", self.reordered),
            ("phantom", self.phantom),
            ("sessions lost", self.sessions_lost),
            ("retained stale", self.retained_stale),
            ("subscriptions lost", self.subscriptions_lost),
            ("resurrected", self.resurrected),
            ("stuck", self.stuck),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} faults; {} published, {} acknowledged, {} unknown; {} first deliveries, {} explained duplicates; \
             {} retained messages and subscriptions looked up; slowest restart {} ms",
            self.faults,
            self.published,
            self.acknowledged,
            self.unknown,
            self.delivered,
            self.explained_duplicates,
            self.looked_up,
            self.slowest_restart_ms,
        )?;
        for (name, count) in self.wrong() {
            writeln!(f, "  {name:<24} {count}")?;
        }
        self.examples.iter().try_for_each(|example| writeln!(f, "  e.g. {example}"))
    }
}
