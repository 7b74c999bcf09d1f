//! Contents as blocks in a store that many servers share: any of them reads what any has
//! written. No more than a block is in memory.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use cascade_cdl::TenantId;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::store::{self, BLOCK_BYTES, ContentId, Contents, KeptContent, Store};

/// A store that keeps contents. A handle.
#[derive(Clone)]
pub(super) struct Rows(Arc<dyn Store>);

impl Rows {
    /// If the store keeps contents.
    pub(super) fn of(store: &Arc<dyn Store>) -> Option<Self> {
        store.contents()?;
        Some(Self(Arc::clone(store)))
    }

    pub(super) fn store(&self) -> &dyn Contents {
        let contents = self.0.contents();
        contents.expect("a store that keeps contents goes on to")
    }

    pub(super) fn begin(&self, tenant: &TenantId) -> RowsDraft {
        RowsDraft {
            rows: self.clone(),
            tenant: tenant.clone(),
            id: ContentId(Uuid::now_v7()),
            state: State::New,
            block: Vec::new(),
            number: 0,
        }
    }

    /// The content with this digest, if it is here.
    pub(super) async fn find(
        &self,
        tenant: &TenantId,
        digest: &str,
    ) -> Result<Option<RowsReader>, store::Error> {
        let found = self.store().content(tenant, digest).await?;
        Ok(found.map(|content| RowsReader {
            rows: self.clone(),
            tenant: tenant.clone(),
            content,
            runtime: Handle::current(),
            at: 0,
            block: None,
        }))
    }
}

/// A content that is being written. Dropped, it never was.
pub(super) struct RowsDraft {
    rows: Rows,
    tenant: TenantId,
    id: ContentId,
    state: State,
    /// What has come since the last block.
    block: Vec<u8>,
    number: u64,
}

enum State {
    /// The store knows nothing of it.
    New,
    /// It is in the store, and has to be kept or given up.
    Begun,
    /// It is kept.
    Kept,
}

impl RowsDraft {
    pub(super) fn id(&self) -> ContentId {
        self.id
    }

    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), store::Error> {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK_BYTES {
                self.write_block().await?;
            }
        }
        Ok(())
    }

    /// Writes what is left.
    pub(super) async fn finish(&mut self) -> Result<(), store::Error> {
        if self.block.is_empty() {
            return self.begin().await; // of an empty content there is no block
        }
        self.write_block().await
    }

    /// Leaves it to the store: it was kept, or ended there.
    pub(super) fn kept(mut self) {
        self.state = State::Kept;
    }

    async fn begin(&mut self) -> Result<(), store::Error> {
        if matches!(self.state, State::New) {
            // Before the answer: it may be lost.
            self.state = State::Begun;
            self.rows
                .store()
                .begin_content(&self.tenant, self.id)
                .await?;
        }
        Ok(())
    }

    async fn write_block(&mut self) -> Result<(), store::Error> {
        self.begin().await?;
        let store = self.rows.store();
        let block = store.add_block(&self.tenant, self.id, self.number, &self.block);
        block.await?;
        self.number += 1;
        self.block.clear();
        Ok(())
    }
}

impl Drop for RowsDraft {
    fn drop(&mut self) {
        // Where there is no runtime any more, it is swept when it has been idle for long.
        if matches!(self.state, State::Begun)
            && let Ok(runtime) = Handle::try_current()
        {
            let (rows, tenant, id) = (self.rows.clone(), self.tenant.clone(), self.id);
            runtime.spawn(async move {
                // At once, or who begins much and ends nothing would fill the database.
                let mut swept = rows.store().drop_content(&tenant, id).await.map(|()| true);
                while let Ok(true) = swept {
                    swept = rows.store().sweep_contents().await;
                }
                if let Err(error) = swept {
                    tracing::debug!(tenant.id = %tenant, %error, "a draft is left to be swept");
                }
            });
        }
    }
}

/// Reads a content, where waiting is allowed: never in a task.
pub(super) struct RowsReader {
    rows: Rows,
    tenant: TenantId,
    content: KeptContent,
    runtime: Handle,
    at: u64,
    /// The one that was read last, by its number.
    block: Option<(u64, Bytes)>,
}

impl RowsReader {
    /// The block with a number.
    fn block(&mut self, number: u64) -> io::Result<&[u8]> {
        if self.block.as_ref().is_none_or(|(at, _)| *at != number) {
            let store = self.rows.store();
            let block = store.block(&self.tenant, self.content.id, number);
            let block = self.runtime.block_on(block).map_err(io::Error::other)?;
            let gone = || io::Error::new(io::ErrorKind::NotFound, "the content has gone meanwhile");
            self.block = Some((number, block.ok_or_else(gone)?));
        }
        let block = self.block.as_ref();
        Ok(block.map_or(&[], |(_, bytes)| &bytes[..]))
    }
}

impl Read for RowsReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.content.size || buffer.is_empty() {
            return Ok(0);
        }
        let size = BLOCK_BYTES as u64;
        let (number, from) = (self.at / size, self.at % size);
        let block = self.block(number)?;
        let rest = usize::try_from(from)
            .ok()
            .and_then(|from| block.get(from..));
        let rest = rest.filter(|rest| !rest.is_empty()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a block is shorter than it was",
            )
        })?;
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for RowsReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.content.size, by),
            SeekFrom::Current(by) => (self.at, by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "before the beginning");
        self.at = from.checked_add_signed(by).ok_or_else(before)?;
        Ok(self.at)
    }
}
