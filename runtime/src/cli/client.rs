//! The HTTP API as commands use it: requests, problem documents turned into
//! errors that say what to do next, and live events that survive a broken
//! connection.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Method, Request, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::chain;
use super::context::Context;
use super::error::{Error, Exit};
use super::position::Memory;

/// A server that does not take a connection by then is not reachable: the
/// longest round trips on Earth take half a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest silence on a connection. The server sends live histories a comment
/// well within it, and answers `wait` within its own, shorter, limit.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// The same for an upload: a large module compiles for up to five minutes, in
/// its turn, before the server has anything to say.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(10);

/// The same for moving a tenant: it is answered when all of its rows are moved.
const MOVE_TIMEOUT: Duration = Duration::from_hours(24);

/// Largest answer that is read: a page of the largest list or history that the
/// server sends is well below it, and a hostile server cannot fill the memory.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Longest single event of a live history; payloads are limited far below it.
const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// How often a live history connects again without having heard anything new.
/// With the pauses below that is about two minutes: a server that restarts
/// comes back in that time, one that does not is gone.
const MAX_RECONNECTS: u32 = 16;

/// First and longest pause before connecting again.
const RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Names the tenant that a key of the server acts for.
const TENANT_HEADER: &str = "cascade-tenant";

/// How far the server's database was, as it says and is told.
const POSITION_HEADER: &str = "cascade-position";

/// What a server says to a position that its database has not given out: it is another one by
/// now.
const INVALID_POSITION: &str = "invalid_position";

/// Talks to one server with one key.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<HeaderValue>,
    /// The tenant that a key of the server acts for.
    tenant: Option<String>,
    /// What was written and seen before, if that is remembered.
    memory: Option<Memory>,
}

/// RFC 9457, as far as commands need it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
    request_id: Option<String>,
    errors: Vec<serde_json::Value>,
}

impl Client {
    /// A client for the server of `context`. Nothing is sent yet.
    pub(crate) fn new(context: &Context) -> Result<Self, Error> {
        let base = parse_base(&context.url)?;
        let key = context.key.as_deref().map(bearer).transpose()?;
        // Fails only if one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = http(&base, READ_TIMEOUT)?;
        Ok(Self {
            http,
            base,
            key,
            tenant: context.tenant.clone(),
            memory: None,
        })
    }

    /// The same client, which is shown nothing older than what earlier ones were.
    pub(crate) fn remembering(self, memory: Option<Memory>) -> Self {
        Self { memory, ..self }
    }

    /// The same client with the patience that uploads take.
    pub(crate) fn for_uploads(&self) -> Result<Self, Error> {
        Ok(Self {
            http: http(&self.base, UPLOAD_TIMEOUT)?,
            ..self.clone()
        })
    }

    /// The same client with the patience that moving a tenant takes.
    pub(crate) fn for_moves(&self) -> Result<Self, Error> {
        Ok(Self {
            http: http(&self.base, MOVE_TIMEOUT)?,
            ..self.clone()
        })
    }

    /// The server's URL, without a trailing slash.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request to the path of these segments, which need no escaping.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> RequestBuilder {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("parse_base refuses URLs that cannot have a path")
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.clone());
        }
        if let Some(tenant) = &self.tenant {
            request = request.header(TENANT_HEADER, tenant);
        }
        request
    }

    /// Reads a resource.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, Error> {
        self.json(self.request(Method::GET, path, query)).await
    }

    /// Sends `body` and reads the answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl serde::Serialize,
    ) -> Result<T, Error> {
        self.json(self.request(Method::POST, path, &[]).json(body))
            .await
    }

    /// Sends a request and reads the answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, Error> {
        let response = self.send(request).await?;
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|source| {
            Error::new(
                Exit::Server,
                format!("the answer of {} does not read: {source}", self.base()),
            )
            .hint("is it a Cascade server, and of this version?")
        })
    }

    /// Sends a request and reads the answer as text.
    pub(crate) async fn text(&self, request: RequestBuilder) -> Result<String, Error> {
        let response = self.send(request).await?;
        let body = self.body(response).await?;
        String::from_utf8(body).map_err(|_| {
            Error::new(
                Exit::Server,
                format!("the answer of {} is not text", self.base()),
            )
        })
    }

    /// Sends a request; anything but success is an error. What is read is no older than what
    /// is remembered.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let (http, request) = request.build_split();
        let mut request = request.map_err(|source| self.unreachable(&source))?;
        let knew = self.memory.as_ref().and_then(Memory::token);
        let mut without = None;
        if request.method() == Method::GET
            && let Some(Ok(token)) = knew.as_deref().map(HeaderValue::from_str)
        {
            without = request.try_clone();
            request.headers_mut().insert(POSITION_HEADER, token);
        }
        match self.send_once(&http, request, knew.as_deref()).await {
            Err(error) if error.is_coded(INVALID_POSITION) => match (without, &self.memory) {
                (Some(request), Some(memory)) => {
                    memory.forget();
                    self.send_once(&http, request, None).await
                }
                _ => Err(error),
            },
            sent => sent,
        }
    }

    async fn send_once(
        &self,
        http: &reqwest::Client,
        request: Request,
        knew: Option<&str>,
    ) -> Result<Response, Error> {
        let reads = request.method() == Method::GET;
        let sent = http.execute(request).await;
        let response = sent.map_err(|source| {
            if let Some(memory) = self.memory.as_ref().filter(|_| !reads) {
                // It may have been done, and nobody says when.
                memory.forget();
            }
            self.unreachable(&source)
        })?;
        let said = response.headers().get(POSITION_HEADER);
        if let (Some(memory), Some(Ok(said))) = (&self.memory, said.map(HeaderValue::to_str)) {
            memory.keep(knew, said);
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let lister = lister(response.url());
        let body = self.body(response).await?;
        Err(refusal(status, retry_after.as_deref(), lister, &body))
    }

    /// Follows a live history from `after` until `on_event` says that it has
    /// seen enough or the server ends the stream. A broken connection is made
    /// again, and the server goes on after the last event that arrived.
    pub(crate) async fn follow(
        &self,
        path: &[&str],
        mut on_event: impl FnMut(ServerEvent) -> Result<Follow, Error>,
    ) -> Result<(), Error> {
        let mut last_id: Option<String> = None;
        let mut silent_tries = 0;
        // An error of `on_event` ends it: connecting again would not help.
        let mut refused = None;
        loop {
            let mut request = self
                .request(Method::GET, path, &[])
                .header(ACCEPT, "text/event-stream");
            if let Some(id) = &last_id {
                request = request.header("Last-Event-ID", id);
            }
            let outcome = match self.send(request).await {
                Ok(response) => {
                    let mut take = |event: ServerEvent| {
                        if event.id.is_some() {
                            last_id.clone_from(&event.id);
                            silent_tries = 0;
                        }
                        on_event(event).unwrap_or_else(|error| {
                            refused = Some(error);
                            Follow::Enough
                        })
                    };
                    self.read_events(response, &mut take).await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(Follow::Enough) => return refused.map_or(Ok(()), Err),
                Ok(Follow::More) => {}
                Err(error) if may_pass(&error) && silent_tries < MAX_RECONNECTS => {}
                Err(error) => return Err(error),
            }
            if silent_tries >= MAX_RECONNECTS {
                return Err(Error::new(
                    Exit::Unreachable,
                    format!("{} ends the live history again and again", self.base()),
                ));
            }
            tokio::time::sleep(pause(silent_tries)).await;
            silent_tries += 1;
        }
    }

    async fn read_events(
        &self,
        mut response: Response,
        on_event: &mut impl FnMut(ServerEvent) -> Follow,
    ) -> Result<Follow, Error> {
        let mut parser = EventParser::default();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|source| self.unreachable(&source))?
        {
            for event in parser.feed(&chunk)? {
                if on_event(event) == Follow::Enough {
                    return Ok(Follow::Enough);
                }
            }
        }
        Ok(Follow::More)
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|source| self.unreachable(&source))?
        {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Error::new(
                    Exit::Server,
                    format!("the answer is larger than {MAX_ANSWER_BYTES} bytes"),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, source: &reqwest::Error) -> Error {
        let error = Error::new(
            Exit::Unreachable,
            format!("no answer from {}: {}", self.base(), chain(source)),
        );
        if source.is_connect() {
            error.hint("is the server up? `cascade dev` or `cascade server` starts one")
        } else {
            error
        }
    }
}

/// One event of a live history.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    /// Where to go on after it.
    pub id: Option<String>,
    /// Its kind; empty if the server named none.
    pub event: String,
    pub data: String,
}

/// Whether to go on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    More,
    Enough,
}

/// Takes bytes as they arrive and gives whole events
/// (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
#[derive(Default)]
struct EventParser {
    pending: Vec<u8>,
    event: ServerEvent,
    has_data: bool,
}

impl EventParser {
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, Error> {
        let mut complete = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.pending.push(*byte);
                if self.pending.len() + self.event.data.len() > MAX_EVENT_BYTES {
                    return Err(Error::new(
                        Exit::Server,
                        format!("an event is larger than {MAX_EVENT_BYTES} bytes"),
                    ));
                }
                continue;
            }
            let line = std::mem::take(&mut self.pending);
            let line = String::from_utf8_lossy(&line);
            complete.extend(self.line(line.trim_end_matches('\r')));
        }
        Ok(complete)
    }

    fn line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            // Without data it is no event, as the specification has it.
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event.event),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // Comments, and fields of later versions.
            _ => {}
        }
        None
    }
}

fn http(base: &Url, read_timeout: Duration) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(read_timeout)
        .user_agent(concat!("cascade/", env!("CARGO_PKG_VERSION")))
        // A redirect could carry the key to another place.
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(base) {
        // A proxy of the network cannot reach this machine's own server.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|source| {
        let message = format!("cannot set up HTTP: {}", chain(&source));
        Error::new(Exit::Usage, message)
    })
}

fn parse_base(url: &str) -> Result<Url, Error> {
    let parsed = Url::parse(url)
        .map_err(|source| Error::usage(format!("`{url}` is not a URL: {source}")))?;
    if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() {
        Ok(parsed)
    } else {
        Err(Error::usage(format!("`{url}` is not an http or https URL"))
            .hint("it looks like http://127.0.0.1:7420"))
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    })
}

fn bearer(key: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
        .map_err(|_| Error::usage("the API key has characters that no key has"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The command that lists what the path of `url` names one of.
fn lister(url: &Url) -> Option<&'static str> {
    let kind = url
        .path()
        .split('/')
        .skip_while(|part| *part != "v1")
        .nth(1);
    match kind? {
        "executions" => Some("cascade process list"),
        "activities" => Some("cascade activity list"),
        "tenants" => Some("cascade tenant list"),
        "keys" => Some("cascade key list"),
        _ => None,
    }
}

/// What a status says to a script, and to a person.
fn refusal(
    status: StatusCode,
    retry_after: Option<&str>,
    lister: Option<&str>,
    body: &[u8],
) -> Error {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let mut message = problem
        .detail
        .or(problem.title)
        .unwrap_or_else(|| format!("the server answered {status}"));
    for error in &problem.errors {
        message.push_str("\n  ");
        message.push_str(&error.to_string());
    }
    let (exit, hint) = match status {
        StatusCode::UNAUTHORIZED => (
            Exit::NotFoundOrDenied,
            Some("give a key with --key or CASCADE_API_KEY".to_owned()),
        ),
        StatusCode::FORBIDDEN => (
            Exit::NotFoundOrDenied,
            Some("use a key whose role allows it (`cascade key create --role ...`)".to_owned()),
        ),
        StatusCode::NOT_FOUND | StatusCode::GONE => (
            Exit::NotFoundOrDenied,
            lister.map(|command| format!("`{command}` shows what there is")),
        ),
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => (Exit::Conflict, None),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => (
            Exit::Busy,
            Some(match retry_after {
                Some(seconds) => format!("try again in {seconds} s"),
                None => "try again later".to_owned(),
            }),
        ),
        status if status.is_server_error() => (
            Exit::Server,
            problem
                .request_id
                .map(|id| format!("the server's log has more, under request {id}")),
        ),
        _ => (Exit::Failed, None),
    };
    let mut error = Error::new(exit, super::output::plain(&message));
    if let Some(code) = problem.code {
        error = error.code(code);
    }
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Whether trying again may help.
fn may_pass(error: &Error) -> bool {
    matches!(error.exit(), Exit::Unreachable | Exit::Busy | Exit::Server)
}

fn pause(tries: u32) -> Duration {
    let (first, longest) = RECONNECT_PAUSE;
    first.saturating_mul(1 << tries.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of every size; the events must not depend on it.
    fn check(text: &str, expected: &[(Option<&str>, &str, &str)]) {
        for size in 1..=text.len() {
            let mut parser = EventParser::default();
            let events: Vec<ServerEvent> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|piece| parser.feed(piece).expect("small"))
                .collect();
            let got: Vec<_> = events
                .iter()
                .map(|e| (e.id.as_deref(), e.event.as_str(), e.data.as_str()))
                .collect();
            assert_eq!(got, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn events_arrive_whole_however_the_bytes_are_cut() {
        check(
            "id: 1\nevent: history\ndata: {\"a\":1}\n\nid:2\ndata: ü\n\n",
            &[(Some("1"), "history", "{\"a\":1}"), (Some("2"), "", "ü")],
        );
    }

    #[test]
    fn comments_and_events_without_data_are_not_events() {
        check(": keep-alive\n\nid: 3\n\n", &[]);
    }

    #[test]
    fn lines_of_data_are_joined_and_carriage_returns_dropped() {
        check("data: a\r\ndata: b\r\n\r\n", &[(None, "", "a\nb")]);
    }

    #[test]
    fn an_unfinished_event_is_not_delivered() {
        check("data: half\n", &[]);
    }

    /// Exit codes as docs/cli.md lists them.
    #[test]
    fn each_refusal_has_its_exit_code() {
        for (status, exit) in [
            (400, Exit::Failed),
            (401, Exit::NotFoundOrDenied),
            (403, Exit::NotFoundOrDenied),
            (404, Exit::NotFoundOrDenied),
            (409, Exit::Conflict),
            (412, Exit::Conflict),
            (422, Exit::Failed),
            (429, Exit::Busy),
            (503, Exit::Busy),
            (500, Exit::Server),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(refusal(status, None, None, b"").exit(), exit, "{status}");
        }
    }

    #[test]
    fn a_problem_document_speaks_for_itself() {
        let body = br#"{"title":"Not found","detail":"no execution x","code":"not_found"}"#;
        let error = refusal(StatusCode::NOT_FOUND, None, None, body);
        assert_eq!(error.to_string(), "no execution x (not_found)");
    }

    #[test]
    fn what_is_not_there_comes_with_the_command_that_lists_what_is() {
        for (path, command) in [
            ("v1/executions/x/history", Some("cascade process list")),
            ("v1/activities/x", Some("cascade activity list")),
            ("below/v1/keys/x", Some("cascade key list")),
            ("v1/applications/x", None),
        ] {
            let url = Url::parse(&format!("http://localhost/{path}")).expect("a URL");
            assert_eq!(lister(&url), command, "{path}");
        }
        let error = refusal(
            StatusCode::NOT_FOUND,
            None,
            Some("cascade process list"),
            b"",
        );
        let hint = error.hint_text().expect("a hint");
        assert!(hint.contains("`cascade process list`"), "{hint}");
    }

    #[test]
    fn only_http_urls_are_servers() {
        for url in ["ftp://x", "localhost:7070", "mailto:a@b", "x"] {
            assert!(parse_base(url).is_err(), "{url}");
        }
        for url in ["http://localhost:7070", "https://example.com/cascade"] {
            assert!(parse_base(url).is_ok(), "{url}");
        }
    }
}
