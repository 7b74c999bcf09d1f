//! Keeps what this server has in memory as the others leave it in the store.
//!
//! One task hears what has changed and takes it in, in order. What cannot be read is read
//! again until it can. Nothing here has to survive a crash: a server that starts listens
//! first, and then reads everything.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::catalog::Catalog;
use crate::schedules::Schedules;
use crate::store::{self, Change, Feed, News, Subject};
use crate::telemetry;
use crate::tenancy::Tenancy;

/// How long a server goes on with what it has in memory though nobody tells it what others
/// change: longer than a database takes to restart. Then it asks for every key, and is not
/// ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pauses between attempts to read what has changed double between these.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Who takes in what others change.
pub(super) struct Follower {
    pub(super) feed: Feed,
    pub(super) tenancy: Tenancy,
    pub(super) catalog: Catalog,
    pub(super) schedules: Schedules,
}

impl Follower {
    /// Follows until the store is closed.
    pub(super) async fn run(mut self) {
        telemetry::changes_heard(true);
        let mut lost: Option<Instant> = None;
        loop {
            match self.next(lost).await {
                Some(News::Changed(changes)) => {
                    let since = lost.unwrap_or_else(Instant::now);
                    for change in changes {
                        self.take_in(&change, since).await;
                    }
                    // While news come again, one by one, it is not there yet.
                    if lost.is_none() {
                        self.trust();
                    }
                }
                Some(News::Lost) => {
                    telemetry::changes_heard(false);
                    lost = Some(Instant::now());
                }
                Some(News::Found) => {
                    telemetry::changes_heard(true);
                    lost = None;
                    self.trust();
                }
                None => return,
            }
        }
    }

    /// The next news. If they have been lost for too long, that is told meanwhile.
    async fn next(&mut self, lost: Option<Instant>) -> Option<News> {
        if let Some(since) = lost
            && !self.tenancy.doubts_keys()
        {
            let heard = timeout_at(since + PATIENCE, self.feed.next()).await;
            if let Ok(news) = heard {
                return news;
            }
            self.doubt();
        }
        self.feed.next().await
    }

    /// Takes a change in, however often it takes.
    async fn take_in(&self, change: &Change, since: Instant) {
        let mut pause = FIRST_PAUSE;
        let begun = Instant::now();
        loop {
            match self.try_to_take_in(change).await {
                Ok(()) => return telemetry::change_taken_in(begun.elapsed()),
                Err(store::Error::Unavailable(reason)) => {
                    tracing::debug!(tenant.id = %change.tenant, reason, "a change is read again");
                }
                Err(store::Error::Closed) => return,
                Err(error) => {
                    // Another attempt would fare no better.
                    return tracing::error!(
                        tenant.id = %change.tenant, %error,
                        "what another server has changed cannot be taken in"
                    );
                }
            }
            if since.elapsed() > PATIENCE && !self.tenancy.doubts_keys() {
                self.doubt();
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_to_take_in(&self, change: &Change) -> Result<(), store::Error> {
        let Change { tenant, subject } = change;
        self.tenancy.take_in(tenant, subject).await?;
        self.catalog.take_in(tenant, subject).await?;
        // Whoever has it in memory already, its schedules may not be in force here.
        let entries = match subject {
            Subject::Application(name) => {
                let entry = self.catalog.application(tenant, name);
                entry.into_iter().collect()
            }
            Subject::Tenant => self.catalog.applications(tenant),
            Subject::Keys | Subject::Pauses | Subject::Activity(_) => Vec::new(),
        };
        for entry in entries {
            self.schedules.applied(entry.schedules(tenant)).await;
        }
        Ok(())
    }

    fn doubt(&self) {
        tracing::error!(
            "for {} s nobody has told what other servers change: this one is not ready",
            PATIENCE.as_secs()
        );
        self.tenancy.doubt_keys(true);
    }

    fn trust(&self) {
        if self.tenancy.doubts_keys() {
            self.tenancy.doubt_keys(false);
            tracing::info!("what other servers change is known again");
        }
    }
}
