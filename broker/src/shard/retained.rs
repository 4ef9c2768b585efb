use super::Shard;
use super::conn::{Conn, Frames};
use crate::live::SessionRef;
use base_types::{Message, QoS, SubscriptionOptions, TopicFilter, TopicName, WallMs};
use inbox_api::{InboxReceiver, Insert, Origin};
use mqtt_session::Delivery;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tracing::warn;

/// Retained messages on their way to a new subscription: read in pages, as fast as the client takes them.
#[derive(Debug)]
pub(super) struct Cursor {
    filter: TopicFilter,
    options: SubscriptionOptions,
    after: Option<TopicName>,
    /// The last page was the last one.
    finished: bool,
    /// The `$SYS` values come first; they are in memory.
    sys_done: bool,
    /// A page is on its way into the inbox.
    storing: bool,
    sent: usize,
}

/// How many messages one page brings.
const PAGE: usize = 256;
/// Pages in a row before others get their turn.
const PAGES_IN_A_ROW: usize = 4;
/// The next page waits until the connection has less than this to write.
const OUTBOX_LOW: usize = 64 * 1024;

impl Cursor {
    pub(super) fn new(filter: TopicFilter, options: SubscriptionOptions) -> Self {
        Self { filter, options, after: None, finished: false, sys_done: false, storing: false, sent: 0 }
    }
}

impl Conn {
    /// How many retained messages can be taken now; 0 when none are wanted, or none can be taken before something else happens.
    fn retained_room(&self) -> usize {
        match self.retained.front() {
            Some(cursor) if !cursor.storing && self.session.has_inbox() => PAGE,
            Some(cursor) if !cursor.storing => self.session.live_room().min(PAGE),
            _ => 0,
        }
    }

    /// Whether the next page can be sent at once.
    pub(super) fn wants_retained(&self) -> bool {
        self.is_open() && self.outbox_len() < OUTBOX_LOW && self.retained_room() > 0
    }
}

impl Shard {
    /// Sends the next pages of retained messages, while the connection takes them.
    pub(super) fn send_retained(self: &Rc<Self>, conn: &mut Conn, now: Instant, wall: WallMs) {
        let mut pages = 0;
        while conn.wants_retained() {
            let room = conn.retained_room();
            if room == 0 {
                return;
            }
            pages += 1;
            if pages > PAGES_IN_A_ROW {
                // Others get their turn; a filter that finds little would otherwise hold the shard.
                return;
            }
            let Some(page) = self.page(conn, room) else {
                conn.retained.pop_front();
                continue;
            };
            let Some(cursor) = conn.retained.front() else { return };
            let options = cursor.options;
            let (mut live, mut queued) = (Vec::new(), Vec::new());
            for message in page {
                if conn.rights(&*self.node.authorizer).may_receive(&message.topic) {
                    let qos = options.qos.min(message.qos);
                    let to_inbox = conn.session.has_inbox() && qos > QoS::AtMostOnce;
                    if to_inbox { queued.push(message) } else { live.push((message, qos)) }
                }
            }
            for (message, qos) in live {
                let delivery = Delivery {
                    message,
                    qos,
                    retain: true,
                    subscription_identifiers: options.identifier.into_iter().collect(),
                };
                self.handle_delivery(conn, now, wall, delivery, &mut Frames::new(1));
            }
            if !queued.is_empty() {
                self.store_page(conn, options, queued);
                return;
            }
        }
    }

    /// Looks at a connection again after everybody else.
    pub(super) fn come_back(self: &Rc<Self>, me: SessionRef) {
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::task::yield_now().await;
            if let Some(conn) = shard.find(me) {
                shard.mark_dirty(&conn, &mut conn.borrow_mut());
            }
        });
    }

    /// The next page, or `None` when there are no more.
    fn page(&self, conn: &mut Conn, room: usize) -> Option<Vec<Arc<Message>>> {
        let limit = self.node.settings.retain_message_match_limit as usize;
        let cursor = conn.retained.front_mut()?;
        if !cursor.sys_done {
            cursor.sys_done = true;
            if cursor.filter.as_str().starts_with('$') {
                let sys = self.node.sys.read();
                return Some(sys.values().filter(|m| cursor.filter.matches(&m.topic)).cloned().collect());
            }
        }
        if cursor.finished {
            return None;
        }
        let room = if limit == 0 { room } else { room.min(limit.saturating_sub(cursor.sent)) };
        if room == 0 {
            return None;
        }
        match self.node.retain.page(&conn.tenant, &cursor.filter, cursor.after.as_ref(), room) {
            Ok(page) => {
                cursor.finished = page.next.is_none();
                cursor.after = page.next;
                cursor.sent += page.messages.len();
                Some(page.messages)
            }
            Err(error) => {
                warn!(%error, filter = %cursor.filter, "retained messages could not be read");
                None
            }
        }
    }

    /// Retained messages of QoS 1 and 2 for a persistent session go through its inbox, as all of them do.
    fn store_page(self: &Rc<Self>, conn: &mut Conn, options: SubscriptionOptions, page: Vec<Arc<Message>>) {
        let Some((id, version)) = conn.inbox.clone() else { return };
        if let Some(cursor) = conn.retained.front_mut() {
            cursor.storing = true;
        }
        let inserts: Vec<_> = page
            .into_iter()
            .map(|message| {
                let receiver = InboxReceiver {
                    client: id.client.clone(),
                    incarnation: version.incarnation,
                    qos: options.qos.min(message.qos),
                    retain: true,
                    subscription_identifiers: options.identifier.into_iter().collect(),
                };
                let tenant = id.tenant.clone();
                self.node.inbox.insert(Insert { tenant, message, receivers: vec![receiver], origin: Origin::None })
            })
            .collect();
        let (me, shard) = (conn.me, Rc::clone(self));
        tokio::task::spawn_local(async move {
            for insert in inserts {
                if let Err(error) = insert.await {
                    warn!(%error, "a retained message could not be queued for a new subscription");
                }
            }
            if let Some(conn) = shard.find(me) {
                let mut conn_ref = conn.borrow_mut();
                if let Some(cursor) = conn_ref.retained.front_mut() {
                    cursor.storing = false;
                }
                shard.mark_dirty(&conn, &mut conn_ref);
            }
        });
    }
}
