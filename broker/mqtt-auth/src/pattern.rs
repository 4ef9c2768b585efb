//! Topic patterns: how they cover and overlap topic filters, and how names are put into them.

use base_types::filter_matches;
use bytestring::ByteString;

/// What a compiled rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Topics that match a filter.
    Filter(ByteString),
    /// All topics, those that start with `$` included.
    Everything,
}

impl Pattern {
    /// Whether a topic name is in it.
    pub(crate) fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Filter(filter) => filter_matches(filter, topic),
            Self::Everything => true,
        }
    }

    /// Whether every topic that matches `filter` is in it.
    pub(crate) fn covers(&self, filter: &str) -> bool {
        match self {
            Self::Filter(pattern) => covers(pattern, filter),
            Self::Everything => true,
        }
    }

    /// Whether a topic that matches `filter` may be in it.
    pub(crate) fn overlaps(&self, filter: &str) -> bool {
        match self {
            Self::Filter(pattern) => overlaps(pattern, filter),
            Self::Everything => true,
        }
    }
}

fn starts_with_wildcard(filter: &str) -> bool {
    filter.starts_with(['+', '#'])
}

/// Whether `pattern` matches whatever `filter` matches; both are topic filters.
fn covers(pattern: &str, filter: &str) -> bool {
    if starts_with_wildcard(pattern) && filter.starts_with('$') {
        return false; // Such a pattern matches no `$` topic [MQTT-4.7.2-1].
    }
    // Every topic has a first level: `+/#` is `#`.
    let (pattern, filter) = (if pattern == "+/#" { "#" } else { pattern }, filter);
    let mut levels = filter.split('/');
    for level in pattern.split('/') {
        if level == "#" {
            return true; // The parent level counts, so it does not matter whether one is left.
        }
        match levels.next() {
            Some("#") | None => return false,
            Some(theirs) if level == "+" || level == theirs => {}
            Some(_) => return false,
        }
    }
    levels.next().is_none()
}

/// Whether one topic can match both filters.
fn overlaps(a: &str, b: &str) -> bool {
    if (starts_with_wildcard(a) && b.starts_with('$')) || (starts_with_wildcard(b) && a.starts_with('$')) {
        return false;
    }
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "+" || y == "+" => {}
            _ => return false,
        }
    }
}

/// A name must not be put in: everything that the text could have meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Widened(pub(crate) Pattern);

/// A text with `%c` and `%u` replaced. A name that is more than a name is not put in.
pub(crate) fn substitute(text: &str, client: &str, user: Option<&str>) -> Result<String, Widened> {
    let mut out = String::with_capacity(text.len() + client.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        // A '%' with something else behind it is refused when the rules are read.
        let value = if rest[at..].starts_with("%c") { Some(client) } else { user };
        match value {
            // One pass: what a value contains is never looked at again, but it must not be read as something else.
            Some(value) if is_plain(value) => out.push_str(value),
            _ => {
                let above = out.rsplit_once('/').map(|(above, _)| ByteString::from(format!("{above}/#")));
                return Err(Widened(above.map_or(Pattern::Everything, Pattern::Filter)));
            }
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a name can stand in a topic without being more than a name.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.starts_with('$') && !value.contains(['+', '#', '/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_is_matching_for_every_topic_of_the_filter() {
        for (pattern, filter, want) in [
            ("#", "#", true),
            ("#", "a/+", true),
            ("+/#", "#", true),
            ("#", "$SYS/#", false),
            ("$SYS/#", "$SYS/+", true),
            ("$SYS/#", "$SYS", true),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/+", "a/#", false),
            ("a/+/#", "a/#", false),
            ("a/+", "a/b", true),
            ("a/b", "a/+", false),
            ("+/b", "a/b", true),
            ("a", "a/b", false),
            ("a/b", "a", false),
            ("+", "+", true),
            ("+/+", "/", true),
        ] {
            assert_eq!(covers(pattern, filter), want, "{pattern} {filter}");
        }
    }

    #[test]
    fn overlapping_is_one_topic_in_common() {
        for (a, b, want) in [
            ("a/+", "+/b", true),
            ("a/b", "a/c", false),
            ("a/#", "a", true),
            ("a/#", "b/#", false),
            ("#", "$SYS/x", false),
            ("#", "+", true),
            ("a/+/c", "a/b", false),
            ("a/+/#", "a/b", true),
        ] {
            assert_eq!(overlaps(a, b), want, "{a} {b}");
            assert_eq!(overlaps(b, a), want, "{b} {a}");
        }
    }

    #[test]
    fn names_are_put_in_once_and_only_when_they_are_nothing_but_names() {
        assert_eq!(substitute("d/%c/x-%u", "c1", Some("ann")), Ok("d/c1/x-ann".into()));
        assert_eq!(substitute("d/%c", "%u", Some("ann")), Ok("d/%u".into()));
        for bad in ["+", "#", "a/b", "", "$SYS", "a\0"] {
            let widened = Widened(Pattern::Filter("d/ann/#".into()));
            assert_eq!(substitute("d/%u/%c/f", bad, Some("ann")), Err(widened), "{bad}");
        }
        assert_eq!(substitute("%u/x", "c", None), Err(Widened(Pattern::Everything)));
    }
}
