//! Which server a command talks to, and with which key.
//!
//! The flag wins over the environment, that over the file which `cascade dev`
//! writes into its data folder. So after `cascade dev`, other commands in that
//! folder (or below it) need neither.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;

/// Name of the data folder of `cascade dev`.
pub(crate) const DATA_FOLDER: &str = ".cascade";

/// Name of the file in it that says where the server is.
const CONTEXT_FILE: &str = "dev.json";

/// Largest such file that is read. It holds a URL and a key; more is not it.
const MAX_CONTEXT_BYTES: u64 = 64 * 1024;

/// Where a server is and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A key of the server itself, for `cascade tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_key: Option<String>,
    /// The tenant that a key of the server acts for.
    #[serde(skip)]
    pub tenant: Option<String>,
}

/// What was given on the command line and in the environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub url: Option<String>,
    pub key: Option<String>,
    pub tenant: Option<String>,
}

impl Given {
    /// The flags, with the environment where there is no flag.
    pub(crate) fn with_environment(self) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            url: self.url.or_else(|| variable("CASCADE_URL")),
            key: self.key.or_else(|| variable("CASCADE_API_KEY")),
            tenant: self.tenant.or_else(|| variable("CASCADE_TENANT")),
        }
    }
}

/// Decides on the server.
pub(crate) fn resolve(given: Given, folder: &Path) -> Result<Context, Error> {
    let written = find(folder)?;
    let (url, theirs) = match (given.url, written) {
        // The keys in the file are that server's; no other gets to see them.
        (Some(url), written) => {
            let theirs = written.filter(|context| same_server(&context.url, &url));
            (url, theirs)
        }
        (None, Some(written)) => (written.url.clone(), Some(written)),
        (None, None) => {
            return Err(Error::usage("no server named")
                .hint("start one with `cascade dev`, or give --url or CASCADE_URL"));
        }
    };
    let (key, server_key) = match (given.key, theirs) {
        // A key that is given is meant, also where one of the server is needed.
        (Some(key), _) => (Some(key.clone()), Some(key)),
        (None, Some(context)) => (context.key, context.server_key),
        (None, None) => (None, None),
    };
    Ok(Context {
        url,
        key,
        server_key,
        tenant: given.tenant,
    })
}

/// Writes the file into `data`, readable by its owner only: it holds a key.
pub(crate) fn write(data: &Path, context: &Context) -> Result<(), Error> {
    let path = data.join(CONTEXT_FILE);
    let text = serde_json::to_string_pretty(context).expect("two strings serialise");
    let write = || -> std::io::Result<()> {
        // Written beside and renamed, so that a reader never sees half of it,
        // and a file left with wider rights does not keep them.
        let beside = data.join(format!("{CONTEXT_FILE}.{}", std::process::id()));
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, &path)
    };
    write().map_err(|source| Error::file("write", &path, &source))
}

/// Removes the file, so that later commands do not look for a server that has gone.
pub(crate) fn remove(data: &Path) {
    let _ = fs::remove_file(data.join(CONTEXT_FILE));
}

/// The file of `folder` or of the nearest folder above it.
fn find(folder: &Path) -> Result<Option<Context>, Error> {
    let candidates = folder
        .ancestors()
        .map(|above| above.join(DATA_FOLDER).join(CONTEXT_FILE));
    for path in candidates {
        if path.is_file() {
            return read(&path).map(Some);
        }
    }
    Ok(None)
}

fn read(path: &PathBuf) -> Result<Context, Error> {
    let length = fs::metadata(path)
        .map_err(|source| Error::file("read", path, &source))?
        .len();
    if length > MAX_CONTEXT_BYTES {
        return Err(Error::usage(format!(
            "{} has {length} bytes, at most {MAX_CONTEXT_BYTES} make sense",
            path.display()
        )));
    }
    let text = fs::read_to_string(path).map_err(|source| Error::file("read", path, &source))?;
    serde_json::from_str(&text).map_err(|source| {
        Error::usage(format!("{} is damaged: {source}", path.display()))
            .hint("remove it, and start `cascade dev` again")
    })
}

fn same_server(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(url: Option<&str>, key: Option<&str>) -> Given {
        Given {
            url: url.map(Into::into),
            key: key.map(Into::into),
            tenant: None,
        }
    }

    /// `resolve` in a folder below one where `cascade dev` serves `http://dev` with key `dev-key`.
    fn check(flags: Given, expected: (&str, Option<&str>)) {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join(DATA_FOLDER);
        let below = folder.path().join("a/b");
        fs::create_dir_all(&data).expect("a folder");
        fs::create_dir_all(&below).expect("a folder");
        let dev = Context {
            url: "http://dev".into(),
            key: Some("dev-key".into()),
            server_key: None,
            tenant: None,
        };
        write(&data, &dev).expect("written");
        let context = resolve(flags, &below).expect("resolved");
        assert_eq!((context.url.as_str(), context.key.as_deref()), expected);
    }

    #[test]
    fn commands_below_a_dev_folder_find_its_server() {
        check(given(None, None), ("http://dev", Some("dev-key")));
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        check(given(None, Some("mine")), ("http://dev", Some("mine")));
        check(
            given(Some("http://dev/"), None),
            ("http://dev/", Some("dev-key")),
        );
    }

    #[test]
    fn the_key_of_one_server_is_not_shown_to_another() {
        check(given(Some("http://evil"), None), ("http://evil", None));
    }

    #[test]
    fn without_a_server_the_error_says_how_to_get_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = resolve(Given::default(), folder.path()).expect_err("no server");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("cascade dev"))
        );
    }

    #[test]
    fn only_the_owner_can_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let context = Context {
            url: "http://dev".into(),
            key: None,
            server_key: None,
            tenant: None,
        };
        write(folder.path(), &context).expect("written");
        let mode = fs::metadata(folder.path().join(CONTEXT_FILE))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
