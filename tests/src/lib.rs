//! Drives the real `cascade` binary from outside: a server that can be killed
//! at any time and started again on the same data, and its command line.
//!
//! Everything goes over HTTP or the command line, as a user's would. Nothing
//! here sleeps: a server says when it is ready, and requests wait for ends.

pub mod chaos;
pub mod cluster;
mod http;
pub mod isolation;
pub mod postgres;
pub mod replicas;
pub mod takeover;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub use http::Answer;

/// The tenant that tests work as.
pub const TENANT: &str = "test";

/// Its key: the id and 32 characters, as keys must have.
const KEY: &str = "ck_test_0123456789abcdef0123456789abcdef";

/// The key of another tenant, which means harm.
const ATTACKER_KEY: &str = "ck_evil_0123456789abcdef0123456789abcdef";

/// The server's own key.
const SERVER_KEY: &str = "ck_root_0123456789abcdef0123456789abcdef";

/// How long a request waits for an execution before the harness asks again.
const WAIT: &str = "40s";

/// The folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace")
}

/// The binary, built if it is not there as the sources have it. Plain
/// `cargo test` does not build the binaries of other packages.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--locked",
            // The features of the tests', so that nothing is built twice.
            "--workspace",
            "--bin",
            "cascade",
        ]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        // Cargo tells tests about their own package. Build scripts that look at
        // this, as that of `ring`, would be run again, and the minute that it
        // takes would be lost in every other build.
        for (name, _) in std::env::vars() {
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(name);
            }
        }
        let status = cargo.current_dir(root()).status().expect("cargo runs");
        assert!(status.success(), "the binary does not build");
        // This program is in `TARGET/PROFILE`, or in `deps` there if it is a test.
        let own = std::env::current_exe().expect("a program has a path");
        let mut profile = own.parent().expect("a program is in a folder");
        if profile.ends_with("deps") {
            profile = profile.parent().expect("deps is in TARGET/PROFILE");
        }
        profile.join("cascade")
    })
}

/// The activities of the repository, built for the sandbox once.
pub fn guests() -> &'static Path {
    static GUESTS: OnceLock<PathBuf> = OnceLock::new();
    GUESTS.get_or_init(|| {
        let script = root().join("scripts/build-guests.sh");
        let status = Command::new(script).status().expect("the script runs");
        assert!(status.success(), "the activities do not build");
        root().join("target/guest")
    })
}

/// A server with data of its own. Killed when dropped.
pub struct Server {
    binary: PathBuf,
    folder: TempDir,
    /// `cascade.yaml` without what [`Server::configure`] adds.
    config: String,
    child: Option<Child>,
    url: String,
}

impl Server {
    /// Starts a server on a free port with an empty data folder.
    pub fn start() -> Self {
        Self::with_tenant("")
    }

    /// As [`Server::start`], with more keys for the tenant in `cascade.yaml`,
    /// each line indented by four spaces.
    pub fn with_tenant(settings: &str) -> Self {
        Self::with_binary(binary(), settings)
    }

    /// As [`Server::with_tenant`], with another binary than this build's.
    pub fn with_binary(binary: &Path, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = [
            ("key", KEY),
            ("attacker-key", ATTACKER_KEY),
            ("server-key", SERVER_KEY),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        let at = folder.path().display();
        let config = format!(
            "data_dir: {at}/data\n\
             server:\n  listen: 127.0.0.1:0\n  admin_keys:\n\
             \x20   - {{ id: root, secret: 'file:{at}/server-key' }}\n\
             tenants:\n  - id: attacker\n\
             \x20   keys: [{{ id: evil, role: admin, secret: 'file:{at}/attacker-key' }}]\n\
             \x20   policy: {{ capabilities: [key-value] }}\n\
             \x20 - id: {TENANT}\n\
             \x20   keys: [{{ id: test, role: admin, secret: 'file:{at}/key' }}]\n{settings}\n"
        );
        let mut server = Self {
            binary: binary.to_owned(),
            folder,
            config,
            child: None,
            url: String::new(),
        };
        server.configure("");
        server.restart();
        server
    }

    /// Adds a block to `cascade.yaml`, in place of what was added before; the
    /// next start reads it.
    pub fn configure(&self, block: &str) {
        let text = format!("{}{block}\n", self.config);
        fs::write(self.folder.path().join("cascade.yaml"), text).expect("a file");
    }

    /// Starts the server on the data that is there, and returns when it is ready.
    pub fn restart(&mut self) {
        let ready = self.try_restart();
        ready.unwrap_or_else(|said| panic!("the server said `{said}`"));
    }

    /// The same, but gives what a server said that ended instead of being ready.
    pub fn try_restart(&mut self) -> Result<(), String> {
        self.launch();
        let child = self.child.as_mut().expect("just launched");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the server says where it is");
        let said: Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(url) = said["url"].as_str() else {
            self.ended();
            return Err(line);
        };
        url.clone_into(&mut self.url);
        Ok(())
    }

    /// Starts the server on the data that is there, and returns at once, so
    /// that it can be killed before it is ready.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let child = Command::new(&self.binary)
            .args(["server", "--output", "json", "--config"])
            .arg(self.folder.path().join("cascade.yaml"))
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        self.child = Some(child);
    }

    /// Ends the server at once, as a power cut would end its process: SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Asks the server to end (SIGTERM), and says whether it ended well.
    pub fn stop(&mut self) -> bool {
        self.terminate();
        self.ended()
    }

    /// Asks the server to end (SIGTERM), and returns at once.
    pub fn terminate(&self) {
        self.send(Signal::TERM);
    }

    /// Waits for the end of a server that was asked for it; says whether it ended well.
    pub fn ended(&mut self) -> bool {
        let mut child = self.child.take().expect("the server runs");
        child.wait().expect("a child can be waited for").success()
    }

    /// Stops the process where it is, as a machine that stalls would: SIGSTOP.
    pub fn freeze(&self) {
        self.send(Signal::STOP);
    }

    /// Lets a process go on that was frozen: SIGCONT.
    pub fn thaw(&self) {
        self.send(Signal::CONT);
    }

    fn send(&self, signal: Signal) {
        // Not by the program `kill`, which the smallest machines lack.
        let id = self.pid().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw).expect("the server runs");
        kill_process(id, signal).expect("it is there to be told");
    }

    /// Where it is, for load that does not go through the harness.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it keeps its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where its command line keeps what it remembers.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The node that it is, or was last; `None` if it has never joined others.
    pub fn node(&self) -> Option<String> {
        fs::read_to_string(self.data().join("node")).ok()
    }

    /// The tenant's key.
    pub fn key(&self) -> &'static str {
        KEY
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Runs the command line against this server.
    pub fn cli(&self, args: &[&str]) -> Run {
        self.command(args, KEY)
    }

    /// Runs the command line with the server's own key.
    pub fn admin_cli(&self, args: &[&str]) -> Run {
        self.command(args, SERVER_KEY)
    }

    fn command(&self, args: &[&str], key: &str) -> Run {
        let output = Command::new(&self.binary)
            .args(args)
            .current_dir(self.folder.path())
            .env("CASCADE_URL", &self.url)
            .env("CASCADE_API_KEY", key)
            .env("XDG_STATE_HOME", self.state())
            .output();
        Run::of(args, output.expect("the binary runs"))
    }

    /// Pushes an activity of the repository by its name.
    pub fn push(&self, name: &str, manifest: Option<&str>) {
        self.push_file(&guests().join(format!("{name}.wasm")), name, manifest);
    }

    /// Pushes an activity given as WebAssembly text.
    pub fn push_wat(&self, name: &str, wat: &str, manifest: Option<&str>) {
        let wasm = wat::parse_str(wat).unwrap_or_else(|error| panic!("{name}: {error}"));
        let file = self.folder.path().join(format!("{name}.wasm"));
        fs::write(&file, wasm).expect("a file");
        self.push_file(&file, name, manifest);
    }

    fn push_file(&self, wasm: &Path, name: &str, manifest: Option<&str>) {
        let wasm = wasm.to_str().expect("the path is UTF-8");
        let mut args = vec!["activity", "push", wasm];
        let file = self.folder.path().join(format!("{name}.manifest.yaml"));
        if let Some(manifest) = manifest {
            fs::write(&file, manifest).expect("a file");
            args.extend([
                "--manifest",
                file.to_str().expect("a temporary path is UTF-8"),
            ]);
        }
        self.cli(&args).succeeds();
    }

    /// Applies a CDL file given as text.
    pub fn apply(&self, name: &str, cdl: &str) {
        let file = self.folder.path().join(format!("{name}.yaml"));
        fs::write(&file, cdl).expect("a file");
        let file = file.to_str().expect("a temporary path is UTF-8");
        self.cli(&["apply", file]).succeeds();
    }

    /// One request; an error if the server is not there or dies meanwhile.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        http::request(&self.url, KEY, method, path, headers, body)
    }

    /// One request with another key than the tenant's.
    pub fn request_with(&self, key: &str, method: &str, path: &str) -> std::io::Result<Answer> {
        http::request(&self.url, key, method, path, &[], "")
    }

    /// One request with the server's own key.
    pub fn admin_request(&self, method: &str, path: &str) -> std::io::Result<Answer> {
        http::request(&self.url, SERVER_KEY, method, path, &[], "")
    }

    /// One request of another tenant's.
    pub fn attack(&self, method: &str, path: &str) -> std::io::Result<Answer> {
        self.request_with(ATTACKER_KEY, method, path)
    }

    /// Starts an execution under an idempotency key; an error if the server
    /// did not acknowledge it.
    pub fn start_execution(
        &self,
        app: &str,
        workflow: &str,
        input: &Value,
        key: &str,
    ) -> std::io::Result<Answer> {
        let body = serde_json::json!({ "application": app, "workflow": workflow, "input": input });
        let headers = [("Idempotency-Key", key)];
        self.request("POST", "/v1/executions", &headers, &body.to_string())
    }

    /// Waits for the end of an execution, and gives it as the API shows it.
    pub fn wait(&self, id: &str) -> Value {
        loop {
            let path = format!("/v1/executions/{id}?wait={WAIT}");
            let answer = self
                .request("GET", &path, &[], "")
                .expect("the server answers");
            assert_eq!(answer.status, 200, "{}", answer.body);
            if !answer.body["closed_at"].is_null() {
                return answer.body;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Run {
    pub command: String,
    pub exit: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Notes what came of a command.
    pub fn of(args: &[&str], output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the command line prints UTF-8");
        Self {
            command: args.join(" "),
            exit: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Fails the test unless the command ended well.
    #[track_caller]
    #[expect(
        clippy::return_self_not_must_use,
        reason = "the check alone is worth the call"
    )]
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// Fails the test unless the command ended with this code.
    #[track_caller]
    #[expect(
        clippy::return_self_not_must_use,
        reason = "the check alone is worth the call"
    )]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.exit, Some(code), "{self:#?}");
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}
