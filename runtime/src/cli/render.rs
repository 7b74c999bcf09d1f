//! `cascade render`: what others run servers from, without a server.

mod kubernetes;
mod yaml;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::error::Error;
use super::output::{Tone, paint};
use super::{Session, input};
use crate::config::Config;
use kubernetes::Object;

/// First line of each file that is written, and so known again.
const MARK: &str = "# Made by `cascade render kubernetes`, which may replace or remove this file.";

/// Print what others run servers from
#[derive(Debug, Subcommand)]
pub(crate) enum Render {
    /// Objects for a Kubernetes cluster, from `deployments` in cascade.yaml
    Kubernetes(Kubernetes),
}

/// Prints objects for a Kubernetes cluster
///
/// The same file gives the same text, on every machine. What it refers to, as passwords, is not
/// looked up. With `--output json` it is one `List`.
#[derive(Debug, Args)]
pub(crate) struct Kubernetes {
    /// The servers' configuration
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "CASCADE_CONFIG",
        default_value = "cascade.yaml"
    )]
    config: PathBuf,
    /// A folder to write to, a file for each object, in place of stdout
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// What became of the files of a folder.
#[derive(Debug, Default, Serialize)]
struct Written {
    written: Vec<PathBuf>,
    /// Of objects that are not rendered any more.
    removed: Vec<PathBuf>,
}

impl Render {
    pub(crate) fn run(self, session: &Session) -> Result<(), Error> {
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.run(session),
        }
    }
}

impl Kubernetes {
    fn run(self, session: &Session) -> Result<(), Error> {
        let output = session.output;
        let objects = read(&self.config)?;
        let Some(folder) = self.to else {
            output.result(&list(&objects), || {
                let documents: Vec<_> = objects
                    .iter()
                    .map(|object| yaml::document(&object.document))
                    .collect();
                documents.join("---\n").trim_end().to_owned()
            });
            return Ok(());
        };
        let written = write(&folder, &objects)?;
        output.result(&written, || {
            let lines = |word, files: &[PathBuf]| -> Vec<String> {
                let each = files.iter();
                each.map(|file| format!("{} {}", paint(Tone::Good, word), file.display()))
                    .collect()
            };
            let mut all = lines("wrote", &written.written);
            all.extend(lines("removed", &written.removed));
            all.join("\n")
        });
        Ok(())
    }
}

/// The objects of a file.
fn read(path: &Path) -> Result<Vec<Object>, Error> {
    let text = input::read_file(path)?;
    let name = path.display().to_string();
    let config = Config::parse_for_elsewhere(&name, &text)
        .map_err(|problems| Error::usage(problems.to_string()))?;
    let Some(deployments) = &config.deployments else {
        return Err(Error::usage(format!("{name} has no `deployments`")).hint(
            "add what is to be run, at least `deployments: { image: IMAGE }`; docs/deployment.md says all",
        ));
    };
    kubernetes::objects(&config, deployments, &text)
        .map_err(|problem| Error::usage(format!("{name}: {problem}")))
}

/// All of them as one document, which `kubectl` takes, too.
fn list(objects: &[Object]) -> Value {
    let items: Vec<_> = objects.iter().map(|object| &object.document).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// Makes the folder hold these objects, and of what this command has written before nothing else.
fn write(folder: &Path, objects: &[Object]) -> Result<Written, Error> {
    fs::create_dir_all(folder).map_err(|source| Error::file("make", folder, &source))?;
    let files: Vec<_> = objects
        .iter()
        .map(|object| (folder.join(object.file_name()), object))
        .collect();
    // All or nothing, as far as it can be told beforehand.
    for (file, _) in &files {
        if !may_replace(file)? {
            let message = format!("{} was not made by this command", file.display());
            return Err(Error::usage(message).hint("move it away, or name another folder"));
        }
    }
    let mut written = Written::default();
    for (file, object) in files {
        let text = format!("{MARK}\n{}", yaml::document(&object.document));
        fs::write(&file, text).map_err(|source| Error::file("write", &file, &source))?;
        written.written.push(file);
    }
    let failed = |source| Error::file("list", folder, &source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let is_yaml = file
            .extension()
            .is_some_and(|extension| extension == "yaml");
        if is_yaml && !written.written.contains(&file) && is_ours(&file)? {
            fs::remove_file(&file).map_err(|source| Error::file("remove", &file, &source))?;
            written.removed.push(file);
        }
    }
    written.removed.sort();
    Ok(written)
}

fn may_replace(file: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::file("look at", file, &error)),
        Ok(_) => is_ours(file),
    }
}

/// Whether this command has written a file.
fn is_ours(file: &Path) -> Result<bool, Error> {
    if !file.is_file() {
        return Ok(false);
    }
    let text = input::read_bytes(file)?;
    Ok(text.starts_with(MARK.as_bytes()))
}
