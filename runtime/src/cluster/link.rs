//! How nodes speak with each other: over HTTP, on the addresses that they announce.
//!
//! What nodes say carries a code made with the cluster's secret, which only they can read. A
//! client's request that is passed on keeps the client's key; the code only says how often it
//! has been passed on, so that it goes in no circle. What the engine asks of another node goes
//! to [`PATH`], and is of whoever knows the secret.

use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response};
use sha2::{Digest as _, Sha256};

use crate::engine::{Ask, Peer, Peers, Told};

/// Where a node is asked by others.
pub const PATH: &str = "/internal/ask";

/// How often a request has been passed on, with its code.
pub const HOPS: HeaderName = HeaderName::from_static("cascade-hops");

/// Who asks at [`PATH`]: the digest of the body, with its code.
pub const ASKS: HeaderName = HeaderName::from_static("cascade-asks");

/// How often a request is passed on at most: the second time if the owner has changed just then.
pub const MOST_HOPS: u8 = 2;

/// Largest body at [`PATH`]: the input of a child, which has the limit of its tenant.
pub const MOST_BYTES: usize = 256 << 20;

/// A node in the same network takes a connection in less, or is not there.
const CONNECT: Duration = Duration::from_secs(1);

/// How long another node may take for what the engine asks: as long as a commit is tried.
const ANSWER: Duration = Duration::from_secs(20);

/// Of a client's request, what is about one connection, and what is made anew.
const OWN: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How often a request has been passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hops(pub u8);

/// A client's request, as it can be passed on.
#[derive(Debug, Clone)]
pub struct Onward {
    pub method: Method,
    pub path_and_query: String,
    pub headers: HeaderMap,
}

/// Why nothing came of it.
#[derive(Debug)]
pub enum Failure {
    /// The node has not got it.
    Unsent(String),
    /// Nobody knows what the node did.
    Lost(String),
}

/// The way to other nodes.
#[derive(Clone)]
pub struct Link {
    client: Client,
    secret: Vec<u8>,
}

impl Link {
    /// With the cluster's secret.
    ///
    /// # Errors
    ///
    /// If this machine cannot make connections at all.
    pub fn new(secret: Vec<u8>) -> Result<Self, String> {
        // Fails only if it is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .build();
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self { client, secret })
    }

    /// How often a request has been passed on. What did not come from a node counts as new.
    pub fn hops(&self, request: &Onward) -> Hops {
        let said = request
            .headers
            .get(HOPS)
            .and_then(|said| said.to_str().ok());
        let read = |said: &str| {
            let (count, code) = said.split_once('.')?;
            let count: u8 = count.parse().ok()?;
            Self::is_code(&self.of_hops(request, count), code).then_some(Hops(count))
        };
        said.and_then(read).unwrap_or_default()
    }

    /// Passes a client's request on.
    pub async fn pass_on(
        &self,
        peer: &Peer,
        request: &Onward,
        body: Bytes,
    ) -> Result<Response, Failure> {
        let count = self.hops(request).0.saturating_add(1);
        let mut headers = request.headers.clone();
        for name in OWN {
            headers.remove(name);
        }
        let code = hex(&self.of_hops(request, count).finalize().into_bytes());
        let said = HeaderValue::try_from(format!("{count}.{code}"));
        headers.insert(HOPS, said.expect("digits"));
        let url = format!(
            "{}{}",
            peer.address.trim_end_matches('/'),
            request.path_and_query
        );
        let sent = self
            .client
            .request(request.method.clone(), url)
            .headers(headers)
            .body(body)
            .send();
        sent.await.map_err(|error| {
            if error.is_connect() || error.is_builder() {
                Failure::Unsent(error.to_string())
            } else {
                Failure::Lost(error.to_string())
            }
        })
    }

    /// Whether a body is what a node announced; to be asked before it is read, too, with the
    /// header alone.
    pub fn is_asked_by_node(&self, headers: &HeaderMap, body: Option<&[u8]>) -> bool {
        let said = headers.get(ASKS).and_then(|said| said.to_str().ok());
        let Some((digest, code)) = said.and_then(|said| said.split_once('.')) else {
            return false;
        };
        Self::is_code(&self.of_ask(digest), code)
            && body.is_none_or(|body| digest_of(body) == digest)
    }

    fn of_hops(&self, request: &Onward, count: u8) -> Hmac<Sha256> {
        let id = request.headers.get("x-request-id");
        self.code(&[
            b"hops",
            &[count],
            request.method.as_str().as_bytes(),
            request.path_and_query.as_bytes(),
            id.map_or(&b""[..], HeaderValue::as_bytes),
        ])
    }

    fn of_ask(&self, digest: &str) -> Hmac<Sha256> {
        self.code(&[b"ask", digest.as_bytes()])
    }

    fn code(&self, fields: &[&[u8]]) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes any key");
        for field in fields {
            // With its length, or bytes could move from one field to the next.
            code.update(&(field.len() as u64).to_le_bytes());
            code.update(field);
        }
        code
    }

    fn is_code(expected: &Hmac<Sha256>, said: &str) -> bool {
        let expected = hex(&expected.clone().finalize().into_bytes());
        subtle::ConstantTimeEq::ct_eq(expected.as_bytes(), said.as_bytes()).into()
    }
}

#[async_trait]
impl Peers for Link {
    async fn ask(&self, peer: &Peer, ask: &Ask) -> Result<Told, String> {
        let body = serde_json::to_vec(ask).map_err(|error| error.to_string())?;
        let digest = digest_of(&body);
        let code = hex(&self.of_ask(&digest).finalize().into_bytes());
        let said = HeaderValue::try_from(format!("{digest}.{code}"));
        let sent = self
            .client
            .post(format!("{}{PATH}", peer.address.trim_end_matches('/')))
            .header(ASKS, said.expect("digits"))
            .header("content-type", "application/json")
            .timeout(ANSWER)
            .body(body)
            .send();
        let answer = sent.await.and_then(Response::error_for_status);
        let answer = answer.map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }
}

/// Whether a header is about one connection only.
pub fn is_own(name: &HeaderName) -> bool {
    OWN.contains(&name.as_str())
}

fn digest_of(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a text grows");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(secret: u8) -> Link {
        Link::new(vec![secret; 32]).expect("makes connections")
    }

    fn request(path: &str, hops: Option<&str>) -> Onward {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("r-1"));
        if let Some(hops) = hops {
            headers.insert(HOPS, hops.parse().expect("a value"));
        }
        Onward {
            method: Method::POST,
            path_and_query: path.to_owned(),
            headers,
        }
    }

    /// What a node says when it passes a request on for the `count`th time.
    fn said(link: &Link, path: &str, count: u8) -> String {
        let code = link.of_hops(&request(path, None), count).finalize();
        format!("{count}.{}", hex(&code.into_bytes()))
    }

    #[test]
    fn only_nodes_say_how_often_a_request_was_passed_on() {
        let (own, other) = (link(1), link(2));
        let twice = said(&own, "/v1/executions", 2);
        let hops = |text: &str, path| own.hops(&request(path, Some(text)));
        assert_eq!(hops(&twice, "/v1/executions"), Hops(2));
        assert_eq!(hops(&twice, "/v1/tasks"), Hops(0), "of another request");
        let forged = twice.replacen('2', "0", 1);
        assert_eq!(hops(&forged, "/v1/executions"), Hops(0));
        let foreign = said(&other, "/v1/executions", 2);
        for text in ["", "2", "2.", "2.00", "300.x", &foreign] {
            assert_eq!(hops(text, "/v1/executions"), Hops(0), "{text}");
        }
    }

    #[test]
    fn a_question_is_of_a_node_if_all_of_it_is() {
        let own = link(1);
        let digest = digest_of(b"body");
        let code = hex(&own.of_ask(&digest).finalize().into_bytes());
        let mut headers = HeaderMap::new();
        assert!(!own.is_asked_by_node(&headers, None));
        headers.insert(ASKS, format!("{digest}.{code}").parse().expect("a value"));
        assert!(own.is_asked_by_node(&headers, None));
        assert!(own.is_asked_by_node(&headers, Some(b"body")));
        assert!(!own.is_asked_by_node(&headers, Some(b"another")));
        assert!(!link(2).is_asked_by_node(&headers, Some(b"body")));
    }
}
