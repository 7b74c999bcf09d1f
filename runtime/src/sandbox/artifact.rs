//! Compiled modules on disk.
//!
//! An artifact is native code, and whoever can write the cache could run
//! anything. So a cache is untrusted input: each file carries a MAC under a key
//! that only this server has, over all that decides whether the code may run
//! here: whose it is, which module, which compiler settings, which machine.
//! The bytes that were verified are the bytes that are loaded. A file that does
//! not verify is compiled again. A crash leaves a temporary file at worst.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

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

/// Most bytes of all artifacts: as many as a hundred Python activities take, or
/// forty thousand small ones. What is beyond is compiled again when it runs.
const MAX_FOLDER: u64 = 8 << 30;

/// The artifacts of this server.
pub(super) struct ArtifactCache {
    root: PathBuf,
    key: [u8; KEY_LEN],
    /// Bytes of all artifacts, or more: what is replaced or removed counts until
    /// the folder is looked at again.
    bytes: Mutex<u64>,
    most: u64,
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
            bytes: Mutex::new(artifacts(&root)?.iter().map(|found| found.bytes).sum()),
            most: MAX_FOLDER,
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
        let file = file.persist(&path).map_err(|error| error.error)?;
        self.make_room(&path, file.metadata()?.len())
    }

    /// Counts a new artifact, and removes others if there are too many: of the
    /// tenant that has most, the one that was used longest ago.
    fn make_room(&self, newest: &Path, len: u64) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *bytes = bytes.saturating_add(len);
        if *bytes <= self.most {
            return Ok(());
        }
        let mut found = artifacts(&self.root)?;
        found.sort_by_key(|artifact| artifact.used);
        let mut tenants: HashMap<PathBuf, u64> = HashMap::new();
        for artifact in &found {
            *tenants.entry(artifact.tenant.clone()).or_default() += artifact.bytes;
        }
        *bytes = tenants.values().sum();
        found.retain(|artifact| artifact.path != newest);
        while *bytes > self.most && !found.is_empty() {
            // The first of the greatest, so the oldest: `min_by_key` takes the first.
            let victim = found.iter().enumerate();
            let victim = victim.min_by_key(|(_, artifact)| Reverse(tenants[&artifact.tenant]));
            let (at, _) = victim.expect("there are some");
            let victim = found.remove(at);
            fs::remove_file(&victim.path)?;
            *bytes -= victim.bytes;
            if let Some(held) = tenants.get_mut(&victim.tenant) {
                *held -= victim.bytes;
            }
        }
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
    let file = fs::File::open(path)?;
    // Who makes room looks at this; where it cannot be set, the oldest goes.
    let _ = file.set_modified(SystemTime::now());
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An artifact in the folder.
struct Found {
    path: PathBuf,
    /// The folder of its tenant.
    tenant: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// All artifacts below `root`.
fn artifacts(root: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for tenant in fs::read_dir(root)? {
        let tenant = tenant?.path();
        if !tenant.is_dir() {
            continue;
        }
        for file in fs::read_dir(&tenant)? {
            let path = file?.path();
            // Another thread may have removed it, or not named it yet.
            if path
                .extension()
                .is_some_and(|extension| extension == "cwasm")
                && let Ok(metadata) = path.metadata()
            {
                found.push(Found {
                    bytes: metadata.len(),
                    used: metadata.modified()?,
                    tenant: tenant.clone(),
                    path,
                });
            }
        }
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("valid")
    }

    fn compiled(digest: &str) -> Compiled {
        let info = format!(
            r#"{{"digest": "{digest}", "size": 1, "kind": "handler", "imports": [], "exports": [],
                "powers": [], "componentized": false}}"#
        );
        Compiled {
            info: serde_json::from_str(&info).expect("a description"),
            artifact: vec![0; 10_000],
        }
    }

    #[test]
    fn the_folder_is_bounded_and_who_has_most_makes_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cache = ArtifactCache::open(folder.path(), &Engine::default()).expect("opens");
        cache.most = 45_000; // four of them
        let (a, b) = (tenant("a"), tenant("b"));
        let store = |tenant, digest: &str, seconds| {
            cache.store(tenant, &compiled(digest)).expect("stored");
            let file = fs::File::open(cache.path(tenant, digest)).expect("there");
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(at).expect("ours");
        };
        store(&b, "1", 1);
        store(&a, "1", 2);
        store(&a, "2", 3);
        store(&a, "3", 4);
        assert!(cache.load(&a, "1").is_some(), "used, and so the newest");
        store(&a, "4", 5);
        let has = |tenant, digest: &str| cache.path(tenant, digest).exists();
        assert!(has(&b, "1"), "the oldest, but of a tenant with one");
        assert!(!has(&a, "2") && has(&a, "1") && has(&a, "3") && has(&a, "4"));

        let again = ArtifactCache::open(folder.path(), &Engine::default()).expect("opens");
        assert_eq!(
            *again.bytes.lock().expect("free"),
            *cache.bytes.lock().expect("free")
        );
    }
}
