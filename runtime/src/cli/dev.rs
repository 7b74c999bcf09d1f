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

use cascade_cdl::TenantId;
use clap::Args;
use serde_json::json;

use super::client::Client;
use super::context::{self, Context, DATA_FOLDER};
use super::error::{Error, Exit};
use super::output::{Output, Tone, paint};
use super::source::Project;
use super::{Session, chain, process, serve};
use crate::config::{Config, DEFAULT_LISTEN, HttpPolicy, KeyConfig, Policy, TenantConfig};
use crate::sandbox::{Capability, HostPattern};
use crate::server::{self, Running};
use crate::tenancy::{Digest, Role, key};
use load::Loader;
use watch::{Change, Watch};

/// The tenant of a developer who has not named any.
const TENANT: &str = "default";

/// Name of the configuration in a project's folder.
const CONFIG_FILE: &str = "cascade.yaml";

/// Run everything in this process for one developer, and reload what changes
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Folder of CDL files and activities, which is watched
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where everything durable lies
    #[arg(long, value_name = "DIR", default_value = DATA_FOLDER)]
    data: PathBuf,
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
        let output = session.output;
        let project = Project::scan(&self.dir)?;
        let data = Data::open(&self.data)?;
        let config = self.config(&data)?;
        let running = server::start(config)
            .await
            .map_err(|error| Error::failed(chain(&*error)))?;
        let result = self.serve(session, &data, &running, project).await;
        context::remove(&data.folder);
        output.note("stopping");
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
        loader.load(&Change::Everything).await;
        if let Some(workflow) = &self.start {
            self.first_execution(&client, output, workflow).await?;
        }
        if self.once {
            return Ok(());
        }
        advice(output);
        let stop = serve::told_to_stop();
        tokio::pin!(stop);
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
}
