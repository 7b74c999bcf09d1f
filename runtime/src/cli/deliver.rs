//! `cascade process signal`, `tasks`, `answer` and `callback`: what comes to an execution from
//! outside.

use clap::{ArgGroup, Args};
use reqwest::Method;
use serde_json::json;

use super::client::Client;
use super::error::{Error, Exit};
use super::input;
use super::output::{Output, Table, Tone, plain};
use super::process::{describe, key_or_new};
use super::wire::{ExecutionView, HumanTask, Items};

/// Send a signal to an execution
#[derive(Debug, Args)]
pub(crate) struct Signal {
    /// The execution's id
    id: String,
    /// The signal's name, the `event` of an `EventTask`
    name: String,
    /// JSON, or @FILE, or - for standard input; {} by default
    #[arg(long, short, value_name = "JSON")]
    payload: Option<String>,
    /// A signal that was sent with this key is not delivered again
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Answer what an execution asks a person
#[derive(Debug, Args)]
pub(crate) struct Answer {
    /// The execution's id
    id: String,
    /// The `HumanTask` state, with the states around it if there are several; or the task's number
    state: String,
    /// JSON, or @FILE, or - for standard input; {} by default
    #[arg(long, short, value_name = "JSON")]
    input: Option<String>,
    /// Who answers; it goes into the history
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// Tell how a task went, by its token
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("outcome").required(true).args(["result", "error", "heartbeat"]))]
pub(crate) struct Callback {
    /// The token, as `$$.Task.Token` and `cascade process show` give it
    token: String,
    /// It is done: JSON, or @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    result: Option<String>,
    /// It failed, with an error of this name
    #[arg(long, value_name = "NAME")]
    error: Option<String>,
    /// Why it failed
    #[arg(long, value_name = "TEXT", requires = "error")]
    cause: Option<String>,
    /// It goes on
    #[arg(long)]
    heartbeat: bool,
}

impl Callback {
    pub(crate) async fn run(self, client: &Client, output: Output) -> Result<(), Error> {
        let (what, body) = match (&self.result, &self.error) {
            (Some(result), _) => ("succeed", json!({ "output": input::read(Some(result))? })),
            (None, Some(error)) => ("fail", json!({ "error": error, "cause": self.cause })),
            (None, None) => ("heartbeat", json!({})),
        };
        let path = ["v1", "tasks", &self.token, what];
        let view: ExecutionView = client.post(&path, &body).await?;
        output.result(&view, || describe(&view));
        Ok(())
    }
}

impl Signal {
    pub(crate) async fn run(self, client: &Client, output: Output) -> Result<(), Error> {
        let payload = input::read(self.payload.as_deref())?;
        let body = json!({ "name": self.name, "payload": payload });
        let path = ["v1", "executions", &self.id, "signals"];
        let request = client.request(Method::POST, &path, &[]);
        let request = request.header("Idempotency-Key", key_or_new(self.idempotency_key));
        let view: ExecutionView = client.json(request.json(&body)).await?;
        output.result(&view, || describe(&view));
        Ok(())
    }
}

impl Answer {
    pub(crate) async fn run(self, client: &Client, output: Output) -> Result<(), Error> {
        let answer = input::read(self.input.as_deref())?;
        let tasks = load(client, &self.id).await?;
        let task = choose(&tasks.items, &self.state)?;
        let mut body = json!({ "output": answer });
        if let Some(by) = self.by {
            body["by"] = by.into();
        }
        let path = ["v1", "executions", &self.id, "tasks", &task.to_string()];
        let view: ExecutionView = client.post(&path, &body).await?;
        output.result(&view, || describe(&view));
        Ok(())
    }
}

/// Prints what people are asked.
pub(crate) async fn print_tasks(client: &Client, output: Output, id: &str) -> Result<(), Error> {
    let tasks = load(client, id).await?;
    output.result(&tasks, || table(&tasks.items));
    Ok(())
}

async fn load(client: &Client, id: &str) -> Result<Items<HumanTask>, Error> {
    client.get(&["v1", "executions", id, "tasks"], &[]).await
}

/// The number of the task that is meant. A number is taken as it is: what was
/// answered already is for the server to say.
fn choose(tasks: &[HumanTask], named: &str) -> Result<u64, Error> {
    if let Ok(task) = named.parse() {
        return Ok(task);
    }
    let whole = |task: &&HumanTask| task.place() == named;
    let found: Vec<&HumanTask> = match tasks.iter().find(whole) {
        Some(task) => vec![task],
        None => tasks.iter().filter(|task| task.state == named).collect(),
    };
    match found.as_slice() {
        [task] => Ok(task.task),
        [] => Err(Error::new(
            Exit::NotFoundOrDenied,
            format!("nobody is asked for `{}`", plain(named)),
        )
        .hint("`cascade process tasks ID` lists what is asked; a number answers what was asked before")),
        several => {
            let places: Vec<String> = several.iter().map(|task| task.place()).collect();
            Err(Error::usage("several people are asked for this")
                .hint(format!("choose one: {}", places.join(", "))))
        }
    }
}

fn table(tasks: &[HumanTask]) -> String {
    let mut table = Table::new(&["task", "state", "assignee", "deadline", "input"]);
    for task in tasks {
        let deadline = task.deadline.map(|at| at.to_string());
        table.row([
            (task.task.to_string(), Tone::Strong),
            (task.place(), Tone::Plain),
            (plain(&task.assignee), Tone::Plain),
            (deadline.unwrap_or_default(), Tone::Faint),
            (plain(task.input.as_str()), Tone::Plain),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: u64, path: &str, state: &str) -> HumanTask {
        HumanTask {
            task: number,
            path: path.to_owned(),
            state: state.to_owned(),
            assignee: "ann".to_owned(),
            input: json!(null).into(),
            schema: None,
            opened_at: cascade_cdl::Timestamp(0),
            deadline: None,
            escalates_at: None,
            escalated: 0,
        }
    }

    #[test]
    fn a_task_is_named_by_its_state_its_place_or_its_number() {
        let tasks = [
            task(1, "", "Sign"),
            task(2, "All/0", "Check"),
            task(3, "All/1", "Check"),
        ];
        for (named, meant) in [("Sign", 1), ("All/1/Check", 3), ("2", 2), ("77", 77)] {
            assert_eq!(choose(&tasks, named).ok(), Some(meant), "{named}");
        }
        for (named, exit) in [("Check", Exit::Usage), ("Pay", Exit::NotFoundOrDenied)] {
            let refused = choose(&tasks, named).expect_err("is not one");
            assert_eq!(refused.exit(), exit, "{named}");
        }
    }
}
