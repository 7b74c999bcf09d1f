//! Objects out of files, for commands that run executions without a server: `--object
//! orders/2026-11.ndjson=sample.ndjson`. Such a command runs one execution, so a Map runs
//! all its items there, and its results are the state's output, wherever a server would
//! write them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use cascade_cdl::program::{Application, Program};
use cascade_cdl::spread::{Format, Found, ReadTask, Work};
use cascade_cdl::{ActivityFailure, ActivityTask, Json, errors};
use clap::Args;
use serde_json::{Value, json};

use super::error::Error;
use crate::objects::cut;

/// Where objects are.
#[derive(Debug, Default, Args)]
pub(crate) struct Given {
    /// A file that stands for an object which a Map reads
    #[arg(long = "object", value_name = "BUCKET/KEY=FILE")]
    objects: Vec<String>,
}

/// Files by the names of the objects that they stand for.
#[derive(Debug, Default)]
pub(crate) struct ObjectFiles(BTreeMap<String, PathBuf>);

impl Given {
    pub(crate) fn read(self) -> Result<ObjectFiles, Error> {
        let mut files = BTreeMap::new();
        for text in self.objects {
            let Some((name, path)) = text.split_once('=').filter(|(name, _)| name.contains('/'))
            else {
                return Err(Error::usage(format!("`{text}` is not BUCKET/KEY=FILE")));
            };
            files.insert(name.to_owned(), PathBuf::from(path));
        }
        Ok(ObjectFiles(files))
    }
}

impl ObjectFiles {
    /// The answer to a Map that asks for its items; `None` if the task asks for something else.
    pub(crate) fn answer(&self, task: &ActivityTask) -> Option<Result<Json, ActivityFailure>> {
        let child = task.resource.child.as_ref()?;
        match child.work? {
            Work::Read => Some(self.found(&task.input)),
            Work::Chunk | Work::Write => {
                let message = "a Map whose chunks are executions takes a server".to_owned();
                Some(Err(failure(message)))
            }
        }
    }

    fn found(&self, input: &Json) -> Result<Json, ActivityFailure> {
        let task: ReadTask = serde_json::from_str(input.as_str())
            .map_err(|error| failure(format!("what is asked for cannot be read: {error}")))?;
        let source = task.source;
        let name = format!("{}/{}", source.bucket, source.key);
        let list = if source.format == Format::Listing {
            self.listing(&name)
        } else {
            let path = self.0.get(&name).ok_or_else(|| {
                failure(format!(
                    "object `{name}`: there is no such object here; give a file: --object {name}=FILE"
                ))
            })?;
            let opened = File::open(path);
            let mut file =
                opened.map_err(|error| failure(format!("{}: {error}", path.display())))?;
            cut::whole(&mut file, &source.format, source.max_items)
                .map_err(|fault| failure(format!("object `{name}`: {fault}")))?
        };
        let items = Json::parse(list).map_err(|error| failure(error.to_string()))?;
        let found = json!(Found::Whole(items));
        Ok(Json::from_value(&found))
    }

    fn listing(&self, prefix: &str) -> String {
        let named = self.0.range(prefix.to_owned()..);
        let named = named.take_while(|(name, _)| name.starts_with(prefix));
        let items = named.map(|(name, path)| {
            let size = path.metadata().map_or(0, |about| about.len());
            let key = name.split_once('/').map_or("", |(_, key)| key);
            json!({"Key": key, "Size": size})
        });
        Value::Array(items.collect()).to_string()
    }
}

/// A program whose Maps run in the one execution that there is.
pub(crate) fn in_one(program: &Program) -> Arc<Program> {
    Arc::new(Program {
        whole: true,
        ..program.clone()
    })
}

/// The same of all workflows of an application.
pub(crate) fn all_in_one(mut application: Application) -> Application {
    for program in application.workflows.values_mut() {
        *program = in_one(program);
    }
    application
}

fn failure(message: String) -> ActivityFailure {
    ActivityFailure {
        error: errors::ITEM_READ.to_owned(),
        message,
        retryable: Some(false),
        details: None,
    }
}
