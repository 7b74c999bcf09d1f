//! Powers are denied unless granted, and HTTP reaches public, allowed hosts only.

use std::sync::Arc;

use cascade_runtime::sandbox::failure::CAPABILITY_DENIED;
use cascade_runtime::sandbox::{Capability, Grants, Invocation, Outcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::support::{Bed, NOW_MS, block_on, failure, fixture, invocation, output};

fn granted(capabilities: &[Capability]) -> Grants {
    Grants {
        capabilities: capabilities.iter().copied().collect(),
        ..Grants::default()
    }
}

#[test]
fn a_power_works_only_if_it_is_granted() {
    block_on(async {
        let bed = Bed::shared();
        for (name, capability) in [
            ("clock", Capability::Clock),
            ("random", Capability::Random),
            ("key_value", Capability::KeyValue),
        ] {
            let info = bed.admit(fixture(name)).await;
            let mut denied = invocation(&info.digest, "\"k\"");
            denied.grants = granted(&[Capability::Http]).into(); // another one
            let denied = bed.sandbox.run(denied).await;
            assert!(
                denied.receipt.pure,
                "{name} can do nothing without its power"
            );
            if name == "key_value" {
                assert_eq!(
                    output(&denied),
                    "0",
                    "`denied` is the first case of its error"
                );
            } else {
                let failure = failure(&denied);
                assert_eq!(failure.error, CAPABILITY_DENIED, "{name}");
                assert!(
                    failure.message.contains(capability.name()),
                    "{}",
                    failure.message
                );
            }
            let mut allowed = invocation(&info.digest, "\"k\"");
            allowed.grants = granted(&[capability]).into();
            let allowed = bed.sandbox.run(allowed).await;
            assert!(!allowed.receipt.pure, "{name} reaches out");
            match name {
                "clock" => assert_eq!(output(&allowed), NOW_MS.to_string()),
                "key_value" => assert_eq!(output(&allowed), "\"k\""),
                _ => assert!(output(&allowed).parse::<u8>().is_ok()),
            }
        }
    });
}

#[test]
fn tenants_do_not_see_each_others_keys() {
    block_on(async {
        let bed = Bed::new();
        let info = bed.admit(fixture("key_value")).await;
        let other = "other".parse().expect("a valid tenant");
        bed.shelf.put(&other, &fixture("key_value"));
        let grants = Arc::new(granted(&[Capability::KeyValue]));
        for tenant in [super::support::tenant(), other] {
            let mut attempt = invocation(&info.digest, "\"k\"");
            attempt.tenant = tenant;
            attempt.grants = Arc::clone(&grants);
            assert_eq!(output(&bed.sandbox.run(attempt).await), "\"k\"");
        }
    });
}

#[test]
fn a_key_that_is_too_long_is_refused() {
    block_on(async {
        let grant = |invocation: &mut Invocation| {
            invocation.grants = granted(&[Capability::KeyValue]).into();
        };
        let input = format!("\"{}\"", "k".repeat(600));
        let outcome = Bed::shared().run_with("key_value", &input, grant).await;
        assert_eq!(
            output(&outcome),
            "1",
            "`too-large` is the second case of the error"
        );
    });
}

/// Gets a URL under grants for `hosts` of both lists.
async fn get(url: &str, policy: &[&str], manifest: &[&str], private: &[&str]) -> Outcome {
    let patterns = |list: &[&str]| {
        list.iter()
            .map(|host| host.parse().expect("a pattern"))
            .collect()
    };
    let grants = Grants {
        capabilities: [Capability::Http].into(),
        policy_hosts: patterns(policy),
        manifest_hosts: patterns(manifest),
        allow_private: private
            .iter()
            .map(|host| host.parse().expect("an address"))
            .collect(),
    };
    let grant = |invocation: &mut Invocation| invocation.grants = grants.into();
    let url = serde_json::to_string(url).expect("a string is JSON");
    Bed::shared().run_with("http_get", &url, grant).await
}

/// `HttpError0` is `denied`, 1 `invalid`, 2 `timeout`, 3 `network`, 4 `too-large`.
fn refusal(outcome: &Outcome) -> (&str, &str) {
    let failure = failure(outcome);
    (&failure.error, &failure.message)
}

#[test]
fn private_addresses_are_refused_in_every_spelling() {
    block_on(async {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/", // 127.0.0.1 as one number
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0/",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://100.100.100.200/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://[64:ff9b::7f00:1]/", // NAT64
            "http://224.0.0.1/",
            "http://localhost/", // by the resolver
            "http://user:secret@127.0.0.1/",
        ] {
            let outcome = get(url, &["*"], &["*"], &[]).await;
            let (error, message) = refusal(&outcome);
            assert_eq!(error, "HttpError0", "{url}: {message}");
            assert!(message.contains("not a public address"), "{url}: {message}");
        }
    });
}

#[test]
fn a_host_must_be_on_both_lists() {
    block_on(async {
        for (policy, manifest, whose) in [
            (&["api.example.com"][..], &[][..], "manifest"),
            (&[], &["api.example.com"], "policy"),
            (&["api.example.com:8443"], &["*"], "policy"), // another port
            (&["*.api.example.com"], &["*"], "policy"),    // below it, not itself
        ] {
            let outcome = get("https://api.example.com/", policy, manifest, &[]).await;
            let (error, message) = refusal(&outcome);
            assert_eq!(error, "HttpError0", "{message}");
            assert!(message.contains(whose), "{message}");
        }
    });
}

#[test]
fn what_cannot_be_sent_is_invalid() {
    block_on(async {
        for url in [
            "",
            "api.example.com",
            "ftp://api.example.com/",
            "file:///etc/passwd",
            "http://",
        ] {
            let outcome = get(url, &["*"], &["*"], &[]).await;
            assert_eq!(refusal(&outcome).0, "HttpError1", "{url}");
        }
    });
}

/// Answers each connection on loopback with the next of `answers`, and returns
/// what it was asked.
async fn serve(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = tokio::spawn({
        let address = address.clone();
        async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.expect("a request"));
                }
                asked.push(String::from_utf8(request).expect("text"));
                let answer = answer.replace("SELF", &address);
                // The guest's side may hang up in the middle of a long answer.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            asked
        }
    });
    (address, server)
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn redirect(to: &str) -> String {
    format!(
        "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

#[test]
fn an_allowed_request_carries_the_idempotency_key_and_follows_redirects() {
    block_on(async {
        let (address, server) = serve(vec![redirect("http://SELF/there"), ok("[1]")]).await;
        let outcome = get(
            &format!("http://{address}/here"),
            &["127.0.0.1"],
            &["*"],
            &[&address],
        )
        .await;
        assert_eq!(output(&outcome), "[1]");
        assert!(!outcome.receipt.pure);
        assert!(
            outcome.receipt.fuel > 400_000,
            "two hops are charged: {}",
            outcome.receipt.fuel
        );
        let asked = server.await.expect("the server ran");
        for (request, path) in asked.iter().zip(["GET /here ", "GET /there "]) {
            assert!(request.starts_with(path), "{request}");
            assert!(
                request.contains("idempotency-key: order-7:Charge\r\n"),
                "{request}"
            );
        }
    });
}

#[test]
fn a_redirect_to_a_private_address_is_refused() {
    block_on(async {
        // The port is the one that is allowed, the redirect's is not.
        for target in [
            "http://127.0.0.1:1/",
            "http://169.254.169.254/",
            "http://localhost:1/",
        ] {
            let (address, server) = serve(vec![redirect(target)]).await;
            let outcome = get(&format!("http://{address}/"), &["*"], &["*"], &[&address]).await;
            let (error, message) = refusal(&outcome);
            assert_eq!(error, "HttpError0", "{target}: {message}");
            server.await.expect("the server ran");
        }
    });
}

#[test]
fn redirects_end_and_answers_have_limits() {
    block_on(async {
        let (address, server) = serve(vec![redirect("/again"); 6]).await;
        let outcome = get(&format!("http://{address}/"), &["*"], &["*"], &[&address]).await;
        assert_eq!(refusal(&outcome), ("HttpError3", "more than 5 redirects"));
        server.await.expect("the server ran");

        let (address, server) = serve(vec![ok(&" ".repeat(5 << 20))]).await;
        let outcome = get(&format!("http://{address}/"), &["*"], &["*"], &[&address]).await;
        assert_eq!(
            refusal(&outcome),
            ("HttpError4", "the answer is larger than 4194304 bytes")
        );
        server.await.expect("the server ran");
    });
}

#[test]
fn a_connection_serves_one_request() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = tokio::spawn(async move {
            let mut open = Vec::new(); // as a server that would take more requests
            for body in ["1", "2"] {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.expect("a request"));
                }
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes()).await;
                open.push(stream);
            }
        });
        for body in ["1", "2"] {
            let url = format!("http://{address}/");
            let outcome = get(&url, &["*"], &["*"], &[&address]).await;
            assert_eq!(output(&outcome), body);
        }
        server.await.expect("the server ran");
    });
}

#[test]
fn writing_a_key_costs_what_a_transaction_does() {
    block_on(async {
        let grant = |invocation: &mut Invocation| {
            invocation.grants = granted(&[Capability::KeyValue]).into();
        };
        let outcome = Bed::shared().run_with("key_value", "\"k\"", grant).await;
        let fuel = outcome.receipt.fuel;
        assert!(
            (220_000..240_000).contains(&fuel),
            "a set and a get: {fuel}"
        );
    });
}
