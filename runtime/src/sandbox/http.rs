//! The `http` capability: requests to the hosts that the tenant's policy and
//! the activity's manifest both allow, and never to private addresses.
//!
//! Where a request goes is checked at each hop: the host against both lists, a
//! literal address when the request is made, and a name's addresses before the
//! connection, which is pinned to them, so what was checked is what is connected
//! to. Clients are kept apart by the private addresses that they allow, and a
//! connection serves one request.

use std::collections::HashMap;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cascade_cdl::TenantId;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url, redirect};
use tokio::time::{Instant, timeout_at};
use wasmtime::StoreContextMut;

use super::failure::Stop;
use super::host::bindings::cascade::activity::http::{Error, Request, Response};
use super::host::{BYTE, HTTP_CALL, HostState, charge_price};
use super::hosts::{PrivateHost, is_public};
use super::limits::Capability;
use super::lookup::Lookups;

/// Longest URL, the common limit of servers.
const MAX_URL: usize = 8 << 10;
/// Most bytes of headers, each way.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Most headers, each way.
const MAX_HEADERS: usize = 100;
/// Largest body, each way: what an activity returns is smaller still.
pub(super) const MAX_BODY: usize = 4 << 20;
/// Most redirects that are followed, as in curl and browsers' more cautious settings.
const MAX_REDIRECTS: usize = 5;
/// The time of a request without `timeout-ms`, and the longest of one with it.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to connect: one lost packet may be sent again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients with different private addresses that are kept; a policy that allows
/// any is the exception, and more than this start anew.
const MAX_CLIENTS: usize = 16;

/// Headers that belong to the connection, not to the request; a guest that sets
/// them could smuggle a second request or lie about where it goes.
const RESERVED_HEADERS: [&str; 11] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "expect",
    "proxy-authorization",
    "proxy-connection",
];

/// HTTP clients by the private addresses that they may connect to.
#[derive(Default)]
pub(super) struct HttpClients {
    clients: Mutex<HashMap<Vec<PrivateHost>, (Client, Pins)>>,
    lookups: Lookups,
}

impl HttpClients {
    fn client(&self, allow_private: &[PrivateHost]) -> Result<(Client, Pins), Error> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(allow_private) {
            return Ok(client.clone());
        }
        // Another part of the process may have installed one before; any serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pins = Pins::default();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            // A connection is one request's. What a server knows of it, as who
            // logged in, is no other tenant's, and none stays open for nobody.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("cascade/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(pins.clone()))
            .build()
            .map_err(|error| Error::Network(format!("no HTTP client: {}", causes(&error))))?;
        if clients.len() == MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(allow_private.to_vec(), (client.clone(), pins.clone()));
        Ok((client, pins))
    }

    /// The addresses of a name, if a request may go to all of them.
    async fn addresses(
        &self,
        tenant: &TenantId,
        name: &str,
        allow_private: &[PrivateHost],
    ) -> Result<Vec<SocketAddr>, Error> {
        let found = self.lookups.addresses(tenant, name).await;
        let found =
            found.map_err(|error| Error::Network(format!("{name} does not resolve: {error}")))?;
        // An entry with a port holds for literal addresses only.
        let fits = |address: &SocketAddr| {
            let ip = address.ip();
            let mut any_port = allow_private.iter().filter(|host| host.matches_any_port());
            is_public(ip) || any_port.any(|host| host.matches(ip, 0))
        };
        // One private address among public ones is reason enough to refuse: no
        // honest name mixes them.
        match found.iter().find(|address| !fits(address)) {
            Some(refused) => Err(Error::Denied(format!(
                "{name} resolves to {}, which is not a public address",
                refused.ip()
            ))),
            None => Ok(found),
        }
    }
}

/// What names resolve to while requests to them are on their way: the client
/// connects to the addresses that were checked, and looks nothing up itself.
#[derive(Clone, Default)]
struct Pins(Arc<Mutex<HashMap<String, Pinned>>>);

/// All requests to one name go where the latest lookup said.
struct Pinned {
    addresses: Vec<SocketAddr>,
    requests: usize,
}

/// Keeps a name pinned.
struct Pin<'a> {
    pins: &'a Pins,
    name: &'a str,
}

impl Pins {
    fn pin<'a>(&'a self, name: &'a str, addresses: Vec<SocketAddr>) -> Pin<'a> {
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = pins.get(name).map_or(0, |pinned| pinned.requests) + 1;
        let pinned = Pinned {
            addresses,
            requests,
        };
        pins.insert(name.to_owned(), pinned);
        Pin { pins: self, name }
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pinned) = pins.get_mut(self.name) {
            pinned.requests -= 1;
            if pinned.requests == 0 {
                pins.remove(self.name);
            }
        }
    }
}

impl Resolve for Pins {
    fn resolve(&self, name: Name) -> Resolving {
        let pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = pins
            .get(name.as_str())
            .map(|pinned| pinned.addresses.clone());
        let addresses = addresses.ok_or_else(|| "the request is over".into());
        Box::pin(ready(
            addresses.map(|found| Box::new(found.into_iter()) as Addrs),
        ))
    }
}

type Outcome = Result<Response, Error>;

/// Sends a guest's request. `Err` outside ends the attempt, inside it is the
/// guest's to handle.
pub(super) async fn send(
    mut store: StoreContextMut<'_, HostState>,
    request: Request,
) -> wasmtime::Result<Outcome> {
    let out = request.url.len()
        + request.body.as_ref().map_or(0, Vec::len)
        + request
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>();
    charge_price(&mut store, HTTP_CALL + out as u64 * BYTE)?;
    if !store.data().grants.has(Capability::Http) {
        let why = Stop::CapabilityDenied(Capability::Http).to_string();
        return Ok(Err(Error::Denied(why)));
    }
    let asked = request
        .timeout_ms
        .map_or(MAX_TIMEOUT, |ms| Duration::from_millis(ms.into()));
    let deadline = Instant::now() + asked.min(MAX_TIMEOUT);
    let mut hop = match Hop::first(request, &store.data().idempotency_key) {
        Ok(hop) => hop,
        Err(error) => return Ok(Err(error)),
    };
    for _ in 0..=MAX_REDIRECTS {
        let response = match exchange(&mut store, &hop, deadline).await? {
            Ok(response) => response,
            Err(error) => return Ok(Err(error)),
        };
        match hop.redirected(&response) {
            None => return receive(&mut store, response, deadline).await,
            Some(Err(error)) => return Ok(Err(error)),
            Some(Ok(next)) => hop = next,
        }
        charge_price(&mut store, HTTP_CALL)?;
    }
    Ok(Err(Error::Network(format!(
        "more than {MAX_REDIRECTS} redirects"
    ))))
}

/// One request on the wire.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

impl Hop {
    fn first(request: Request, idempotency_key: &str) -> Result<Self, Error> {
        let invalid = |what: String| Error::Invalid(what);
        if request.url.len() > MAX_URL {
            return Err(invalid(format!("the URL is longer than {MAX_URL} bytes")));
        }
        let url: Url = request
            .url
            .parse()
            .map_err(|error| invalid(format!("the URL is not valid: {error}")))?;
        let method = Method::from_bytes(request.method.as_bytes())
            .ok()
            .filter(|method| *method != Method::CONNECT && *method != Method::TRACE)
            .ok_or_else(|| invalid("the method is not one that can be sent".into()))?;
        if request
            .body
            .as_ref()
            .is_some_and(|body| body.len() > MAX_BODY)
        {
            return Err(Error::TooLarge(format!(
                "the request's body is larger than {MAX_BODY} bytes"
            )));
        }
        let bytes: usize = request
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if request.headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            return Err(Error::TooLarge(format!(
                "more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them"
            )));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let name: HeaderName = name
                .parse()
                .map_err(|_| invalid("a header's name is not valid".into()))?;
            if RESERVED_HEADERS.contains(&name.as_str()) {
                return Err(invalid(format!("the header `{name}` is set by Cascade")));
            }
            let value = HeaderValue::from_str(value)
                .map_err(|_| invalid(format!("the value of `{name}` is not valid")))?;
            headers.append(name, value);
        }
        let key = HeaderName::from_static("idempotency-key");
        if !headers.contains_key(&key)
            && let Ok(value) = HeaderValue::from_str(idempotency_key)
        {
            headers.insert(key, value);
        }
        Ok(Self {
            method,
            url,
            headers,
            body: request.body,
        })
    }

    /// The request that a response redirects to, if it does.
    fn redirected(&self, response: &reqwest::Response) -> Option<Result<Self, Error>> {
        let status = response.status();
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = response.headers().get("location")?;
        let url = location
            .to_str()
            .ok()
            .filter(|url| url.len() <= MAX_URL)
            .and_then(|url| self.url.join(url).ok());
        let Some(url) = url else {
            return Some(Err(Error::Network(
                "redirected to something that is not a URL".into(),
            )));
        };
        let mut headers = self.headers.clone();
        if url.origin() != self.url.origin() {
            for secret in ["authorization", "cookie", "proxy-authorization"] {
                headers.remove(secret);
            }
        }
        let to_get = status == StatusCode::SEE_OTHER && self.method != Method::HEAD
            || matches!(status.as_u16(), 301 | 302) && self.method == Method::POST;
        let (method, body) = if to_get {
            headers.remove("content-type");
            (Method::GET, None)
        } else {
            (self.method.clone(), self.body.clone())
        };
        Some(Ok(Self {
            method,
            url,
            headers,
            body,
        }))
    }
}

/// Whether a request may go where it would go.
fn admit(state: &HostState, url: &Url) -> Result<(), Error> {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(Error::Invalid("the URL has no host".into()));
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::Invalid(format!(
            "`{}:` URLs cannot be sent",
            url.scheme()
        )));
    }
    let grants = &state.grants;
    for (list, whose) in [
        (
            &grants.policy_hosts,
            "the tenant's policy (`tenants[].policy.http.hosts` in cascade.yaml)",
        ),
        (
            &grants.manifest_hosts,
            "the activity's manifest (`http.hosts`)",
        ),
    ] {
        if !list.iter().any(|pattern| pattern.matches(host, port)) {
            return Err(Error::Denied(format!(
                "{whose} does not allow {host}:{port}"
            )));
        }
    }
    let literal = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    if let Ok(address) = literal
        && !is_public(address)
        && !grants
            .allow_private
            .iter()
            .any(|private| private.matches(address, port))
    {
        return Err(Error::Denied(format!("{address} is not a public address")));
    }
    Ok(())
}

async fn exchange(
    store: &mut StoreContextMut<'_, HostState>,
    hop: &Hop,
    deadline: Instant,
) -> wasmtime::Result<Result<reqwest::Response, Error>> {
    let state = store.data();
    if let Err(error) = admit(state, &hop.url) {
        return Ok(Err(error));
    }
    let (http, private) = (&state.services.http, &state.grants.allow_private);
    let (client, pins) = match http.client(private) {
        Ok(client) => client,
        Err(error) => return Ok(Err(error)),
    };
    let mut pin = None;
    if let Some(name) = hop.url.domain() {
        let lookup = http.addresses(&state.tenant, name, private);
        match timeout_at(deadline, lookup).await {
            Err(_) => {
                return Ok(Err(Error::Timeout(format!(
                    "{name} did not resolve in time"
                ))));
            }
            Ok(Err(error)) => return Ok(Err(error)),
            Ok(Ok(addresses)) => pin = Some(pins.pin(name, addresses)),
        }
    }
    let mut request = client
        .request(hop.method.clone(), hop.url.clone())
        .headers(hop.headers.clone());
    if let Some(body) = &hop.body {
        request = request.body(body.clone());
    }
    let answered = timeout_at(deadline, request.send()).await;
    drop(pin);
    Ok(match answered {
        Err(_) => Err(Error::Timeout("no answer in time".into())),
        Ok(Err(error)) => Err(classify(&error)),
        Ok(Ok(response)) => Ok(response),
    })
}

/// Reads a response, paying for each piece as it comes.
async fn receive(
    store: &mut StoreContextMut<'_, HostState>,
    mut response: reqwest::Response,
    deadline: Instant,
) -> wasmtime::Result<Outcome> {
    let status = response.status().as_u16();
    let bytes: usize = response
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if response.headers().len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Ok(Err(Error::TooLarge(format!(
            "the answer has more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them"
        ))));
    }
    charge_price(store, bytes as u64 * BYTE)?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    let mut body = Vec::new();
    loop {
        let chunk = match timeout_at(deadline, response.chunk()).await {
            Err(_) => return Ok(Err(Error::Timeout("the answer did not end in time".into()))),
            Ok(Err(error)) => return Ok(Err(classify(&error))),
            Ok(Ok(None)) => {
                return Ok(Ok(Response {
                    status,
                    headers,
                    body,
                }));
            }
            Ok(Ok(Some(chunk))) => chunk,
        };
        if body.len() + chunk.len() > MAX_BODY {
            return Ok(Err(Error::TooLarge(format!(
                "the answer is larger than {MAX_BODY} bytes"
            ))));
        }
        charge_price(store, chunk.len() as u64 * BYTE)?;
        body.extend_from_slice(&chunk);
    }
}

fn classify(error: &reqwest::Error) -> Error {
    if error.is_timeout() {
        Error::Timeout(causes(error))
    } else if error.is_builder() {
        Error::Invalid(causes(error))
    } else {
        Error::Network(causes(error))
    }
}

/// An error and what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(at) = cause {
        text = format!("{text}: {at}");
        cause = at.source();
    }
    text
}
