//! [`Exit`]: the exit codes, which scripts branch on.

use std::process::ExitCode;
use tonic::Code;

/// The table of exit codes for `--help`. A test compares it with [`Exit`].
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  the operation ended without success, a delete would be refused, or doctor found an error
    2  usage: the command line cannot be understood
    3  not found
    4  refused: failed precondition, aborted, already exists, not permitted
    5  unavailable, out of resources, or the time was over
    6  invalid argument, also a name that fits several
    7  the operation was cancelled
   70  internal fault, of the server or of this program
  130  interrupted while waiting; the operation goes on";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// The operation was accepted and ended without success, or something was found to be wrong.
    Unsuccessful = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// The server understood and will not.
    Refused = 4,
    /// Nobody answers, or not in time.
    Unavailable = 5,
    /// A value is not one that the server takes.
    InvalidArgument = 6,
    /// The operation was given up before it was done, as somebody asked for.
    Cancelled = 7,
    /// A fault of the server or of this program.
    Internal = 70,
    /// Ctrl-C while waiting.
    Interrupted = 130,
}

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::NotFound => Self::NotFound,
            Code::FailedPrecondition
            | Code::Aborted
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated => Self::Refused,
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Cancelled => Self::Unavailable,
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument,
            Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => Self::Internal,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_exit_code() {
        let listed = EXIT_CODES
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().next());
        let listed: Vec<u8> = listed.map(|code| code.unwrap().parse().unwrap()).collect();
        let all = [
            Exit::Done,
            Exit::Unsuccessful,
            Exit::Usage,
            Exit::NotFound,
            Exit::Refused,
            Exit::Unavailable,
            Exit::InvalidArgument,
            Exit::Cancelled,
            Exit::Internal,
            Exit::Interrupted,
        ];
        assert_eq!(listed, all.map(|exit| exit as u8));
    }
}
