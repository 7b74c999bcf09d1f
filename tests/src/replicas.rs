//! A PostgreSQL with hot standbys, as `scripts/replica.sh` makes them: replay can be paused, and each
//! server killed, stalled and started again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::until;
use crate::root;

/// Servers in a temporary folder. Ended when dropped.
pub struct Replicated {
    folder: TempDir,
    /// Name and URL of each: `primary`, `replica-1`, ...
    servers: Vec<(String, String)>,
}

impl Replicated {
    /// Makes a primary and so many replicas, and starts them.
    pub fn start(replicas: usize) -> Self {
        let mut replicated = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            servers: Vec::new(),
        };
        let said = replicated.script("start", &replicas.to_string());
        let servers = said.lines().map(|line| {
            let (name, url) = line.split_once(' ').expect("a name and a URL");
            (name.to_owned(), url.to_owned())
        });
        replicated.servers = servers.collect();
        assert_eq!(replicated.servers.len(), replicas + 1, "{said}");
        replicated
    }

    /// Where a server is, for a user that owns the database and is no superuser.
    pub fn url(&self, name: &str) -> &str {
        let mut servers = self.servers.iter();
        let server = servers.find(|(of, _)| of == name);
        &server.expect("there is one of the name").1
    }

    /// The block of `cascade.yaml` that names all of them, with more settings.
    pub fn settings(&self, more: &str) -> String {
        let replicas = self.servers[1..].iter().map(|(_, url)| format!("'{url}'"));
        let replicas = replicas.collect::<Vec<_>>().join(", ");
        let primary = self.url("primary");
        format!("database: {{ primary: '{primary}', replicas: [{replicas}]{more} }}")
    }

    /// Runs a statement as superuser on one of them.
    pub fn sql(&self, name: &str, statement: &str) -> String {
        let url = self.url(name).replacen("//workflows@", "//postgres@", 1);
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command"]);
        let output = psql.args([statement, &url]).output().expect("psql runs");
        succeeded(statement, output).trim().to_owned()
    }

    /// Lets a replica receive what comes, and not show it.
    pub fn pause(&self, replica: &str) {
        self.sql(replica, "SELECT pg_wal_replay_pause()");
        let state = "SELECT pg_get_wal_replay_pause_state()";
        until("replay is paused", || {
            (self.sql(replica, state) == "paused").then_some(())
        });
    }

    /// Lets it go on.
    pub fn resume(&self, replica: &str) {
        self.sql(replica, "SELECT pg_wal_replay_resume()");
    }

    /// Ends one as a crash would.
    pub fn kill(&self, name: &str) {
        self.script("kill", name);
    }

    /// Starts one again.
    pub fn run(&self, name: &str) {
        self.script("run", name);
    }

    /// Stops one where it is, as a machine that stalls would: it takes connections, and nothing
    /// answers.
    pub fn stall(&self, name: &str) {
        self.send(name, Signal::STOP);
    }

    /// Lets one go on that was stalled.
    pub fn go_on(&self, name: &str) {
        self.send(name, Signal::CONT);
    }

    /// Tells a server and all its processes; the one that makes others comes first.
    fn send(&self, name: &str, signal: Signal) {
        let file = self.folder.path().join(name).join("postmaster.pid");
        let text = fs::read_to_string(file).expect("it runs");
        let parent = text.lines().next().and_then(|line| line.parse().ok());
        let parent: i32 = parent.expect("the file begins with the process");
        let tell = |id: i32| {
            let id = Pid::from_raw(id).expect("a process");
            let _ = kill_process(id, signal); // a session may have ended meanwhile
        };
        tell(parent);
        children(parent).into_iter().for_each(tell);
    }

    fn script(&self, verb: &str, of: &str) -> String {
        let mut script = Command::new(script());
        script.arg(verb).arg(self.folder.path()).arg(of);
        let output = script.output().expect("the script runs");
        succeeded(verb, output)
    }
}

impl Drop for Replicated {
    fn drop(&mut self) {
        for (name, _) in &self.servers {
            // One that is stalled would not end.
            let file = self.folder.path().join(name).join("postmaster.pid");
            if file.is_file() {
                self.go_on(name);
            }
        }
        let mut stop = Command::new(script());
        // What is wrong here has been told by the test.
        let _ = stop.arg("stop").arg(self.folder.path()).output();
    }
}

fn script() -> PathBuf {
    root().join("scripts/replica.sh")
}

/// The processes that a process has made.
fn children(parent: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("tests run where there is /proc");
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |id: &i32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The second field is the program's name in parentheses, the fourth its parent.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields);
        let parent_of = fields.and_then(|fields| fields.split_whitespace().nth(1));
        parent_of.is_some_and(|of| of == parent.to_string())
    };
    ids.filter(is_child).collect()
}

fn succeeded(what: &str, output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
