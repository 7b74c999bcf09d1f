//! `database`: where executions are stored, and which replicas answer reads.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reader::{Path, Reader};
use super::secrets::{Environment, SecretRef};
use super::{secret_text, units};
use crate::store::{PostgresSettings, ReplicaSettings};

/// Fewest connections to PostgreSQL: one for commits, one for leases, one for news of
/// changes, one for all else.
const LEAST_CONNECTIONS: u32 = 4;

/// Fewest beside replicas: one more asks how far the primary has come.
const LEAST_BESIDE_REPLICAS: u32 = 5;

/// Fewest connections to a replica: one watches it, one reads.
const LEAST_OF_REPLICA: u32 = 2;

/// Most connections to PostgreSQL: more than its machine has use for, whatever it is.
const MOST_CONNECTIONS: u32 = 1_000;

/// Most replicas: each is watched four times a second, and a primary that feeds more has
/// little else to do.
const MOST_REPLICAS: usize = 16;

/// The shortest and the longest lag that can be told from none: a replica is looked at four
/// times a second, and what the primary had is remembered for longer than five minutes.
const MAX_LAG: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// `database`: where executions are stored.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:PATH`, `postgres://...`, or where that stands; a file in `data_dir` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The same by the name that it has beside replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Where the password is, if it is not in what `url` refers to. Replicas have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// Connections to PostgreSQL: to the primary, if there are replicas.
    pub connections: u32,
    /// Hot standbys that answer reads: `postgres://...`, or where that stands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<String>,
    /// Connections to each replica.
    pub replica_connections: u32,
    /// How far a replica may be behind before it answers nothing any more.
    #[serde(with = "units::duration")]
    pub max_lag: Duration,
    /// What the above come to; set when the file is read.
    #[serde(skip)]
    pub place: Place,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            primary: None,
            password: None,
            // One commits; the others answer reads, which take a millisecond. Ten servers
            // stay below the hundred that PostgreSQL admits by default.
            connections: 10,
            replicas: Vec::new(),
            // Half of that: several share what is read.
            replica_connections: 5,
            // Far more than streaming takes, and less than people take for the present.
            max_lag: Duration::from_secs(10),
            place: Place::default(),
        }
    }
}

/// Without the passwords that URLs may hold.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replicas: Vec<_> = self.replicas.iter().map(|url| redact_url(url)).collect();
        f.debug_struct("Database")
            .field("url", &self.url.as_deref().map(redact_url))
            .field("primary", &self.primary.as_deref().map(redact_url))
            .field("password", &self.password)
            .field("replicas", &replicas)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// Which database it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// A file in `data_dir`.
    #[default]
    Own,
    /// A file elsewhere.
    Sqlite(PathBuf),
    Postgres(PostgresSettings),
}

impl Database {
    /// Uses the database of a URL that somebody has given on the command line, in place of
    /// what the file says. It may hold a password: it is in no file.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn given(url: String) -> Result<Self, String> {
        let mut database = Self::default();
        database.place = database.place_of(&url, None)?;
        database.url = Some(url);
        Ok(database)
    }

    /// Whether several servers can share it, as far as the file says: a path that stands
    /// elsewhere is taken for none.
    pub(super) fn is_shared(&self) -> bool {
        let url = self.url.as_deref().or(self.primary.as_deref());
        url.is_some_and(|url| !url.starts_with("sqlite:"))
    }

    /// Whether it is a server, or may be: a path that stands elsewhere may not have been looked up.
    pub(super) fn may_have_schemas(&self) -> bool {
        match self.place {
            Place::Postgres(_) => true,
            Place::Sqlite(_) => false,
            Place::Own => self.url.is_some() || self.primary.is_some(),
        }
    }

    pub(super) fn check(&mut self, path: &Path, reader: &mut Reader, environment: Environment<'_>) {
        self.check_numbers(path, reader);
        let password = self.password.as_ref();
        let password = password.map(|secret| secret_text(secret, environment));
        let password = password.transpose().unwrap_or_else(|message| {
            reader.problem(&path.join("password"), message);
            None
        });
        let password = password.flatten();
        let replicas = self.check_replicas(path, reader, environment);
        let (key, text) = match (&self.url, &self.primary) {
            (Some(_), Some(_)) => {
                let message = "`url` and `primary` mean the same: give one of them";
                return reader.problem(&path.join("primary"), message.to_owned());
            }
            (Some(url), None) => ("url", url),
            (None, Some(primary)) => ("primary", primary),
            (None, None) => {
                if self.password.is_some() {
                    reader.missing(path, &["url"]);
                }
                return self.refuse_replicas_of_file(path, reader);
            }
        };
        let found = database_url(text, environment);
        let found = found.and_then(|url| url.map(|url| self.place_of(&url, password)).transpose());
        match found {
            Ok(Some(Place::Postgres(settings))) => {
                self.place = Place::Postgres(PostgresSettings {
                    replicas,
                    ..settings
                });
            }
            Ok(Some(file)) => {
                self.place = file;
                self.refuse_replicas_of_file(path, reader);
            }
            Ok(None) => {} // it is elsewhere, and nobody knows what it is
            Err(message) => reader.problem(&path.join(key), message),
        }
    }

    fn check_numbers(&self, path: &Path, reader: &mut Reader) {
        let least = if self.replicas.is_empty() {
            LEAST_CONNECTIONS
        } else {
            LEAST_BESIDE_REPLICAS
        };
        for (key, value, least) in [
            ("connections", self.connections, least),
            (
                "replica_connections",
                self.replica_connections,
                LEAST_OF_REPLICA,
            ),
        ] {
            if value < least || value > MOST_CONNECTIONS {
                let message = format!("must be from {least} to {MOST_CONNECTIONS}, not {value}");
                reader.problem(&path.join(key), message);
            }
        }
        let (least, most) = MAX_LAG;
        if !(least..=most).contains(&self.max_lag) {
            reader.problem(
                &path.join("max_lag"),
                "must be from 1s to 5m: a replica is looked at four times a second".to_owned(),
            );
        }
    }

    /// The replicas, as far as they are looked up.
    fn check_replicas(
        &self,
        path: &Path,
        reader: &mut Reader,
        environment: Environment<'_>,
    ) -> ReplicaSettings {
        let path = path.join("replicas");
        if self.replicas.len() > MOST_REPLICAS {
            reader.problem(&path, format!("at most {MOST_REPLICAS} replicas"));
        }
        let mut urls = Vec::new();
        let mut known = BTreeSet::new();
        for (index, text) in self.replicas.iter().enumerate() {
            let found = database_url(text, environment).and_then(|url| {
                let place = url.as_deref().map(|url| self.place_of(url, None));
                match place.transpose()? {
                    Some(Place::Own | Place::Sqlite(_)) => {
                        Err("a file has no replicas: must be `postgres://...`".to_owned())
                    }
                    Some(Place::Postgres(_)) | None => Ok(url),
                }
            });
            match found {
                Ok(Some(url)) if !known.insert(url.clone()) => {
                    let message = "this replica is there twice".to_owned();
                    reader.problem(&path.join(index), message);
                }
                Ok(url) => urls.extend(url),
                Err(message) => reader.problem(&path.join(index), message),
            }
        }
        ReplicaSettings {
            urls,
            connections: self.replica_connections,
            max_lag: self.max_lag,
        }
    }

    fn refuse_replicas_of_file(&self, path: &Path, reader: &mut Reader) {
        if !self.replicas.is_empty() {
            let message = "a SQLite file has no replicas: leave them out, or let `primary` be the \
                           PostgreSQL server that feeds them";
            reader.problem(&path.join("replicas"), message.to_owned());
        }
    }

    /// The database of a URL, without its replicas.
    fn place_of(&self, url: &str, password: Option<String>) -> Result<Place, String> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            if password.is_some() {
                return Err("a file has no password: leave `database.password` out".to_owned());
            }
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Place::Sqlite(PathBuf::from(path)));
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(
                "must be `sqlite:PATH` or `postgres://[USER@]HOST[:PORT]/DATABASE`".to_owned(),
            );
        }
        let settings = PostgresSettings {
            url: url.to_owned(),
            password,
            connections: self.connections,
            replicas: ReplicaSettings::default(),
        };
        settings.check()?;
        Ok(Place::Postgres(settings))
    }
}

/// The URL that stands in the file, or that the file refers to, if it is looked up. No message
/// holds it.
fn database_url(text: &str, environment: Environment<'_>) -> Result<Option<String>, String> {
    match SecretRef::try_from(text.to_owned()) {
        Ok(reference) => secret_text(&reference, environment),
        Err(_) if has_password(text) => Err(
            "a password stands in the file by reference only: leave it out and add \
             `password: ${NAME}` or `password: file:PATH`"
                .to_owned(),
        ),
        Err(_) => Ok(Some(text.to_owned())),
    }
}

/// A URL with its password replaced.
pub(super) fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| {
        // `?password=` is one, too.
        let kept = query.split('&').filter(|pair| !is_password(pair));
        (rest, Some(kept.collect::<Vec<_>>().join("&")))
    });
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, host)) => {
            let user = user
                .split_once(':')
                .map_or_else(|| user.to_owned(), |(user, _)| format!("{user}:***"));
            format!("{scheme}://{user}@{host}{}{query}", &rest[end..])
        }
        None => format!("{scheme}://{rest}{query}"),
    }
}

/// Whether a URL holds a password.
fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':')) || query.split('&').any(is_password)
}

fn is_password(pair: &str) -> bool {
    pair.split('=').next() == Some("password")
}
