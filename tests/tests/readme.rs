//! What the README and the page on deployment show is what the commands print.
//!
//! Their blocks are run one after the other in an empty folder, as a reader would
//! type them. What differs from run to run (ids, keys, times, sizes) counts as
//! the same; a line `...` stands for any lines.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cascade_tests::{binary, root};

/// The last line of `cascade dev` before it waits for changes.
const DEV_IS_UP: &str = "watching for changes; end with Ctrl-C";

/// A command of a page, and the lines that it shows.
#[derive(Debug, Default)]
struct Shown {
    command: String,
    lines: Vec<String>,
}

/// What a reader does next.
enum Step {
    /// Writes a file.
    Write(String, String),
    /// Types a command.
    Type(Shown),
}

/// Runs until it is dropped.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_readme_shows_what_commands_print() {
    let (typed, dev) = follow("README.md");
    assert!(dev, "the README starts `cascade dev`");
    assert!(typed >= 6, "the README shows only {typed} commands");
}

#[test]
fn the_page_on_deployment_shows_what_commands_print() {
    let (typed, _) = follow("docs/deployment.md");
    assert!(typed >= 2, "the page shows only {typed} commands");
}

/// Does what a page says. Gives how many commands were typed, and whether `cascade dev` was one.
fn follow(page: &str) -> (usize, bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = fs::read_to_string(root().join(page)).expect("the page is there");
    let mut dev = None;
    let mut ids = HashMap::<String, String>::new();
    let mut typed = 0;
    for step in steps(&page) {
        match step {
            Step::Write(name, text) => {
                fs::write(folder.path().join(name), text).expect("a file");
            }
            Step::Type(mut shown) => {
                typed += 1;
                for (theirs, ours) in &ids {
                    shown.command = shown.command.replace(theirs, ours);
                }
                let printed = if shown.command == "cascade dev" {
                    let (child, printed) = start_dev(folder.path());
                    dev = Some(child);
                    printed
                } else {
                    run(folder.path(), &shown.command)
                };
                compare(&shown, &printed, &mut ids);
            }
        }
    }
    (typed, dev.is_some())
}

/// The files and commands of a page, in order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    let mut before = "";
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            match language {
                "console" => steps.extend(commands(&block).into_iter().map(Step::Type)),
                "yaml" => {
                    let name = before
                        .split('`')
                        .find(|word| Path::new(word).extension().is_some());
                    let name = name.expect("the line before a file names it").to_owned();
                    steps.push(Step::Write(name, block.join("\n") + "\n"));
                }
                _ => {}
            }
        } else if !line.is_empty() {
            before = line;
        }
    }
    steps
}

fn commands(block: &[&str]) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    for line in block {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(Shown {
                command: command.to_owned(),
                lines: Vec::new(),
            });
        } else {
            let last = commands.last_mut().expect("a block begins with a command");
            last.lines.push((*line).to_owned());
        }
    }
    commands
}

/// A shell in the folder, with this build's `cascade` and nobody else's server.
fn shell(folder: &Path, command: &str) -> Command {
    let mut paths = vec![binary().parent().expect("it is in a folder").to_owned()];
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&inherited).collect::<Vec<PathBuf>>());
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", std::env::join_paths(paths).expect("plain paths"))
        .env_remove("CASCADE_URL")
        .env_remove("CASCADE_API_KEY")
        .env_remove("CASCADE_TENANT");
    shell
}

fn run(folder: &Path, command: &str) -> Vec<String> {
    let output = shell(folder, &format!("exec 2>&1; {command}")).output();
    let output = output.expect("a shell runs");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{command}: {printed}");
    printed.lines().map(str::to_owned).collect()
}

/// Starts `cascade dev` on a free port, and gives what it prints until it is up.
fn start_dev(folder: &Path) -> (Dev, Vec<String>) {
    let mut child = shell(folder, "exec 2>&1; exec cascade dev --listen 127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell runs");
    let stdout = child.stdout.take().expect("stdout is piped");
    let dev = Dev(child);
    let mut printed = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.expect("UTF-8");
        let up = line == DEV_IS_UP;
        printed.push(line);
        if up {
            // Nobody reads the rest, which must not disturb the server.
            return (dev, printed);
        }
    }
    panic!("`cascade dev` ended: {printed:#?}");
}

/// Fails unless what was printed is what is shown; notes which id stands for
/// which.
fn compare(shown: &Shown, printed: &[String], ids: &mut HashMap<String, String>) {
    let complain = || {
        format!(
            "`{}` is shown with\n{}\nand prints\n{}",
            shown.command,
            shown.lines.join("\n"),
            printed.join("\n")
        )
    };
    let mut ours = printed.iter();
    let mut anything = false;
    for line in &shown.lines {
        if line == "..." {
            anything = true;
            continue;
        }
        let found = if anything {
            ours.find(|ours| masked(ours) == masked(line))
        } else {
            ours.next().filter(|ours| masked(ours) == masked(line))
        };
        let found = found.unwrap_or_else(|| panic!("no `{line}`: {}", complain()));
        ids.extend(uuids(line).zip(uuids(found)));
        anything = false;
    }
    assert!(anything || ours.next().is_none(), "more: {}", complain());
}

fn is_uuid(word: &str) -> bool {
    word.len() == 36 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn uuids(line: &str) -> impl Iterator<Item = String> {
    line.split_whitespace()
        .filter(|word| is_uuid(word))
        .map(str::to_owned)
}

/// A line without what differs from run to run.
fn masked(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mask = |(index, word): (usize, &&str)| -> String {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let number = bare.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !bare.is_empty();
        let unit = words
            .get(index + 1)
            .map_or("", |next| next.trim_end_matches([')', ',']));
        let timed = bare.strip_suffix('s').is_some_and(|number| {
            number.contains('.') && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        });
        if is_uuid(word) {
            "ID".to_owned()
        } else if word.starts_with("ck_") {
            "KEY".to_owned()
        } else if word.starts_with("http://127.0.0.1:") {
            "URL".to_owned()
        } else if word.contains('…') {
            "DIGEST".to_owned()
        } else if bare.len() >= 20 && bare.ends_with('Z') && bare.contains('T') {
            word.replace(bare, "TIME")
        } else if timed || (number && matches!(unit, "fuel" | "ms" | "s" | "KiB")) {
            word.replace(bare, "N")
        } else {
            (*word).to_owned()
        }
    };
    let masked: Vec<String> = words.iter().enumerate().map(mask).collect();
    masked.join(" ")
}

#[test]
fn only_what_differs_from_run_to_run_is_masked() {
    let same = |a: &str, b: &str| assert_eq!(masked(a), masked(b));
    let other = |a: &str, b: &str| assert_ne!(masked(a), masked(b));
    same(
        "ended  2026-11-22T23:23:10.005Z, after 0.002 s",
        "ended 2027-01-02T03:04:05.006Z, after 0.1 s",
    );
    same("1 +0.000s  ExecutionStarted", "1 +0.012s ExecutionStarted");
    same("(8383 fuel, 0.672 ms)", "(9 fuel, 1.5 ms)");
    other("1 +0.000s  ExecutionStarted", "2 +0.000s ExecutionStarted");
    other("scheduled task 2, attempt 1", "scheduled task 2, attempt 2");
    other("output {\"n\":1}", "output {\"n\":2}");
    other("applied hello version 1", "applied hello version 2");
}
