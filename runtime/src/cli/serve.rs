//! `cascade server`.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::error::Error;
use super::{Session, chain};
use crate::config::{Config, Database, is_url};
use crate::server;
use crate::telemetry::{self, LogFormat};

/// Names what each of several servers with the same configuration is reached by.
pub(crate) const ADVERTISE_VARIABLE: &str = "CASCADE_ADVERTISE";

/// Run the server
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Its configuration; without it everything is as by default
    #[arg(long, short, value_name = "FILE", env = "CASCADE_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen, instead of `server.listen`; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where the other nodes reach this one, instead of `cluster.advertise`: a URL, or an address
    /// of this machine
    #[arg(long, value_name = "URL|ADDRESS", env = ADVERTISE_VARIABLE)]
    advertise: Option<String>,
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
        if let Some(text) = self.advertise {
            config.cluster.advertise = Some(advertised(text, config.server.listen)?);
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
        // Before anybody is told that it is ready, and may tell it to stop.
        let stop = told_to_stop();
        tokio::pin!(stop);
        let running = tokio::select! {
            running = server::start(config, server::Options::default()) => {
                running.map_err(|error| refused(&error))?
            }
            // A start that is broken off is a crash, from which the next one recovers.
            () = &mut stop => return Ok(()),
        };
        // On stdout, so that whoever starts it with port 0 can read the port.
        session.output.item(&json!({ "url": running.url }), || {
            format!("listening on {}", running.url)
        });
        tell_supervisor("READY=1");
        stop.await;
        tell_supervisor("STOPPING=1");
        running.shutdown().await;
        Ok(())
    }
}

/// The URL that `--advertise` means. An address alone gets the port that the server listens on.
fn advertised(text: String, listen: SocketAddr) -> Result<String, Error> {
    match text.parse::<IpAddr>() {
        Ok(ip) if listen.port() != 0 => {
            Ok(format!("http://{}", SocketAddr::new(ip, listen.port())))
        }
        Ok(_) => Err(Error::usage(
            "--advertise: with port 0 it must be a URL, which has a port",
        )),
        Err(_) if is_url(&text) => Ok(text),
        Err(_) => Err(Error::usage(format!(
            "--advertise: `{text}` is no address and not `http://HOST:PORT`"
        ))),
    }
}

/// Tells the service manager how this process is, if it asks (`Type=notify` of systemd).
fn tell_supervisor(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = notify(&socket, state) {
        tracing::warn!(%error, state, "the service manager cannot be told");
    }
}

fn notify(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            UnixAddress::from_abstract_name(name)
        }
        _ => UnixAddress::from_pathname(socket),
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address?)?;
    Ok(())
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

/// Completes when somebody wants this process to end. From the call on, that does not end it by
/// itself any more.
pub(crate) fn told_to_stop() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let told = |kind| {
        let signal = signal(kind).ok();
        async move {
            match signal {
                Some(mut signal) => {
                    signal.recv().await;
                }
                None => std::future::pending().await,
            }
        }
    };
    let (interrupted, terminated) = (told(SignalKind::interrupt()), told(SignalKind::terminate()));
    async {
        tokio::select! {
            () = interrupted => {}
            () = terminated => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;

    use super::*;

    #[test]
    fn an_address_alone_is_advertised_with_the_port() {
        let listen = SocketAddr::from(([0, 0, 0, 0], 7420));
        for (given, url) in [
            ("10.1.2.3", Some("http://10.1.2.3:7420")),
            ("fd00::7", Some("http://[fd00::7]:7420")),
            ("https://a.example", Some("https://a.example")),
            ("a.example", None),
            ("", None),
        ] {
            let found = advertised(given.to_owned(), listen).ok();
            assert_eq!(found.as_deref(), url, "{given}");
        }
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        assert!(advertised("10.1.2.3".to_owned(), any).is_err());
        assert!(advertised("http://a:1".to_owned(), any).is_ok());
    }

    #[test]
    fn the_service_manager_is_told_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        notify(path.as_os_str(), "READY=1").expect("somebody listens");
        let mut told = [0; 16];
        let length = socket.recv(&mut told).expect("it was told");
        assert_eq!(&told[..length], b"READY=1");

        let name = format!("cascade-test-{}", std::process::id());
        let address = UnixAddress::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        notify(OsStr::new(&format!("@{name}")), "STOPPING=1").expect("somebody listens");
        let length = socket.recv(&mut told).expect("it was told");
        assert_eq!(&told[..length], b"STOPPING=1");
    }
}
