//! What one connection is watched for: that its client asks, and reads.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// The requests of one connection.
#[derive(Default)]
struct Requests {
    /// Not yet answered.
    open: AtomicUsize,
    /// How often one began or was answered.
    changes: AtomicUsize,
}

/// Tells when a connection has had no request for a while.
pub(super) struct Idleness(Arc<Requests>);

impl Idleness {
    /// Of the connection that the service is for.
    pub(super) fn of(router: Router) -> (Self, Counting) {
        let requests = Arc::<Requests>::default();
        let service = Counting {
            router: TowerToHyperService::new(router),
            requests: Arc::clone(&requests),
        };
        (Self(requests), service)
    }

    /// Returns once there has been no request for as long as `patience`, or up
    /// to twice that: so a request costs two additions, and no timer is moved.
    pub(super) async fn lasts(self, patience: Duration) {
        let mut before = 0;
        loop {
            sleep(patience).await;
            let changes = self.0.changes.load(Ordering::Acquire);
            if changes == before && self.0.open.load(Ordering::Acquire) == 0 {
                return;
            }
            before = changes;
        }
    }
}

/// All routes, for one connection: counts the requests that are not yet answered.
#[derive(Clone)]
pub(super) struct Counting {
    router: TowerToHyperService<Router>,
    requests: Arc<Requests>,
}

impl Service<Request<Incoming>> for Counting {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let open = Open::begin(&self.requests);
        let answer = self.router.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Counted { body, _open: open })) })
    }
}

/// A request, until its answer has been handed on.
struct Open(Arc<Requests>);

impl Open {
    fn begin(requests: &Arc<Requests>) -> Self {
        requests.open.fetch_add(1, Ordering::AcqRel);
        requests.changes.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(requests))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.changes.fetch_add(1, Ordering::AcqRel);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer.
pub(super) struct Counted {
    body: Body,
    _open: Open,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose writes fail if the other side takes nothing for a while: a
/// client could ask and ask, and never read.
pub(super) struct Prompt {
    stream: TcpStream,
    patience: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Prompt {
    pub(super) fn new(stream: TcpStream, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            stalled: None,
        }
    }

    /// What became of a write, or the end of patience with it.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
