//! Uploading an activity, for `cascade activity push` and `cascade dev`.

use std::fmt::Write;
use std::io;

use futures::stream;
use indicatif::ProgressBar;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};

use super::client::Client;
use super::error::Error;
use super::output::{Output, Tone, brief, paint, size};
use super::source::{self, Found};
use super::wire::{PowerDiff, Uploaded};
use crate::catalog::Manifest;
use crate::sandbox::Capability;

/// Bytes between two looks at the progress: often enough for a bar, seldom
/// enough to cost nothing.
const PIECE: usize = 64 * 1024;

/// Uploads an activity.
pub(crate) async fn push(
    client: &Client,
    found: &Found,
    version: Option<&str>,
    output: Output,
) -> Result<Uploaded, Error> {
    let client = client.for_uploads()?;
    let wasm = source::read_module(&found.wasm)?;
    let mut path = vec!["v1", "activities", &found.name, "versions"];
    let method = match version {
        Some(version) => {
            path.push(version);
            Method::PUT
        }
        None => Method::POST,
    };
    let length = wasm.len();
    let bar = output.bytes(format!("uploading {}", found.name), length as u64);
    let request = client
        .request(method, &path, &[])
        .header(CONTENT_TYPE, "application/wasm")
        .header(CONTENT_LENGTH, length)
        .header("Cascade-Manifest", header_text(&found.manifest))
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

/// The manifest as JSON that can stand in a header: ASCII only, the rest escaped.
fn header_text(manifest: &Manifest) -> String {
    let text = serde_json::to_string(manifest).expect("plain values with text keys");
    let mut header = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            header.push(c);
            continue;
        }
        // JSON escapes what does not fit 16 bits as two surrogates.
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            write!(header, "\\u{unit:04x}").expect("writing to a string");
        }
    }
    header
}

/// An upload in a few lines: what the activity is and can do.
pub(crate) fn describe(pushed: &Uploaded) -> String {
    let activity = &pushed.activity;
    let what = if pushed.created {
        paint(Tone::Good, "pushed")
    } else {
        paint(Tone::Faint, "unchanged")
    };
    let powers = if activity.powers.is_empty() {
        "computes only".to_owned()
    } else {
        format!("can use {}", names(&activity.powers))
    };
    let purity = if activity.pure { "pure" } else { "not pure" };
    let mut text = format!(
        "{what} {} {} ({}, {purity}, {powers}, sha256 {})",
        activity.name,
        activity.version,
        size(activity.size),
        brief(&activity.digest, 13)
    );
    if let Some(diff) = &pushed.diff {
        for change in changes(diff) {
            text.push_str("\n  ");
            text.push_str(&change);
        }
    }
    if !activity.denied.is_empty() {
        let denied = names(&activity.denied);
        let note = paint(Tone::Busy, "note:");
        let text_of_note = format!(
            "\n  {note} it imports {denied}, which the tenant's policy or its manifest does not allow"
        );
        text.push_str(&text_of_note);
    }
    text
}

/// What a version can do more and less than the one before it, a line each.
pub(crate) fn changes(diff: &PowerDiff) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |tone, sign: &str, what: &str, names: String| {
        if !names.is_empty() {
            let than = &diff.predecessor;
            lines.push(format!(
                "{} {what} {names} (than {than})",
                paint(tone, sign)
            ));
        }
    };
    line(Tone::Bad, "+", "can now use", names(&diff.powers_added));
    line(
        Tone::Good,
        "-",
        "no longer uses",
        names(&diff.powers_removed),
    );
    line(Tone::Bad, "+", "names host", diff.hosts_added.join(", "));
    line(
        Tone::Good,
        "-",
        "no longer names host",
        diff.hosts_removed.join(", "),
    );
    lines
}

fn names(powers: &[Capability]) -> String {
    let names: Vec<&str> = powers.iter().map(|power| power.name()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "ü" is U+00FC, and U+1F600 is the pair D83D DE00.
    #[test]
    fn a_manifest_fits_a_header_whatever_its_description_says() {
        let manifest = Manifest {
            description: "ü \u{1F600}".to_owned(),
            ..Manifest::default()
        };
        let text = header_text(&manifest);
        assert!(text.contains("\\u00fc \\ud83d\\ude00"), "{text}");
        let back: Manifest = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back, manifest);
    }
}
