//! `cascade activity`: makes, builds, pushes, shows and tries activities.

use std::path::{Path, PathBuf};

use cascade_cdl::program::Resource;
use cascade_cdl::{ActivityTask, ExecutionId, Json, TaskId};
use clap::{Args, Subcommand};
use serde_json::json;

use super::client::Client;
use super::error::{Error, Exit};
use super::local::{Caller, Local};
use super::output::{Output, Table, Tone, brief, paint, plain, size};
use super::push;
use super::source::{self, Found};
use super::wire::{ActivityDetail, ActivityView, Items};
use super::{Session, input, template, toolchain};
use crate::catalog::Manifest;
use crate::clock::{Clock, SystemClock};
use crate::sandbox::{Cancel, Capability, Outcome};

/// Make, push and look at activities
#[derive(Debug, Subcommand)]
pub(crate) enum Activity {
    /// Make the crate of a new activity
    New(New),
    /// Compile an activity's crate to a component
    Build(Build),
    /// Upload an activity: a .wasm file, or a crate, which is built first
    Push(Push),
    /// List the server's activities
    List,
    /// Show what an activity is and can do
    Inspect {
        /// Its name, or NAME:VERSION
        name: String,
        /// One version; all by default
        #[arg(long)]
        version: Option<String>,
    },
    /// Run an activity once in a sandbox on this machine
    Run(RunOnce),
}

/// Make the crate of a new activity
#[derive(Debug, Args)]
pub(crate) struct New {
    /// Its name: lower-case letters, digits, - and _
    name: String,
    /// The folder; ./NAME by default
    dir: Option<PathBuf>,
    /// Take the SDK from this folder, as in a clone of Cascade, and not from this program
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// Compile an activity's crate to a component
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The crate's folder
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Without optimisation: faster to build, slower and larger
    #[arg(long)]
    debug: bool,
}

/// Upload an activity
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// A .wasm file, or the folder of a crate
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Its name; that of the crate or the file by default
    #[arg(long)]
    name: Option<String>,
    /// The version's name; counted by the server (v1, v2, ...) by default
    #[arg(long)]
    version: Option<String>,
    /// Manifest of a .wasm file; NAME.manifest.yaml beside it by default
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// Run an activity once in a sandbox on this machine
#[derive(Debug, Args)]
pub(crate) struct RunOnce {
    /// A .wasm file, or the folder of a crate, which is built first
    path: PathBuf,
    /// JSON, or @FILE, or - for standard input; {} by default
    #[arg(long, short, value_name = "JSON")]
    input: Option<String>,
}

impl Activity {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let output = session.output;
        match self {
            Self::New(new) => new.run(output),
            Self::Build(build) => build.run(output).await,
            Self::Push(push) => push.run(&session.client()?, output).await,
            Self::List => list(&session.client()?, output).await,
            Self::Inspect { name, version } => {
                let (name, inline) = match name.split_once(':') {
                    Some((name, version)) => (name, Some(version)),
                    None => (name.as_str(), None),
                };
                let version = version.as_deref().or(inline);
                inspect(&session.client()?, output, name, version).await
            }
            Self::Run(run) => run.run(output).await,
        }
    }
}

impl New {
    fn run(self, output: Output) -> Result<(), Error> {
        let dir = self.dir.unwrap_or_else(|| PathBuf::from(&self.name));
        let sdk = match self.sdk {
            Some(folder) => template::SdkSource::Path(folder),
            None => template::SdkSource::Vendored,
        };
        let files = template::instantiate(&dir, &self.name, &sdk)
            .map_err(|error| Error::usage(super::chain(&error)))?;
        let dir = dir.display().to_string();
        output.result(&json!({ "dir": dir, "files": files }), || {
            let mut lines = vec![format!("made {dir}")];
            lines.extend(files.iter().map(|file| format!("  {}", file.display())));
            lines.push(String::new());
            lines.push("next:".to_owned());
            lines.push(format!("  cd {dir}"));
            lines.push("  cargo test                  # its unit tests, natively".to_owned());
            lines.push("  cascade activity run .      # build it and run it once, here".to_owned());
            lines.push("  cascade activity push       # upload it, once a server is up".to_owned());
            lines.join("\n")
        });
        Ok(())
    }
}

impl Build {
    async fn run(self, output: Output) -> Result<(), Error> {
        let found = build(&self.dir, !self.debug, output).await?;
        let bytes = source::read_module(&found.wasm)?.len() as u64;
        let path = found.wasm.display().to_string();
        output.result(
            &json!({ "name": found.name, "wasm": path, "bytes": bytes }),
            || format!("{path} ({})", size(bytes)),
        );
        Ok(())
    }
}

impl Push {
    async fn run(self, client: &Client, output: Output) -> Result<(), Error> {
        let mut found = find(&self.path, output).await?;
        if let Some(name) = self.name {
            found.name = name;
        }
        if let Some(manifest) = self.manifest {
            found.manifest = source::manifest(&manifest)?;
        }
        let pushed = push::push(client, &found, self.version.as_deref(), output).await?;
        output.result(&pushed, || push::describe(&pushed));
        Ok(())
    }
}

impl RunOnce {
    async fn run(self, output: Output) -> Result<(), Error> {
        let input = input::read(self.input.as_deref())?;
        let found = find(&self.path, output).await?;
        let name = found.name.clone();
        let spinner = output.spinner(format!("compiling {name}"));
        let local = Local::open(vec![found]).await?;
        spinner.finish_and_clear();
        let task = ActivityTask {
            task: TaskId(1),
            attempt: 1,
            resource: Resource {
                name: name.as_str().into(),
                version: None,
                region: None,
                child: None,
            },
            state: name.as_str().into(),
            input: Json::from_value(&input),
            secrets: None,
            scheduled_at: SystemClock.now(),
            timeout_ms: None,
            heartbeat_ms: None,
            priority: cascade_cdl::program::Priority::default(),
            rate_limit: None,
        };
        let caller = Caller {
            application: "local",
            workflow: "local",
            execution: ExecutionId(uuid::Uuid::now_v7()),
        };
        let outcome = local.run(&caller, &task, Cancel::default()).await;
        print(output, &outcome)
    }
}

/// The output goes to stdout, so that it can be piped; what it cost, to stderr.
fn print(output: Output, outcome: &Outcome) -> Result<(), Error> {
    let receipt = &outcome.receipt;
    let document = json!({
        "output": outcome.result.as_ref().ok(),
        "failure": outcome.result.as_ref().err(),
        "receipt": receipt,
        "memory_peak": outcome.memory_peak,
        "log_bytes": outcome.log_bytes,
    });
    let failed = outcome.result.as_ref().err();
    match &outcome.result {
        Ok(value) => output.result(&document, || value.as_str().to_owned()),
        Err(failure) => {
            if output.is_json() {
                output.result(&document, String::new);
            }
            let what = format!("{}: {}", failure.error, failure.message);
            output.note(paint(Tone::Bad, plain(&what)));
        }
    }
    output.note(paint(
        Tone::Faint,
        format!(
            "{}, fuel {} of {}, memory {} of {}, {} µs, module {}",
            if receipt.pure { "pure" } else { "not pure" },
            receipt.fuel,
            receipt.fuel_limit,
            size(outcome.memory_peak),
            size(receipt.memory_limit),
            receipt.duration_us,
            brief(&receipt.digest, 13),
        ),
    ));
    match failed {
        None => Ok(()),
        Some(_) => Err(Error::told(Exit::Failed)),
    }
}

/// The activity at `path`, built if it is a crate.
pub(crate) async fn find(path: &Path, output: Output) -> Result<Found, Error> {
    if path.is_dir() {
        build(path, true, output).await
    } else {
        source::module(path)
    }
}

/// Builds the crate in `dir`.
pub(crate) async fn build(dir: &Path, release: bool, output: Output) -> Result<Found, Error> {
    let spinner = output.spinner(format!("building {}", dir.display()));
    let (folder, bar) = (dir.to_owned(), spinner.clone());
    let built = tokio::task::spawn_blocking(move || {
        let mut progress = |line: &str| bar.set_message(brief(line, 100));
        let wasm = toolchain::build(&folder, release, None, &mut progress)?;
        toolchain::manifest(&folder).map(|manifest| (manifest, wasm))
    });
    let built = built
        .await
        .map_err(|error| Error::failed(format!("the build ended badly: {error}")))?;
    spinner.finish_and_clear();
    let (declared, wasm) = built.map_err(|error| Error::failed(super::chain(&error)))?;
    let manifest: Manifest = serde_json::from_value(declared.json).map_err(|error| {
        let manifest = dir.join("Cargo.toml");
        Error::usage(format!("{}: {error}", manifest.display()))
            .hint("see [package.metadata.cascade] there")
    })?;
    Ok(Found {
        name: declared.name,
        wasm,
        manifest,
    })
}

async fn list(client: &Client, output: Output) -> Result<(), Error> {
    let list: Items<ActivityView> = client.get(&["v1", "activities"], &[]).await?;
    output.result(&list, || {
        let mut table = Table::new(&["name", "version", "size", "powers", "pure", "sha256"]);
        for activity in &list.items {
            table.row([
                (activity.name.clone(), Tone::Strong),
                (activity.version.clone(), Tone::Plain),
                (size(activity.size), Tone::Plain),
                (names(&activity.powers), Tone::Plain),
                (yes_or_no(activity.pure), Tone::Plain),
                (brief(&activity.digest, 13), Tone::Faint),
            ]);
        }
        table.render()
    });
    Ok(())
}

async fn inspect(
    client: &Client,
    output: Output,
    name: &str,
    version: Option<&str>,
) -> Result<(), Error> {
    let detail: ActivityDetail = match version {
        Some(version) => {
            let path = ["v1", "activities", name, "versions", version];
            client.get(&path, &[]).await?
        }
        None => client.get(&["v1", "activities", name], &[]).await?,
    };
    output.result(&detail, || describe(&detail));
    Ok(())
}

fn describe(detail: &ActivityDetail) -> String {
    let activity = &detail.newest;
    let limits = &activity.limits;
    let none = |text: String| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    };
    let mut lines = vec![
        format!(
            "{} {}",
            paint(Tone::Strong, &activity.name),
            activity.version
        ),
        format!("resource  {}", activity.resource),
        format!("sha256    {}", activity.digest),
        format!("size      {}", size(activity.size)),
        format!("pure      {}", yes_or_no(activity.pure)),
        format!("powers    {}", none(names(&activity.powers))),
        format!("granted   {}", none(names(&activity.granted))),
        format!("denied    {}", none(names(&activity.denied))),
        format!(
            "limits    fuel {}, memory {}, input {}, output {}, log {}, {} ms",
            limits.fuel_per_attempt,
            size(limits.memory_bytes),
            size(limits.input_bytes),
            size(limits.output_bytes),
            size(limits.log_bytes),
            limits.attempt_timeout_ms
        ),
        format!("manifest  {}", activity.manifest),
    ];
    let items = [
        ("imports", &activity.imports),
        ("exports", &activity.exports),
    ];
    for (what, names) in items {
        lines.push(what.to_owned());
        lines.extend(names.iter().map(|name| format!("  {}", plain(name))));
    }
    if !detail.versions.is_empty() {
        lines.push("versions".to_owned());
    }
    for version in &detail.versions {
        let digest = brief(&version.digest, 13);
        lines.push(format!(
            "  {}  {}  {digest}",
            version.version, version.created_at
        ));
        let changes = version.diff.as_ref().map(push::changes).unwrap_or_default();
        lines.extend(changes.into_iter().map(|change| format!("    {change}")));
    }
    lines.join("\n")
}

fn names(powers: &[Capability]) -> String {
    let names: Vec<&str> = powers.iter().map(|power| power.name()).collect();
    names.join(",")
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}
