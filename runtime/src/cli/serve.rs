//! `cascade server`.

use std::io::{ErrorKind, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::error::Error;
use super::{Session, chain};
use crate::config::{Config, Database};
use crate::server;
use crate::telemetry::{self, LogFormat};

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
    /// The database, instead of `database`: `sqlite:PATH` or `postgres://USER@HOST/DATABASE`.
    /// A password is safer in the variable than among the arguments
    #[arg(
        long,
        value_name = "URL",
        env = "CASCADE_DATABASE",
        hide_env_values = true
    )]
    database: Option<String>,
    /// How log lines look on stderr; `RUST_LOG` filters them, as in `warn,activity=debug`
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
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
        if let Some(url) = self.database {
            config.database = given(url)?;
        }
        if self.check {
            let shown = config.effective();
            session.output.result(&config.shown(), || shown);
            return Ok(());
        }
        log(self.log_format, "info")?;
        let running = server::start(config, server::Options::default())
            .await
            .map_err(|error| refused(&error))?;
        // On stdout, so that whoever starts it with port 0 can read the port.
        session.output.item(&json!({ "url": running.url }), || {
            format!("listening on {}", running.url)
        });
        told_to_stop().await;
        running.shutdown().await;
        Ok(())
    }
}

/// The database of a URL from the command line.
pub(crate) fn given(url: String) -> Result<Database, Error> {
    Database::given(url).map_err(|problem| Error::usage(format!("--database: {problem}")))
}

/// Why a server does not start, and what to do about it.
pub(crate) fn refused(error: &server::Error) -> Error {
    let text = Error::failed(chain(error));
    match error {
        server::Error::Listen { address, source } if source.kind() == ErrorKind::AddrInUse => text
            .hint(format!(
                "another server listens on {address}: use that one (--url http://{address}), end it, \
                 or give this one a free port with --listen 127.0.0.1:0"
            )),
        _ => text,
    }
}

/// Sends the log of this process to stderr, in colour if that is a terminal.
pub(crate) fn log(format: LogFormat, filter: &str) -> Result<(), Error> {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = !plain && std::io::stderr().is_terminal();
    telemetry::log(format, filter, colour).map_err(Error::usage)
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
