use crate::Alias;
use base_types::TopicName;
use std::collections::BTreeMap;
use std::num::NonZeroU16;

/// The topic aliases of one connection from server to client (5.0 §3.3.2.3.4): the first topics get one each and keep it.
#[derive(Debug)]
pub(crate) struct AliasesOut {
    topics: BTreeMap<TopicName, NonZeroU16>,
    max: u16,
}

impl AliasesOut {
    pub(crate) fn new(max: u16) -> Self {
        Self { topics: BTreeMap::new(), max }
    }

    pub(crate) fn known(&self, topic: &TopicName) -> Option<Alias> {
        self.topics.get(topic).map(|alias| Alias { alias: *alias, known: true })
    }

    /// The alias that the next new topic would get.
    pub(crate) fn next(&self) -> Option<Alias> {
        let next = u16::try_from(self.topics.len() + 1).ok().filter(|next| *next <= self.max)?;
        NonZeroU16::new(next).map(|alias| Alias { alias, known: false })
    }

    pub(crate) fn assign(&mut self, topic: &TopicName, alias: Alias) {
        // Kept as long as the connection: it must not keep a read buffer.
        self.topics.insert(topic.detached(), alias.alias);
    }
}
