use bytestring::ByteString;
use std::fmt;

/// Why a text is no topic name, topic filter or shared subscription (MQTT 5.0 §4.7, §4.8.2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    #[error("a topic must have at least one character")]
    Empty,
    /// [MQTT-4.7.3-3]
    #[error("a topic of {length} bytes is longer than 65535")]
    TooLong {
        /// Length in bytes.
        length: usize,
    },
    /// [MQTT-4.7.3-2]
    #[error("a topic must not contain U+0000")]
    Nul,
    /// [MQTT-4.7.0-1]
    #[error("a topic name must not contain the wildcards '#' and '+'")]
    WildcardInName,
    /// [MQTT-4.7.1-1]
    #[error("'#' must be the last level of a filter and stand alone in it")]
    MisplacedMultiLevelWildcard,
    /// [MQTT-4.7.1-2]
    #[error("'+' must stand alone in its level")]
    MisplacedSingleLevelWildcard,
    /// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    #[error("a share name must have at least one character and none of '/', '+', '#'")]
    InvalidShareName,
    /// [MQTT-4.8.2-2]
    #[error("a shared subscription must have a filter behind the share name")]
    MissingSharedFilter,
}

fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > 65_535 {
        return Err(TopicError::TooLong { length: text.len() });
    }
    if text.as_bytes().contains(&0) {
        return Err(TopicError::Nul);
    }
    Ok(())
}

/// Whether there is no U+0000, '#' or '+' among the bytes: eight at a time, because every PUBLISH comes this way.
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    // '#' and '+' differ in the one bit that is masked.
    let special = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        zero_byte(word) | zero_byte(word & (ONES * 0xf7) ^ (ONES * 0x23))
    };
    match bytes.last_chunk() {
        Some(last) => bytes.as_chunks().0.iter().fold(special(last), |found, word| found | special(word)) == 0,
        None => !bytes.iter().any(|b| matches!(b, 0 | b'#' | b'+')),
    }
}

macro_rules! topic_text {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, shared.
            #[must_use]
            pub fn as_bytestring(&self) -> &ByteString {
                &self.0
            }

            /// The levels between the separators; an empty level is a level (5.0 §4.7.1.1).
            pub fn levels(&self) -> std::str::Split<'_, char> {
                self.0.split('/')
            }

            /// A copy that does not keep the buffer alive from which it was cut.
            #[must_use]
            pub fn detached(&self) -> Self {
                Self(ByteString::from(self.0.to_string()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.escape_debug())
            }
        }
    };
}

/// A topic name: what a message is published to. No wildcards (MQTT 5.0 §4.7).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(ByteString);

topic_text!(TopicName);

impl TopicName {
    /// Takes a text as a topic name.
    ///
    /// # Errors
    /// When the text is empty, too long, or contains U+0000 or a wildcard.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        if text.is_empty() || text.len() > 65_535 || !is_plain(text.as_bytes()) {
            return Err(check_text(&text).err().unwrap_or(TopicError::WildcardInName));
        }
        Ok(Self(text))
    }

    /// Whether it starts with `$`, so that filters that start with a wildcard don't match it [MQTT-4.7.2-1].
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }
}

/// A topic filter, possibly with wildcards (MQTT 5.0 §4.7). Never a shared one: see [`SubscriptionFilter`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(ByteString);

topic_text!(TopicFilter);

impl TopicFilter {
    /// Takes a text as a topic filter.
    ///
    /// # Errors
    /// When the text is empty, too long, contains U+0000, or misplaces a wildcard.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        check_text(&text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(TopicError::MisplacedMultiLevelWildcard);
            }
            if level.contains('+') && level != "+" {
                return Err(TopicError::MisplacedSingleLevelWildcard);
            }
        }
        Ok(Self(text))
    }

    /// Whether it has a wildcard.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.0.bytes().any(|b| b == b'#' || b == b'+')
    }

    /// Whether a message published to `topic` matches.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        filter_matches(&self.0, &topic.0)
    }
}

/// Whether `filter` matches `topic`, both valid. Level by level, without allocation: the slow oracle that faster indexes
/// are compared with (MQTT 5.0 §4.7.1, [MQTT-4.7.2-1]).
#[must_use]
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('#') || filter.starts_with('+')) {
        return false;
    }
    let mut names = topic.split('/');
    for level in filter.split('/') {
        if level == "#" {
            // "sport/#" also matches "sport": the parent level counts [5.0 §4.7.1.2].
            return true;
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// How a shared group picks its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SharedMode {
    /// `$share`: any member that can take the message.
    Any,
    /// `$oshare`: messages of one publisher go to the same member, so their order survives.
    Ordered,
}

impl SharedMode {
    /// What a shared subscription of this mode starts with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Any => "$share",
            Self::Ordered => "$oshare",
        }
    }
}

/// A shared subscription (MQTT 5.0 §4.8.2), `$share/{name}/{filter}` or `$oshare/{name}/{filter}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedFilter {
    /// How the group picks.
    pub mode: SharedMode,
    /// The share name.
    pub group: ByteString,
    /// The filter that the group shares.
    pub filter: TopicFilter,
}

/// Whether a subscription is shared or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// Each subscriber gets each message.
    Normal,
    /// One member of the group gets each message.
    Shared,
}

/// What stands in a SUBSCRIBE: a filter, or a share of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubscriptionFilter {
    /// For this subscriber alone.
    Normal(TopicFilter),
    /// Shared in a group.
    Shared(SharedFilter),
}

impl SubscriptionFilter {
    /// Takes the text of a SUBSCRIBE or UNSUBSCRIBE apart.
    ///
    /// # Errors
    /// When the filter, or the share name, is not well formed.
    pub fn parse(text: &ByteString) -> Result<Self, TopicError> {
        let (mode, prefix) = if text.starts_with("$share/") {
            (SharedMode::Any, "$share/".len())
        } else if text.starts_with("$oshare/") {
            (SharedMode::Ordered, "$oshare/".len())
        } else {
            return TopicFilter::new(text.clone()).map(Self::Normal);
        };
        check_text(text)?;
        let rest = &text[prefix..];
        let Some(slash) = rest.find('/') else {
            return Err(TopicError::MissingSharedFilter);
        };
        let group = &rest[..slash];
        if group.is_empty() || group.bytes().any(|b| b == b'+' || b == b'#') {
            return Err(TopicError::InvalidShareName);
        }
        let filter = &rest[slash + 1..];
        if filter.is_empty() {
            return Err(TopicError::MissingSharedFilter);
        }
        Ok(Self::Shared(SharedFilter {
            mode,
            group: text.slice_ref(group),
            filter: TopicFilter::new(text.slice_ref(filter))?,
        }))
    }

    /// The filter by which messages match, without the share.
    #[must_use]
    pub fn topic_filter(&self) -> &TopicFilter {
        match self {
            Self::Normal(filter) => filter,
            Self::Shared(shared) => &shared.filter,
        }
    }

    /// The text as it stands in a SUBSCRIBE; [`SubscriptionFilter::parse`] takes it apart again.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Normal(filter) => filter.as_str().to_owned(),
            Self::Shared(s) => format!("{}/{}/{}", s.mode.prefix(), s.group, s.filter.as_str()),
        }
    }

    /// Normal or shared.
    #[must_use]
    pub fn kind(&self) -> MatchKind {
        match self {
            Self::Normal(_) => MatchKind::Normal,
            Self::Shared(_) => MatchKind::Shared,
        }
    }

    /// A copy that does not keep the buffer alive from which it was cut.
    #[must_use]
    pub fn detached(&self) -> Self {
        match self {
            Self::Normal(filter) => Self::Normal(filter.detached()),
            Self::Shared(s) => Self::Shared(SharedFilter {
                mode: s.mode,
                group: ByteString::from(s.group.to_string()),
                filter: s.filter.detached(),
            }),
        }
    }
}

impl fmt::Display for SubscriptionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal(filter) => write!(f, "{filter}"),
            Self::Shared(s) => write!(f, "{}/{}/{}", s.mode.prefix(), s.group.escape_debug(), s.filter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Result<SubscriptionFilter, TopicError> {
        SubscriptionFilter::parse(&ByteString::from(text))
    }

    #[test]
    fn names_refuse_wildcards_and_nul() {
        assert_eq!(TopicName::new("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::new("a#"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::new("a\0"), Err(TopicError::Nul));
        assert_eq!(TopicName::new(""), Err(TopicError::Empty));
        assert!(TopicName::new("/").is_ok());
    }

    #[test]
    fn a_special_byte_is_found_wherever_it_stands_and_no_other_is() {
        for length in 1..40 {
            for at in 0..length {
                for byte in 0..=0x7f {
                    let mut text = vec![b'a'; length];
                    text[at] = byte;
                    let want = match byte {
                        0 => Err(TopicError::Nul),
                        b'#' | b'+' => Err(TopicError::WildcardInName),
                        _ => Ok(()),
                    };
                    assert_eq!(
                        TopicName::new(String::from_utf8(text).unwrap()).map(|_| ()),
                        want,
                        "{byte} at {at} of {length}"
                    );
                }
            }
        }
        for text in ["£/€/😀", "ä", "\u{80}\u{a3}\u{ab}\u{7ff}"] {
            assert!(TopicName::new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn filters_refuse_misplaced_wildcards() {
        for bad in ["a#", "a/#/b", "#/a", "##"] {
            assert_eq!(TopicFilter::new(bad), Err(TopicError::MisplacedMultiLevelWildcard), "{bad}");
        }
        for bad in ["+a", "a/b+", "++"] {
            assert_eq!(TopicFilter::new(bad), Err(TopicError::MisplacedSingleLevelWildcard), "{bad}");
        }
        for good in ["#", "+", "+/+/#", "a//b", "/"] {
            assert!(TopicFilter::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn shares_are_taken_apart() {
        let Ok(SubscriptionFilter::Shared(s)) = filter("$share/g/a/+") else { panic!("not shared") };
        assert_eq!((s.mode, &*s.group, s.filter.as_str()), (SharedMode::Any, "g", "a/+"));
        let Ok(SubscriptionFilter::Shared(s)) = filter("$oshare/g//a") else { panic!("not shared") };
        assert_eq!((s.mode, s.filter.as_str()), (SharedMode::Ordered, "/a"));
        assert_eq!(filter("$share//x"), Err(TopicError::InvalidShareName));
        assert_eq!(filter("$share/g+/x"), Err(TopicError::InvalidShareName));
        assert_eq!(filter("$share/g/"), Err(TopicError::MissingSharedFilter));
        assert_eq!(filter("$share/g"), Err(TopicError::MissingSharedFilter));
        assert_eq!(filter("$share/g/a#"), Err(TopicError::MisplacedMultiLevelWildcard));
        assert!(matches!(filter("$shared/g/x"), Ok(SubscriptionFilter::Normal(_))));
    }

    #[test]
    fn matching_follows_the_examples_of_the_specification() {
        for (filter, topic, want) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/", true),
        ] {
            assert_eq!(filter_matches(filter, topic), want, "{filter} {topic}");
        }
    }
}
