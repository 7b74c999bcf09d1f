//! `cascade server`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::error::Error;
use super::{Session, chain};
use crate::config::Config;
use crate::server;

/// Run the server
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Its configuration; without it everything is as by default
    #[arg(long, short, value_name = "FILE", env = "CASCADE_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen, instead of `server.listen`; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where everything durable lies, instead of `data_dir`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Check the configuration and stop
    #[arg(long)]
    check: bool,
}

impl Server {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let mut config = match &self.config {
            Some(path) => {
                Config::load(path).map_err(|problems| Error::usage(problems.to_string()))?
            }
            None => Config::default(),
        };
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        if let Some(data) = self.data {
            config.data_dir = data;
        }
        if self.check {
            let shown = config.effective();
            session.output.result(&config, || shown);
            return Ok(());
        }
        let running = server::start(config, server::Options::default())
            .await
            .map_err(|error| Error::failed(chain(&error)))?;
        // On stdout, so that whoever starts it with port 0 can read the port.
        session.output.item(&json!({ "url": running.url }), || {
            format!("listening on {}", running.url)
        });
        told_to_stop().await;
        running.shutdown().await;
        Ok(())
    }
}

/// Completes when somebody wants this process to end.
pub(crate) async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).ok();
    let terminated = async {
        match &mut terminate {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
