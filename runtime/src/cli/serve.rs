//! `cascade server`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Session;
use super::error::Error;
use super::output;
use crate::config::Config;

/// Run the server
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Its configuration; without it everything is as by default
    #[arg(long, short, value_name = "FILE", env = "CASCADE_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen, instead of server.listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where everything durable lies, instead of data_dir
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Check the configuration and stop
    #[arg(long)]
    check: bool,
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
