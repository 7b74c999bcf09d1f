//! `cascade object`: what Maps read, and what they have written.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use futures::StreamExt;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Session;
use super::client::Client;
use super::error::Error;
use super::output::{Output, Table, Tone, plain, size};

/// Bytes that are sent at a time.
const BLOCK: usize = 64 << 10;

/// Write, read and delete objects: inputs and results of Maps
#[derive(Debug, Subcommand)]
pub(crate) enum Object {
    /// Write an object, or replace it
    Put {
        /// Its name, as in `orders/2026-11.ndjson`
        #[arg(value_name = "BUCKET/KEY")]
        name: String,
        /// The content; - for standard input
        file: PathBuf,
    },
    /// Read an object
    Get {
        /// Its name
        #[arg(value_name = "BUCKET/KEY")]
        name: String,
        /// Where the content goes; standard output by default
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// List objects by what their names begin with
    List {
        /// The bucket, and what keys begin with
        #[arg(value_name = "BUCKET[/PREFIX]")]
        prefix: String,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Delete an object
    Delete {
        /// Its name
        #[arg(value_name = "BUCKET/KEY")]
        name: String,
    },
}

/// An object as the server shows it.
#[derive(Debug, Serialize, Deserialize)]
struct ObjectView {
    bucket: String,
    key: String,
    size: u64,
    digest: String,
    created_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ObjectList {
    items: Vec<ObjectView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Object {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.client()?;
        let output = session.output;
        match self {
            Self::Put { name, file } => put(&client, output, &name, &file).await,
            Self::Get { name, to } => get(&client, &name, to.as_deref()).await,
            Self::List { prefix, limit } => list(&client, output, &prefix, limit).await,
            Self::Delete { name } => {
                let path = path(&name)?;
                client
                    .send(client.request(Method::DELETE, &path, &[]))
                    .await?;
                output.note(format!("deleted {}", plain(&name)));
                Ok(())
            }
        }
    }
}

/// The path of an object; slashes of the key are the path's own.
fn path(name: &str) -> Result<Vec<&str>, Error> {
    let Some((bucket, key)) = name.split_once('/').filter(|(_, key)| !key.is_empty()) else {
        return Err(Error::usage(format!("`{name}` is no name of an object"))
            .hint("give the bucket and the key: orders/2026-11.ndjson"));
    };
    let mut path = vec!["v1", "objects", bucket];
    path.extend(key.split('/'));
    Ok(path)
}

async fn put(client: &Client, output: Output, name: &str, file: &Path) -> Result<(), Error> {
    let path = path(name)?;
    let (source, length): (Box<dyn tokio::io::AsyncRead + Send + Unpin>, _) =
        if file == Path::new("-") {
            (Box::new(tokio::io::stdin()), 0)
        } else {
            let opened = tokio::fs::File::open(file).await;
            let opened = opened.map_err(|error| unusable(file, &error))?;
            let length = opened.metadata().await.map_or(0, |about| about.len());
            (Box::new(opened), length)
        };
    let bar = output.bytes(format!("uploading {}", plain(name)), length);
    let moving = bar.clone();
    let blocks = futures::stream::try_unfold(source, move |mut source| {
        let bar = moving.clone();
        async move {
            let mut block = vec![0; BLOCK];
            let length = source.read(&mut block).await?;
            block.truncate(length);
            bar.inc(length as u64);
            std::io::Result::Ok((length > 0).then_some((block, source)))
        }
    });
    let client = client.for_uploads()?;
    let request = client
        .request(Method::PUT, &path, &[])
        .body(reqwest::Body::wrap_stream(blocks));
    let written = client.json::<ObjectView>(request).await;
    bar.finish_and_clear();
    let written = written?;
    output.result(&written, || {
        format!(
            "{}/{} ({}, sha256 {})",
            written.bucket,
            plain(&written.key),
            size(written.size),
            written.digest
        )
    });
    Ok(())
}

async fn get(client: &Client, name: &str, to: Option<&Path>) -> Result<(), Error> {
    let path = path(name)?;
    let response = client.send(client.request(Method::GET, &path, &[])).await?;
    let mut sink: Box<dyn tokio::io::AsyncWrite + Send + Unpin> = match to {
        None => Box::new(tokio::io::stdout()),
        Some(file) => {
            let made = tokio::fs::File::create(file).await;
            Box::new(made.map_err(|error| unusable(file, &error))?)
        }
    };
    let mut blocks = response.bytes_stream();
    while let Some(block) = blocks.next().await {
        let block = block.map_err(|error| Error::failed(super::chain(&error)))?;
        let written = sink.write_all(&block).await;
        written.map_err(|error| Error::failed(format!("cannot write the content: {error}")))?;
    }
    let flushed = sink.flush().await;
    flushed.map_err(|error| Error::failed(format!("cannot write the content: {error}")))
}

async fn list(client: &Client, output: Output, prefix: &str, limit: u32) -> Result<(), Error> {
    let (bucket, prefix) = prefix.split_once('/').unwrap_or((prefix, ""));
    let query = [("prefix", prefix.to_owned()), ("limit", limit.to_string())];
    let list: ObjectList = client.get(&["v1", "objects", bucket], &query).await?;
    output.result(&list, || {
        let mut table = Table::new(&["object", "size", "sha256"]);
        for object in &list.items {
            table.row([
                (
                    format!("{}/{}", object.bucket, plain(&object.key)),
                    Tone::Plain,
                ),
                (size(object.size), Tone::Faint),
                (object.digest.clone(), Tone::Faint),
            ]);
        }
        table.render()
    });
    Ok(())
}

fn unusable(file: &Path, error: &std::io::Error) -> Error {
    Error::usage(format!("cannot use {}: {error}", file.display()))
}
