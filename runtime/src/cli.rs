//! The command line: one file a verb, results on stdout, all else on stderr.
//!
//! Commands are clients of the HTTP API, but for those that need no server
//! (`validate`, `run`, `test`, `sim`, `import`, `activity new|build|run`, `bench`, `conformance`, `schema`, `shard`, `render`, `lsp`) and those that are
//! one (`dev`, `server`). Nothing here survives a crash, and nothing has to.

mod activity;
mod apply;
mod bench;
mod client;
mod cluster;
mod completions;
mod conformance;
mod context;
mod deliver;
mod dev;
pub mod diagnostics;
mod error;
mod events;
mod import;
mod input;
mod local;
mod lsp;
mod object;
mod object_files;
mod output;
mod outside;
mod plan;
mod position;
mod process;
mod push;
mod render;
mod replay;
mod run;
mod schedule;
mod schema;
mod search;
mod serve;
mod shard;
mod sim;
mod source;
mod task;
pub mod template;
mod tenant;
mod test;
pub mod toolchain;
mod validate;
mod virtual_time;
mod wire;
mod workflow;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use client::Client;
use context::{Context, Given};
use error::Error;
use output::{Format, Output};
use position::Memory;

use crate::sandbox::{COMPILE_SUBCOMMAND, compile_child_main};

/// How long blocking work may still take once a command is done. What matters
/// has been waited for by then.
const LEAVE: Duration = Duration::from_secs(1);

/// Durable workflows of sandboxed WebAssembly activities.
///
/// Exit codes: 0 done; 1 the answer is no (an execution failed, a file is
/// invalid); 2 usage; 3 no answer from the server; 4 not found or denied; 5 conflict;
/// 6 the server is busy; 7 the server failed.
#[derive(Debug, Parser)]
#[command(name = "cascade", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Global {
    /// The server's URL [env: `CASCADE_URL`; default: that of `cascade dev` in this folder]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// API key [env: `CASCADE_API_KEY`; default: that of `cascade dev` in this folder]
    #[arg(long, global = true, value_name = "KEY")]
    key: Option<String>,
    /// The tenant that a key of the server itself acts for [env: `CASCADE_TENANT`]
    #[arg(long, global = true, value_name = "ID")]
    tenant: Option<String>,
    /// How results are printed
    #[arg(long, short, global = true, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in this process for one developer, and reload what changes
    Dev(dev::Dev),
    /// Run the server
    Server(serve::Server),
    /// Check CDL files
    Validate(validate::Validate),
    /// Translate workflows that are written for others to CDL
    #[command(subcommand)]
    Import(import::Import),
    /// Bring a CDL file, or a folder of them, to the server
    Apply(apply::Apply),
    /// Say what a CDL file would change, and which executions could go on under it
    Plan(plan::Plan),
    /// Run a workflow once, in memory, without a server
    Run(run::Run),
    /// Run the tests of workflows
    Test(test::Test),
    /// Run a workflow a thousand times under virtual time, with faults, and check what holds
    Sim(sim::Sim),
    /// Make, push and look at activities
    #[command(subcommand)]
    Activity(activity::Activity),
    /// Start and watch executions
    #[command(subcommand, visible_alias = "ps")]
    Process(process::Process),
    /// List what people are asked
    #[command(subcommand)]
    Task(task::Task),
    /// Pause workflows, and resume them
    #[command(subcommand)]
    Workflow(workflow::Workflow),
    /// Show schedules, pause them, and start what they start
    #[command(subcommand)]
    Schedule(schedule::Schedule),
    /// Write, read and delete objects: inputs and results of Maps
    #[command(subcommand)]
    Object(object::Object),
    /// Run a history through the machine again, and compare
    Replay(replay::Replay),
    /// Say where executions with a shard key are
    Shard(shard::Shard),
    /// Print what others run servers from: objects of Kubernetes
    #[command(subcommand)]
    Render(render::Render),
    /// List the nodes that share a database
    Nodes(cluster::Nodes),
    /// List the shards, and which node has each
    Shards(cluster::Shards),
    /// List the replicas that answer reads, and how far behind they are
    Replicas(cluster::Replicas),
    /// Tenants of the server
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// API keys
    #[command(subcommand)]
    Key(tenant::Key),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run a conformance suite of the Amazon States Language
    Conformance(conformance::Conformance),
    /// Print the JSON Schema of CDL files, for editors
    Schema(schema::Schema),
    /// Speak with an editor: diagnostics, completion and more, over stdin and stdout
    Lsp(lsp::Lsp),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

/// What a command has at hand.
#[derive(Debug)]
struct Session {
    given: Given,
    output: Output,
}

impl Session {
    /// A client of the server that the flags, the environment or the folder name.
    fn client(&self) -> Result<Client, Error> {
        self.client_of(&self.context()?)
    }

    /// A client with a key of the server itself, which can make tenants.
    fn server_client(&self) -> Result<Client, Error> {
        let mut context = self.context()?;
        context.key = context.server_key.take();
        self.client_of(&context)
    }

    fn client_of(&self, context: &Context) -> Result<Client, Error> {
        let memory = Memory::of(&context.url, self.output);
        Ok(Client::new(context)?.remembering(memory))
    }

    fn context(&self) -> Result<Context, Error> {
        let folder = std::env::current_dir()
            .map_err(|source| Error::usage(format!("there is no current folder: {source}")))?;
        context::resolve(self.given.clone().with_environment(), &folder)
    }
}

/// Runs the command line that this process was started with.
pub fn main() -> ExitCode {
    // First of all: the compiler process limits itself before it does anything.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == COMPILE_SUBCOMMAND)
    {
        return compile_child_main();
    }
    // Usage errors end the process here, with exit code 2 and clap's advice.
    let cli = Cli::parse();
    let output = Output::new(cli.global.output);
    let session = Session {
        given: Given {
            url: cli.global.url,
            key: cli.global.key,
            tenant: cli.global.tenant,
        },
        output,
    };
    match dispatch(cli.command, &session) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit() as u8)
        }
    }
}

fn dispatch(command: Command, session: &Session) -> Result<(), Error> {
    match command {
        Command::Dev(dev) => all_threads(dev.run(session)),
        Command::Server(server) => all_threads(server.run(session)),
        Command::Validate(validate) => validate.run(session),
        Command::Import(import) => import.run(session),
        Command::Apply(apply) => one_thread(apply.run(session)),
        Command::Plan(plan) => one_thread(plan.run(session)),
        Command::Run(run) => all_threads(run.run(session)),
        Command::Test(test) => all_threads(test.run(session)),
        Command::Sim(sim) => all_threads(sim.run(session)),
        Command::Activity(activity) => all_threads(activity.run(session)),
        Command::Process(process) => one_thread(process.run(session)),
        Command::Task(task) => one_thread(task.run(session)),
        Command::Workflow(workflow) => one_thread(workflow.run(session)),
        Command::Schedule(schedule) => one_thread(schedule.run(session)),
        Command::Object(object) => one_thread(object.run(session)),
        Command::Replay(replay) => all_threads(replay.run(session)),
        Command::Shard(shard) => shard.run(session),
        Command::Render(render) => render.run(session),
        Command::Replicas(replicas) => one_thread(replicas.run(session)),
        Command::Nodes(nodes) => one_thread(nodes.run(session)),
        Command::Shards(shards) => one_thread(shards.run(session)),
        Command::Tenant(tenant) => one_thread(tenant.run(session)),
        Command::Key(key) => one_thread(key.run(session)),
        Command::Bench(bench) => bench.run(session),
        Command::Conformance(conformance) => all_threads(conformance.run(session)),
        Command::Schema(schema) => {
            schema.run();
            Ok(())
        }
        Command::Lsp(lsp) => lsp.run(session),
        Command::Completions(completions) => {
            completions.run::<Cli>();
            Ok(())
        }
    }
}

/// For commands that mostly wait for a server: they start faster.
fn one_thread<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    block_on(tokio::runtime::Builder::new_current_thread(), future)
}

/// For commands that are a server, or run activities.
fn all_threads<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    crate::threads::hurry();
    block_on(tokio::runtime::Builder::new_multi_thread(), future)
}

fn block_on<T>(
    mut builder: tokio::runtime::Builder,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|source| Error::failed(format!("cannot start the runtime: {source}")))?;
    let result = runtime.block_on(future);
    // A blocking call cannot be cut off: an attempt that does not notice its
    // end must not keep the process from its own.
    runtime.shutdown_timeout(LEAVE);
    result
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their cause, as they are told not to.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_command_that_is_done_waits_for_no_blocking_call() {
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let done = one_thread(async move {
            tokio::task::spawn_blocking(move || blocked.recv());
            Ok(())
        });
        assert!(done.is_ok());
        drop(release); // only now may the call return
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
