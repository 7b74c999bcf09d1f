//! What commands have written and seen, from one to the next: how far each server's database
//! was.
//!
//! A server on a database with replicas gives a token with each answer; sent with what is
//! read next, it keeps a replica from showing less than that. So that `process show` sees what
//! `process start` did, it is kept in a file of the user's. Commands that run at the same time share
//! it. Where nothing is kept, or nothing can be, the server reads its primary.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::output::Output;

/// Name of the file, and of what is locked beside it.
const FILE: &str = "positions.json";
const LOCK: &str = "positions.lock";

/// Servers that are remembered; more, and the one that was asked longest ago is forgotten.
const MOST_SERVERS: usize = 64;

/// Longest token that is kept. Those of this release have 56 characters.
const MOST_TOKEN: usize = 256;

/// Largest file that is read: so many servers take a quarter of it.
const MOST_BYTES: u64 = 256 << 10;

/// What is kept of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    token: String,
    /// When it was asked last, in milliseconds since the Unix epoch.
    asked_at: u64,
}

type Servers = BTreeMap<String, Kept>;

/// What is known of one server's database.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    folder: PathBuf,
    url: String,
    output: Output,
}

impl Memory {
    /// Of the server at a URL, in the folder for what programs of this user remember. `None`
    /// if there is no such folder.
    pub(crate) fn of(url: &str, output: Output) -> Option<Self> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let is_usable = |path: &PathBuf| path.is_absolute();
        let state = variable("XDG_STATE_HOME").filter(is_usable);
        let state = state.or_else(|| {
            let home = variable("HOME").filter(is_usable)?;
            Some(home.join(".local/state"))
        });
        Some(Self::in_folder(state?.join("cascade"), url, output))
    }

    fn in_folder(folder: PathBuf, url: &str, output: Output) -> Self {
        Self {
            folder,
            url: url.trim_end_matches('/').to_owned(),
            output,
        }
    }

    /// What is kept.
    pub(crate) fn token(&self) -> Option<String> {
        let mut servers = read(&self.folder.join(FILE));
        servers.remove(&self.url).map(|kept| kept.token)
    }

    /// Keeps what an answer said. `knew` is what was kept when it was asked for.
    pub(crate) fn keep(&self, knew: Option<&str>, said: &str) {
        if knew == Some(said) || !is_token(said) {
            return;
        }
        let kept = self.change(|before| Some(newer(before, knew, said).to_owned()));
        self.or_forgotten(kept);
    }

    /// Forgets what is kept, so that the primary is read next.
    pub(crate) fn forget(&self) {
        let forgotten = self.change(|_| None);
        self.or_forgotten(forgotten);
    }

    /// What cannot be kept must not leave what is older: the file goes, whole.
    fn or_forgotten(&self, kept: io::Result<()>) {
        let Err(error) = kept else { return };
        let path = self.folder.join(FILE);
        let gone = fs::remove_file(&path);
        if gone.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) && path.exists() {
            self.output.note(format_args!(
                "{} cannot be written ({error}): what is read next may be older than this",
                path.display()
            ));
        }
    }

    /// Changes what is kept of this server, if there is a change.
    fn change(&self, change: impl FnOnce(Option<&str>) -> Option<String>) -> io::Result<()> {
        let path = self.folder.join(FILE);
        let folder = &self.folder;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let lock = open_new(&folder.join(LOCK))?;
        lock.lock()?; // until it is dropped
        let mut servers = read(&path);
        let before = servers.get(&self.url).map(|kept| kept.token.clone());
        let after = change(before.as_deref());
        if before == after {
            return Ok(());
        }
        match after {
            Some(token) => {
                let asked_at = now();
                servers.insert(self.url.clone(), Kept { token, asked_at });
            }
            None => drop(servers.remove(&self.url)),
        }
        while servers.len() > MOST_SERVERS
            && let Some(oldest) = oldest(&servers)
        {
            servers.remove(&oldest);
        }
        // Written beside and renamed, so that a reader never sees half of it.
        let text = serde_json::to_vec(&servers).map_err(io::Error::other)?;
        let beside = folder.join(format!("{FILE}.{}", std::process::id()));
        fs::write(&beside, text)?;
        fs::rename(&beside, &path)
    }
}

/// What to keep after an answer. If nothing else was kept meanwhile, what was said is at or after
/// what was known; else another command has heard something, and the later of the two counts.
fn newer<'a>(before: Option<&'a str>, knew: Option<&str>, said: &'a str) -> &'a str {
    match before {
        // Tokens are of one length, and the later is the greater as text.
        Some(before) if Some(before) != knew && before.len() == said.len() => before.max(said),
        _ => said,
    }
}

fn is_token(text: &str) -> bool {
    text.len() <= MOST_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What the file has; nothing, if it is none: then it is written anew.
fn read(path: &Path) -> Servers {
    let is_small = fs::metadata(path).is_ok_and(|file| file.len() <= MOST_BYTES);
    let text = is_small.then(|| fs::read(path).ok()).flatten();
    let servers: Option<Servers> = text.and_then(|text| serde_json::from_slice(&text).ok());
    let mut servers = servers.unwrap_or_default();
    servers.retain(|_, kept| is_token(&kept.token));
    servers
}

fn oldest(servers: &Servers) -> Option<String> {
    let oldest = servers.iter().min_by_key(|(_, kept)| kept.asked_at);
    oldest.map(|(url, _)| url.clone())
}

fn open_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    u64::try_from(millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::output::Format;
    use super::*;

    fn memory(folder: &Path, url: &str) -> Memory {
        let output = Output::new(Format::Json);
        Memory::in_folder(folder.join("state/cascade"), url, output)
    }

    #[test]
    fn what_one_command_was_told_the_next_one_knows() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (
            memory(folder.path(), "http://one"),
            memory(folder.path(), "http://other"),
        );
        assert_eq!(one.token(), None);
        one.keep(None, "0005");
        other.keep(None, "0001");
        let again = memory(folder.path(), "http://one/");
        assert_eq!(again.token().as_deref(), Some("0005"));
        assert_eq!(other.token().as_deref(), Some("0001"));
        one.forget();
        assert_eq!(
            (one.token(), other.token().as_deref()),
            (None, Some("0001"))
        );
    }

    #[test]
    fn the_later_counts_of_what_two_commands_were_told_at_the_same_time() {
        // Nobody else was told anything: also a database that was put back is believed.
        assert_eq!(newer(None, None, "0005"), "0005");
        assert_eq!(newer(Some("0005"), Some("0005"), "0007"), "0007");
        assert_eq!(newer(Some("0005"), Some("0005"), "0003"), "0003");
        // Somebody was, meanwhile.
        assert_eq!(newer(Some("0009"), Some("0005"), "0007"), "0009");
        assert_eq!(newer(Some("0006"), Some("0005"), "0007"), "0007");
        assert_eq!(newer(Some("0006"), None, "0007"), "0007");
        // What has another form is of another release.
        assert_eq!(newer(Some("9"), Some("0005"), "0007"), "0007");
    }

    #[test]
    fn commands_that_run_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            for thread in 0..8_u32 {
                let folder = folder.path();
                scope.spawn(move || {
                    let (own, shared) = (format!("http://{thread}"), "http://shared");
                    for number in 0..20 {
                        let said = format!("{:04}", number * 8 + thread);
                        memory(folder, &own).keep(memory(folder, &own).token().as_deref(), &said);
                        memory(folder, shared).keep(None, &said);
                    }
                });
            }
        });
        let shared = memory(folder.path(), "http://shared");
        assert_eq!(shared.token().as_deref(), Some("0159"));
        for thread in 0..8 {
            let own = memory(folder.path(), &format!("http://{thread}"));
            assert_eq!(own.token(), Some(format!("{:04}", 19 * 8 + thread)));
        }
    }

    #[test]
    fn the_file_is_bounded_and_damage_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 0..MOST_SERVERS + 5 {
            memory(folder.path(), &format!("http://{number}")).keep(None, "0001");
        }
        let path = folder.path().join("state/cascade").join(FILE);
        assert_eq!(read(&path).len(), MOST_SERVERS);
        let one = memory(folder.path(), "http://one");
        one.keep(None, &"x".repeat(MOST_TOKEN + 1));
        assert_eq!(one.token(), None, "it is too long");
        fs::write(&path, "{half").expect("writes");
        assert_eq!(one.token(), None);
        one.keep(None, "0002");
        assert_eq!(one.token().as_deref(), Some("0002"));
    }

    #[test]
    fn what_cannot_be_kept_leaves_nothing_older() {
        let folder = tempfile::tempdir().expect("a folder");
        let one = memory(folder.path(), "http://one");
        one.keep(None, "0001");
        // Where the new file would be written beside stands a folder.
        let state = folder.path().join("state/cascade");
        fs::create_dir(state.join(format!("{FILE}.{}", std::process::id()))).expect("makes");
        one.keep(Some("0001"), "0002");
        assert_eq!(one.token(), None);
    }
}
