use base_types::TopicName;
use std::num::NonZeroU16;

/// The topic aliases of one connection from client to server (5.0 §3.3.2.3.4).
#[derive(Debug, Default)]
pub(crate) struct AliasesIn {
    topics: Vec<Option<TopicName>>,
}

impl AliasesIn {
    pub(crate) fn set(&mut self, alias: NonZeroU16, topic: &TopicName) {
        let index = usize::from(alias.get()) - 1;
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        if self.topics[index].as_ref() != Some(topic) {
            // Kept as long as the connection: it must not keep a read buffer.
            self.topics[index] = Some(topic.detached());
        }
    }

    pub(crate) fn get(&self, alias: NonZeroU16) -> Option<&TopicName> {
        self.topics.get(usize::from(alias.get()) - 1)?.as_ref()
    }
}
