//! Sessions with the server, and what their failures mean.
//!
//! The writer has a connection of its own; everything else shares a bounded pool.
//! Each transaction says whose rows it may see, and the server holds it to that
//! ([`super::scope`]).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Postgres, Transaction};
use tokio::time::{Instant, timeout};

use super::super::{Error, codec};
use super::homes;
use super::nodelay;
use super::scope::{self, Bound, Scope};

/// Whoever waits longer for a connection gets an error: the server is down, or
/// has far too much to do.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take before the connection counts as lost: longer than the
/// server's own `statement_timeout`, so that it is the server that gives up first.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(40);

/// Pauses between attempts to reach the server double between these.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(10);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What every session sets. Statements here are short: one that takes half a minute,
/// or waits five seconds for a lock, helps nobody by going on. The plans are those
/// that stay right when tables grow, whatever the statistics say of a table that is
/// still empty. A server that acknowledges what it has not synced would break
/// the store's promise, and is told to sync.
const SESSION: &str = "\
    SET statement_timeout = '30s'; SET lock_timeout = '5s'; \
    SET idle_in_transaction_session_timeout = '30s'; \
    SET default_transaction_isolation = 'read committed'; \
    SET jit = off; SET enable_seqscan = off; SET enable_bitmapscan = off; \
    SELECT set_config('synchronous_commit', 'on', false) \
        WHERE current_setting('synchronous_commit') = 'off'";

/// What the writer sets beside it: it writes by indexes, and never plans a statement twice.
/// In the middle of a transaction it never pauses: if it does, its process stands still, and
/// must not keep others from its shards.
const WRITER_SESSION: &str = "\
    SET idle_in_transaction_session_timeout = '1s'; SET enable_hashjoin = off; SET enable_mergejoin = off; \
    SET plan_cache_mode = force_generic_plan";

/// Where a PostgreSQL database is.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgres://[USER@]HOST[:PORT]/DATABASE[?sslmode=...]`.
    pub url: String,
    /// In place of one in the URL.
    pub password: Option<String>,
    /// Most connections at a time, the writer's included.
    pub connections: u32,
    /// Its hot standbys.
    pub replicas: ReplicaSettings,
}

/// Where the replicas of a database are: hot standbys, which have its roles and passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ReplicaSettings {
    /// Each as [`PostgresSettings::url`].
    pub urls: Vec<String>,
    /// Most connections to each, that of its watcher included.
    pub connections: u32,
    /// How far one may be behind before it answers nothing any more.
    pub max_lag: Duration,
}

/// Without the passwords.
impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl PostgresSettings {
    /// Finds what is wrong with the URL, if anything is. The text does not repeat it.
    pub fn check(&self) -> Result<(), String> {
        self.options().map(drop).map_err(|error| error.to_string())
    }

    /// The same for each of its replicas.
    pub(super) fn of_replicas(&self) -> Vec<Self> {
        let Self {
            password, replicas, ..
        } = self;
        let of = |url: &String| Self {
            url: url.clone(),
            password: password.clone(),
            connections: replicas.connections,
            replicas: ReplicaSettings::default(),
        };
        replicas.urls.iter().map(of).collect()
    }

    fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let mut options = PgConnectOptions::from_str(&self.url)?;
        if let Some(password) = &self.password {
            options = options.password(password);
        }
        if options.get_application_name().is_none() {
            options = options.application_name("cascade");
        }
        Ok(options.disable_statement_logging())
    }
}

/// Why the database did not do what it was asked for.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) error: Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The connection is gone, and the answer with it.
    Lost,
    /// What should be so is not: a version, a lease, something unique. Nothing was written.
    Refused,
    /// Somebody else was in the way; nothing was written.
    Busy,
    /// Another attempt would fare no better; nothing was written.
    Fault,
}

impl Failure {
    pub(super) fn lost(what: impl fmt::Display) -> Self {
        let error = Error::Unavailable(what.to_string());
        let kind = Kind::Lost;
        Self { kind, error }
    }

    pub(super) fn busy(what: impl fmt::Display) -> Self {
        let error = Error::Unavailable(what.to_string());
        let kind = Kind::Busy;
        Self { kind, error }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = Kind::Fault;
        Self { kind, error }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let unavailable = |error: &sqlx::Error| Error::Unavailable(error.to_string());
        let (kind, error) = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed => (Kind::Lost, unavailable(&error)),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                (Kind::Fault, codec::damaged(&error))
            }
            sqlx::Error::PoolClosed => (Kind::Fault, Error::Closed),
            sqlx::Error::PoolTimedOut => {
                let text = format!("no connection within {} s", CONNECTION_WAIT.as_secs());
                (Kind::Fault, Error::Unavailable(text))
            }
            sqlx::Error::Database(refusal) => {
                let code = refusal.code();
                match kind_of(code.as_deref().unwrap_or_default()) {
                    Some(kind) => (kind, unavailable(&error)),
                    None => (Kind::Fault, codec::damaged(&error)),
                }
            }
            _ => (Kind::Fault, unavailable(&error)),
        };
        Self { kind, error }
    }
}

/// What a code of the server's says; `None` is damage.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn kind_of(code: &str) -> Option<Kind> {
    Some(match code {
        // Data or an index is corrupt.
        "XX001" | "XX002" => return None,
        // Ended by an administrator, by a crash of another session, or for idling in a
        // transaction; starting up; too many clients. 25006 is a server that has become,
        // or still is, a replica.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "53300" | "25006" => Kind::Lost,
        code if code.starts_with("08") => Kind::Lost,
        // Not unique, or divided by zero: see `commit.rs`.
        "23505" | "22012" => Kind::Refused,
        // Deadlock, lock timeout, and what isolation levels above ours know.
        "40P01" | "55P03" | "40001" => Kind::Busy,
        _ => Kind::Fault,
    })
}

/// Waits for an answer, but not for ever: a network that swallows packets tells nobody.
pub(super) async fn answered<T>(
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let text = "no answer within 40 s";
    let answered = timeout(ANSWER_WAIT, asked).await;
    answered.unwrap_or_else(|_| Err(Failure::lost(text)))
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    options: PgConnectOptions,
    /// What sessions begin with, but bare ones.
    bound: Bound,
}

impl Connector {
    pub(super) fn new(settings: &PostgresSettings) -> Result<Self, Failure> {
        let options = settings.options()?;
        let bound = Bound::default();
        Ok(Self { options, bound })
    }

    /// The same, for sessions that begin so.
    pub(super) fn bound(self, bound: Bound) -> Self {
        Self { bound, ..self }
    }

    /// `HOST:PORT`, for messages.
    pub(super) fn place(&self) -> String {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        match self.options.get_socket() {
            Some(folder) => format!("{}:{port}", folder.display()),
            None => format!("{host}:{port}"),
        }
    }

    /// Sessions for anything but commits and migrations.
    fn pool(&self, connections: u32) -> PgPool {
        self.pool_with(connections, CONNECTION_WAIT, "")
    }

    /// Sessions that set something of their own, too (`; SET ...`), and of which one is waited
    /// for so long.
    pub(super) fn pool_with(&self, connections: u32, wait: Duration, more: &'static str) -> PgPool {
        let port = self.options.get_port();
        let bound = self.bound.clone();
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(wait)
            // The statement that begins a transaction tells; a test would be one more.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let session = AssertSqlSafe(format!("{}{more}", session(&bound)));
                Box::pin(async move {
                    nodelay::set(port);
                    sqlx::raw_sql(session).execute(&mut *connection).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// A bare session.
    pub(super) async fn bare(&self) -> Result<PgConnection, Failure> {
        let connected = timeout(CONNECT_TIMEOUT, self.options.connect()).await;
        match connected {
            Ok(connected) => {
                let connected = connected?;
                nodelay::set(self.options.get_port());
                Ok(connected)
            }
            Err(_) => Err(Failure::lost("no connection within 5 s")),
        }
    }

    /// A session that commits.
    pub(super) async fn writer(&self) -> Result<PgConnection, Failure> {
        let mut connection = self.bare().await?;
        let session = sqlx::raw_sql(AssertSqlSafe(session(&self.bound))).execute(&mut connection);
        answered(async { Ok(session.await?) }).await?;
        let session = sqlx::raw_sql(WRITER_SESSION).execute(&mut connection);
        answered(async { Ok(session.await?) }).await?;
        Ok(connection)
    }

    /// A session that sees what is told of all tenants ([`scope::FEED`]), and hears what is said in a channel. It is not made
    /// again when it is lost.
    pub(super) async fn listener(&self, channel: &str) -> Result<PgListener, Failure> {
        // The driver makes listeners out of pools only.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIMEOUT)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(self.options.clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            let session = AssertSqlSafe(session(&self.bound));
            sqlx::raw_sql(session).execute(&mut listener).await?;
            sqlx::raw_sql(scope::FEED).execute(&mut listener).await?;
            listener.listen(channel).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match timeout(CONNECT_TIMEOUT, listening).await {
            Ok(Ok(listener)) => Ok(listener),
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => {
                Err(Failure::lost("no connection within 5 s"))
            }
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// A bare session, as soon as the server is up: at start it may be starting, too.
    pub(super) async fn patient(&self) -> Result<PgConnection, Failure> {
        let mut pauses = Pauses::until(Instant::now() + CONNECTION_WAIT);
        loop {
            match self.bare().await {
                Err(failure) if failure.kind == Kind::Lost && pauses.pause().await => {}
                connected => return connected,
            }
        }
    }
}

/// What a session of the store's sets.
fn session(bound: &Bound) -> String {
    format!("{}{SESSION}; {}", bound.sql(), homes::SESSION)
}

/// Pauses between attempts, the longer the more there were.
pub(super) struct Pauses {
    next: Duration,
    deadline: Instant,
}

impl Pauses {
    pub(super) fn until(deadline: Instant) -> Self {
        let next = FIRST_PAUSE;
        Self { next, deadline }
    }

    /// Pauses; says whether there is time for another attempt.
    pub(super) async fn pause(&mut self) -> bool {
        if Instant::now() + self.next >= self.deadline {
            return false;
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        true
    }
}

/// A transaction on a connection of the pool.
pub(super) type Tx = Transaction<'static, Postgres>;

/// The connections that everything but commits shares.
pub(super) struct Connections {
    pool: PgPool,
    listener: PgPool,
    most: u32,
}

impl Connections {
    pub(super) fn new(connector: &Connector, most: u32) -> Self {
        let pool = connector.pool(most);
        let listener = connector.pool(1);
        Self {
            pool,
            listener,
            most,
        }
    }

    /// Of one connection, for what waits to be told something by the server.
    pub(super) fn listener(&self) -> &PgPool {
        &self.listener
    }

    /// Asks something. What a lost connection did not answer is asked again.
    pub(super) async fn read<T, F>(
        &self,
        scope: Scope<'_>,
        ask: impl Fn(Tx) -> F + Send + Sync,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        // All connections of the pool may have been lost at once.
        let mut again = self.most;
        loop {
            let asked = async { ask(self.begin(scope, "BEGIN READ ONLY").await?).await };
            match answered(asked).await {
                Err(failure) if failure.kind == Kind::Lost && again > 0 => {
                    tracing::debug!(error = %failure.error, "asked again");
                    again -= 1;
                }
                other => return other.map_err(Error::from),
            }
        }
    }

    /// Writes something in a transaction. It is tried again only where it surely was
    /// not written: its statements are not all of a kind that can be repeated.
    pub(super) async fn write<T, F>(
        &self,
        scope: Scope<'_>,
        ask: impl Fn(Tx) -> F + Send + Sync,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(Tx, T), Failure>> + Send,
        T: Send,
    {
        let mut again = self.most;
        loop {
            let asked = async { ask(self.begin(scope, "BEGIN").await?).await };
            match answered(asked).await {
                Err(failure) if failure.kind == Kind::Lost && again > 0 => again -= 1,
                Err(failure) => return Err(failure.into()),
                Ok((tx, value)) => {
                    answered(async { Ok(tx.commit().await?) }).await?;
                    return Ok(value);
                }
            }
        }
    }

    async fn begin(&self, scope: Scope<'_>, begin: &'static str) -> Result<Tx, Failure> {
        begin_in(&self.pool, scope, begin).await
    }

    pub(super) async fn close(&self) {
        self.listener.close().await;
        self.pool.close().await;
    }
}

/// Begins a transaction for somebody, by a statement that begins one.
pub(super) async fn begin_in(
    pool: &PgPool,
    scope: Scope<'_>,
    begin: &'static str,
) -> Result<Tx, Failure> {
    // Safe: what comes from outside is quoted there.
    let begin = format!("{begin}{}", scope.sql());
    let pool = pool.clone();
    // On a task of its own, to the end even if nobody waits any more: the driver does not
    // undo a beginning that was dropped half-way, and the next user of the connection
    // would be in the transaction of another tenant.
    let started = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(begin)).await });
    match started.await {
        Ok(tx) => Ok(tx?),
        Err(error) => Err(Failure::lost(error)), // the runtime stops
    }
}
