//! Compiling, in a process of its own.
//!
//! A compiler that is fed hostile input may crash, loop or take all memory.
//! So the server starts its own binary again as `cascade __compile`, with hard
//! limits on memory and time, writes the module to its stdin and reads the
//! artifact from its stdout. What comes back is trusted as far as the compiler
//! is: the child never runs what it compiles.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use wasi_preview1_component_adapter_provider as adapter;
use wasmparser::Encoding;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::engine;
use super::failure::clip;
use super::inspect::{self, InvalidModule, MAX_MODULE_BYTES, ModuleInfo};
use crate::threads::stand_back;

/// The hidden subcommand that [`compile_child_main`] serves.
pub const COMPILE_SUBCOMMAND: &str = "__compile";

/// The contract that activities are made for.
const WIT: &str = include_str!("../../../sdk/wit/activity.wit");
const WORLD: &str = "activity";

/// Address space of the child. A Python component of 18 MB takes a gigabyte.
const CHILD_MEMORY: u64 = 4 << 30;
/// CPU time of the child, in seconds. The largest components that people
/// build take about ten; a debug build of Cascade five times as long.
const CHILD_CPU_SECONDS: u64 = 90;
/// Wall-clock time of the child, for when it shares its core with others.
const CHILD_WALL: Duration = Duration::from_mins(5);
/// The child opens nothing, but keeps stdin, stdout, stderr and what its
/// loader needs.
const CHILD_FILES: u64 = 32;

/// Of the scheduler's: the child gets what nobody else wants.
const LOWEST_PRIORITY: i32 = 19;

/// Largest artifact: native code is up to six times its WebAssembly.
const MAX_ARTIFACT: usize = 8 * MAX_MODULE_BYTES;
/// Largest description at its head.
const MAX_HEAD: usize = 8 << 20;
/// How much of the child's stderr is kept.
const MAX_STDERR: u64 = 8 << 10;

/// A compiled module.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) info: ModuleInfo,
    pub(super) artifact: Vec<u8>,
}

/// Why compiling failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Invalid(InvalidModule),
    #[error("cannot run the compiler process")]
    Spawn(#[source] std::io::Error),
    #[error("the compiler process answered nonsense")]
    Protocol,
}

/// Head of the child's answer, before the artifact.
#[derive(Serialize, Deserialize)]
enum Reply {
    Compiled(ModuleInfo),
    Invalid(InvalidModule),
}

/// Compiles `wasm` in a child process.
pub(super) async fn compile(compiler: &Path, wasm: &[u8]) -> Result<Compiled, Error> {
    parse(ask(compiler, wasm, MAX_ARTIFACT).await?)
}

/// What the child process answers, if that is less than `limit` bytes.
async fn ask(compiler: &Path, wasm: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let mut command = Command::new(compiler);
    command
        .arg(COMPILE_SUBCOMMAND)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // The thread waits until the child runs another program, a millisecond or more.
    let spawned = tokio::task::spawn_blocking(move || command.spawn()).await;
    let spawned = spawned.map_err(std::io::Error::other).flatten();
    let mut child = spawned.map_err(Error::Spawn)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let (mut answer, mut complaints) = (Vec::new(), Vec::new());
    let feed = async {
        // A child that dies early closes the pipe; its status says why.
        let _ = stdin.write_all(wasm).await;
        drop(stdin);
        Ok(())
    };
    let read = async {
        let mut stdout = stdout.take(limit as u64);
        if stdout
            .read_to_end(&mut answer)
            .await
            .map_err(Error::Spawn)?
            < limit
        {
            return Ok(());
        }
        // Nobody waits for the end of it: the child, which cannot go on writing,
        // is killed when it is dropped.
        let message = format!("its native code has more than {limit} bytes");
        Err(Error::Invalid(InvalidModule::TooComplex { message }))
    };
    let listen = async {
        let mut stderr = stderr.take(MAX_STDERR);
        let kept = stderr.read_to_end(&mut complaints).await;
        kept.map_err(Error::Spawn)?;
        // The rest as well, or the child would wait for somebody to read it.
        let rest = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
        rest.map(drop).map_err(Error::Spawn)
    };
    let talk = async {
        tokio::try_join!(feed, read, listen)?;
        child.wait().await.map_err(Error::Spawn)
    };
    let Ok(status) = tokio::time::timeout(CHILD_WALL, talk).await else {
        let message = format!("it took longer than {} s", CHILD_WALL.as_secs());
        return Err(Error::Invalid(InvalidModule::TooComplex { message }));
    };
    let status = status?;
    if !status.success() {
        return Err(Error::Invalid(blame(status, &complaints)));
    }
    Ok(answer)
}

/// What it says about the module that the compiler died of it.
fn blame(status: ExitStatus, stderr: &[u8]) -> InvalidModule {
    use std::os::unix::process::ExitStatusExt as _;
    match status.signal() {
        // XCPU and KILL come from the limits, ABRT and SEGV from a failed allocation.
        Some(signal) => InvalidModule::TooComplex {
            message: format!(
                "the compiler was stopped by signal {signal}; it may take {CHILD_CPU_SECONDS} s and {} MiB",
                CHILD_MEMORY >> 20
            ),
        },
        None => InvalidModule::Malformed {
            message: clip(format!(
                "the compiler failed: {}",
                String::from_utf8_lossy(stderr).trim()
            )),
        },
    }
}

fn parse(mut answer: Vec<u8>) -> Result<Compiled, Error> {
    let head_len = answer
        .first_chunk::<4>()
        .map(|len| u32::from_le_bytes(*len) as usize);
    let head_len = head_len.filter(|len| *len <= MAX_HEAD && 4 + len <= answer.len());
    let head_len = head_len.ok_or(Error::Protocol)?;
    match serde_json::from_slice(&answer[4..4 + head_len]).map_err(|_| Error::Protocol)? {
        Reply::Invalid(invalid) => Err(Error::Invalid(invalid)),
        Reply::Compiled(info) => {
            let artifact = answer.split_off(4 + head_len);
            Ok(Compiled { info, artifact })
        }
    }
}

/// The compiler process: a module on stdin, an artifact on stdout. The binary
/// calls this for its hidden subcommand [`COMPILE_SUBCOMMAND`], before it
/// starts any thread or reads any configuration.
pub fn compile_child_main() -> ExitCode {
    if let Err(error) = limit_self() {
        eprintln!("cannot limit the compiler process: {error}");
        return ExitCode::FAILURE;
    }
    let mut wasm = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(MAX_MODULE_BYTES as u64 + 1)
        .read_to_end(&mut wasm);
    if let Err(error) = read {
        eprintln!("cannot read the module: {error}");
        return ExitCode::FAILURE;
    }
    let (reply, artifact) = match compile_here(&wasm) {
        Ok(compiled) => (Reply::Compiled(compiled.info), compiled.artifact),
        Err(invalid) => (Reply::Invalid(invalid), Vec::new()),
    };
    match answer(&reply, &artifact) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write the artifact: {error}");
            ExitCode::FAILURE
        }
    }
}

fn limit_self() -> std::io::Result<()> {
    let hard = |limit| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    // Attempts come first, and so does the server when memory runs out. Where
    // there is no /proc, there is no such killer either.
    stand_back(LOWEST_PRIORITY)?;
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    setrlimit(Resource::As, hard(CHILD_MEMORY))?;
    setrlimit(Resource::Cpu, hard(CHILD_CPU_SECONDS))?;
    setrlimit(Resource::Core, hard(0))?;
    setrlimit(Resource::Nofile, hard(CHILD_FILES))?;
    Ok(setrlimit(Resource::Fsize, hard(0))?)
}

fn answer(reply: &Reply, artifact: &[u8]) -> std::io::Result<()> {
    let head = serde_json::to_vec(reply)?;
    let len = u32::try_from(head.len()).map_err(std::io::Error::other)?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&len.to_le_bytes())?;
    stdout.write_all(&head)?;
    stdout.write_all(artifact)?;
    stdout.flush()
}

fn compile_here(wasm: &[u8]) -> Result<Compiled, InvalidModule> {
    let malformed = |error: &dyn std::fmt::Display| InvalidModule::Malformed {
        message: clip(format!("{error:#}")),
    };
    let encoding = inspect::sniff(wasm)?;
    inspect::check_counts(wasm)?;
    let made;
    let component = match encoding {
        Encoding::Component => wasm,
        Encoding::Module => {
            made = componentize(wasm)?;
            &made
        }
    };
    let engine = engine::compiler_engine().map_err(|error| malformed(&error))?;
    let artifact = engine
        .precompile_component(component)
        .map_err(|error| malformed(&error))?;
    let info = inspect::describe(component, wasm)?;
    Ok(Compiled { info, artifact })
}

/// Makes a component of a core module: of a WASI preview 1 command or reactor
/// with the adapter, and of anything that exports `handle` in the canonical ABI.
fn componentize(module: &[u8]) -> Result<Vec<u8>, InvalidModule> {
    let items = inspect::core_items(module)?;
    let command = items.exports.iter().any(|name| name == "_start");
    let handler = items
        .exports
        .iter()
        .any(|name| name == "handle" || name.ends_with("handle"));
    if !command && !handler {
        return Err(InvalidModule::ExportMissing {
            found: inspect::list(&items.exports),
        });
    }
    let made = || -> anyhow::Result<Vec<u8>> {
        let mut module = module.to_vec();
        if handler && !command && !items.has_component_type {
            let mut resolve = wit_parser::Resolve::default();
            let package = resolve.push_source("activity.wit", WIT)?;
            let world = resolve.select_world(&[package], Some(WORLD))?;
            embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
        }
        let mut encoder = ComponentEncoder::default().module(&module)?.validate(true);
        if items.preview1 || command {
            let bytes = if command {
                adapter::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER
            } else {
                adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER
            };
            encoder = encoder.adapter(adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, bytes)?;
        }
        encoder.encode()
    };
    made().map_err(|error| InvalidModule::Malformed {
        message: clip(format!("cannot be made a component: {error:#}")),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Asks a compiler that is a shell script.
    async fn ask_script(script: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("compiler");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writable");
        let runnable = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&path, runnable).expect("ours");
        let asked = ask(&path, b"", limit);
        let asked = tokio::time::timeout(CHILD_WALL / 2, asked).await;
        asked.expect("the compiler is not waited for")
    }

    #[tokio::test]
    async fn a_compiler_that_does_not_stop_writing_is_stopped() {
        match ask_script("while :; do echo more; done", 100_000).await {
            Err(Error::Invalid(InvalidModule::TooComplex { message })) => {
                assert_eq!(message, "its native code has more than 100000 bytes");
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_compiler_may_complain_at_length() {
        // More than is kept, and more than a pipe holds.
        let script =
            "n=0; while [ $n -lt 20000 ]; do echo complaint >&2; n=$((n+1)); done; echo ok";
        let answer = ask_script(script, 100).await;
        assert_eq!(answer.expect("an answer"), b"ok\n");
    }
}
