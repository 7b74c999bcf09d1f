//! Connections: accepted up to a bound, closed when they idle or dawdle,
//! finished in good order when the server stops.
//!
//! A place among the connections is worth having, and taking one needs no key.
//! So whoever holds one must use it: ask within `request_timeout`, and read
//! what was asked for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::{Idleness, Prompt};
use crate::config::Server;

/// Largest head of a request: the manifest of an upload is the largest header
/// that is meant, and has 8 KiB.
const MAX_HEAD: usize = 64 << 10;

/// Requests at a time over one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Pause after the system refused a connection, as it does when out of file
/// descriptors: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopping`, then lets what is in flight end for as long as
/// `shutdown_grace` says.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &Server,
    stopping: CancellationToken,
) {
    let builder = Arc::new(builder(config));
    let places = Arc::new(Semaphore::new(config.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            // Forgets connections that have ended.
            Some(_) = connections.join_next() => continue,
            () = stopping.cancelled() => break,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (builder, router) = (Arc::clone(&builder), router.clone());
        let stopping = stopping.clone();
        let patience = config.request_timeout;
        connections.spawn(async move {
            connection(stream, &builder, router, patience, stopping).await;
            drop(place);
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(config.shutdown_grace, ended)
        .await
        .is_err()
    {
        let open = connections.len();
        tracing::warn!(
            open,
            "connections were still open when the time to stop was up"
        );
        connections.shutdown().await;
    }
}

fn builder(config: &Server) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.request_timeout)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(config.request_timeout)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(
    stream: TcpStream,
    builder: &auto::Builder<TokioExecutor>,
    router: Router,
    patience: Duration,
    stopping: CancellationToken,
) {
    // Answers are small and written at once: waiting for more only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it began");
        return;
    }
    let (idleness, service) = Idleness::of(router);
    let stream = TokioIo::new(Prompt::new(stream, patience));
    let connection = builder.serve_connection_with_upgrades(stream, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // Also before it is known which HTTP it speaks, and however well it
        // answers pings.
        () = idleness.lasts(patience) => {
            connection.as_mut().graceful_shutdown();
            let Ok(ended) = timeout(patience, connection).await else {
                tracing::debug!("an idle connection did not end, and is cut off");
                return;
            };
            ended
        }
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that hang up are no trouble of the server's.
        tracing::debug!(error, "a connection ended badly");
    }
}
