//! Objects of tenants: inputs and results of Maps, too large for a history.
//!
//! Owns the contents, which are named by tenant and SHA-256, so that no name that somebody
//! gives becomes a path. Which object has which content is a row of the store. Beside a
//! store that is a file, contents are files (`objects/files.rs`); in one that many servers share they
//! are in the store, where each of them finds them (`objects/rows.rs`). A content is durable before a
//! row names it, and goes when no row of its tenant does.
//!
//! Tenants share nothing, not even equal contents: how long an upload takes says nothing
//! about what others have.

pub mod cut;
mod files;
mod rows;

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use cascade_cdl::{TenantId, Timestamp};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Notify};

use self::files::{FileDraft, Files};
use self::rows::{Rows, RowsDraft, RowsReader};
use crate::change::to_its_end;
use crate::store::{self, Object, ObjectKey, READ_GRACE, Replaced, Store};

/// Longest name of a bucket, in bytes (that of S3).
const MAX_BUCKET: usize = 63;

/// Longest key, in bytes: it is part of an index.
const MAX_KEY: usize = 512;

/// Largest object, whatever the quota: what S3 takes in one request.
pub const MAX_OBJECT_BYTES: u64 = 5 << 30;

/// What is read of a file at a time when it is taken into the store.
const TAKEN_BYTES: usize = 64 << 10;

/// How many bytes of objects a tenant may have at the moment.
pub type Quota = Arc<dyn Fn(&TenantId) -> u64 + Send + Sync>;

/// Why something was not done with an object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "`{0}` is no name of a bucket: 1 to {MAX_BUCKET} characters of a-z, 0-9, `-`, `_` and `.`, \
         beginning with a letter or digit"
    )]
    Bucket(String),
    #[error("a key has 1 to {MAX_KEY} bytes, and no control characters")]
    Key,
    #[error("the object has more than {0} bytes, which is the most that one may have")]
    TooLarge(u64),
    #[error("cannot use the folder of objects: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A name that somebody gives to an object, if it can be one.
pub fn name(bucket: &str, key: &str) -> Result<ObjectKey, Error> {
    check_bucket(bucket)?;
    if key.is_empty() || key.len() > MAX_KEY || key.chars().any(char::is_control) {
        return Err(Error::Key);
    }
    Ok(ObjectKey {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    })
}

/// Refuses what cannot name a bucket.
pub fn check_bucket(bucket: &str) -> Result<(), Error> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = bucket.as_bytes();
    let fits = bucket.len() <= MAX_BUCKET
        && bytes.first().is_some_and(|first| plain(*first))
        && bytes.iter().all(|c| plain(*c) || b"-_.".contains(c));
    if fits {
        Ok(())
    } else {
        // What is not shown whole is not of use.
        let shown = bucket.chars().take(MAX_BUCKET).collect();
        Err(Error::Bucket(shown))
    }
}

/// The objects of all tenants. A handle.
#[derive(Clone)]
pub struct Objects(Arc<Inner>);

struct Inner {
    place: Place,
    store: Arc<dyn Store>,
    quota: Quota,
    /// Held while rows and files change together, or a content could go that another
    /// request is about to name.
    change: Mutex<()>,
    /// Told when a content has been let go.
    let_go: Notify,
}

/// Where contents are.
enum Place {
    Files(Files),
    Rows {
        rows: Rows,
        /// What an earlier release wrote before contents were in the store.
        earlier: Option<Files>,
    },
}

/// A content, from its beginning. Reading may wait for the disk or the store, so it is not
/// for tasks.
pub struct Content(Source);

enum Source {
    File(std::fs::File),
    Rows(RowsReader),
}

impl Objects {
    /// The objects of a store, with a folder for what it does not keep itself.
    pub fn open(folder: &Path, store: Arc<dyn Store>, quota: Quota) -> Result<Self, Error> {
        let place = match Rows::of(&store) {
            Some(rows) => Place::Rows {
                rows,
                earlier: Files::left_in(folder)?,
            },
            None => Place::Files(Files::open(folder)?),
        };
        Ok(Self(Arc::new(Inner {
            place,
            store,
            quota,
            change: Mutex::default(),
            let_go: Notify::new(),
        })))
    }

    /// Takes the files of an earlier release into the store, and removes from it what nobody
    /// reads any more, as long as it is let.
    pub async fn upkeep(&self, tenants: &[TenantId]) {
        let Place::Rows { rows, earlier } = &self.0.place else {
            return; // files are removed as they are let go
        };
        if let Some(files) = earlier {
            for tenant in tenants {
                if let Err(error) = take_in(rows, files, tenant).await {
                    tracing::error!(
                        tenant.id = %tenant, %error,
                        "contents of objects are still files of this server; the next start tries again"
                    );
                }
            }
        }
        loop {
            loop {
                match rows.store().sweep_contents().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "contents that nobody reads stay for now");
                        break;
                    }
                }
            }
            self.0.let_go.notified().await;
            tokio::time::sleep(READ_GRACE).await;
        }
    }

    /// Begins to write a content of a tenant's.
    pub fn upload(&self, tenant: &TenantId) -> Result<Upload, Error> {
        let limit = (self.0.quota)(tenant).min(MAX_OBJECT_BYTES);
        let draft = match &self.0.place {
            Place::Files(files) => Draft::File(files.begin()?),
            Place::Rows { rows, .. } => Draft::Rows(rows.begin(tenant)),
        };
        Ok(Upload {
            objects: self.clone(),
            tenant: tenant.clone(),
            draft,
            hash: Sha256::new(),
            size: 0,
            limit,
        })
    }

    /// Makes or replaces an object with a content that is at hand.
    pub async fn put(
        &self,
        tenant: &TenantId,
        name: ObjectKey,
        content: &[u8],
        now: Timestamp,
    ) -> Result<Object, Error> {
        let mut upload = self.upload(tenant)?;
        upload.write(content).await?;
        upload.finish(name, now).await
    }

    /// The object with a name.
    pub async fn get(&self, tenant: &TenantId, name: &ObjectKey) -> Result<Option<Object>, Error> {
        Ok(self.0.store.object(tenant, name).await?)
    }

    /// The object with a name, and its content, if that is there.
    ///
    /// Who replaces an object takes its content away between the two: so what is not there
    /// is looked for once more, by what the row says then.
    pub async fn find(
        &self,
        tenant: &TenantId,
        name: &ObjectKey,
    ) -> Result<Option<(Object, Option<Content>)>, Error> {
        for is_last in [false, true] {
            let Some(object) = self.get(tenant, name).await? else {
                break;
            };
            let content = self.content(tenant, &object.digest).await?;
            if is_last || content.is_some() {
                return Ok(Some((object, content)));
            }
        }
        Ok(None)
    }

    /// Objects of a bucket in the order of their keys.
    pub async fn list(
        &self,
        tenant: &TenantId,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Object>, Error> {
        let list = self.0.store.objects(tenant, bucket, prefix, after, limit);
        Ok(list.await?)
    }

    /// Removes an object; says whether it was there. Who reads it reads it to its end.
    pub async fn delete(&self, tenant: &TenantId, name: &ObjectKey) -> Result<bool, Error> {
        let (this, tenant, name) = (self.clone(), tenant.clone(), name.clone());
        to_its_end(async move { this.delete_wholly(&tenant, &name).await }).await
    }

    /// Dropped halfway, it would leave a content that no row names, and nobody counts.
    async fn delete_wholly(&self, tenant: &TenantId, name: &ObjectKey) -> Result<bool, Error> {
        let _changing = self.changing().await;
        let gone = self.0.store.delete_object(tenant, name).await?;
        if let Some(Replaced { orphan }) = &gone {
            self.let_go(tenant, orphan.as_deref()).await;
        }
        Ok(gone.is_some())
    }

    /// The content with this digest; `None` if no object of the tenant has it any more.
    pub async fn content(&self, tenant: &TenantId, digest: &str) -> Result<Option<Content>, Error> {
        if !is_digest(digest) {
            return Ok(None);
        }
        let of_file = |file| Content(Source::File(file));
        let of_rows = |reader| Content(Source::Rows(reader));
        match &self.0.place {
            Place::Files(files) => Ok(files.find(tenant, digest)?.map(of_file)),
            Place::Rows { rows, earlier } => {
                let found = rows.find(tenant, digest).await?;
                let (None, Some(files)) = (&found, earlier) else {
                    return Ok(found.map(of_rows));
                };
                if let Some(file) = files.find(tenant, digest)? {
                    return Ok(Some(of_file(file)));
                }
                // It may just have been taken into the store.
                Ok(rows.find(tenant, digest).await?.map(of_rows))
            }
        }
    }

    /// A store that keeps contents changes them together with its rows by itself.
    async fn changing(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        match self.0.place {
            Place::Files(_) => Some(self.0.change.lock().await),
            Place::Rows { .. } => None,
        }
    }

    /// Removes a content that nobody names. In a store that keeps contents it is on its way.
    async fn let_go(&self, tenant: &TenantId, digest: Option<&str>) {
        let Some(digest) = digest else { return };
        match &self.0.place {
            Place::Files(files) => files.remove(tenant, digest).await,
            Place::Rows { earlier, .. } => {
                if let Some(files) = earlier {
                    files.remove(tenant, digest).await;
                }
                self.0.let_go.notify_one();
            }
        }
    }

    /// Gives a content its place and its row. Dropped halfway, it would leave a content that
    /// no row names, and nobody counts.
    async fn place(
        &self,
        tenant: &TenantId,
        draft: Draft,
        object: Object,
    ) -> Result<Object, Error> {
        let _changing = self.changing().await;
        let quota = (self.0.quota)(tenant);
        let (put, is_new_file) = match (draft, &self.0.place) {
            (Draft::File(draft), Place::Files(files)) => {
                let is_new = files.keep(tenant, draft, &object.digest).await?;
                let put = self.0.store.put_object(tenant, object.clone(), quota);
                (put.await, is_new)
            }
            (Draft::Rows(draft), Place::Rows { rows, .. }) => {
                let store = rows.store();
                let put = store.put_content(tenant, draft.id(), object.clone(), quota);
                let put = put.await;
                if put.is_ok() {
                    draft.kept();
                }
                (put, false)
            }
            _ => unreachable!("a draft is begun where contents are"),
        };
        match put {
            Ok(Replaced { orphan }) => {
                self.let_go(tenant, orphan.as_deref()).await;
                Ok(object)
            }
            Err(error @ store::Error::ObjectQuota { .. }) => {
                if is_new_file {
                    self.let_go(tenant, Some(&object.digest)).await;
                }
                Err(error.into())
            }
            // Whether a row names it is not known.
            Err(error) => Err(error.into()),
        }
    }
}

/// A content that is being written. Dropped, it never was.
pub struct Upload {
    objects: Objects,
    tenant: TenantId,
    draft: Draft,
    hash: Sha256,
    size: u64,
    limit: u64,
}

enum Draft {
    File(FileDraft),
    Rows(RowsDraft),
}

impl Upload {
    /// Appends to it.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        if self.size > self.limit {
            return Err(Error::TooLarge(self.limit));
        }
        self.hash.update(bytes);
        match &mut self.draft {
            Draft::File(draft) => draft.write(bytes).await?,
            Draft::Rows(draft) => draft.write(bytes).await?,
        }
        Ok(())
    }

    /// Gives it a name; what has the name is replaced.
    pub async fn finish(mut self, name: ObjectKey, now: Timestamp) -> Result<Object, Error> {
        match &mut self.draft {
            Draft::File(draft) => draft.finish().await?,
            Draft::Rows(draft) => draft.finish().await?,
        }
        let object = Object {
            name,
            digest: hex(&self.hash.finalize()),
            size: self.size,
            created_at: now,
        };
        let (objects, tenant, draft) = (self.objects, self.tenant, self.draft);
        to_its_end(async move { objects.place(&tenant, draft, object).await }).await
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::File(file) => file.read(buffer),
            Source::Rows(rows) => rows.read(buffer),
        }
    }
}

impl Seek for Content {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.0 {
            Source::File(file) => file.seek(to),
            Source::Rows(rows) => rows.seek(to),
        }
    }
}

/// Takes the files of a tenant into the store. Each is removed when it is there, or if no
/// object has it; so it can be cut off at any point, and goes on with the rest.
async fn take_in(rows: &Rows, files: &Files, tenant: &TenantId) -> Result<(), Error> {
    for digest in files.digests(tenant).await? {
        let Some(file) = files.find(tenant, &digest)? else {
            continue;
        };
        let (mut draft, mut hash) = (rows.begin(tenant), Sha256::new());
        let mut file = tokio::fs::File::from_std(file);
        let mut part = vec![0; TAKEN_BYTES];
        loop {
            let length = tokio::io::AsyncReadExt::read(&mut file, &mut part).await?;
            if length == 0 {
                break;
            }
            hash.update(&part[..length]);
            draft.write(&part[..length]).await?;
        }
        draft.finish().await?;
        if hex(&hash.finalize()) != digest {
            tracing::error!(tenant.id = %tenant, digest, "a content is damaged, and stays a file");
            continue;
        }
        let store = rows.store();
        store.adopt_content(tenant, draft.id(), &digest).await?;
        draft.kept();
        files.remove(tenant, &digest).await;
    }
    Ok(())
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

#[cfg(test)]
mod tests;
