//! `cascade dev`: everything in this process, for one developer.
//!
//! The data folder keeps what is durable, the key, and a file that tells other
//! commands where the server is. After a crash, start it again: the folder has
//! all that was acknowledged, and the file is written anew.

mod load;
mod watch;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::client::Client;
use super::context::{self, Context, DATA_FOLDER};
use super::error::{Error, Exit};
use super::output::{Output, Tone, paint};
use super::source::Project;
use super::{Session, input, process, serve};
use crate::config::{Config, Database, HttpPolicy, KeyConfig, Policy, TenantConfig};
use crate::sandbox::{Capability, HostPattern};
use crate::server::{self, Running};
use crate::store::StatusName;
use crate::telemetry::LogFormat;
use crate::tenancy::{Digest, Role, key};
use load::Loader;
use watch::{Change, Watch};

/// The tenant of a developer who has not named any.
const TENANT: &str = "default";

/// Name of the configuration in a project's folder.
const CONFIG_FILE: &str = "cascade.yaml";

/// What lies in the data folder is nobody's source, but for the SDK that `activity
/// new` brings along, which is to be committed with the activity.
const NOT_SOURCE: &str = "/*\n!/sdk/\n";

/// Run everything in this process for one developer, and reload what changes
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Folder of CDL files and activities, which is watched
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where everything durable lies
    #[arg(long, value_name = "DIR", default_value = DATA_FOLDER)]
    data: PathBuf,
    /// A database in place of the file in the data folder: `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Start this workflow once everything is loaded, and show its history
    #[arg(long, value_name = "[APP/]WORKFLOW")]
    start: Option<String>,
    /// Its input: JSON, or @FILE; {} by default
    #[arg(long, short, value_name = "JSON", requires = "start")]
    input: Option<String>,
    /// End after loading and --start, instead of staying up
    #[arg(long)]
    once: bool,
}

impl Dev {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let project = Project::scan(&self.dir)?;
        let data = Data::open(&self.data)?;
        let config = self.config(&data)?;
        // The lines of activities, and what goes wrong; the rest is said here.
        serve::log(LogFormat::Text, "warn,activity=info")?;
        let running = server::start(config, server::Options::default())
            .await
            .map_err(|error| serve::refused(&error))?;
        let result = self.serve(session, &data, &running, project).await;
        context::remove(&data.folder);
        running.shutdown().await;
        result
    }

    async fn serve(
        &self,
        session: &Session,
        data: &Data,
        running: &Running,
        project: Project,
    ) -> Result<(), Error> {
        let output = session.output;
        let context = Context {
            url: running.url.clone(),
            key: Some(data.key.clone()),
            server_key: Some(data.server_key.clone()),
            tenant: None,
        };
        context::write(&data.folder, &context)?;
        let client = Client::new(&context)?;
        banner(output, &context);
        // Watching begins before loading, so that no change falls in between.
        let mut watch = Watch::new(&project)?;
        let loader = Loader {
            root: self.dir.clone(),
            client: &client,
            output,
        };
        let stop = serve::told_to_stop();
        tokio::pin!(stop);
        tokio::select! {
            () = &mut stop => return Ok(()),
            project = loader.load(&Change::Everything) => {
                if project.is_empty() {
                    output.note(format!(
                        "nothing in {} yet: it takes CDL files (*.yaml) and activities (crates, *.wasm)",
                        self.dir.display()
                    ));
                }
            }
        }
        if let Some(workflow) = &self.start {
            tokio::select! {
                () = &mut stop => return Ok(()),
                started = self.first_execution(&client, output, workflow) => started?,
            }
        }
        if self.once {
            return Ok(());
        }
        output.note(paint(
            Tone::Faint,
            "\nwatching for changes; end with Ctrl-C",
        ));
        loop {
            tokio::select! {
                () = &mut stop => return Ok(()),
                Some(change) = watch.next() => {
                    let project = loader.load(&change).await;
                    watch.follow(&project);
                }
            }
        }
    }

    /// Runs one execution to its end and shows its history.
    async fn first_execution(
        &self,
        client: &Client,
        output: Output,
        workflow: &str,
    ) -> Result<(), Error> {
        let (application, workflow) = process::address(client, workflow).await?;
        output.note(format!("\nstarting {application}/{workflow}"));
        let input = input::read(self.input.as_deref())?;
        let view = process::start(client, &application, &workflow, &input, None).await?;
        let view = process::wait(client, view).await?;
        process::print_history(client, output, &view.id).await?;
        // Whoever stays has seen it; a script is told.
        if self.once && view.status != StatusName::Completed {
            return Err(Error::told(Exit::Failed));
        }
        Ok(())
    }

    /// The project's configuration if it has one, made fit for development:
    /// local, in the data folder, with a tenant whose key is known.
    fn config(&self, data: &Data) -> Result<Config, Error> {
        let file = self.dir.join(CONFIG_FILE);
        let mut config = if file.is_file() {
            Config::load(&file).map_err(|problems| Error::usage(problems.to_string()))?
        } else {
            Config::default()
        };
        config.data_dir.clone_from(&data.folder);
        // Not the file's: that is where it runs for others.
        config.database = match &self.database {
            Some(url) => serve::given(url.clone())?,
            None => Database::default(),
        };
        config.server.listen = self.listen.unwrap_or(config.server.listen);
        config
            .server
            .admin_keys
            .push(key_config(&data.server_key, None)?);
        let key = key_config(&data.key, Some(Role::Admin))?;
        // The first tenant of the file is the one that its author works as.
        if let Some(tenant) = config.tenants.first_mut() {
            tenant.keys.push(key);
        } else {
            config.tenants.push(TenantConfig {
                id: Some(TENANT.parse().expect("it is short and plain")),
                policy: everything(),
                keys: vec![key],
                ..TenantConfig::default()
            });
        }
        Ok(config)
    }
}

/// What a developer's own activities may do: all that their manifests ask for,
/// but for addresses of the private network.
fn everything() -> Policy {
    let any: HostPattern = "*".parse().expect("a pattern that is documented");
    Policy {
        capabilities: Capability::ALL.into_iter().collect(),
        http: HttpPolicy {
            hosts: vec![any],
            allow_private: Vec::new(),
        },
    }
}

fn key_config(text: &str, role: Option<Role>) -> Result<KeyConfig, Error> {
    let id = key::parse(text)
        .ok_or_else(|| Error::usage("the data folder's key is damaged; remove its file `keys`"))?;
    Ok(KeyConfig {
        id: id.to_owned(),
        role,
        label: "cascade dev".to_owned(),
        digest: Some(Digest::of(text)),
        ..KeyConfig::default()
    })
}

fn banner(output: Output, context: &Context) {
    if output.is_json() {
        output.item(context, String::new);
        return;
    }
    let key = context.key.as_deref().unwrap_or_default();
    output.note(format!(
        "{}  {}\n{}  {key}\n\nin another terminal, in this folder:\n  \
         cascade process list\n  cascade process start WORKFLOW --input '{{}}' --wait\n",
        paint(Tone::Strong, "url"),
        context.url,
        paint(Tone::Strong, "key"),
    ));
}

/// The data folder, held by this process only.
struct Data {
    folder: PathBuf,
    key: String,
    server_key: String,
    /// Released when the process ends, however it ends.
    _lock: File,
}

impl Data {
    fn open(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|source| Error::file("make", folder, &source))?;
        let ignore = folder.join(".gitignore");
        fs::write(&ignore, NOT_SOURCE).map_err(|source| Error::file("write", &ignore, &source))?;
        let lock = lock(&folder.join("lock"))?;
        let (key, server_key) = keys(&folder.join("keys"))?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            server_key,
            _lock: lock,
        })
    }
}

fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(|source| Error::file("make", path, &source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::new(
            Exit::Conflict,
            "another `cascade dev` runs in this folder",
        )
        .hint("use that one, or give this one another folder with --data")),
        Err(fs::TryLockError::Error(source)) => Err(Error::file("lock", path, &source)),
    }
}

/// The keys of this folder; made once, so that they outlive a restart.
fn keys(path: &Path) -> Result<(String, String), Error> {
    if path.is_file() {
        let text = input::read_file(path)?;
        let mut lines = text.lines().map(str::to_owned);
        if let (Some(key), Some(server_key)) = (lines.next(), lines.next()) {
            return Ok((key, server_key));
        }
    }
    let ((_, key), (_, server_key)) = (key::generate(), key::generate());
    let write = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(path)?
            .write_all(format!("{key}\n{server_key}\n").as_bytes())
    };
    write().map_err(|source| Error::file("write", path, &source))?;
    Ok((key, server_key))
}
