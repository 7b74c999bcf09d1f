//! Who this process was before it ended.
//!
//! A file in the data folder has the id of the last process that used the folder. Its lock says
//! that this process has ended; so what that one held can be given back at once, and a restart
//! need not wait for leases to end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use uuid::Uuid;

use crate::store::NodeId;

/// Longer than any id.
const MOST: u64 = 64;

/// The id of this process, and the lock that says that it lives.
pub struct Presence {
    pub id: NodeId,
    /// Who used the folder before, and has ended.
    pub before: Option<NodeId>,
    /// Locked for as long as this process lives; absent if another one uses the folder.
    _file: Option<File>,
}

impl Presence {
    /// Takes the folder over. Where another process uses it, this one is a node of its own all
    /// the same.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written.
    pub fn take(folder: &Path) -> io::Result<Self> {
        let id = NodeId(Uuid::new_v4());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("node"))?;
        if file.try_lock().is_err() {
            return Ok(Self {
                id,
                before: None,
                _file: None,
            });
        }
        let mut text = String::new();
        (&file).take(MOST).read_to_string(&mut text)?;
        file.rewind()?;
        file.set_len(0)?;
        write!(file, "{id}")?;
        Ok(Self {
            id,
            before: Uuid::parse_str(text.trim()).ok().map(NodeId),
            _file: Some(file),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_tells_who_used_it_before_unless_that_one_lives() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Presence::take(folder.path()).expect("takes");
        assert_eq!(first.before, None);
        let beside = Presence::take(folder.path()).expect("takes");
        assert_eq!(beside.before, None, "the first one lives");
        let id = first.id;
        drop(first);
        let next = Presence::take(folder.path()).expect("takes");
        assert_eq!(next.before, Some(id));
        assert_ne!(next.id, id);
    }
}
