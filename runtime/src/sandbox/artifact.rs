//! Compiled modules on disk.
//!
//! An artifact is native code, and whoever can write the cache could run
//! anything. So a cache is untrusted input: each file carries a MAC under a key
//! that only this server has, over all that decides whether the code may run
//! here: whose it is, which module, which compiler settings, which machine.
//! The bytes that were verified are the bytes that are loaded. A file that does
//! not verify is compiled again. A crash leaves a temporary file at worst.

use std::fs::{self, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cascade_cdl::TenantId;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use wasmtime::Engine;

use super::compile::Compiled;
use super::inspect::ModuleInfo;

/// First bytes of a file, and of what the MAC is over: no other use of the key
/// can be mistaken for this one. The number is that of the checks which a module
/// passed when it was compiled; one that passed fewer is compiled again.
const DOMAIN: &[u8] = b"cascade artifact 2\n";
const MAC_LEN: usize = 32;
const KEY_LEN: usize = 32;
/// Largest file that is read, the same as the largest artifact with its head.
const MAX_FILE: u64 = 1 << 30;

/// The artifacts of this server.
pub(super) struct ArtifactCache {
    root: PathBuf,
    key: [u8; KEY_LEN],
    /// Compiler version and settings, and the machine.
    environment: Vec<u8>,
}

impl ArtifactCache {
    /// Opens the cache in `data_dir`, making folder and key if need be.
    pub(super) fn open(data_dir: &Path, engine: &Engine) -> io::Result<Self> {
        let root = data_dir.join("artifacts");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)?;
        let key = load_or_make_key(&data_dir.join("artifact.key"))?;
        let mut hasher = fnv::FnvHasher::default();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let environment = format!(
            "{:016x} {}-{}",
            hasher.finish(),
            std::env::consts::ARCH,
            std::env::consts::OS
        );
        Ok(Self {
            root,
            key,
            environment: environment.into_bytes(),
        })
    }

    /// The artifact of a module, if there is one that verifies.
    pub(super) fn load(&self, tenant: &TenantId, digest: &str) -> Option<Compiled> {
        let path = self.path(tenant, digest);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(tenant.id = %tenant, module = digest, %error, "cannot read an artifact; compiling again");
                return None;
            }
        };
        let compiled = self.open_sealed(tenant, digest, bytes);
        if compiled.is_none() {
            tracing::warn!(
                tenant.id = %tenant,
                module = digest,
                "an artifact is damaged, foreign, or of another version; compiling again"
            );
        }
        compiled
    }

    /// Keeps an artifact.
    pub(super) fn store(&self, tenant: &TenantId, compiled: &Compiled) -> io::Result<()> {
        let digest = &compiled.info.digest;
        let path = self.path(tenant, digest);
        let folder = path
            .parent()
            .expect("an artifact is in its tenant's folder");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let head = serde_json::to_vec(&compiled.info)?;
        let head_len = u32::try_from(head.len()).map_err(io::Error::other)?;
        let mac = self
            .mac(tenant, digest, &head, &compiled.artifact)
            .finalize()
            .into_bytes();
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(DOMAIN)?;
        file.write_all(&mac)?;
        file.write_all(&head_len.to_le_bytes())?;
        file.write_all(&head)?;
        file.write_all(&compiled.artifact)?;
        // No fsync: a file that a crash cuts short does not verify.
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes an artifact, if there is one.
    pub(super) fn remove(&self, tenant: &TenantId, digest: &str) -> io::Result<()> {
        match fs::remove_file(self.path(tenant, digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, tenant: &TenantId, digest: &str) -> PathBuf {
        self.root
            .join(tenant.as_str())
            .join(format!("{digest}.cwasm"))
    }

    fn open_sealed(&self, tenant: &TenantId, digest: &str, mut bytes: Vec<u8>) -> Option<Compiled> {
        let rest = bytes.strip_prefix(DOMAIN)?;
        let (mac, rest) = rest.split_first_chunk::<MAC_LEN>()?;
        let (head_len, rest) = rest.split_first_chunk::<4>()?;
        let (head, artifact) = rest.split_at_checked(u32::from_le_bytes(*head_len) as usize)?;
        self.mac(tenant, digest, head, artifact)
            .verify_slice(mac)
            .ok()?;
        let info: ModuleInfo = serde_json::from_slice(head).ok()?;
        let artifact = bytes.split_off(bytes.len() - artifact.len());
        Some(Compiled { info, artifact })
    }

    fn mac(&self, tenant: &TenantId, digest: &str, head: &[u8], artifact: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes any key");
        mac.update(DOMAIN);
        for field in [
            tenant.as_str().as_bytes(),
            digest.as_bytes(),
            &self.environment,
            head,
            artifact,
        ] {
            // With its length, or bytes could move from one field to the next.
            mac.update(&(field.len() as u64).to_le_bytes());
            mac.update(field);
        }
        mac
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The key in `path`, made if it is not there. Two servers that start at the
/// same time on one folder agree on one key: the link is atomic.
fn load_or_make_key(path: &Path) -> io::Result<[u8; KEY_LEN]> {
    if !path.exists() {
        let folder = path.parent().expect("the key is in the data folder");
        let fresh = folder.join(format!(".artifact.key.{}", uuid::Uuid::new_v4()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        let mut key = [0; KEY_LEN];
        super::host::fill_random(&mut key)?;
        file.write_all(&key)?;
        file.sync_all()?;
        let linked = fs::hard_link(&fresh, path);
        fs::remove_file(&fresh)?;
        if let Err(error) = linked
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
    }
    let bytes = fs::read(path)?;
    bytes.try_into().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} must hold {KEY_LEN} bytes; remove it to make a new one",
                path.display()
            ),
        )
    })
}
