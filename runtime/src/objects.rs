//! Objects of tenants: inputs and results of Maps, too large for a history.
//!
//! Owns the contents: files in the data folder, named by tenant and SHA-256, so that no
//! name that somebody gives becomes a path. Which object has which content is a row of the
//! store. A content is written under a temporary name, synced, moved to its place, and only
//! then does a row name it; it goes when no row of its tenant does. A crash in between
//! leaves a file that nobody names, which the next upload of the same content takes over.
//!
//! Tenants share nothing, not even equal contents: how long an upload takes says nothing
//! about what others have.

pub mod cut;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_cdl::{TenantId, Timestamp};
use sha2::{Digest, Sha256};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::change::to_its_end;
use crate::store::{self, Object, ObjectKey, Replaced, Store};

/// Longest name of a bucket, in bytes (that of S3).
const MAX_BUCKET: usize = 63;

/// Longest key, in bytes: it is part of an index.
const MAX_KEY: usize = 512;

/// Largest object, whatever the quota: what S3 takes in one request.
pub const MAX_OBJECT_BYTES: u64 = 5 << 30;

/// Permission of folders and files: what tenants keep is nobody else's on the machine.
const FOLDER_MODE: u32 = 0o700;

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
    folder: PathBuf,
    store: Arc<dyn Store>,
    quota: Quota,
    /// Held while rows and files change together, or a content could go that another
    /// request is about to name.
    change: Mutex<()>,
}

impl Objects {
    /// The objects in a folder, which is made if need be.
    pub fn open(folder: &Path, store: Arc<dyn Store>, quota: Quota) -> Result<Self, Error> {
        let temporary = folder.join("tmp");
        // What a crash left half written.
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        make_folder(&temporary)?;
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            store,
            quota,
            change: Mutex::default(),
        })))
    }

    /// Begins to write a content of a tenant's.
    pub fn upload(&self, tenant: &TenantId) -> Result<Upload, Error> {
        let limit = (self.0.quota)(tenant).min(MAX_OBJECT_BYTES);
        let file = tempfile::NamedTempFile::new_in(self.0.folder.join("tmp"))?;
        let (file, path) = file.into_parts();
        Ok(Upload {
            objects: self.clone(),
            tenant: tenant.clone(),
            file: tokio::fs::File::from_std(file),
            path,
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
    ) -> Result<Option<(Object, Option<File>)>, Error> {
        for is_last in [false, true] {
            let Some(object) = self.get(tenant, name).await? else {
                break;
            };
            let file = self.content(tenant, &object.digest)?;
            if is_last || file.is_some() {
                return Ok(Some((object, file)));
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
        let _changing = self.0.change.lock().await;
        let gone = self.0.store.delete_object(tenant, name).await?;
        if let Some(Replaced { orphan }) = &gone {
            self.let_go(tenant, orphan.as_deref()).await;
        }
        Ok(gone.is_some())
    }

    /// The content with this digest; `None` if no object of the tenant has it any more.
    pub fn content(&self, tenant: &TenantId, digest: &str) -> Result<Option<File>, Error> {
        let Some(path) = self.path(tenant, digest) else {
            return Ok(None);
        };
        match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a content is; `None` for what is no digest.
    fn path(&self, tenant: &TenantId, digest: &str) -> Option<PathBuf> {
        let is_digest = digest.len() == 64 && digest.bytes().all(|c| c.is_ascii_hexdigit());
        is_digest.then(|| self.folder(tenant).join(&digest[..2]).join(digest))
    }

    fn folder(&self, tenant: &TenantId) -> PathBuf {
        let tenant = hex(&Sha256::digest(tenant.as_str().as_bytes()));
        self.0.folder.join(tenant)
    }

    /// Removes a content that nobody names. One that stays takes room and nothing else.
    async fn let_go(&self, tenant: &TenantId, digest: Option<&str>) {
        let path = digest.and_then(|digest| self.path(tenant, digest));
        if let Some(path) = path
            && let Err(error) = blocking(move || fs::remove_file(path)).await
        {
            tracing::warn!(tenant.id = %tenant, %error, "a content that nobody names stays");
        }
    }

    /// Gives a content its place and its row. Dropped halfway, it would leave a content that
    /// no row names, and nobody counts.
    async fn place(
        &self,
        tenant: &TenantId,
        temporary: TempPath,
        object: Object,
    ) -> Result<Object, Error> {
        let _changing = self.0.change.lock().await;
        let path = self.path(tenant, &object.digest);
        let path = path.ok_or_else(|| io::Error::other("a digest is one"))?;
        let folder = path.parent().unwrap_or(&self.0.folder).to_owned();
        let is_new = blocking(move || {
            let is_new = !path.exists();
            if is_new {
                make_folder(&folder)?;
                temporary.persist(&path).map_err(|error| error.error)?;
                // Its place is durable before a row names it.
                File::open(&folder)?.sync_all()?;
            }
            Ok(is_new)
        })
        .await?;
        let quota = (self.0.quota)(tenant);
        match self.0.store.put_object(tenant, object.clone(), quota).await {
            Ok(Replaced { orphan }) => {
                self.let_go(tenant, orphan.as_deref()).await;
                Ok(object)
            }
            Err(error @ store::Error::ObjectQuota { .. }) => {
                if is_new {
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
    file: tokio::fs::File,
    path: TempPath,
    hash: Sha256,
    size: u64,
    limit: u64,
}

impl Upload {
    /// Appends to it.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        if self.size > self.limit {
            return Err(Error::TooLarge(self.limit));
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).await?;
        Ok(())
    }

    /// Gives it a name; what has the name is replaced.
    pub async fn finish(mut self, name: ObjectKey, now: Timestamp) -> Result<Object, Error> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        let object = Object {
            name,
            digest: hex(&self.hash.finalize()),
            size: self.size,
            created_at: now,
        };
        let (objects, tenant, path) = (self.objects, self.tenant, self.path);
        to_its_end(async move { objects.place(&tenant, path, object).await }).await
    }
}

/// Does what waits for the disk where no task waits with it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::store::ModelStore;

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("valid")
    }

    fn open(folder: &Path, quota: u64) -> Objects {
        let store = Arc::new(ModelStore::new());
        Objects::open(folder, store, Arc::new(move |_| quota)).expect("opens")
    }

    fn read(objects: &Objects, of: &str, digest: &str) -> Option<String> {
        let file = objects.content(&tenant(of), digest).expect("reads");
        file.map(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text).expect("text");
            text
        })
    }

    fn files(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).expect("a folder");
        entries
            .map(|entry| entry.expect("readable").path())
            .map(|path| if path.is_dir() { files(&path) } else { 1 })
            .sum()
    }

    #[tokio::test]
    async fn a_content_stays_as_long_as_an_object_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = open(folder.path(), 1 << 30);
        let acme = tenant("acme");
        let [a, b] = ["a", "b"].map(|key| name("in", key).expect("valid"));
        let first = objects.put(&acme, a.clone(), b"one", Timestamp(1)).await;
        let digest = first.expect("fits").digest;
        for (name, content) in [(&b, b"one"), (&a, b"two")] {
            let put = objects.put(&acme, name.clone(), content, Timestamp(2));
            put.await.expect("fits");
        }
        assert_eq!(read(&objects, "acme", &digest).as_deref(), Some("one"));
        assert!(objects.delete(&acme, &b).await.expect("deletes"));
        assert_eq!(read(&objects, "acme", &digest), None);
        assert!(objects.delete(&acme, &a).await.expect("deletes"));
        assert!(!objects.delete(&acme, &a).await.expect("answers"));
        assert_eq!(files(folder.path()), 0);
    }

    #[tokio::test]
    async fn who_knows_a_digest_of_another_tenant_has_nothing_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = open(folder.path(), 1 << 30);
        let here = name("in", "a").expect("valid");
        let acme = tenant("acme");
        let put = objects.put(&acme, here.clone(), b"secret", Timestamp(1));
        let digest = put.await.expect("fits").digest;
        assert_eq!(read(&objects, "rival", &digest), None);
        for odd in ["", "..", "../../x", &format!("../{}", &digest[3..])] {
            assert_eq!(read(&objects, "acme", odd), None, "{odd}");
        }
        let found = objects.get(&tenant("rival"), &here).await.expect("reads");
        assert!(found.is_none());
    }

    #[tokio::test]
    async fn what_has_no_room_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = open(folder.path(), 1_100);
        let acme = tenant("acme");
        let here = |key: &str| name("in", key).expect("valid");
        let put = objects.put(&acme, here("a"), b"fits", Timestamp(1));
        put.await.expect("fits");
        let over = objects.put(&acme, here("b"), b"no", Timestamp(1)).await;
        assert!(
            matches!(over, Err(Error::Store(store::Error::ObjectQuota { .. }))),
            "{over:?}"
        );
        let over = objects.put(&acme, here("a"), &[0; 1_101], Timestamp(1));
        assert!(matches!(over.await, Err(Error::TooLarge(1_100))));
        drop(objects.upload(&acme).expect("begins"));
        assert_eq!(files(folder.path()), 1);
    }

    #[test]
    fn names_are_short_and_plain() {
        for bucket in ["", "A", "a/b", "..", ".a", "-a", "ä", &"a".repeat(64)] {
            assert!(name(bucket, "k").is_err(), "{bucket}");
        }
        for key in ["", "a\0b", "a\nb", &"a".repeat(513)] {
            assert!(name("b", key).is_err(), "{key}");
        }
        // Of a key nothing becomes a path.
        for key in ["../../etc/passwd", "/", "a b", "ü"] {
            assert!(name("my-bucket_1.x", key).is_ok(), "{key}");
        }
    }
}
