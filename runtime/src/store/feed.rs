//! What servers that share a store tell each other through it.
//!
//! A server keeps in memory what changes seldom: tenants, keys, applications, activities,
//! pauses. Whoever changes one of them notes that in the same transaction, under a number
//! that grows, and the other servers hear of it. Numbers become visible in order, so
//! whoever knows the last one that it has taken in misses nothing, however long it was
//! cut off: it asks for what came after. Of one subject only the last change is kept; so
//! what is noted is bounded by what there is, and never has to be cleared.

use cascade_cdl::TenantId;
use tokio::sync::mpsc;

/// Batches of news that wait to be taken in. Beyond it the store waits, and of what changes
/// meanwhile it tells the last.
const WAITING: usize = 4;

/// What has changed of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Limits and policy; or it is new.
    Tenant,
    /// Its API keys.
    Keys,
    /// Which of its workflows are paused.
    Pauses,
    /// There is a new version of the application with this name.
    Application(String),
    /// There is a new version of the activity with this name.
    Activity(String),
}

impl Subject {
    /// How it is stored: what it is, and which one.
    pub(super) fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Tenant => ("tenant", ""),
            Self::Keys => ("keys", ""),
            Self::Pauses => ("pauses", ""),
            Self::Application(name) => ("application", name),
            Self::Activity(name) => ("activity", name),
        }
    }

    /// The reverse. `None` is what a later release tells, and nobody here keeps.
    pub(super) fn of_parts(kind: &str, name: String) -> Option<Self> {
        Some(match kind {
            "tenant" => Self::Tenant,
            "keys" => Self::Keys,
            "pauses" => Self::Pauses,
            "application" => Self::Application(name),
            "activity" => Self::Activity(name),
            _ => return None,
        })
    }
}

/// Something that may have changed. It may have been this very server that did it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub tenant: TenantId,
    pub subject: Subject,
}

/// What the store tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These have changed, in this order.
    Changed(Vec<Change>),
    /// The store does not tell any more: what is in memory may be old.
    Lost,
    /// It tells again. What was missed has been told.
    Found,
}

/// The news of a store, from when it was asked for. Dropped, it ends.
#[derive(Debug)]
pub struct Feed(mpsc::Receiver<News>);

/// The other end of a [`Feed`].
#[derive(Debug, Clone)]
pub(super) struct Teller(mpsc::Sender<News>);

impl Feed {
    pub(super) fn new() -> (Teller, Self) {
        let (teller, feed) = mpsc::channel(WAITING);
        (Teller(teller), Self(feed))
    }

    /// The next news; `None` when the store has been closed.
    pub async fn next(&mut self) -> Option<News> {
        self.0.recv().await
    }
}

impl Teller {
    /// Tells; says whether anybody listens.
    pub(super) async fn tell(&self, news: News) -> bool {
        self.0.send(news).await.is_ok()
    }

    /// Returns when nobody listens any more.
    pub(super) async fn unheard(&self) {
        self.0.closed().await;
    }
}
