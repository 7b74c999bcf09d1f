//! A closed loop: each client sends its next request when the last one has
//! been answered. It stands in for programs elsewhere, so it takes as little
//! CPU as it can: one connection a client, requests made beforehand, answers
//! looked at but not parsed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cascade_cdl::Status;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::super::output::brief;
use crate::engine::{Engine, Start, StartError};

/// Longest latency that is told apart: a completion that takes longer shows as
/// this. Server-side `wait` ends before it.
const MAX_LATENCY_US: u64 = 60_000_000;

/// How long a client that was told to come back later does so, so that a
/// server at its bound is not measured at refusing.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// What all clients do.
pub(crate) struct Load {
    pub target: Target,
    pub clients: usize,
    pub warm_up: Duration,
    pub duration: Duration,
}

/// What is under load.
pub(crate) enum Target {
    /// A server. The request must wait for the execution's end.
    Http {
        address: SocketAddr,
        key: String,
        /// Path and query.
        path: String,
        body: Bytes,
    },
    /// The engine in this process.
    Engine { engine: Engine, start: Start },
}

/// What an answer contains if the execution completed.
const COMPLETED: &[u8] = b"\"status\":\"completed\"";

/// How long an execution of the engine in this process may take.
const PATIENCE: Duration = Duration::from_secs(50);

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Executions that completed after the warm-up and within the duration.
    pub completed: u64,
    /// Requests refused because the server was busy; they were sent again.
    pub busy: u64,
    pub elapsed: Duration,
    /// In microseconds.
    pub latency: Histogram<u64>,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect to {address}")]
    Connect {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the connection broke")]
    Http(#[from] hyper::Error),
    #[error("the server answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("the engine refused: {0}")]
    Engine(#[from] StartError),
    #[error("an execution did not complete: {0}")]
    NotCompleted(String),
    #[error("a client ended badly: {0}")]
    Client(#[from] tokio::task::JoinError),
}

impl Load {
    /// Runs all clients on this thread. `on_measure` is called when the
    /// warm-up is over, for whoever reads counters before and after.
    pub(crate) async fn run(self, on_measure: impl Future<Output = ()>) -> Result<Outcome, Error> {
        let load = Arc::new(self);
        let start = Instant::now();
        let window = Window {
            from: start + load.warm_up,
            to: start + load.warm_up + load.duration,
        };
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..load.clients {
            clients.spawn(client(load.clone(), window));
        }
        tokio::time::sleep_until(window.from.into()).await;
        on_measure.await;
        let mut total = Tally::new();
        while let Some(tally) = clients.join_next().await {
            total.add(&tally??);
        }
        Ok(Outcome {
            completed: total.latency.len(),
            busy: total.busy,
            elapsed: load.duration,
            latency: total.latency,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

struct Tally {
    latency: Histogram<u64>,
    busy: u64,
}

impl Tally {
    fn new() -> Self {
        Self {
            // Three digits: a per mille of the latency is well below the noise.
            latency: Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)
                .expect("1 is less than half the upper bound, and 3 digits are allowed"),
            busy: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.latency
            .add(&other.latency)
            .expect("both have the same bounds");
        self.busy += other.busy;
    }
}

/// How one request was answered.
enum Answer {
    Completed,
    Busy,
}

/// One client's way to the target.
enum Path<'a> {
    Http(SendRequest<Full<Bytes>>),
    Engine(&'a Engine, &'a Start),
}

async fn client(load: Arc<Load>, window: Window) -> Result<Tally, Error> {
    let mut path = match &load.target {
        Target::Http { address, .. } => Path::Http(connect(*address).await?),
        Target::Engine { engine, start } => Path::Engine(engine, start),
    };
    let mut tally = Tally::new();
    loop {
        let sent = Instant::now();
        if sent >= window.to {
            return Ok(tally);
        }
        let answer = match &mut path {
            Path::Http(connection) => load.over_http(connection).await?,
            Path::Engine(engine, start) => directly(engine, Start::clone(start)).await?,
        };
        if let Answer::Busy = answer {
            tally.busy += 1;
            tokio::time::sleep(BUSY_PAUSE).await;
            continue;
        }
        let answered = Instant::now();
        // What straddles an end of the window counts at neither.
        if sent >= window.from && answered <= window.to {
            let micros = u64::try_from((answered - sent).as_micros()).unwrap_or(u64::MAX);
            tally.latency.saturating_record(micros.max(1));
        }
    }
}

async fn directly(engine: &Engine, start: Start) -> Result<Answer, Error> {
    match engine.start_and_wait(start, PATIENCE).await {
        Ok((_, Some(closed))) => match closed.status {
            Status::Completed { .. } => Ok(Answer::Completed),
            other => Err(Error::NotCompleted(format!("{other:?}"))),
        },
        Ok((started, None)) => Err(Error::NotCompleted(format!("{} still runs", started.id))),
        Err(StartError::Busy { .. }) => Ok(Answer::Busy),
        Err(error) => Err(error.into()),
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Error> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| Error::Connect { address, source })?;
    stream
        .set_nodelay(true)
        .map_err(|source| Error::Connect { address, source })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped; its errors come out of the sender.
    tokio::spawn(connection);
    Ok(sender)
}

impl Load {
    async fn over_http(&self, connection: &mut SendRequest<Full<Bytes>>) -> Result<Answer, Error> {
        connection.ready().await?;
        let response = connection.send_request(self.request()).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let text = || brief(&String::from_utf8_lossy(&body), 400);
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Ok(Answer::Busy),
            status if !status.is_success() => Err(Error::Refused {
                status,
                body: text(),
            }),
            _ if memmem(&body, COMPLETED) => Ok(Answer::Completed),
            _ => Err(Error::NotCompleted(text())),
        }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let Target::Http {
            key, path, body, ..
        } = &self.target
        else {
            unreachable!("only clients over HTTP make requests");
        };
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "bench")
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {key}"))
            .body(Full::new(body.clone()))
            .expect("path and key were accepted by the requests that prepared the bench")
    }
}

fn memmem(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
