use crate::pattern::{Pattern, Widened, substitute};
use crate::permissions::{Compiled, Entry};
use crate::{Permissions, Principal};
use bytestring::ByteString;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Connect,
    Publish,
    Subscribe,
    Retain,
}

/// One rule, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    pub(crate) actions: Vec<Action>,
    /// User names, with `*` at the end for what may follow; empty: any.
    pub(crate) users: Vec<String>,
    /// Client ids, likewise, with one `%u` in them.
    pub(crate) clients: Vec<String>,
    /// Only anonymous clients, or only others.
    pub(crate) anonymous: Option<bool>,
    /// Topic filters with `%c` and `%u` still in them.
    pub(crate) topics: Vec<String>,
}

impl Rule {
    fn is_about(&self, client: &str, user: Option<&str>) -> bool {
        self.anonymous.is_none_or(|anonymous| anonymous == user.is_none())
            && (self.users.is_empty() || user.is_some_and(|user| self.users.iter().any(|text| names(text, user))))
            && (self.clients.is_empty() || self.clients.iter().any(|text| names_client(text, client, user)))
    }
}

fn names(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

/// A client id may have to start with, or be, the user name: compared piece by piece, so that no user name is read as a pattern.
fn names_client(pattern: &str, client: &str, user: Option<&str>) -> bool {
    let Some((before, after)) = pattern.split_once("%u") else { return names(pattern, client) };
    user.and_then(|user| client.strip_prefix(before)?.strip_prefix(user)).is_some_and(|rest| names(after, rest))
}

/// An ordered list of rules. The first that is about a client, an action and a topic decides; when there is none, the answer is no,
/// but for connecting, where it is yes: who has logged in has been asked already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(pub(crate) Vec<Rule>);

impl Rules {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether a client may connect at all.
    #[must_use]
    pub fn may_connect(&self, client: &str, user: Option<&str>) -> bool {
        let decisive =
            self.0.iter().find(|rule| rule.actions.contains(&Action::Connect) && rule.is_about(client, user));
        decisive.is_none_or(|rule| rule.allow)
    }

    /// The rules that are about one client, ready to compare with topics.
    #[must_use]
    pub fn compile(&self, principal: &Principal, generation: u64) -> Permissions {
        let user = principal.user.as_deref();
        let client = principal.client.as_str();
        let entries = |action| {
            let relevant = self.0.iter().filter(|rule| rule.actions.contains(&action) && rule.is_about(client, user));
            relevant
                .flat_map(|rule| rule.topics.iter().filter_map(|topic| entry(rule.allow, topic, client, user)))
                .collect()
        };
        let compiled = Compiled {
            publish: entries(Action::Publish),
            retain: entries(Action::Retain),
            subscribe: entries(Action::Subscribe),
        };
        Permissions::ruled(generation, self.may_connect(client, user), compiled)
    }
}

/// A name that must not be put in makes an allowing rule void, and a denying one as wide as it could have meant.
fn entry(allow: bool, topic: &str, client: &str, user: Option<&str>) -> Option<Entry> {
    let pattern = match substitute(topic, client, user) {
        Ok(text) => Pattern::Filter(ByteString::from(text)),
        Err(_) if allow => return None,
        Err(Widened(pattern)) => pattern,
    };
    Some(Entry { allow, pattern })
}
