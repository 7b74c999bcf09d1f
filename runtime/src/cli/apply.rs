//! `cascade apply`: brings CDL files to the server.

use std::path::PathBuf;

use clap::Args;

use super::client::Client;
use super::error::{Error, Exit};
use super::output::{Tone, paint};
use super::validate::{self, Checked};
use super::wire::{self, Applied};
use super::Session;

/// Bring a CDL file, or a folder of them, to the server
#[derive(Debug, Args)]
pub struct Apply {
    /// CDL files, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

impl Apply {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.client()?;
        let output = session.output;
        let checked = validate::check_all(&self.paths)?;
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
        for file in &checked {
            applied.push(apply(&client, file).await?);
        }
        output.result(&applied, || {
            let lines: Vec<String> = applied.iter().map(describe).collect();
            lines.join("\n")
        });
        Ok(())
    }
}
