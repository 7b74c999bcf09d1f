//! A schema of its own for a test, on a real server.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _};

use super::{Home, PostgresSettings, PostgresStore, ReplicaSettings};

/// Where the server is.
const SERVER: &str = "CASCADE_TEST_POSTGRES";
const DEFAULT_SERVER: &str = "postgres://127.0.0.1/test";

/// Who the tests are: superusers stand above row-level security, and would not
/// notice what it forbids.
const ROLE: &str = "cascade_test";

/// A schema; dropped, it is removed.
pub(crate) struct Scratch {
    server: String,
    pub(super) schema: String,
    /// Whether [`ROLE`] is there and needed.
    has_role: bool,
}

impl Scratch {
    pub(crate) async fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let server = std::env::var(SERVER).unwrap_or_else(|_| DEFAULT_SERVER.to_owned());
        let mut connection = connect(&server).await;
        let (is_super,): (bool,) =
            sqlx::query_as("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
                .fetch_one(&mut connection)
                .await
                .expect("the server says who we are");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("cascade_test_{}_{number}", std::process::id());
        if is_super {
            // Fails if it is there, or if another test makes it just now.
            let _ = sqlx::raw_sql(AssertSqlSafe(format!("CREATE ROLE {ROLE}")))
                .execute(&mut connection)
                .await;
        }
        if is_super {
            // One at a time: it changes the row of the database.
            let grant = format!(
                "SELECT pg_advisory_xact_lock(7); DO $$ BEGIN \
                    EXECUTE format('GRANT CREATE ON DATABASE %I TO {ROLE}', current_database()); \
                 END $$"
            );
            let granted = sqlx::raw_sql(AssertSqlSafe(grant))
                .execute(&mut connection)
                .await;
            granted.expect("lets the role make schemas");
        }
        let owner = if is_super { ROLE } else { "CURRENT_USER" };
        let sql = format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema} AUTHORIZATION {owner}"
        );
        let made = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await;
        made.expect("makes a schema");
        Self {
            server,
            schema,
            has_role: is_super,
        }
    }

    /// A schema for a tenant, that is not there yet.
    pub(crate) fn home(&self, tenant: &str) -> Home {
        let schema = format!("{}__{tenant}", self.schema).parse();
        Home::Schema {
            schema: schema.expect("a name"),
        }
    }

    /// Where the schema is, for a server at another address if need be.
    pub(super) fn settings(&self, address: Option<std::net::SocketAddr>) -> PostgresSettings {
        self.settings_as(self.has_role.then_some(ROLE), address)
    }

    /// Likewise for a login that stands above policies, if the server lets us be one.
    pub(super) fn as_superuser(&self) -> Option<PostgresSettings> {
        self.has_role.then(|| self.settings_as(None, None))
    }

    /// Likewise for a role that the login may take.
    pub(super) fn as_role(&self, role: &str) -> PostgresSettings {
        self.settings_as(Some(role), None)
    }

    fn settings_as(
        &self,
        role: Option<&str>,
        address: Option<std::net::SocketAddr>,
    ) -> PostgresSettings {
        let role = role.map(|role| format!("%20-crole%3D{role}"));
        let role = role.unwrap_or_default();
        let mark = if self.server.contains('?') { '&' } else { '?' };
        let mut url = format!(
            "{}{mark}application_name={schema}&options=-csearch_path%3D{schema}{role}",
            self.server,
            schema = self.schema,
        );
        if let Some(address) = address {
            // A socket in the URL would come first.
            url = format!("{url}&host={}&port={}", address.ip(), address.port());
        }
        PostgresSettings {
            url,
            password: None,
            connections: 6,
            replicas: ReplicaSettings::default(),
        }
    }

    pub(crate) async fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.settings(None))
            .await
            .expect("opens")
    }

    /// A session in the schema that is none of the store's.
    pub(super) async fn raw(&self) -> PgConnection {
        let url = self
            .settings(None)
            .url
            .replace("application_name=", "application_name=raw_");
        connect(&url).await
    }

    /// A session that may end others.
    pub(super) async fn master(&self) -> PgConnection {
        connect(&self.server).await
    }

    /// Host and port of the server.
    pub(super) fn address(&self) -> String {
        let options: PgConnectOptions = self.server.parse().expect("a URL");
        format!("{}:{}", options.get_host(), options.get_port())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The runtime of the store cannot end its transactions while this waits.
        let drop = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name IN ('{0}', 'raw_{0}'); \
             DO $$ DECLARE name text; BEGIN \
                 FOR name IN SELECT nspname FROM pg_namespace WHERE nspname LIKE '{0}\\_\\_%' \
                 LOOP EXECUTE format('DROP SCHEMA %I CASCADE', name); END LOOP; \
             END $$; \
             DROP SCHEMA IF EXISTS {0} CASCADE",
            self.schema
        );
        let server = self.server.clone();
        // On a thread of its own: the test's runtime is busy with this very call.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let mut connection = connect(&server).await;
                sqlx::raw_sql(AssertSqlSafe(drop))
                    .execute(&mut connection)
                    .await
            })
        });
        let dropped = dropped.join();
        if !std::thread::panicking() {
            dropped.expect("connects").expect("drops the schema");
        }
    }
}

async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("a URL");
    let connected = options.disable_statement_logging().connect().await;
    connected.unwrap_or_else(|error| {
        panic!(
            "no PostgreSQL answers at {DEFAULT_SERVER}, or where the variable {SERVER} says \
             ({error}): start one, or set {SERVER}=postgres://USER@HOST/DATABASE; scripts/test \
             does it by itself"
        )
    })
}
