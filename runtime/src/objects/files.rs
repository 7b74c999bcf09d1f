//! Contents as files, for a store that is a file beside them.
//!
//! A content is written under a temporary name, synced, moved to its place, and only then
//! does a row name it; it goes when no row of its tenant does. A crash in between leaves a
//! file that nobody names, which the next upload of the same content takes over.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cascade_cdl::TenantId;
use sha2::{Digest, Sha256};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

use super::{hex, is_digest};

/// Permission of folders and files: what tenants keep is nobody else's on the machine.
const FOLDER_MODE: u32 = 0o700;

/// Where half-written contents are.
const TEMPORARY: &str = "tmp";

/// A folder of contents: `TENANT/dd/DIGEST`, the tenant hashed, too.
pub(super) struct Files {
    folder: PathBuf,
}

/// A content that is being written. Dropped, it never was.
pub(super) struct FileDraft {
    file: tokio::fs::File,
    path: TempPath,
}

impl Files {
    /// Those of a folder, which is made if need be.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let temporary = folder.join(TEMPORARY);
        // What a crash left half written.
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        make_folder(&temporary)?;
        let folder = folder.to_owned();
        Ok(Self { folder })
    }

    /// Those of a folder, if it has any.
    pub(super) fn left_in(folder: &Path) -> io::Result<Option<Self>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        for entry in entries {
            if entry?.file_name() != TEMPORARY {
                let folder = folder.to_owned();
                return Ok(Some(Self { folder }));
            }
        }
        Ok(None)
    }

    pub(super) fn begin(&self) -> io::Result<FileDraft> {
        let file = tempfile::NamedTempFile::new_in(self.folder.join(TEMPORARY))?;
        let (file, path) = file.into_parts();
        let file = tokio::fs::File::from_std(file);
        Ok(FileDraft { file, path })
    }

    /// The content with this digest, if it is here.
    pub(super) fn find(&self, tenant: &TenantId, digest: &str) -> io::Result<Option<File>> {
        let Some(path) = self.path(tenant, digest) else {
            return Ok(None);
        };
        match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a content its place, durably; says whether it was not there.
    pub(super) async fn keep(
        &self,
        tenant: &TenantId,
        draft: FileDraft,
        digest: &str,
    ) -> io::Result<bool> {
        let path = self.path(tenant, digest);
        let path = path.ok_or_else(|| io::Error::other("a digest is one"))?;
        let folder = path.parent().unwrap_or(&self.folder).to_owned();
        blocking(move || {
            let is_new = !path.exists();
            if is_new {
                make_folder(&folder)?;
                draft.path.persist(&path).map_err(|error| error.error)?;
                // Its place is durable before a row names it.
                File::open(&folder)?.sync_all()?;
            }
            Ok(is_new)
        })
        .await
    }

    /// Removes a content that nobody names. One that stays takes room and nothing else.
    pub(super) async fn remove(&self, tenant: &TenantId, digest: &str) {
        let Some(path) = self.path(tenant, digest) else {
            return;
        };
        match blocking(move || fs::remove_file(path)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(tenant.id = %tenant, %error, "a content that nobody names stays");
            }
            _ => {}
        }
    }

    /// The digests of the contents of a tenant.
    pub(super) async fn digests(&self, tenant: &TenantId) -> io::Result<Vec<String>> {
        let folder = self.folder(tenant);
        blocking(move || {
            let mut digests = Vec::new();
            if !folder.exists() {
                return Ok(digests);
            }
            for part in fs::read_dir(folder)? {
                for file in fs::read_dir(part?.path())? {
                    let name = file?.file_name().into_string();
                    digests.extend(name.ok().filter(|name| is_digest(name)));
                }
            }
            Ok(digests)
        })
        .await
    }

    /// Where a content is; `None` for what is no digest.
    fn path(&self, tenant: &TenantId, digest: &str) -> Option<PathBuf> {
        is_digest(digest).then(|| self.folder(tenant).join(&digest[..2]).join(digest))
    }

    fn folder(&self, tenant: &TenantId) -> PathBuf {
        let tenant = hex(&Sha256::digest(tenant.as_str().as_bytes()));
        self.folder.join(tenant)
    }
}

impl FileDraft {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await
    }

    /// Makes it durable under its temporary name.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await
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
