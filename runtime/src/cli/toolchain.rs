//! Compiles an activity's crate to a WebAssembly component, as `cascade activity build` does.
//!
//! The compiler comes from wherever it can be had: the installed target,
//! `rustup`, or Debian's packages. Cargo does the rest. A crash leaves what
//! cargo and the script leave, both of which take up where they were.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What activities are compiled for.
const TARGET: &str = "wasm32-wasip2";

/// Finds or makes a compiler; the same that `scripts/build-guests.sh` asks.
const SCRIPT: &str = include_str!("../../../scripts/guest-rustc.sh");

/// How many of the last lines of a failed command are repeated in its error:
/// one compiler message with its surroundings.
const TAIL: usize = 40;

/// A compiler for activities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// What cargo must have in its environment.
    pub env: Vec<(String, String)>,
    /// Which way it was found, for people.
    pub how: String,
}

/// What a crate's manifest says of its activity.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// `package.metadata.cascade.name`, or the package's name with `_` for `-`.
    pub name: String,
    /// `package.metadata.cascade.version`, or the package's version.
    pub version: String,
    /// What is uploaded beside the module: `capabilities`, `http`, `limits`.
    pub json: Value,
}

/// Why an activity was not built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that is needed is not there.
    #[error("cannot run `{0}`")]
    Run(String, #[source] io::Error),
    /// A program failed; its last lines.
    #[error("{0} failed\n{1}")]
    Failed(String, String),
    /// What cargo said was not understood.
    #[error("cannot read what cargo said of `{}`", .0.display())]
    Cargo(PathBuf, #[source] serde_json::Error),
    /// The folder is no crate.
    #[error("`{}` has no Cargo.toml with a package", .0.display())]
    NoCrate(PathBuf),
    /// The crate is no activity.
    #[error("`{0}` gives no component: its Cargo.toml needs [lib] with crate-type = [\"cdylib\"]")]
    NoComponent(String),
    /// The manifest's table has what it must not have.
    #[error("package.metadata.cascade of `{0}`: {1}")]
    Manifest(String, String),
}

/// Finds a compiler for activities: the installed target, `rustup target add`,
/// Debian's packages, in this order. The first time can take a minute or two.
pub fn guest_rustc(progress: &mut dyn FnMut(&str)) -> Result<Toolchain, Error> {
    if installed()? {
        return Ok(Toolchain {
            env: Vec::new(),
            how: format!("{TARGET} is installed"),
        });
    }
    let mut how = String::new();
    let mut bash = Command::new("bash");
    bash.arg("-s");
    let path = run(
        bash,
        "setting up the guest toolchain",
        Some(SCRIPT),
        &mut |line| {
            if let Some(line) = line.strip_prefix("guest toolchain: ") {
                line.clone_into(&mut how);
            }
            progress(line);
        },
    )?;
    Ok(Toolchain {
        env: vec![("RUSTC".to_owned(), path.trim().to_owned())],
        how,
    })
}

/// What the crate in `dir` says of its activity.
pub fn manifest(dir: &Path) -> Result<Manifest, Error> {
    Crate::read(dir)?.manifest()
}

/// Compiles the crate in `dir` and gives the component's path. `target_dir` is
/// `guest` in cargo's own if it is not given.
pub fn build(
    dir: &Path,
    release: bool,
    target_dir: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, Error> {
    let package = Crate::read(dir)?;
    package.manifest()?; // its mistakes before the long work
    let toolchain = guest_rustc(progress)?;
    progress(&format!("compiler: {}", toolchain.how));
    // The guest's compiler may be another than the host's: in one folder they
    // would throw each other's work away.
    let target_dir = target_dir.map_or_else(|| package.target_dir.join("guest"), Path::to_owned);
    let mut cargo = cargo();
    cargo
        .args([
            "build",
            "--target",
            TARGET,
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(["--profile", if release { package.profile() } else { "dev" }])
        .arg("--manifest-path")
        .arg(&package.manifest_path)
        .arg("--target-dir")
        .arg(&target_dir)
        .envs(toolchain.env);
    let messages = run(cargo, "cargo build", None, progress)?;
    messages
        .lines()
        .filter_map(|line| package.component(line))
        .next_back()
        .ok_or_else(|| Error::NoComponent(package.name.clone()))
}

/// Whether the compiler that cargo would use has std for the target.
fn installed() -> Result<bool, Error> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| Error::Run(rustc, error))?;
    let libraries = String::from_utf8_lossy(&output.stdout);
    let Ok(entries) = fs::read_dir(libraries.trim()) else {
        return Ok(false);
    };
    Ok(entries.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with("libstd-"))
    }))
}

fn cargo() -> Command {
    Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
}

/// A crate as cargo sees it.
#[derive(Debug)]
struct Crate {
    name: String,
    version: String,
    manifest_path: PathBuf,
    target_dir: PathBuf,
    /// `package.metadata.cascade`.
    cascade: Value,
}

impl Crate {
    fn read(dir: &Path) -> Result<Self, Error> {
        let manifest_path =
            fs::canonicalize(dir.join("Cargo.toml")).map_err(|_| Error::NoCrate(dir.to_owned()))?;
        let mut cargo = cargo();
        cargo
            .args([
                "metadata",
                "--no-deps",
                "--format-version",
                "1",
                "--manifest-path",
            ])
            .arg(&manifest_path);
        let text = run(cargo, "cargo metadata", None, &mut |_| ())?;
        let metadata: Value = serde_json::from_str(&text)
            .map_err(|error| Error::Cargo(manifest_path.clone(), error))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let package = metadata["packages"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|package| Path::new(&text(&package["manifest_path"])) == manifest_path)
            .ok_or_else(|| Error::NoCrate(dir.to_owned()))?;
        Ok(Self {
            name: text(&package["name"]),
            version: text(&package["version"]),
            target_dir: PathBuf::from(text(&metadata["target_directory"])),
            cascade: package["metadata"]["cascade"].clone(),
            manifest_path,
        })
    }

    fn manifest(&self) -> Result<Manifest, Error> {
        self.check_keys()?;
        let text = |key: &str, default: String| match &self.cascade[key] {
            Value::Null => Ok(default),
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong(format!("`{key}` is {other}, not text"))),
        };
        let name = text("name", self.name.replace('-', "_"))?;
        let version = text("version", self.version.clone())?;
        let mut json = serde_json::Map::new();
        json.insert("capabilities".to_owned(), Value::Array(Vec::new()));
        for key in ["capabilities", "http", "limits"] {
            if !self.cascade[key].is_null() {
                json.insert(key.to_owned(), self.cascade[key].clone());
            }
        }
        Ok(Manifest {
            name,
            version,
            json: Value::Object(json),
        })
    }

    /// A key that nobody knows is a mistake: with `capabilites` the activity
    /// would be denied everything. What the keys hold is for the server to judge.
    fn check_keys(&self) -> Result<(), Error> {
        const KNOWN: [&str; 6] = [
            "capabilities",
            "http",
            "limits",
            "name",
            "profile",
            "version",
        ];
        let Value::Object(table) = &self.cascade else {
            return match self.cascade {
                Value::Null => Ok(()),
                _ => Err(self.wrong("not a table".to_owned())),
            };
        };
        match table.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            Some(key) => Err(self.wrong(format!(
                "unknown key `{key}`; there are {}",
                KNOWN.join(", ")
            ))),
            None => Ok(()),
        }
    }

    fn wrong(&self, what: String) -> Error {
        Error::Manifest(self.name.clone(), what)
    }

    /// The profile of a release build: workspaces that hold more than
    /// activities have one of their own for them.
    fn profile(&self) -> &str {
        self.cascade["profile"].as_str().unwrap_or("release")
    }

    /// The component that a line of cargo's messages speaks of, if it is this crate's.
    fn component(&self, line: &str) -> Option<PathBuf> {
        let message: Value = serde_json::from_str(line).ok()?;
        let ours = message["reason"] == "compiler-artifact"
            && message["manifest_path"].as_str().map(Path::new) == Some(&self.manifest_path);
        let files = ours.then(|| message["filenames"].as_array())??;
        files
            .iter()
            .filter_map(Value::as_str)
            .map(PathBuf::from)
            .find(|file| {
                file.extension()
                    .is_some_and(|extension| extension == "wasm")
            })
    }
}

/// Runs a program, passes its standard error on line by line, gives its standard output.
fn run(
    mut command: Command,
    what: &str,
    input: Option<&'static str>,
    progress: &mut dyn FnMut(&str),
) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error| Error::Run(program.clone(), error);
    let mut child = command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    // All three at once: a program that waits for one of them must not wait for ever.
    let (output, tail) = std::thread::scope(|scope| {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program that ends before it has read all says so by its status.
            scope.spawn(move || stdin.write_all(input.as_bytes()).ok());
        }
        let reader = scope.spawn(move || {
            let mut output = Vec::new();
            stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut output))?;
            Ok(String::from_utf8_lossy(&output).into_owned())
        });
        let mut tail = std::collections::VecDeque::new();
        for line in stderr
            .into_iter()
            .flat_map(|stderr| BufReader::new(stderr).split(b'\n'))
        {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            progress(&line);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line.into_owned());
        }
        let output: io::Result<String> = reader.join().expect("reading does not panic");
        io::Result::Ok((output?, Vec::from(tail).join("\n")))
    })
    .map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    if status.success() {
        Ok(output)
    } else {
        Err(Error::Failed(what.to_owned(), tail))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(cascade: Value) -> Crate {
        Crate {
            name: "charge-card".into(),
            version: "1.2.0".into(),
            manifest_path: "/w/charge-card/Cargo.toml".into(),
            target_dir: "/w/target".into(),
            cascade,
        }
    }

    #[test]
    fn a_manifest_has_the_packages_name_unless_it_says_otherwise() {
        let plain = package(Value::Null).manifest().expect("a manifest");
        assert_eq!(
            (plain.name.as_str(), plain.version.as_str()),
            ("charge_card", "1.2.0")
        );
        assert_eq!(plain.json, json!({ "capabilities": [] }));

        let full = json!({
            "name": "charge", "version": "2", "profile": "guest",
            "capabilities": ["http"], "http": { "hosts": ["a.example"] }, "limits": { "memory_bytes": 1 },
        });
        let full = package(full);
        assert_eq!(full.profile(), "guest");
        let manifest = full.manifest().expect("a manifest");
        assert_eq!(
            (manifest.name.as_str(), manifest.version.as_str()),
            ("charge", "2")
        );
        let expected = json!({
            "capabilities": ["http"], "http": { "hosts": ["a.example"] }, "limits": { "memory_bytes": 1 },
        });
        assert_eq!(manifest.json, expected);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let error = package(json!({ "capabilites": [] }))
            .manifest()
            .expect_err("unknown");
        assert!(
            error.to_string().contains("unknown key `capabilites`"),
            "{error}"
        );
        assert!(package(json!({ "name": 1 })).manifest().is_err());
        assert!(package(json!("http")).manifest().is_err());
    }

    #[test]
    fn the_component_is_found_among_cargos_messages() {
        let this = package(Value::Null);
        let message = |manifest: &str| {
            json!({
                "reason": "compiler-artifact",
                "manifest_path": manifest,
                "filenames": ["/t/charge_card.d", "/t/charge_card.wasm"],
            })
            .to_string()
        };
        let found = this.component(&message("/w/charge-card/Cargo.toml"));
        assert_eq!(found, Some(PathBuf::from("/t/charge_card.wasm")));
        assert_eq!(this.component(&message("/w/other/Cargo.toml")), None);
        assert_eq!(this.component("not json"), None);
    }

    #[test]
    fn a_program_that_fails_leaves_its_last_words() {
        let mut bash = Command::new("bash");
        bash.arg("-s");
        let mut lines = Vec::new();
        let script = "echo out; echo one >&2; echo two >&2; exit 3";
        let error = run(bash, "a script", Some(script), &mut |line| {
            lines.push(line.to_owned());
        });
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(
            error.expect_err("status 3").to_string(),
            "a script failed\none\ntwo"
        );
    }

    #[test]
    fn a_folder_without_a_crate_is_named() {
        let error = manifest(Path::new("/")).expect_err("no Cargo.toml there");
        assert_eq!(error.to_string(), "`/` has no Cargo.toml with a package");
    }
}
