//! What a tenant's clients may do, by BifroMQ's names.

use base_types::QoS;
use inbox_api::{FullPolicy, QueueLimits};
use std::ops::RangeInclusive;

/// One setting, described: for documentation, printing and refusal of nonsense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingInfo {
    /// BifroMQ's name where it has one.
    pub name: &'static str,
    /// Of the number; empty for others.
    pub unit: &'static str,
    /// What may be set, as text: `true|false`, `0..=2`, …
    pub allowed: String,
    /// The default, as text.
    pub default: String,
    /// What it does.
    pub effect: &'static str,
}

/// Why a setting was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is no such name.
    #[error("there is no setting {name}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// BifroMQ has it, but it has no meaning here.
    #[error("{name} has no meaning here: {why}")]
    WithoutMeaning {
        /// What was asked for.
        name: &'static str,
        /// What is done instead.
        why: &'static str,
    },
    /// Not one of the allowed values.
    #[error("{name} can't be {value:?}; allowed is {allowed}")]
    NotAllowed {
        /// Of which setting.
        name: &'static str,
        /// What was asked for.
        value: String,
        /// What may be set.
        allowed: String,
    },
}

/// The type of a setting, as text.
trait Value: Sized + Copy {
    fn parse(text: &str, range: &RangeInclusive<u64>) -> Option<Self>;
    fn show(self) -> String;
    fn allowed(range: &RangeInclusive<u64>) -> String;
}

impl Value for bool {
    fn parse(text: &str, _: &RangeInclusive<u64>) -> Option<Self> {
        text.parse().ok()
    }

    fn show(self) -> String {
        self.to_string()
    }

    fn allowed(_: &RangeInclusive<u64>) -> String {
        "true|false".to_owned()
    }
}

macro_rules! number_value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn parse(text: &str, range: &RangeInclusive<u64>) -> Option<Self> {
                let number = text.parse::<u64>().ok().filter(|n| range.contains(n))?;
                Self::try_from(number).ok()
            }

            fn show(self) -> String {
                self.to_string()
            }

            fn allowed(range: &RangeInclusive<u64>) -> String {
                format!("{}..={}", range.start(), range.end())
            }
        }
    )*};
}

number_value!(u16, u32, u64);

impl Value for QoS {
    fn parse(text: &str, _: &RangeInclusive<u64>) -> Option<Self> {
        text.parse::<u8>().ok().and_then(|n| Self::try_from(n).ok())
    }

    fn show(self) -> String {
        u8::from(self).to_string()
    }

    fn allowed(_: &RangeInclusive<u64>) -> String {
        "0..=2".to_owned()
    }
}

impl Value for FullPolicy {
    fn parse(text: &str, _: &RangeInclusive<u64>) -> Option<Self> {
        [Self::DropOldest, Self::DropNewest, Self::Reject].into_iter().find(|policy| policy.show() == text)
    }

    fn show(self) -> String {
        match self {
            Self::DropOldest => "DropOldest",
            Self::DropNewest => "DropNewest",
            Self::Reject => "Reject",
        }
        .to_owned()
    }

    fn allowed(_: &RangeInclusive<u64>) -> String {
        "DropOldest|DropNewest|Reject".to_owned()
    }
}

const ANY: RangeInclusive<u64> = 0..=u64::MAX;

macro_rules! settings {
    ($($name:literal $field:ident: $type:ty = $default:expr, $range:expr, $unit:literal, $effect:literal;)*) => {
        /// What the clients of a tenant may do, and how much. A field is BifroMQ's setting of the same name.
        ///
        /// Where BifroMQ's defaults surprise people, ours don't; 0 turns a cap off where its range starts at 0.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Settings {
            $(#[doc = $effect] pub $field: $type,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Settings {
            /// All names, in the order of the documentation.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// All settings, described.
            #[must_use]
            pub fn describe() -> Vec<SettingInfo> {
                vec![$(SettingInfo {
                    name: $name,
                    unit: $unit,
                    allowed: <$type as Value>::allowed(&$range),
                    default: Value::show($default as $type),
                    effect: $effect,
                },)*]
            }

            /// Sets one by name.
            ///
            /// # Errors
            /// When there is no such name, or the value is not allowed. Nothing has changed then.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
                match name {
                    $($name => {
                        let not_allowed = || SettingError::NotAllowed {
                            name: $name,
                            value: value.to_owned(),
                            allowed: <$type as Value>::allowed(&$range),
                        };
                        self.$field = <$type as Value>::parse(value, &$range).ok_or_else(not_allowed)?;
                        Ok(())
                    })*
                    _ => match Self::WITHOUT_MEANING.iter().find(|(known, _)| *known == name) {
                        Some((name, why)) => Err(SettingError::WithoutMeaning { name, why }),
                        None => Err(SettingError::Unknown { name: name.to_owned() }),
                    },
                }
            }

            /// The value of one, as text.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<String> {
                match name {
                    $($name => Some(Value::show(self.$field)),)*
                    _ => None,
                }
            }
        }
    };
}

settings! {
    "MQTT3Enabled" mqtt3_enabled: bool = true, ANY, "", "MQTT 3.1 is accepted.";
    "MQTT4Enabled" mqtt4_enabled: bool = true, ANY, "", "MQTT 3.1.1 is accepted.";
    "MQTT5Enabled" mqtt5_enabled: bool = true, ANY, "", "MQTT 5.0 is accepted.";
    "ConnectTimeoutSeconds" connect_timeout_seconds: u16 = 10, 1..=3600, "s", "How long a connection may take to send CONNECT and to be let in.";
    "MaxKeepAliveSeconds" max_keep_alive_seconds: u16 = 60, 0..=65_535, "s", "A 5.0 client that asks for a longer keep-alive, or none, is told this one by Server Keep Alive. Clients of 3.1 and 3.1.1 can't be told: theirs is honoured. 0: no cap.";
    "MinKeepAliveSeconds" min_keep_alive_seconds: u16 = 0, 0..=65_534, "s", "A shorter keep-alive is raised to this; 5.0 clients are told.";
    "MaxSilenceSeconds" max_silence_seconds: u32 = 0, 0..=4_294_967_295, "s", "A client of 3.1 or 3.1.1 that sends no packet for so long is disconnected, also when its keep-alive is longer or off: it can't be told of a cap. 0: only its keep-alive counts.";
    "MaxSessionExpirySeconds" max_session_expiry_seconds: u32 = 86_400, 1..=4_294_967_295, "s", "A longer session expiry is lowered to this; also the expiry of sessions of 3.1 and 3.1.1 without clean session. 4294967295: they never expire.";
    "MinSessionExpirySeconds" min_session_expiry_seconds: u32 = 0, 0..=4_294_967_295, "s", "A shorter session expiry that is not 0 is raised to this.";
    "ForceTransient" force_transient: bool = false, ANY, "", "No session outlives its connection.";
    "MaxSessionsPerTenant" max_sessions_per_tenant: u64 = 0, ANY, "sessions", "Sessions that are kept for the tenant: those that outlive their connection, connected or not, and those with a will. A client that would need one more is refused with Quota exceeded. 0: no limit.";
    "MaxUserPayloadBytes" max_user_payload_bytes: u32 = 1_048_576, 1..=268_435_455, "B", "The largest packet that a client may send, announced as Maximum Packet Size.";
    "MaxLastWillBytes" max_last_will_bytes: u32 = 65_536, 1..=262_144_000, "B", "The largest payload of a will.";
    "NoLWTWhenServerShuttingDown" no_lwt_when_server_shutting_down: bool = true, ANY, "", "When the broker shuts down in order, the wills of its clients are not published.";
    "PayloadFormatValidationEnabled" payload_format_validation_enabled: bool = true, ANY, "", "A payload that is said to be UTF-8 must be.";
    "RetainEnabled" retain_enabled: bool = true, ANY, "", "Messages can be retained.";
    "RetainMessageMatchLimit" retain_message_match_limit: u32 = 0, 0..=4_294_967_295, "messages", "How many retained messages one filter brings at subscribe time. 0: all.";
    "WildcardSubscriptionEnabled" wildcard_subscription_enabled: bool = true, ANY, "", "Filters may have wildcards.";
    "SubscriptionIdentifierEnabled" subscription_identifier_enabled: bool = true, ANY, "", "Subscriptions may have identifiers.";
    "SharedSubscriptionEnabled" shared_subscription_enabled: bool = true, ANY, "", "Subscriptions may be shared.";
    "MaximumQoS" maximum_qos: QoS = QoS::ExactlyOnce, 0..=2, "", "The highest QoS of publishing and subscribing.";
    "MaxTopicLevels" max_topic_levels: u16 = 128, 1..=65_535, "levels", "Levels of a topic or filter.";
    "MaxTopicLevelLength" max_topic_level_length: u16 = 65_535, 1..=65_535, "B", "Length of one level of a topic or filter.";
    "MaxTopicLength" max_topic_length: u16 = 65_535, 1..=65_535, "B", "Length of a topic or filter; of a shared subscription, without the share.";
    "MaxTopicAlias" max_topic_alias: u16 = 10, 0..=65_535, "aliases", "Topic aliases in each direction of a connection.";
    "MaxTopicFiltersPerSub" max_topic_filters_per_sub: u16 = 1000, 1..=65_535, "filters", "Filters in one SUBSCRIBE or UNSUBSCRIBE.";
    "MaxTopicFiltersPerInbox" max_topic_filters_per_inbox: u32 = 65_536, 1..=4_294_967_295, "filters", "Subscriptions of one session.";
    "MaxSharedGroupMembers" max_shared_group_members: u32 = 10_000, 1..=4_294_967_295, "members", "Members of one shared group.";
    "MaxGroupFanout" max_group_fanout: u32 = 10_000, 1..=4_294_967_295, "groups", "Shared groups that one message reaches.";
    "MaxPersistentFanout" max_persistent_fanout: u64 = 2_147_483_647, 1..=u64::MAX, "inboxes", "Inboxes that one message reaches.";
    "MaxPersistentFanoutBytes" max_persistent_fanout_bytes: u64 = 9_223_372_036_854_775_807, 1..=u64::MAX, "B", "Size of a message times inboxes that it reaches.";
    "ReceivingMaximum" receiving_maximum: u16 = 100, 1..=65_535, "messages", "QoS 1 and 2 messages that a client may have open towards the broker, announced as Receive Maximum. 5.0 clients that exceed it are disconnected; others wait.";
    "SendingMaximum" sending_maximum: u16 = 1000, 1..=65_535, "messages", "QoS 1 and 2 messages that the broker has open towards a client, at most; the client's own Receive Maximum counts when it is less.";
    "SessionInboxSize" session_inbox_size: u32 = 10_000, 1..=4_294_967_295, "messages", "QoS 1 and 2 messages that wait for one session.";
    "SessionInboxBytes" session_inbox_bytes: u64 = 67_108_864, 1..=u64::MAX, "B", "Bytes that wait for one session; a single larger message still fits.";
    "SessionInboxFull" session_inbox_full: FullPolicy = FullPolicy::DropOldest, ANY, "", "What gives way when that many wait: the oldest, the newest, or the newest with word to its publisher.";
    "MsgPubPerSec" msg_pub_per_sec: u32 = 0, 0..=4_294_967_295, "messages/s", "What one client may publish, with bursts of a second; it is disconnected when it does more. 0: no limit.";
    "InBoundBandWidth" in_bound_band_width: u64 = 0, ANY, "B/s", "What is read from one connection. 0: no limit.";
    "OutBoundBandWidth" out_bound_band_width: u64 = 0, ANY, "B/s", "What is written to one connection. 0: no limit.";
}

impl Settings {
    /// Settings of BifroMQ that do nothing here, each with the reason.
    pub const WITHOUT_MEANING: &'static [(&'static str, &'static str)] = &[
        ("ByPassPermCheckError", "a permission check that fails always denies"),
        ("DebugModeEnabled", "the log has levels that change at run time"),
        ("MinSendPerSec", "the client's Receive Maximum and SendingMaximum bound what is in flight"),
        ("MaxResendTimes", "messages are resent when the client reconnects and only then [MQTT-4.4.0-1]"),
        ("ResendTimeoutSeconds", "messages are resent when the client reconnects and only then [MQTT-4.4.0-1]"),
        ("QoS0DropOldest", "QoS 0 messages don't wait in a session"),
    ];

    /// Values that contradict each other, as sentences; empty when all is well.
    #[must_use]
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.min_session_expiry_seconds > self.max_session_expiry_seconds {
            found.push(format!(
                "MinSessionExpirySeconds ({}) is more than MaxSessionExpirySeconds ({})",
                self.min_session_expiry_seconds, self.max_session_expiry_seconds
            ));
        }
        if self.max_keep_alive_seconds != 0 && self.min_keep_alive_seconds > self.max_keep_alive_seconds {
            found.push(format!(
                "MinKeepAliveSeconds ({}) is more than MaxKeepAliveSeconds ({})",
                self.min_keep_alive_seconds, self.max_keep_alive_seconds
            ));
        }
        if !(self.mqtt3_enabled || self.mqtt4_enabled || self.mqtt5_enabled) {
            found.push("MQTT3Enabled, MQTT4Enabled and MQTT5Enabled are all false".to_owned());
        }
        found
    }

    /// The largest packet that a client may send, in bytes.
    #[must_use]
    pub fn max_packet_size(&self) -> u32 {
        self.max_user_payload_bytes
    }

    /// What the queue of an inbox may hold.
    #[must_use]
    pub fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            messages: u64::from(self.session_inbox_size),
            bytes: self.session_inbox_bytes,
            when_full: self.session_inbox_full,
        }
    }

    /// Whether a topic name or filter is within the limits. Costs nothing for what is shorter than all of them.
    pub(crate) fn allows_topic(&self, topic: &str) -> bool {
        let shortest = self.max_topic_levels.min(self.max_topic_level_length).min(self.max_topic_length);
        // A topic of n bytes has at most n + 1 levels.
        topic.len() < usize::from(shortest)
            || (topic.len() <= usize::from(self.max_topic_length)
                && topic.split('/').all(|level| level.len() <= usize::from(self.max_topic_level_length))
                && topic.bytes().filter(|b| *b == b'/').count() < usize::from(self.max_topic_levels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_can_be_read_and_set_to_its_default() {
        let mut settings = Settings::default();
        for info in Settings::describe() {
            assert_eq!(settings.get(info.name), Some(info.default.clone()), "{}", info.name);
            settings.set(info.name, &info.default).unwrap();
        }
        assert_eq!(settings, Settings::default());
        assert_eq!(Settings::NAMES.len(), Settings::describe().len());
        assert!(settings.contradictions().is_empty());
    }

    #[test]
    fn values_out_of_range_are_refused_and_change_nothing() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("MaxTopicLevels", "0"),
            ("MaxTopicLevels", "65536"),
            ("MaximumQoS", "3"),
            ("RetainEnabled", "yes"),
            ("SessionInboxFull", "dropoldest"),
            ("MsgPubPerSec", "-1"),
        ] {
            assert!(matches!(settings.set(name, value), Err(SettingError::NotAllowed { .. })), "{name} {value}");
        }
        assert_eq!(settings.set("Nope", "1"), Err(SettingError::Unknown { name: "Nope".to_owned() }));
        assert!(matches!(settings.set("MinSendPerSec", "1"), Err(SettingError::WithoutMeaning { .. })));
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn topics_are_held_to_length_levels_and_level_length() {
        let mut settings = Settings::default();
        settings.set("MaxTopicLevels", "3").unwrap();
        settings.set("MaxTopicLevelLength", "4").unwrap();
        settings.set("MaxTopicLength", "10").unwrap();
        for good in ["a", "a/b/c", "abcd/abcd", "//", "abcd/abc/d"] {
            assert!(settings.allows_topic(good), "{good}");
        }
        for bad in ["a/b/c/d", "abcde", "abcd/abcd/d", "///"] {
            assert!(!settings.allows_topic(bad), "{bad}");
        }
    }
}
