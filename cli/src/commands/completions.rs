//! `livemerge completions`

use crate::args::Cli;
use crate::output::{Output, Stop};
use clap::CommandFactory as _;
use clap_complete::Shell;

pub(super) fn run(output: Output, shell: Shell) -> Result<(), Stop> {
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "livemerge", &mut script);
    output.text(String::from_utf8_lossy(&script).trim_end())
}
