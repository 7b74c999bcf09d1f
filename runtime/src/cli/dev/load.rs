//! Brings what lies in a project's folder to the server, at first and again
//! whenever it changes. A file that is bad is reported and left out; the rest
//! goes on, and so does what the server had before.

use std::path::{Path, PathBuf};

use super::super::client::Client;
use super::super::error::Error;
use super::super::output::{Output, Tone, paint};
use super::super::source::{self, Project};
use super::super::{activity, apply, push, validate};
use super::watch::Change;
use cascade_cdl::asl::Bindings;

/// What a developer works on.
pub(crate) struct Loader<'a> {
    pub root: PathBuf,
    pub client: &'a Client,
    pub output: Output,
}

impl Loader<'_> {
    /// Looks at the folder again and brings what `change` concerns. Activities
    /// go first, so that workflows find them.
    pub(crate) async fn load(&self, change: &Change) -> Project {
        let project = match Project::scan(&self.root) {
            Ok(project) => project,
            Err(error) => {
                self.output.error(&error);
                return Project::default();
            }
        };
        for path in project.modules.iter().filter(|path| change.concerns(path)) {
            self.report(path, self.module(path).await);
        }
        for dir in project.crates.iter().filter(|dir| change.concerns(dir)) {
            self.report(dir, self.build(dir).await);
        }
        for path in project.cdl.iter().filter(|path| change.concerns(path)) {
            self.report(path, self.cdl(path).await);
        }
        project
    }

    fn report(&self, path: &Path, outcome: Result<String, Error>) {
        match outcome {
            Ok(text) => self.output.note(text),
            Err(error) => {
                let path = path.display();
                self.output
                    .note(format!("{} {path}", paint(Tone::Bad, "left out")));
                self.output.error(&error);
            }
        }
    }

    async fn module(&self, path: &Path) -> Result<String, Error> {
        let found = source::module(path)?;
        let pushed = push::push(self.client, &found, None, self.output).await?;
        Ok(push::describe(&pushed))
    }

    async fn build(&self, dir: &Path) -> Result<String, Error> {
        let found = activity::build(dir, true, self.output).await?;
        let pushed = push::push(self.client, &found, None, self.output).await?;
        Ok(push::describe(&pushed))
    }

    async fn cdl(&self, path: &Path) -> Result<String, Error> {
        let checked = validate::check(path, &Bindings::default())?;
        if !checked.show(self.output) {
            return Err(Error::failed("it is invalid"));
        }
        let applied = apply::apply(self.client, &checked).await?;
        Ok(apply::describe(&applied))
    }
}
