//! A PostgreSQL server of a test's own, which can be crashed and started again.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Whom the server runs as if the tests run as root, which it refuses to.
const USER: &str = "postgres";

/// A server in a temporary folder. Ended when dropped.
pub struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Postgres {
    /// Makes a server and starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let postgres = Self {
            programs: programs(),
            port: free.local_addr().expect("it is bound").port(),
            folder,
        };
        drop(free);
        if is_root() {
            // The user must be able to enter it, and to write there.
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(postgres.folder.path(), open).expect("it is ours");
            let mut chown = Command::new("chown");
            run(chown.arg(USER).arg(postgres.folder.path()));
        }
        let data = postgres.data();
        run(postgres
            .program("initdb")
            .args([
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .arg("--pgdata")
            .arg(&data));
        postgres.restart();
        // A user as operators should make one: it owns its database, and nothing more.
        postgres.sql("postgres", "CREATE ROLE workflows LOGIN");
        postgres.sql("postgres", "CREATE DATABASE workflows OWNER workflows");
        postgres
    }

    /// A database with a user that owns it and is no superuser.
    pub fn url(&self) -> String {
        format!("postgres://workflows@127.0.0.1:{}/workflows", self.port)
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as a crash of its machine would, but for the disk.
    pub fn crash(&self) {
        let data = self.data();
        run(self
            .program("pg_ctl")
            .args(["stop", "--mode=immediate", "--wait", "--pgdata"])
            .arg(data));
    }

    /// Starts it on the data that is there.
    pub fn restart(&self) {
        let data = self.data();
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories=",
            self.port
        );
        run(self
            .program("pg_ctl")
            .args([
                "start",
                "--wait",
                "--silent",
                "--options",
                &options,
                "--log",
            ])
            .arg(self.folder.path().join("log"))
            .arg("--pgdata")
            .arg(data));
    }

    /// Ends all sessions of the database's user; says how many there were.
    pub fn end_sessions(&self) -> usize {
        let ended = self.sql(
            "postgres",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE usename = 'workflows'",
        );
        ended.trim().parse().expect("a number")
    }

    /// Ends those sessions that have this name; says how many there were.
    pub fn end_sessions_of(&self, name: &str) -> usize {
        let ended = self.sql(
            "postgres",
            &format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE usename = 'workflows' AND application_name = '{name}'"
            ),
        );
        ended.trim().parse().expect("a number")
    }

    /// Runs a statement as superuser.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        run(Command::new(self.programs.join("psql")).args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--command",
            statement,
            &format!("postgres://postgres@127.0.0.1:{}/{database}", self.port),
        ]))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", USER, "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.data();
        // It may have been crashed.
        let _ = self
            .program("pg_ctl")
            .args(["stop", "--mode=immediate", "--wait", "--pgdata"])
            .arg(data)
            .output();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where the programs of PostgreSQL are: Debian keeps those of servers out of the path.
fn programs() -> PathBuf {
    let mut folders: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    let found = folders.into_iter().rev().find(|folder| is_complete(folder));
    found.expect(
        "this test starts a PostgreSQL server of its own: install one (apt-get install postgresql), \
         or put its `initdb` into the PATH",
    )
}

fn is_complete(folder: &Path) -> bool {
    ["initdb", "pg_ctl", "psql"]
        .iter()
        .all(|name| folder.join(name).is_file())
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
