//! `cascade completions SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::output;

/// Print a completion script for a shell
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell: `source <(cascade completions bash)`
    shell: Shell,
}

impl Completions {
    pub(crate) fn run<C: CommandFactory>(&self) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut C::command(), "cascade", &mut script);
        let script = String::from_utf8(script).expect("completion scripts are UTF-8");
        output::stdout(script.trim_end());
    }
}
