//! The feed of the model: what databases do by tables and sessions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cascade_cdl::TenantId;
use tokio::sync::watch;

use super::super::feed::{Change, Feed, News, Subject, Teller};

/// What has changed, and who is told. A handle.
#[derive(Clone)]
pub(super) struct Changes(Arc<Inner>);

struct Inner {
    noted: Mutex<Noted>,
    /// The last number.
    news: watch::Sender<u64>,
    /// Whether anybody is told.
    tells: watch::Sender<bool>,
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Noted {
    last: u64,
    numbers: BTreeMap<Change, u64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self(Arc::new(Inner {
            noted: Mutex::default(),
            news: watch::Sender::new(0),
            tells: watch::Sender::new(true),
            closed: watch::Sender::new(false),
        }))
    }
}

impl Changes {
    pub(super) fn note(&self, tenant: &TenantId, subject: Subject) {
        let tenant = tenant.clone();
        let mut noted = self.noted();
        noted.last += 1;
        let last = noted.last;
        noted.numbers.insert(Change { tenant, subject }, last);
        self.0.news.send_replace(last);
    }

    /// Whether who follows is told from now on.
    pub(super) fn tell(&self, tells: bool) {
        self.0.tells.send_replace(tells);
    }

    pub(super) fn close(&self) {
        self.0.closed.send_replace(true);
    }

    pub(super) fn follow(&self) -> Feed {
        let (teller, feed) = Feed::new();
        let (this, seen) = (self.clone(), self.noted().last);
        tokio::spawn(async move {
            let mut closed = this.0.closed.subscribe();
            tokio::select! {
                () = this.tell_all(&teller, seen) => {}
                () = teller.unheard() => {}
                () = until(&mut closed, |closed| *closed) => {}
            }
        });
        feed
    }

    async fn tell_all(&self, teller: &Teller, mut seen: u64) {
        let mut tells = self.0.tells.subscribe();
        let mut news = self.0.news.subscribe();
        loop {
            let is_cut = tokio::select! {
                biased;
                () = until(&mut tells, |tells| !tells) => true,
                () = until(&mut news, |last| *last > seen) => false,
            };
            if is_cut {
                teller.tell(News::Lost).await;
                until(&mut tells, |tells| *tells).await;
            }
            self.tell_after(teller, &mut seen).await;
            if is_cut {
                teller.tell(News::Found).await;
            }
        }
    }

    async fn tell_after(&self, teller: &Teller, seen: &mut u64) {
        let mut changes: Vec<_> = {
            let noted = self.noted();
            let since = *seen;
            *seen = noted.last;
            let numbers = noted.numbers.iter();
            let new = numbers.filter(|(_, number)| **number > since);
            new.map(|(change, number)| (*number, change.clone()))
                .collect()
        };
        changes.sort_by_key(|(number, _)| *number);
        if !changes.is_empty() {
            let changes = changes.into_iter().map(|(_, change)| change).collect();
            teller.tell(News::Changed(changes)).await;
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until what is watched is so. Whoever waits holds the sender.
async fn until<T>(watched: &mut watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) {
    let _ = watched.wait_for(is_so).await;
}
