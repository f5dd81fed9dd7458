//! On a terminal: tables have lines, and a wait has a bar for each disk.

use crate::data::{RUNNING, merged, merging, site};
use crate::program::client;
use crate::server::{Script, Server, Step};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command};

/// A program at a terminal of 100 columns.
pub(crate) struct Terminal {
    screen: File,
    child: Child,
    shown: Vec<u8>,
}

impl Terminal {
    pub(crate) fn start(mut command: Command) -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&screen).unwrap();
        unlockpt(&screen).unwrap();
        let size = Winsize {
            ws_row: 40,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&screen, size).unwrap();
        let name = ptsname(&screen, Vec::new()).unwrap();
        let name = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let line = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name)
            .unwrap();
        command
            .env("TERM", "xterm")
            .stdin(line.try_clone().unwrap())
            .stdout(line.try_clone().unwrap())
            .stderr(line);
        let child = command.spawn().unwrap();
        // The program has the only line left, so its end is the screen's.
        drop(command);
        Self {
            screen: screen.into(),
            child,
            shown: Vec::new(),
        }
    }

    /// Reads until the text is shown.
    #[track_caller]
    pub(crate) fn shows(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(self.read(), "no {text:?} in {:?}", self.text());
        }
    }

    /// Presses keys.
    pub(crate) fn types(&mut self, text: &str) {
        self.screen.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn end(mut self) -> (i32, String) {
        while self.read() {}
        (self.child.wait().unwrap().code().unwrap(), self.text())
    }

    /// False at the end, which a terminal tells as an error.
    fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        let count = self.screen.read(&mut piece).unwrap_or(0);
        self.shown.extend_from_slice(&piece[..count]);
        count > 0
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }
}

#[test]
fn a_table_has_lines() {
    let server = Server::start(site());
    let mut command = client(&server);
    command.args(["host", "list"]);
    let (exit, shown) = Terminal::start(command).end();
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains("│ host-1 "), "{shown}");
}

#[test]
fn a_wait_has_a_line_a_disk_with_bytes_rate_time_left_and_phase() {
    let steps = vec![Step::Send(merging()), Step::Gate, Step::Send(merged())];
    let server = Server::start(Script {
        watches: [steps].into(),
        ..site()
    });
    let mut command = client(&server);
    command.args(["operation", "watch", RUNNING]);
    let mut terminal = Terminal::start(command);
    terminal.shows("] 32.00 MiB of 64.00 MiB  8.00 MiB/s  4s left  copying");
    terminal.shows("vdb  planned");
    terminal.shows(" merging");
    server.open_gate();
    let (exit, shown) = terminal.end();
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains("█"), "{shown}");
    assert!(shown.contains("succeeded"), "{shown}");
}
