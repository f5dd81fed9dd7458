//! Runs the binary.

use crate::server::Server;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::process::{Child, ChildStderr, Command, Stdio};

/// What a run left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// What a run wrote that must have succeeded without a word on stderr.
    #[track_caller]
    pub(crate) fn shown(self) -> String {
        assert_eq!(
            (self.exit, self.stderr.as_str()),
            (0, ""),
            "{}",
            self.stdout
        );
        self.stdout
    }
}

/// The binary, without what the environment could tell it.
pub(crate) fn livemerge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livemerge"));
    command
        .env_remove("LIVEMERGE_SERVER")
        .env_remove("COLUMNS")
        .stdin(Stdio::null());
    command
}

/// The binary as a client of this server.
pub(crate) fn client(server: &Server) -> Command {
    let mut command = livemerge();
    command.arg("--server").arg(server.address());
    command
}

/// Runs to the end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        exit: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs with these arguments as a client of this server.
pub(crate) fn ask<A: AsRef<OsStr>>(server: &Server, args: impl IntoIterator<Item = A>) -> Ran {
    run(client(server).args(args))
}

/// A run that goes on; its stderr is read line by line.
pub(crate) struct Running {
    pub(crate) child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
    said: String,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self {
            child,
            stderr,
            said: String::new(),
        }
    }

    /// Reads stderr up to a line with this text.
    #[track_caller]
    pub(crate) fn says(&mut self, text: &str) {
        loop {
            let line = self
                .stderr
                .next()
                .unwrap_or_else(|| panic!("no {text:?} in {}", self.said));
            let line = line.unwrap();
            self.said.push_str(&line);
            self.said.push('\n');
            if line.contains(text) {
                return;
            }
        }
    }

    /// Waits for the end. The output must fit into a pipe.
    pub(crate) fn end(mut self) -> Ran {
        for line in self.stderr {
            self.said.push_str(&line.unwrap());
            self.said.push('\n');
        }
        let mut stdout = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut stdout)
            .unwrap();
        let exit = self.child.wait().unwrap().code().unwrap();
        Ran {
            exit,
            stdout,
            stderr: self.said,
        }
    }
}
