//! The command line of LiveMerge: a client of the API server's public services.
//!
//! ```text
//!   args ──▶ commands/… ──▶ resolve (names) ──▶ connect::Session ──▶ API server
//!                │                                    │
//!                │◀── wait (watch, reconnect, bar) ◀──┤
//!                ▼                                    ▼
//!        output (table, JSON), chain          failure (error, reason, hint, exit code)
//!             stdout                               stderr
//! ```
//!
//! * `args` is the command line, `commands` has one file for each subject of it.
//! * `access` is what the server is shown, and what it must show; `connect` makes calls within the command's time; `page` reads lists to their end; `resolve`
//!   finds machines and snapshots by name.
//! * `wait` follows an operation, `follow` the audit log, both over restarts of the server
//!   (`watch`).
//! * `output` writes answers for people or scripts, `chain` draws a disk's chain, `forecast`
//!   what a delete would do, `diagnostics` packs an archive, `failure` says why something did not work and how the program ends.
//!
//! Invariants: stdout has answers only, stderr everything else. No text of the server reaches the
//! terminal with characters that steer it. One command makes at most one change, under one request
//! id, which a failure names. An exit code other than 0 comes with `error:` on stderr.
//!
//! What it does not do: it keeps no state, reads no configuration file, and talks to no host agent.

mod access;
mod args;
pub mod chain;
mod commands;
mod connect;
mod diagnostics;
mod failure;
mod follow;
mod forecast;
mod output;
mod page;
mod resolve;
mod wait;
mod watch;

use args::Cli;
use clap::Parser as _;
use failure::{Exit, Failure};
use output::Stop;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Does what a command line says, the program's name first.
pub fn run(command_line: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(command_line) {
        Ok(cli) => cli,
        Err(help_or_usage) => {
            let _unread = help_or_usage.print();
            let exit = if help_or_usage.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            return exit.into();
        }
    };
    match block_on(commands::run(cli)) {
        Ok(()) | Err(Stop::ReaderGone) => Exit::Done.into(),
        Err(Stop::Failed(failure)) => {
            let _unread = io::stderr().write_all(failure.to_string().as_bytes());
            failure.exit().into()
        }
    }
}

fn block_on(command: impl Future<Output = Result<(), Stop>>) -> Result<(), Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Internal, format!("no runtime: {error}")))?;
    runtime.block_on(command)
}
