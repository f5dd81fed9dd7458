//! The commands of LVM that change or report a group: arguments only, and nothing but this group and
//! its devices.

use super::as_seen::LastSeen;
use super::domain::{LvmConfig, locked};
use super::name::GroupName;
use super::report::{self, FIELDS, Group};
use super::turn::Turn;
use crate::program::Program;
use crate::{Identity, StorageError};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;

/// How a group's commands are called.
#[derive(Debug)]
pub(super) struct Lvm {
    program: Program,
    group: GroupName,
    /// What every command is told.
    always: Vec<String>,
    /// How a volume is activated: alone, or so that other hosts can do so, too.
    activates: &'static str,
    /// What else an extension is told.
    extends: &'static [&'static str],
    last_seen: Mutex<LastSeen>,
}

/// A volume that is active in shared mode is extended under the lock that it has: LVM would have it active
/// nowhere else, and here alone. No other host is told, which only one of its two lock managers could do.
const EXTENDS_SHARED: [&str; 2] = ["--lockopt", "shupdate,norefresh"];

impl Lvm {
    pub(super) fn new(config: &LvmConfig, group: GroupName) -> Self {
        let mut always = Vec::new();
        for device in &config.devices {
            always.extend(["--devices".to_owned(), device.display().to_string()]);
        }
        if config.shared {
            // Without its lock daemon two hosts would write the group's metadata at once.
            always.extend(["--config".to_owned(), "global/use_lvmlockd=1".to_owned()]);
        }
        Self {
            program: Program::new(&config.program, failure),
            group,
            always,
            activates: if config.shared { "sy" } else { "y" },
            extends: if config.shared { &EXTENDS_SHARED } else { &[] },
            last_seen: Mutex::default(),
        }
    }

    /// The group as it is now.
    ///
    /// # Errors
    /// `Unreachable` when it is missing, lacks a device, or cannot be understood.
    pub(super) async fn report(&self) -> Result<Group, StorageError> {
        let mut args = vec![
            "--reportformat",
            "json",
            "--units",
            "b",
            "--nosuffix",
            "--binary",
        ];
        for (report, fields) in FIELDS {
            args.extend(["--configreport", report, "-o", fields]);
        }
        let args = self.args("fullreport", &args, &[self.group.as_str().to_owned()]);
        let answer = self.program.answer(&args).await?;
        let group = report::parse(&answer).map_err(|why| self.strange(&why))?;
        if group.missing > 0 {
            return Err(self.strange(&format!("{} of its devices are missing", group.missing)));
        }
        *locked(&self.last_seen) = LastSeen::of(&group);
        Ok(group)
    }

    /// The last report, if it is of just now and of before no change of this program's. It is given once.
    pub(super) fn take_last_seen(&self) -> Option<Group> {
        locked(&self.last_seen).take()
    }

    /// For changes that were decided in a turn, which is kept until they have ended.
    pub(super) fn during<'a>(&'a self, turn: &'a Turn) -> Changes<'a> {
        Changes {
            lvm: self,
            turn: Some(turn),
        }
    }

    /// The same, where there is a turn.
    pub(super) fn changes<'a>(&'a self, turn: Option<&'a Turn>) -> Changes<'a> {
        Changes { lvm: self, turn }
    }

    /// For changes that do no harm whenever they are made.
    pub(super) fn alone(&self) -> Changes<'_> {
        Changes {
            lvm: self,
            turn: None,
        }
    }

    fn args(&self, command: &str, args: &[&str], names: &[String]) -> Vec<String> {
        let mut all = vec![command.to_owned()];
        all.extend(self.always.iter().cloned());
        all.extend(args.iter().copied().map(Into::into));
        // No name is an option.
        all.push("--".to_owned());
        all.extend(names.iter().cloned());
        all
    }

    fn full(&self, names: &[&str]) -> Vec<String> {
        names
            .iter()
            .map(|name| format!("{}/{name}", self.group.as_str()))
            .collect()
    }

    fn strange(&self, why: &str) -> StorageError {
        StorageError::Unreachable {
            what: format!("volume group {}", self.group.as_str()),
            source: io::Error::new(io::ErrorKind::InvalidData, why),
        }
    }
}

/// Changes of a group. None of them is killed: between LVM's suspending a device and resuming it that
/// would leave everybody's I/O on it hanging.
pub(super) struct Changes<'a> {
    lvm: &'a Lvm,
    turn: Option<&'a Turn>,
}

impl Changes<'_> {
    /// Makes a logical volume that is active, and in which nothing is left that could be taken for
    /// something.
    pub(super) async fn create(
        &self,
        name: &str,
        bytes: u64,
        tags: &[String],
    ) -> Result<(), StorageError> {
        let size = format!("{bytes}b");
        let mut args = vec![
            "--yes",
            "--wipesignatures",
            "y",
            "--zero",
            "y",
            "--activate",
            self.lvm.activates,
        ];
        args.extend(["--name", name, "--size", &size]);
        args.extend(tags.iter().flat_map(|tag| ["--addtag", tag]));
        self.change("lvcreate", &args, &[self.lvm.group.as_str().to_owned()])
            .await
    }

    /// Other hosts that have it active see its old end until they load it again, or activate it.
    pub(super) async fn extend(&self, name: &str, bytes: u64) -> Result<(), StorageError> {
        let size = format!("{bytes}b");
        let args = [self.lvm.extends, &["--size", &size]].concat();
        self.change("lvextend", &args, &self.full(&[name])).await
    }

    /// Loads what the group says of an active volume: a change that was cut short has left it otherwise.
    pub(super) async fn refresh(&self, name: &str) -> Result<(), StorageError> {
        self.run("lvchange", &["--refresh"], &self.full(&[name]))
            .await
    }

    /// The caller knows that nothing lies behind the new end.
    pub(super) async fn reduce(&self, name: &str, bytes: u64) -> Result<(), StorageError> {
        let size = format!("{bytes}b");
        self.change(
            "lvreduce",
            &["--force", "--yes", "--size", &size],
            &self.full(&[name]),
        )
        .await
    }

    pub(super) async fn activate(&self, names: &[&str]) -> Result<(), StorageError> {
        let args = ["--activate", self.lvm.activates];
        self.run("lvchange", &args, &self.full(names)).await
    }

    /// # Errors
    /// `InUse` when somebody has one of them open.
    pub(super) async fn deactivate(&self, names: &[&str]) -> Result<(), StorageError> {
        let args = ["--activate", "n"];
        self.run("lvchange", &args, &self.full(names)).await
    }

    /// Whether the host activates it by itself when it starts.
    pub(super) async fn autoactivate(&self, name: &str, does: bool) -> Result<(), StorageError> {
        let does = if does { "y" } else { "n" };
        let args = ["--setautoactivation", does];
        self.change("lvchange", &args, &self.full(&[name])).await
    }

    pub(super) async fn retag(
        &self,
        name: &str,
        more: &[String],
        less: &[String],
    ) -> Result<(), StorageError> {
        if more.is_empty() && less.is_empty() {
            return Ok(());
        }
        let mut args = vec!["--yes"];
        args.extend(less.iter().flat_map(|tag| ["--deltag", tag]));
        args.extend(more.iter().flat_map(|tag| ["--addtag", tag]));
        self.change("lvchange", &args, &self.full(&[name])).await
    }

    /// # Errors
    /// `Invalid` when somebody has the new name.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let names = [self.lvm.group.as_str(), from, to].map(Into::into);
        self.change("lvrename", &["--yes"], &names).await
    }

    /// Removes logical volumes in one change of the group: those that have the name and are the ones
    /// that are meant.
    pub(super) async fn remove(&self, volumes: &[(&str, &Identity)]) -> Result<(), StorageError> {
        let names: Vec<_> = volumes.iter().map(|(name, _)| *name).collect();
        self.change(
            "lvremove",
            &["--yes", "--select", &meant(volumes)],
            &self.full(&names),
        )
        .await
    }

    /// Removes logical volumes that nobody has active, if the group is as it was after that change; none, if it
    /// is not. Gives how many it has removed.
    pub(super) async fn remove_as_of(
        &self,
        change: u64,
        volumes: &[(&str, &Identity)],
    ) -> Result<usize, StorageError> {
        let meant = format!("vg_seqno={change}&&({})", meant(volumes));
        let names: Vec<_> = volumes.iter().map(|(name, _)| *name).collect();
        let unreachable = |error| self.lvm.program.unreachable(error);
        let mut printed = File::from(
            memfd_create("lvremove", MemfdFlags::CLOEXEC)
                .map_err(|error| unreachable(error.into()))?,
        );
        let output = printed.try_clone().map_err(unreachable)?.into();
        self.run_printing(
            "lvremove",
            &["--config", "log/silent=0", "--yes", "--select", &meant],
            &self.full(&names),
            output,
        )
        .await?;
        let mut said = String::new();
        let read = printed
            .rewind()
            .and_then(|()| printed.read_to_string(&mut said));
        read.map_err(unreachable)?;
        Ok(said.matches("successfully removed").count())
    }

    /// Changes what the group is: it is not as it was seen before.
    async fn change(
        &self,
        command: &str,
        args: &[&str],
        names: &[String],
    ) -> Result<(), StorageError> {
        locked(&self.lvm.last_seen).forget();
        self.run(command, args, names).await
    }

    /// Changes what is active of it, and no more.
    async fn run(
        &self,
        command: &str,
        args: &[&str],
        names: &[String],
    ) -> Result<(), StorageError> {
        self.run_printing(command, args, names, Stdio::null()).await
    }

    async fn run_printing(
        &self,
        command: &str,
        args: &[&str],
        names: &[String],
        printed: Stdio,
    ) -> Result<(), StorageError> {
        let program = &self.lvm.program;
        let input = match self.turn {
            Some(turn) => turn
                .as_input()
                .map_err(|error| program.unreachable(error))?,
            None => Stdio::null(),
        };
        let args = self.lvm.args(command, args, names);
        program
            .change(&args, input, printed, self.turn.cloned())
            .await
    }

    fn full(&self, names: &[&str]) -> Vec<String> {
        self.lvm.full(names)
    }
}

/// Those of them that have not become others.
fn meant(volumes: &[(&str, &Identity)]) -> String {
    let meant = volumes.iter().map(|(_, id)| format!("lv_uuid={id}"));
    meant.collect::<Vec<_>>().join("||")
}

/// What the caller does next. It never means that a volume is not there: only a report says that.
fn failure(status: ExitStatus, text: &str) -> StorageError {
    // How a sentence of it begins depends on what it says before.
    let lower = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["insufficient free space", "insufficient suitable"]) {
        return StorageError::NoSpace { needed: 0, free: 0 };
    }
    let what = "a logical volume".to_owned();
    if says(&[
        " in use",
        "is used by another device",
        "held by other",
        "is open",
    ]) {
        let by = "a process that has it open".to_owned();
        return StorageError::InUse { what, by };
    }
    if says(&["already exists in volume group"]) {
        return StorageError::Invalid("a logical volume of that name exists".to_owned());
    }
    let source = io::Error::other(format!("{status}: {text}"));
    if says(&["permission denied"]) {
        return StorageError::Denied {
            what: "LVM".to_owned(),
            source,
        };
    }
    StorageError::Unreachable {
        what: "LVM".to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lvm(devices: &[&str], shared: bool) -> Lvm {
        let config = LvmConfig {
            devices: devices.iter().map(Into::into).collect(),
            shared,
            ..LvmConfig::of("vg")
        };
        Lvm::new(&config, "vg".parse().unwrap())
    }

    #[test]
    fn names_come_behind_the_options_with_their_group() {
        let args = lvm(&["/dev/sdx"], false).args(
            "lvchange",
            &["--activate", "n"],
            &lvm(&[], false).full(&["--yes", "a"]),
        );
        assert_eq!(
            args,
            [
                "lvchange",
                "--devices",
                "/dev/sdx",
                "--activate",
                "n",
                "--",
                "vg/--yes",
                "vg/a"
            ]
        );
    }

    #[test]
    fn a_shared_group_is_never_changed_without_its_locks() {
        let args = lvm(&[], true).args("lvs", &[], &[]);
        assert!(
            args.contains(&"global/use_lvmlockd=1".to_owned()),
            "{args:?}"
        );
    }

    #[test]
    fn what_lvm_says_becomes_what_the_caller_does_next() {
        use std::os::unix::process::ExitStatusExt as _;
        let says = |text| failure(ExitStatus::from_raw(5 << 8), text);
        for full in [
            "Volume group \"vg\" has insufficient free space (42 extents): 50 required.",
            "Insufficient suitable allocatable extents for logical volume a: 8 more required",
        ] {
            assert!(matches!(says(full), StorageError::NoSpace { .. }), "{full}");
        }
        let open = "Logical volume vg/a in use.";
        assert!(matches!(says(open), StorageError::InUse { .. }));
        let taken = "Logical Volume \"b\" already exists in volume group \"vg\"";
        assert!(matches!(says(taken), StorageError::Invalid(_)));
        for lost in [
            "Volume group \"vg\" not found",
            "Failed to find logical volume \"vg/a\"",
            "",
        ] {
            assert!(
                matches!(says(lost), StorageError::Unreachable { .. }),
                "{lost}"
            );
        }
    }
}
