//! `cascade apply`: brings CDL files to the server.

use std::path::PathBuf;

use clap::Args;

use super::Session;
use super::client::Client;
use super::error::Error;
use super::output::{Tone, paint};
use super::plan::{self, Renamed};
use super::validate::{self, Checked};
use super::wire::{Applied, Tally};
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
    /// Let open executions go on under the new version if that is safe
    #[arg(long)]
    migrate: bool,
    #[command(flatten)]
    renamed: Renamed,
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
        let mapping = self.renamed.read(&checked)?;
        if !self.migrate && !mapping.is_empty() {
            return Err(Error::usage(
                "--mapping is for --migrate, which is not given",
            ));
        }
        let mut applied = Vec::new();
        for file in &mut checked {
            file.bring(&bindings)?;
            applied.push(apply(&client, file).await?);
        }
        if self.migrate {
            for (applied, file) in applied.iter_mut().zip(&checked) {
                applied.executions = Some(plan::migrate(&client, file, &mapping).await?);
            }
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
    let name = file.application()?;
    let request = client
        .request(
            Method::PUT,
            &["v1", "applications", &name],
            file.query().as_slice(),
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
    for line in applied.executions.iter().flat_map(Tally::lines) {
        text = format!("{text}\n  {line}");
    }
    text
}
