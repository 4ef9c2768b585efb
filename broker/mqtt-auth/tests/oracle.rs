//! Compiled permissions against a slow oracle that reads the rules one by one: a million questions, and no leak.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use base_types::{ClientId, SubscriptionFilter, TenantId, TopicName};
use bytestring::ByteString;
use mqtt_auth::{Permissions, Principal, Rules, Subscribing};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// A small generator with a fixed seed: the same questions in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }

    fn path(&mut self, levels: &[&str]) -> String {
        let count = 1 + self.below(4);
        let path = (0..count).map(|_| self.pick(levels)).collect::<Vec<_>>().join("/");
        if path.is_empty() { "a".into() } else { path }
    }

    fn filter(&mut self, levels: &[&str]) -> String {
        let mut filter = self.path(levels);
        match self.below(4) {
            0 => filter.push_str("/#"),
            1 if self.below(4) == 0 => filter = "#".into(),
            _ => {}
        }
        filter
    }
}

const NAMES: [&str; 5] = ["a", "b", "c", "$s", ""];
const LEVELS: [&str; 8] = ["a", "b", "c", "+", "$s", "", "%c", "%u"];
const FILTER_LEVELS: [&str; 6] = ["a", "b", "c", "+", "$s", ""];
const PEOPLE: [Option<&str>; 6] = [None, Some("a"), Some("b"), Some("+"), Some("a/b"), Some("$s")];
const CLIENTS: [&str; 6] = ["a", "c", "#", "%u", "$s", "b/c"];

struct Rule {
    allow: bool,
    action: &'static str,
    topic: String,
    user: Option<&'static str>,
    anonymous: Option<bool>,
}

fn rules(random: &mut Random) -> Vec<Rule> {
    (0..1 + random.below(6))
        .map(|_| {
            let anonymous = [None, None, Some(true), Some(false)][random.below(4)];
            Rule {
                allow: random.below(2) == 0,
                action: ["publish", "subscribe", "retain", "all"][random.below(4)],
                topic: random.filter(&LEVELS),
                user: if anonymous == Some(true) { None } else { [None, None, Some("a"), Some("+")][random.below(4)] },
                anonymous,
            }
        })
        .collect()
}

fn yaml(rules: &[Rule]) -> String {
    let mut text = String::from("rules:\n");
    for rule in rules {
        let verb = if rule.allow { "allow" } else { "deny" };
        writeln!(text, "- {verb}: {}\n  topics: '{}'", rule.action, rule.topic).unwrap();
        if let Some(user) = rule.user {
            writeln!(text, "  users: '{user}'").unwrap();
        }
        if let Some(anonymous) = rule.anonymous {
            writeln!(text, "  anonymous: {anonymous}").unwrap();
        }
    }
    text
}

/// Whether a topic is one of those that a rule names, with the names put in as whole levels.
fn names(rule: &Rule, topic: &str, client: &str, user: Option<&str>) -> bool {
    let pattern: Vec<&str> = rule.topic.split('/').collect();
    let levels: Vec<&str> = topic.split('/').collect();
    if topic.starts_with('$') && (pattern[0] == "+" || pattern[0] == "#") {
        return false;
    }
    for (index, level) in pattern.iter().enumerate() {
        let value = match *level {
            "#" => return true,
            "%c" => Some(client),
            "%u" => user,
            _ => {
                match levels.get(index) {
                    Some(name) if *level == "+" || level == name => continue,
                    _ => return false,
                };
            }
        };
        match value {
            Some(value) if !value.is_empty() && !value.starts_with('$') && !value.contains(['+', '#', '/']) => {
                if levels.get(index) != Some(&value) {
                    return false;
                }
            }
            // A name that cannot be put in: nothing is allowed by it, and everything that it could mean is denied.
            _ => return !rule.allow,
        }
    }
    levels.len() == pattern.len()
}

fn oracle(rules: &[Rule], action: &str, topic: &str, client: &str, user: Option<&str>) -> bool {
    for rule in rules {
        let about = (rule.action == action || rule.action == "all")
            && rule.anonymous.is_none_or(|anonymous| anonymous == user.is_none())
            && rule.user.is_none_or(|name| user == Some(name));
        if about && names(rule, topic, client, user) {
            return rule.allow;
        }
    }
    false
}

/// A topic that matches a filter.
fn instance(random: &mut Random, filter: &str) -> String {
    let mut levels: Vec<String> = Vec::new();
    for (index, level) in filter.split('/').enumerate() {
        match level {
            // A topic that starts with `$` matches no leading wildcard.
            "+" if index == 0 => levels.push(random.pick(&["a", "b", "c", ""]).into()),
            "+" => levels.push(random.pick(&NAMES).into()),
            "#" if index == 0 => levels.push(random.pick(&["a", "b", "c"]).into()),
            "#" => levels.extend((0..random.below(3)).map(|_| random.pick(&NAMES).to_owned())),
            literal => levels.push(literal.into()),
        }
    }
    levels.join("/")
}

#[test]
fn permissions_agree_with_the_rules_and_no_denied_topic_is_delivered() {
    let mut random = Random(2026);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut questions = 0_u32;
    while questions < 1_000_000 {
        assert!(Instant::now() < deadline, "only {questions} questions in a minute");
        let rules = rules(&mut random);
        let text = yaml(&rules);
        let parsed = Rules::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        for _ in 0..4 {
            let (client, user) = (random.pick(&CLIENTS), PEOPLE[random.below(PEOPLE.len())]);
            let principal = Principal {
                tenant: TenantId::default(),
                user: user.map(ByteString::from),
                client: ClientId::new(client).unwrap(),
            };
            let permissions = parsed.compile(&principal, 1);
            let told = |what: &str| format!("{what} by {user:?} as {client:?}\n{text}");
            for _ in 0..20 {
                let name = random.path(&NAMES);
                let topic = TopicName::new(name.as_str()).unwrap();
                let publish = !name.starts_with('$') && oracle(&rules, "publish", &name, client, user);
                let retain = publish && oracle(&rules, "retain", &name, client, user);
                assert_eq!(permissions.may_publish(&topic, false), publish, "{}", told(&name));
                assert_eq!(permissions.may_publish(&topic, true), retain, "{}", told(&name));
                let receive = oracle(&rules, "subscribe", &name, client, user);
                assert_eq!(permissions.may_receive(&topic), receive, "{}", told(&name));
                questions += 3;
            }
            for _ in 0..10 {
                questions += subscribe(&mut random, &permissions, &told, |topic| {
                    oracle(&rules, "subscribe", topic, client, user)
                });
            }
        }
    }
}

/// A subscription, and what is delivered by it.
fn subscribe(
    random: &mut Random,
    permissions: &Permissions,
    told: &dyn Fn(&str) -> String,
    allowed: impl Fn(&str) -> bool,
) -> u32 {
    let plain = random.filter(&FILTER_LEVELS);
    let text = if random.below(3) == 0 { format!("$share/g/{plain}") } else { plain.clone() };
    let Ok(filter) = SubscriptionFilter::parse(&ByteString::from(text)) else { return 0 };
    let answer = permissions.may_subscribe(&filter);
    let has_wildcard = plain.contains(['+', '#']);
    if !has_wildcard {
        let expected = if allowed(&plain) { Subscribing::Allowed { check_each: false } } else { Subscribing::Denied };
        assert_eq!(answer, expected, "{}", told(&plain));
    }
    for _ in 0..5 {
        let name = instance(random, &plain);
        let Ok(topic) = TopicName::new(name.as_str()) else { continue };
        assert!(filter.topic_filter().matches(&topic), "{plain} {name}");
        let delivered = match answer {
            Subscribing::Allowed { check_each: false } => true,
            Subscribing::Allowed { check_each: true } => permissions.may_receive(&topic),
            Subscribing::Denied => false,
        };
        assert!(!delivered || allowed(&name), "{name} leaks through {plain}: {}", told(&name));
    }
    6
}
