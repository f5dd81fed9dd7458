//! The commands: each asks the server and writes what it answers.

mod completions;
mod diagnostics;
mod doctor;
mod event;
mod host;
mod left;
mod operation;
mod snapshot;
mod vm;
mod volume;

use crate::args::{Cli, Command};
use crate::connect::Session;
use crate::failure::{Exit, Failure};
use crate::output::{Output, Stop};

/// Does what the command line says.
///
/// # Errors
/// Why it could not be done, or not to its end.
pub(crate) async fn run(cli: Cli) -> Result<(), Stop> {
    let Cli { global, command } = cli;
    if global.request_id.is_some() && !command.takes_request_id() {
        let message = "this command takes no --request-id: it can be repeated as it is";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let output = Output::new(global.output);
    let session = || {
        Session::new(
            global.server,
            &global.access,
            global.request_id,
            global.timeout,
        )
    };
    match command {
        Command::Host(command) => host::run(&session()?, output, command).await,
        Command::Vm(command) => vm::run(&session()?, output, command).await,
        Command::Snapshot(command) => snapshot::run(&session()?, output, command).await,
        Command::Volume(command) => volume::run(&session()?, output, command).await,
        Command::Operation(command) => operation::run(&session()?, output, command).await,
        Command::Event(command) => event::run(&session()?, output, command).await,
        Command::Doctor(args) => doctor::run(&session()?, output, args).await,
        Command::Diagnostics(args) => diagnostics::run(&session()?, output, args).await,
        Command::Completions { shell } => completions::run(output, shell),
    }
}
