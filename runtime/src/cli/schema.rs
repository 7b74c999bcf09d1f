//! `cascade schema`.

use clap::Args;

use super::output;

/// Print the JSON Schema of CDL files, for editors
#[derive(Debug, Args)]
pub(crate) struct Schema {}

impl Schema {
    #[expect(clippy::unused_self, reason = "as every other command is run")]
    pub(crate) fn run(&self) {
        output::stdout(&format!("{:#}", cascade_cdl::json_schema()));
    }
}
