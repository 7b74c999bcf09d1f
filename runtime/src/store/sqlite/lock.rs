//! Keeps a second process off the data file.
//!
//! Much here rests on being the only writer: the fence in memory, the
//! group commit, the versions between check and write. SQLite's own locks are
//! held for a transaction only, so a file beside the data is locked for as long
//! as the store is open. The system drops the lock when the process dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::super::Error;

/// A process id has no more digits.
const HOLDER_BYTES: u64 = 20;

/// The lock; dropped, it is free.
#[derive(Debug)]
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    pub(super) fn take(data: &Path) -> Result<Self, Error> {
        let path = data.with_added_extension("lock");
        let failed = |error: std::io::Error| {
            Error::Unavailable(format!("cannot lock {}: {error}", path.display()))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false) // it says who holds it
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = file.take(HOLDER_BYTES).read_to_string(&mut holder);
                return Err(Error::InUse {
                    path: data.to_owned(),
                    holder: match read {
                        Ok(_) if !holder.is_empty() => holder,
                        _ => "unknown".to_owned(),
                    },
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let write = |file: &mut File| -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
