//! What a batch does to what is stored, and what it is checked against.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use cascade_cdl::{ExecutionId, TenantId};

use super::super::{
    ApplicationVersion, Commit, CommitError, Epoch, Error, HumanTask, KvQuota, KvUsage, Lease,
    ShardId, TaskChanges, View,
};
use super::{Row, State};

impl State {
    /// Refuses who does not hold a shard any more.
    pub(super) fn fence(&self, lease: &Lease) -> Result<(), CommitError> {
        let held = self.leases.get(&lease.shard).copied().unwrap_or(Epoch(0));
        if held != lease.epoch {
            return Err(CommitError::LeaseLost {
                shard: lease.shard,
                held,
                presented: lease.epoch,
            });
        }
        Ok(())
    }

    pub(super) fn raise(&mut self, shard: ShardId) -> Lease {
        let epoch = self.leases.entry(shard).or_insert(Epoch(0));
        epoch.0 += 1;
        let epoch = *epoch;
        Lease { shard, epoch }
    }

    pub(super) fn lay_out(&mut self, count: u32) {
        if self.cluster.lay_out(count) {
            self.leases.values_mut().for_each(|epoch| epoch.0 += 1);
        }
    }

    pub(super) fn view(&self) -> View {
        let epoch = |shard| self.leases.get(&shard).copied().unwrap_or(Epoch(0));
        self.cluster.view(epoch)
    }

    /// Finds what forbids a batch, before anything is written.
    pub(super) fn check(&self, lease: &Lease, batch: &[Commit]) -> Result<(), CommitError> {
        self.fence(lease)?;
        let mut moved = BTreeMap::new();
        for commit in batch {
            let key = (commit.summary.tenant.clone(), commit.summary.id);
            let stored = self
                .executions
                .get(&key)
                .map_or(0, |row| row.summary.version);
            let actual = moved.get(&key).copied().unwrap_or(stored);
            if actual != commit.expected {
                return Err(CommitError::Conflict {
                    execution: commit.summary.id,
                    expected: commit.expected,
                    actual,
                });
            }
            moved.insert(key, commit.summary.version);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, batch: Vec<Commit>) {
        if batch.is_empty() {
            return;
        }
        self.counters.commits += 1;
        for commit in batch {
            self.counters.executions += 1;
            self.counters.events += commit.events.len() as u64;
            let key = (commit.summary.tenant.clone(), commit.summary.id);
            self.change_tasks(&key, &commit.tasks);
            let row = match self.executions.entry(key) {
                Entry::Occupied(row) => row.into_mut(),
                Entry::Vacant(vacant) => {
                    self.order.push(vacant.key().clone());
                    vacant.insert(Row::new(self.order.len() as u64, &commit.summary))
                }
            };
            row.append(commit);
        }
    }

    pub(super) fn change_tasks(&mut self, of: &(TenantId, ExecutionId), changes: &TaskChanges) {
        let is = |task: &HumanTask, number| {
            (&task.tenant, task.execution, task.task) == (&of.0, of.1, number)
        };
        self.tasks
            .retain(|_, task| !changes.gone.iter().any(|gone| is(task, *gone)));
        for asked in &changes.asked {
            let mut there = self.tasks.values_mut();
            if let Some(task) = there.find(|task| is(task, asked.task)) {
                *task = asked.clone();
            } else {
                self.last_task += 1;
                self.tasks.insert(self.last_task, asked.clone());
            }
        }
    }

    pub(super) fn put_value(
        &mut self,
        key: (TenantId, String),
        value: Bytes,
        quota: KvQuota,
    ) -> Result<(), Error> {
        let before = self.kv_usage(&key.0);
        let old = self.kv.insert(key.clone(), value);
        let kept = quota.check(before, self.kv_usage(&key.0));
        match (&kept, old) {
            (Ok(()), _) => self.counters.commits += 1,
            (Err(_), Some(old)) => drop(self.kv.insert(key, old)),
            (Err(_), None) => drop(self.kv.remove(&key)),
        }
        kept
    }

    /// Counted anew each time: it cannot be out of step with what is there.
    pub(super) fn kv_usage(&self, tenant: &TenantId) -> KvUsage {
        let own = self.kv.iter().filter(|((of, _), _)| of == tenant);
        own.fold(KvUsage::default(), |usage, ((_, key), value)| KvUsage {
            keys: usage.keys + 1,
            bytes: usage.bytes + (key.len() + value.len()) as u64,
        })
    }

    pub(super) fn put_application(
        &mut self,
        tenant: &TenantId,
        mut application: ApplicationVersion,
        expected: Option<u32>,
    ) -> Result<ApplicationVersion, u32> {
        let key = (tenant.clone(), application.name.clone());
        let versions = self.applications.get(&key);
        let newest = versions
            .and_then(|versions| versions.last())
            .map_or(0, |newest| newest.version);
        if expected.is_some_and(|expected| expected != newest) {
            return Err(newest);
        }
        application.version = newest + 1;
        let versions = self.applications.entry(key).or_default();
        versions.push(application.clone());
        Ok(application)
    }

    pub(super) fn delete_key(&mut self, tenant: &TenantId, id: &str) -> bool {
        let own = self.keys.get(id).is_some_and(|key| key.tenant == *tenant);
        own && self.keys.remove(id).is_some()
    }
}
