//! `qemu-img commit`, and the check after it, as child processes: their arguments, what they print, and
//! their end.
//!
//! They open the images without locks of their own. Ours are on them before one starts, and it inherits
//! them: nobody else opens an image between its end and what follows, and none does while it lives,
//! even if we do not.

use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use livemerge_storage::{Format, ImageLock, Locator};
use serde_json::{Value, json};

use crate::hypervisor::ffi;
use crate::hypervisor::xml::format_name;

/// An error is a line or two.
const MOST_TEXT: usize = 4096;

/// One image of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) locator: Locator,
    pub(super) format: Format,
}

impl Image {
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.locator {
            Locator::File(path) | Locator::Block(path) => Some(path),
            Locator::Nbd(_) => None,
        }
    }
}

/// Starts it: from the youngest image through all others into the oldest, which stands first. The
/// youngest keeps its content.
pub(super) fn spawn(
    images: &[Image],
    bytes_per_second: u64,
    locks: &Arc<[ImageLock]>,
) -> io::Result<(Child, PipeReader)> {
    child(arguments(images, bytes_per_second), locks)
}

/// Starts the check of an image: `0` and `3` as its exit codes are well (`3`: room that nobody uses),
/// `2` says that the image is damaged.
pub(super) fn spawn_check(
    image: &Image,
    locks: &Arc<[ImageLock]>,
) -> io::Result<(Child, PipeReader)> {
    let arguments = unlocked(image).map(|image| vec!["check".into(), image]);
    child(arguments, locks)
}

fn child(
    arguments: Option<Vec<OsString>>,
    locks: &Arc<[ImageLock]>,
) -> io::Result<(Child, PipeReader)> {
    let arguments = arguments.ok_or_else(|| io::Error::other("an image's path is no text"))?;
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new("qemu-img");
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command.stdout(writer.try_clone()?).stderr(writer);
    ffi::tie(&mut command, Arc::clone(locks));
    // The command goes, and with it our end of the pipe.
    Ok((command.spawn()?, reader))
}

fn arguments(images: &[Image], bytes_per_second: u64) -> Option<Vec<OsString>> {
    let base = images.first()?.path()?;
    let mut arguments: Vec<OsString> = ["commit", "-p", "-d"].map(Into::into).into();
    if bytes_per_second > 0 {
        arguments.extend(["-r".into(), bytes_per_second.to_string().into()]);
    }
    arguments.extend(["-b".into(), base.into()]);
    let node = images.iter().try_fold(Value::Null, node)?;
    arguments.push(format!("json:{node}").into());
    Some(arguments)
}

/// One image alone, as `qemu-img` opens it without locks of its own.
pub(super) fn unlocked(image: &Image) -> Option<OsString> {
    Some(format!("json:{}", node(Value::Null, image)?).into())
}

/// An image on the one below. The oldest one's own backing is left to its header.
fn node(below: Value, image: &Image) -> Option<Value> {
    let driver = match image.locator {
        Locator::Block(_) => "host_device",
        _ => "file",
    };
    let format = format_name(image.format);
    let path = image.path()?.to_str()?;
    let file = json!({"driver": driver, "filename": path, "locking": "off"});
    let mut node = json!({"driver": format, "file": file});
    if !below.is_null() {
        node["backing"] = below;
    }
    Some(node)
}

/// Reads what it prints to the end: progress is told in hundredths of a per cent; what else there
/// was, its beginning, is returned.
pub(super) fn follow(mut output: impl io::Read, mut progress: impl FnMut(u32)) -> String {
    let (mut line, mut text) = (Vec::new(), String::new());
    let mut buffer = [0; 1024];
    let mut end_of_line = |line: &mut Vec<u8>| {
        let printed = String::from_utf8_lossy(line).trim().to_owned();
        line.clear();
        match hundredths(&printed) {
            Some(hundredths) => progress(hundredths),
            None if text.len() < MOST_TEXT && !printed.is_empty() => {
                text.push_str(&printed);
                text.push(' ');
            }
            None => {}
        }
    };
    loop {
        let read = match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        for byte in &buffer[..read] {
            match byte {
                b'\r' | b'\n' => end_of_line(&mut line),
                _ if line.len() < MOST_TEXT => line.push(*byte),
                _ => {}
            }
        }
    }
    end_of_line(&mut line);
    text.trim_end().to_owned()
}

/// Of `(12.34/100%)`.
fn hundredths(printed: &str) -> Option<u32> {
    let number = printed.strip_prefix('(')?.strip_suffix("/100%)")?;
    let (whole, part) = number.split_once('.')?;
    let (whole, part): (u32, u32) = (whole.parse().ok()?, part.parse().ok()?);
    (whole <= 100 && part < 100 && number.ends_with(|c: char| c.is_ascii_digit()))
        .then(|| (whole * 100 + part).min(10_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(locator: Locator, format: Format) -> Image {
        Image { locator, format }
    }

    #[test]
    fn it_is_told_all_images_without_locks_and_to_keep_the_youngest() {
        let images = [
            image(Locator::Block("/dev/vg/a".into()), Format::Raw),
            image(Locator::File("/i/b\"c".into()), Format::Qcow2),
        ];
        let spoken = |speed| {
            let arguments = arguments(&images, speed).unwrap();
            let texts = arguments
                .iter()
                .map(|text| text.to_str().unwrap().to_owned());
            texts.collect::<Vec<_>>()
        };
        let json = r#"json:{"backing":{"driver":"raw","file":{"driver":"host_device","filename":"/dev/vg/a","locking":"off"}},"driver":"qcow2","file":{"driver":"file","filename":"/i/b\"c","locking":"off"}}"#;
        assert_eq!(spoken(0), ["commit", "-p", "-d", "-b", "/dev/vg/a", json]);
        assert_eq!(spoken(7)[3..5], ["-r", "7"]);
        let nbd = [image(Locator::Nbd("nbd://h/x".into()), Format::Raw)];
        assert_eq!(arguments(&nbd, 0), None);
    }

    /// As when this process is killed, of which a thread's end is a part.
    #[test]
    fn a_child_ends_with_its_thread_and_holds_the_locks_until_then() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let path = image.path().canonicalize().unwrap();
        let locks: Arc<[ImageLock]> = [ImageLock::take(&path).unwrap().unwrap()].into();
        let (sender, told) = std::sync::mpsc::channel();
        let (go_on, stays) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut command = Command::new("sleep");
            ffi::tie(command.arg("100000"), locks);
            let child = command.spawn().unwrap();
            sender.send(child.id()).unwrap();
            let _ = stays.recv();
            child
        });
        let files = format!("/proc/{}/fd", told.recv().unwrap());
        let files = std::fs::read_dir(files).unwrap().flatten();
        let held = files.filter(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == path));
        assert_eq!(held.count(), 1);
        drop(go_on);
        let ended = thread.join().unwrap().wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&ended),
            Some(9)
        );
    }

    #[test]
    fn its_progress_is_told_and_its_words_are_kept() {
        let printed = "    (0.00/100%)\r    (12.34/100%)\rImage committed.\n    (100.00/100%)\rqemu-img: x (1.2/3%)";
        let mut seen = Vec::new();
        let text = follow(printed.as_bytes(), |hundredths| seen.push(hundredths));
        assert_eq!(seen, [0, 1234, 10_000]);
        assert_eq!(text, "Image committed. qemu-img: x (1.2/3%)");
        let talk = "talk\n".repeat(100_000);
        assert!(follow(talk.as_bytes(), |_| {}).len() < 2 * MOST_TEXT);
    }
}
