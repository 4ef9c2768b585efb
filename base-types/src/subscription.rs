use crate::QoS;

/// What a subscriber asked for, beside the filter (MQTT 5.0 §3.8.3.1). 3.1.1 subscriptions use the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// The highest QoS with which messages are delivered.
    pub qos: QoS,
    /// Don't deliver what the same client published.
    pub no_local: bool,
    /// Deliver with the RETAIN flag as published instead of clearing it.
    pub retain_as_published: bool,
    /// Whether retained messages are sent at subscribe time.
    pub retain_handling: RetainHandling,
    /// The subscription identifier, 1 to 268,435,455 (5.0 §3.8.2.1.2).
    pub identifier: Option<u32>,
}

/// When the retained messages that match are sent (MQTT 5.0 §3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: at each subscribe.
    #[default]
    Send = 0,
    /// 1: only when the subscription did not exist.
    SendIfNew = 1,
    /// 2: never.
    DontSend = 2,
}
