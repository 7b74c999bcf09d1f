//! `cascade apply`: brings CDL files to the server.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Session;
use super::client::Client;
use super::error::Error;
use super::output::{Tone, paint};
use super::validate::{self, Checked};
use super::wire::Applied;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

/// Bring a CDL file, or a folder of them, to the server
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// CDL files, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    bind: validate::Bind,
}

impl Apply {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.client()?;
        let output = session.output;
        let bindings = self.bind.read(output)?;
        let mut checked = validate::check_all(&self.paths, &bindings)?;
        // All are looked at before the first is sent: half of a folder applied
        // is worse than none.
        let mut usable = true;
        for file in &checked {
            usable &= file.show(output);
        }
        if !usable {
            return Err(Error::failed("nothing was applied: a file is invalid"));
        }
        let mut applied = Vec::new();
        for file in &mut checked {
            file.bring(&bindings)?;
            applied.push(apply(&client, file).await?);
        }
        output.result(&applied, || {
            let lines: Vec<String> = applied.iter().map(describe).collect();
            lines.join("\n")
        });
        Ok(())
    }
}

/// Sends one file that was found valid.
pub(crate) async fn apply(client: &Client, file: &Checked) -> Result<Applied, Error> {
    let application = file
        .parsed
        .application
        .as_ref()
        .ok_or_else(|| Error::failed(format!("{} is invalid", file.name)))?;
    let path = Path::new(&file.name);
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let query = name.map(|name| ("file", name));
    let request = client
        .request(
            Method::PUT,
            &["v1", "applications", &application.name],
            query.as_slice(),
        )
        .header(CONTENT_TYPE, "application/yaml")
        .body(file.text.clone());
    client.json(request).await
}

/// One applied file on a line, and what it still lacks.
pub(crate) fn describe(applied: &Applied) -> String {
    let what = if applied.created {
        paint(Tone::Good, "applied")
    } else {
        paint(Tone::Faint, "unchanged")
    };
    let mut text = format!("{what} {} version {}", applied.name, applied.version);
    for missing in &applied.missing_activities {
        let note = paint(Tone::Busy, "note:");
        text = format!("{text}\n  {note} nobody has pushed {missing} yet");
    }
    text
}
