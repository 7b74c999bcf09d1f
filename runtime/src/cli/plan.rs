//! `cascade plan`: what CDL files would change, of the workflows and for the
//! executions that are open. Nothing is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use reqwest::Method;
use serde::Serialize;
use serde_json::json;

use super::client::Client;
use super::error::{Error, Exit};
use super::output::{Tone, paint, plain};
use super::validate::{self, Checked};
use super::wire::{Fate, MigratePage, PlanPage, Tally, WorkflowPlan};
use super::{Session, input};

/// Executions that are named one by one; of the others there are numbers.
const MAX_NAMED: usize = 50;

/// Say what a CDL file would change, and which executions could go on under it
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// CDL files, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    bind: validate::Bind,
    #[command(flatten)]
    renamed: Renamed,
}

/// What has become of states.
#[derive(Debug, Default, Args)]
pub(crate) struct Renamed {
    /// File that says which states were renamed: {workflow: {old: new}}
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
}

/// The new paths of states by the old ones, by workflow.
pub(crate) type Mapping = BTreeMap<String, BTreeMap<String, String>>;

impl Renamed {
    /// What the file says; nothing without one. Each workflow that it names has to
    /// be in one of the CDL files.
    pub(crate) fn read(&self, files: &[Checked]) -> Result<Mapping, Error> {
        let Some(path) = &self.mapping else {
            return Ok(Mapping::new());
        };
        let name = path.display();
        let text = input::read_bytes(path)?;
        let mapping: Mapping = serde_yaml::from_slice(&text).map_err(|error| {
            Error::usage(format!("{name}: {error}"))
                .hint("docs/cli.md#plan-and-apply---migrate shows what a mapping looks like")
        })?;
        let known: BTreeSet<&String> = files
            .iter()
            .filter_map(|file| file.parsed.application.as_ref())
            .flat_map(|application| application.workflows.keys())
            .collect();
        let unknown = mapping.keys().find(|workflow| !known.contains(workflow));
        match unknown {
            Some(workflow) => Err(Error::usage(format!(
                "{name}: none of the files has a workflow `{workflow}`"
            ))),
            None => Ok(mapping),
        }
    }
}

/// What one file would change.
#[derive(Serialize)]
struct Planned {
    application: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    changed: bool,
    workflows: Vec<WorkflowPlan>,
    executions: Tally,
}

impl Plan {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.client()?;
        let output = session.output;
        let bindings = self.bind.read(output)?;
        let mut checked = validate::check_all(&self.paths, &bindings)?;
        let mut usable = true;
        for file in &checked {
            usable &= file.show(output);
        }
        if !usable {
            return Err(Error::failed("a file is invalid"));
        }
        let mapping = self.renamed.read(&checked)?;
        let mut planned = Vec::new();
        for file in &mut checked {
            file.bring(&bindings)?;
            planned.push(plan(&client, file, &mapping).await?);
        }
        output.result(&planned, || {
            let texts: Vec<String> = planned.iter().map(describe).collect();
            texts.join("\n")
        });
        if planned
            .iter()
            .all(|plan| plan.executions.obstructed.is_empty())
        {
            Ok(())
        } else {
            Err(Error::told(Exit::Failed))
        }
    }
}

/// The part of a mapping that is about the workflows of a file.
fn part(mapping: &Mapping, file: &Checked) -> Mapping {
    let own = |workflow: &String| {
        let application = file.parsed.application.as_ref();
        application.is_some_and(|application| application.workflows.contains_key(workflow))
    };
    let own = mapping.iter().filter(|(workflow, _)| own(workflow));
    own.map(|(workflow, renamed)| (workflow.clone(), renamed.clone()))
        .collect()
}

async fn plan(client: &Client, file: &Checked, mapping: &Mapping) -> Result<Planned, Error> {
    let name = file.application()?;
    let path = ["v1", "applications", &name, "plan"];
    let source = String::from_utf8_lossy(&file.text);
    let body = json!({ "source": source, "mapping": part(mapping, file) });
    let mut executions = Tally::default();
    let mut query: Vec<_> = file.query().into_iter().collect();
    loop {
        let request = client.request(Method::POST, &path, &query).json(&body);
        let page: PlanPage = client.json(request).await?;
        executions.take(page.executions);
        match page.next {
            Some(next) => {
                query.retain(|(key, _)| *key != "cursor");
                query.push(("cursor", next));
            }
            None => {
                return Ok(Planned {
                    application: page.application,
                    version: page.version,
                    changed: page.workflows.iter().any(|it| it.change != "unchanged"),
                    workflows: page.workflows,
                    executions,
                });
            }
        }
    }
}

/// Moves the executions of an applied file for which that is safe.
pub(crate) async fn migrate(
    client: &Client,
    file: &Checked,
    mapping: &Mapping,
) -> Result<Tally, Error> {
    let name = file.application()?;
    let path = ["v1", "applications", &name, "migrate"];
    let body = json!({ "mapping": part(mapping, file) });
    let mut executions = Tally::default();
    let mut query = Vec::new();
    loop {
        let request = client.request(Method::POST, &path, &query).json(&body);
        let page: MigratePage = client.json(request).await?;
        executions.take(page.executions);
        match page.next {
            Some(next) => query = vec![("cursor", next)],
            None => return Ok(executions),
        }
    }
}

impl Tally {
    fn take(&mut self, fates: Vec<Fate>) {
        for fate in fates {
            *self.counts.entry(fate.verdict.clone()).or_default() += 1;
            let goes_on = ["safe", "moved"].contains(&fate.verdict.as_str());
            if !goes_on && self.obstructed.len() < MAX_NAMED {
                self.obstructed.push(fate);
            }
        }
    }

    /// Numbers, then those that stay one by one.
    pub(crate) fn lines(&self) -> Vec<String> {
        if self.counts.is_empty() {
            return vec!["executions: none".to_owned()];
        }
        let counts = self.counts.iter();
        let counts: Vec<String> = counts
            .map(|(verdict, count)| format!("{count} {}", plain(&words(verdict))))
            .collect();
        let mut lines = vec![format!("executions: {}", counts.join(", "))];
        for fate in &self.obstructed {
            let why = [&fate.states[..], &fate.reasons[..]].concat().join("; ");
            lines.push(format!(
                "  {} {} (version {}) {}: {}",
                fate.id,
                plain(&fate.workflow),
                fate.application_version,
                paint(Tone::Busy, words(&fate.verdict)),
                plain(&why)
            ));
        }
        let stay = self.counts.iter().filter(|(verdict, _)| {
            let verdict = verdict.as_str();
            verdict != "safe" && verdict != "moved"
        });
        let more = stay.map(|(_, count)| count).sum::<u64>() - self.obstructed.len() as u64;
        if more > 0 {
            lines.push(format!("  and {more} more"));
        }
        lines
    }
}

fn words(verdict: &str) -> String {
    verdict
        .replace("needs_mapping", "needs a mapping")
        .replace("later", "can be moved later")
}

fn describe(planned: &Planned) -> String {
    let against = match planned.version {
        Some(version) => format!("against version {version}"),
        None => "which is new".to_owned(),
    };
    let mut lines = vec![format!(
        "application {} {against}",
        paint(Tone::Strong, &planned.application)
    )];
    for workflow in &planned.workflows {
        lines.push(format!(
            "workflow {} {}",
            plain(&workflow.workflow),
            workflow.change
        ));
        for field in &workflow.fields {
            lines.push(format!("  {} {}", paint(Tone::Busy, "~"), plain(field)));
        }
        for state in &workflow.states {
            let (tone, sign) = match state.change.as_str() {
                "added" => (Tone::Good, "+"),
                "removed" => (Tone::Bad, "-"),
                _ => (Tone::Busy, "~"),
            };
            let mut text = format!("  {} {}", paint(tone, sign), plain(&state.state));
            if !state.fields.is_empty() {
                text = format!("{text}: {}", plain(&state.fields.join(", ")));
            }
            lines.push(text);
        }
    }
    lines.extend(planned.executions.lines());
    lines.join("\n")
}
