//! The file of rules: YAML to [`Rules`].

use crate::Rules;
use crate::rule::{Action, Rule};
use base_types::TopicFilter;
use serde_yaml::{Mapping, Value};
use std::fmt;

/// Why a text is no list of rules: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError(Vec<String>);

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for AclError {}

const KEYS: &str = "allow or deny, topics, users, clients, anonymous";
const ACTIONS: &str = "publish, subscribe, retain, all (these three), or connect alone";

impl Rules {
    /// Reads rules: `rules:` and a list; `conf/acl.yml` describes it.
    ///
    /// # Errors
    /// With everything that is wrong, at once. A list without rules is wrong too: it would deny everything.
    pub fn parse(text: &str) -> Result<Self, AclError> {
        let whole = |message: String| AclError(vec![message]);
        let value: Value = serde_yaml::from_str(text).map_err(|error| whole(format!("no YAML: {error}")))?;
        let Value::Mapping(mapping) = &value else {
            return Err(whole("there must be one key, `rules`, with a list of rules".into()));
        };
        let mut problems: Vec<String> = mapping
            .keys()
            .filter(|key| key.as_str() != Some("rules"))
            .map(|key| format!("unknown key {}; there is only `rules`", show(key)))
            .collect();
        let mut rules = Vec::new();
        match mapping.get("rules") {
            Some(Value::Sequence(items)) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    let mut reader = Reader { number: index + 1, problems: &mut problems };
                    rules.extend(reader.rule(item));
                }
            }
            _ => problems.push("`rules` must be a list of at least one rule".into()),
        }
        if problems.is_empty() { Ok(Self(rules)) } else { Err(AclError(problems)) }
    }
}

struct Reader<'a> {
    number: usize,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, message: impl fmt::Display) {
        self.problems.push(format!("rule {}: {message}", self.number));
    }

    fn rule(&mut self, value: &Value) -> Option<Rule> {
        let Value::Mapping(mapping) = value else {
            self.problem(format!("must have keys: {KEYS}"));
            return None;
        };
        for key in mapping.keys() {
            if !["allow", "deny", "topics", "users", "clients", "anonymous"].contains(&key.as_str().unwrap_or_default())
            {
                self.problem(format!("unknown key {}; known are {KEYS}", show(key)));
            }
        }
        let (allow, actions) = match (mapping.get("allow"), mapping.get("deny")) {
            (Some(actions), None) => (true, self.actions(actions)),
            (None, Some(actions)) => (false, self.actions(actions)),
            _ => {
                self.problem("must have either `allow` or `deny`");
                (false, Vec::new())
            }
        };
        let anonymous = match mapping.get("anonymous") {
            None => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(other) => {
                self.problem(format!("anonymous = {} must be true or false", show(other)));
                None
            }
        };
        let users = self.names(mapping, "users");
        if anonymous == Some(true) && !users.is_empty() {
            self.problem("is about nobody: an anonymous client is none of the users");
        }
        let clients = self.names(mapping, "clients");
        let topics = self.topics(mapping, actions.contains(&Action::Connect));
        Some(Rule { allow, actions, users, clients, anonymous, topics })
    }

    fn actions(&mut self, value: &Value) -> Vec<Action> {
        let mut actions = Vec::new();
        for text in self.texts("allow or deny", value) {
            match text.as_str() {
                "connect" => actions.push(Action::Connect),
                "publish" => actions.push(Action::Publish),
                "subscribe" => actions.push(Action::Subscribe),
                "retain" => actions.push(Action::Retain),
                "all" => actions.extend([Action::Publish, Action::Subscribe, Action::Retain]),
                other => self.problem(format!("unknown action {other:?}; known are {ACTIONS}")),
            }
        }
        if actions.contains(&Action::Connect) && actions.len() > 1 {
            self.problem("`connect` has no topic and must be the only action of its rule");
        }
        actions
    }

    fn topics(&mut self, mapping: &Mapping, connect: bool) -> Vec<String> {
        let topics = match mapping.get("topics") {
            None if connect => return Vec::new(),
            None => {
                self.problem("must have `topics`");
                return Vec::new();
            }
            Some(_) if connect => {
                self.problem("`connect` has no topics");
                return Vec::new();
            }
            Some(value) => self.texts("topics", value),
        };
        for topic in &topics {
            let plain = topic.replace("%c", "c").replace("%u", "u");
            if plain.contains('%') {
                self.problem(format!("topic {topic:?}: after `%` comes `c` (client id) or `u` (user name)"));
            } else if let Err(error) = TopicFilter::new(plain) {
                self.problem(format!("topic {topic:?}: {error}"));
            } else if topic.starts_with("$share/") || topic.starts_with("$oshare/") {
                self.problem(format!("topic {topic:?}: rules are about the filter behind the share name"));
            }
        }
        topics
    }

    fn names(&mut self, mapping: &Mapping, key: &str) -> Vec<String> {
        let names = mapping.get(key).map(|value| self.texts(key, value)).unwrap_or_default();
        for name in &names {
            if name.trim_end_matches('*').contains('*') || name.ends_with("**") {
                self.problem(format!("{key} {name:?}: `*` stands at the end only"));
            }
            let placeholders = name.matches('%').count();
            if placeholders > 0 && (key == "users" || placeholders > 1 || !name.contains("%u")) {
                self.problem(format!("{key} {name:?}: `%` stands only in clients, once, before `u` (user name)"));
            }
        }
        names
    }

    /// A text or a list of them; at least one.
    fn texts(&mut self, key: &str, value: &Value) -> Vec<String> {
        let texts: Option<Vec<String>> = match value {
            Value::Sequence(items) => items.iter().map(text).collect(),
            other => text(other).map(|text| vec![text]),
        };
        match texts {
            Some(texts) if !texts.is_empty() && texts.iter().all(|text| !text.is_empty()) => texts,
            _ => {
                self.problem(format!("{key} = {} must be a text or a list of texts", show(value)));
                Vec::new()
            }
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // A user or client whose name is a number.
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn show(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default().trim_end().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_told_at_once() {
        let error = Rules::parse(
            "ruels: []\nrules:\n- allow: fly\n  topics: a\n- deny: publish\n- allow: all\n  deny: all\n  topics: [a#, '%x']\n- allow: [connect, publish]\n  topics: a\n- 7\n- {allow: all, topics: '#', users: 'a*b', clients: '%c', anonymous: maybe, colour: red}\n",
        )
        .unwrap_err()
        .to_string();
        for part in [
            "unknown key ruels",
            "rule 1: unknown action \"fly\"",
            "rule 2: must have `topics`",
            "rule 3: must have either `allow` or `deny`",
            "rule 3: topic \"a#\"",
            "rule 3: topic \"%x\"",
            "rule 4: `connect` has no topic and",
            "rule 5: must have keys",
            "rule 6: unknown key colour",
            "rule 6: users \"a*b\"",
            "rule 6: clients \"%c\"",
            "rule 6: anonymous = maybe",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_file_without_rules_is_no_file_of_rules() {
        for text in ["", "rules:", "rules: []", "[]", "- allow: all", "rules: {allow: all}", "a: [", "rules: all"] {
            assert!(Rules::parse(text).is_err(), "{text}");
        }
    }
}
