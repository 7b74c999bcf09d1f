//! Uploading an activity, for `cascade activity push` and `cascade dev`.

use std::io;

use futures::stream;
use indicatif::ProgressBar;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::error::Error;
use super::output::{Output, Tone, brief, paint, size};
use super::source::{self, Found};
use super::wire::ActivityView;

/// Bytes between two looks at the progress: often enough for a bar, seldom
/// enough to cost nothing.
const PIECE: usize = 64 * 1024;

/// What the server says to an upload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pushed {
    pub activity: ActivityView,
    pub created: bool,
}

/// Uploads an activity.
pub(crate) async fn push(
    client: &Client,
    found: &Found,
    version: Option<&str>,
    output: Output,
) -> Result<Pushed, Error> {
    let wasm = source::read_module(&found.wasm)?;
    let manifest = serde_json::to_string(&found.manifest).expect("plain values with text keys");
    let query: Vec<_> = version
        .map(|version| ("version", version.to_owned()))
        .into_iter()
        .collect();
    let length = wasm.len();
    let bar = output.bytes(format!("uploading {}", found.name), length as u64);
    let request = client
        .request(Method::POST, &["v1", "activities", &found.name], &query)
        .header(CONTENT_TYPE, "application/wasm")
        .header(CONTENT_LENGTH, length)
        .header("Cascade-Manifest", manifest)
        .body(body(wasm, bar.clone()));
    let pushed = client.json(request).await;
    bar.finish_and_clear();
    pushed
}

/// The module, in pieces that move the bar. When all have gone out, the server
/// compiles, which for large modules is the longer part.
fn body(wasm: Vec<u8>, bar: ProgressBar) -> reqwest::Body {
    let wasm = bytes::Bytes::from(wasm);
    let pieces = (0..wasm.len()).step_by(PIECE).map(move |from| {
        let to = (from + PIECE).min(wasm.len());
        bar.set_position(to as u64);
        if to == wasm.len() {
            bar.set_message("the server validates and compiles");
        }
        Ok::<_, io::Error>(wasm.slice(from..to))
    });
    reqwest::Body::wrap_stream(stream::iter(pieces))
}

/// An upload in a few lines: what the activity is and can do.
pub(crate) fn describe(pushed: &Pushed) -> String {
    let activity = &pushed.activity;
    let what = if pushed.created {
        paint(Tone::Good, "pushed")
    } else {
        paint(Tone::Faint, "unchanged")
    };
    let powers: Vec<&str> = activity.powers.iter().map(|power| power.name()).collect();
    let powers = if powers.is_empty() {
        "computes only".to_owned()
    } else {
        format!("can use {}", powers.join(", "))
    };
    let purity = if activity.pure { "pure" } else { "not pure" };
    let mut text = format!(
        "{what} {} {} ({}, {purity}, {powers}, sha256 {})",
        activity.name,
        activity.version,
        size(activity.size),
        brief(&activity.digest, 13)
    );
    if !activity.denied.is_empty() {
        let denied: Vec<&str> = activity.denied.iter().map(|power| power.name()).collect();
        text.push_str(&format!(
            "\n  {} it imports {}, which the tenant's policy or its manifest does not allow",
            paint(Tone::Busy, "note:"),
            denied.join(", ")
        ));
    }
    text
}
