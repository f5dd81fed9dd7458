//! A monitor of QEMU or of its storage daemon: commands and events, line by line.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long a monitor may take to appear, and then to say anything.
const LIMIT: Duration = Duration::from_secs(60);

/// A monitor, connected.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects as soon as the socket is there.
    pub fn connect(socket: &Path) -> Result<Self> {
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if begun.elapsed() > LIMIT => {
                    return Err(error).with_context(|| socket.display().to_string());
                }
                Err(_not_yet) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
            events: VecDeque::new(),
        };
        let greeting = monitor.read()?;
        if greeting.get("QMP").is_none() {
            bail!("no monitor greets on {}: {greeting}", socket.display());
        }
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Runs a command and returns its answer.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let order = json!({ "execute": command, "arguments": arguments });
        let stream = self.stream.get_mut();
        stream.write_all(format!("{order}\n").as_bytes())?;
        loop {
            let mut said = self.read()?;
            if let Some(answer) = said.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = said.get("error") {
                bail!("{command}: {error}");
            }
            self.events.push_back(said);
        }
    }

    /// Waits for an event that `wanted` takes. Those before it are dropped.
    pub fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.read()?,
            };
            if wanted(&event) {
                return Ok(event);
            }
        }
    }

    /// Whether an event that `wanted` takes was said before the monitor was closed, of a QEMU that is
    /// dead. Those of [`Self::wait_for`] are not looked at again.
    pub fn has_said(&mut self, wanted: impl Fn(&Value) -> bool) -> bool {
        let mut said = String::new();
        // What comes after a line that was cut is nothing, and so is what a reset leaves unread.
        let _until_the_end = self.stream.read_to_string(&mut said);
        let events = said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let mut all = self.events.drain(..).chain(events);
        all.any(|event| wanted(&event))
    }

    /// Writes through a guest's disk as the guest would, in steps that do not stop QEMU for long.
    pub fn write_through(&mut self, device: &str, at_mib: u64, mib: u64) -> Result<()> {
        const STEP: u64 = 16;
        for done in (0..mib).step_by(STEP as usize) {
            let size = STEP.min(mib - done);
            let line = format!(
                "qemu-io -d {device} \"write -P 90 {}M {size}M\"",
                at_mib + done
            );
            let said = self.execute("human-monitor-command", &json!({ "command-line": line }))?;
            let said = said.as_str().unwrap_or_default();
            if !said.is_empty() && !said.contains("wrote") {
                bail!("{line}: {said}");
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the monitor was closed");
        }
        serde_json::from_str(&line).with_context(|| line)
    }
}
