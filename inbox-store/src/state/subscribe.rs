use super::State;
use crate::reply;
use crate::schema::subscription;
use base_kv_api::{KvError, KvSpace};
use base_types::{SubscriptionFilter, SubscriptionOptions};
use bytes::Bytes;
use inbox_api::SessionVersion;

impl State {
    pub(super) fn subscribe(
        &mut self,
        version: SessionVersion,
        subscriptions: &[(SubscriptionFilter, SubscriptionOptions)],
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        let Some(inbox) = self.owned(version) else { return Ok(reply::fenced()) };
        let mut existed = Vec::with_capacity(subscriptions.len());
        for (filter, options) in subscriptions {
            let key = subscription::key(version.incarnation, filter);
            let there = space.get(&key)?.is_some();
            space.put(&key, &subscription::encode(options));
            inbox.subscriptions += u64::from(!there);
            existed.push(there);
        }
        Ok(reply::flags(&existed))
    }

    pub(super) fn unsubscribe(
        &mut self,
        version: SessionVersion,
        filters: &[SubscriptionFilter],
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        let Some(inbox) = self.owned(version) else { return Ok(reply::fenced()) };
        let mut existed = Vec::with_capacity(filters.len());
        for filter in filters {
            let key = subscription::key(version.incarnation, filter);
            let there = space.get(&key)?.is_some();
            if there {
                space.delete(&key);
                inbox.subscriptions -= 1;
            }
            existed.push(there);
        }
        Ok(reply::flags(&existed))
    }
}
