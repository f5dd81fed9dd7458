//! QEMU dies while its guest is being switched: before, as, or after it does so, and between what
//! the journal says of it.
//!
//! ```text
//!   suspending ──▶ intent ──▶ QEMU switches ──▶ verifying      each a moment, and a random delay
//!                └─ the guest stands still, and both images read the same ─┘
//! ```
//! So whichever of them the machine starts from afterwards has all that was acknowledged.
//!
//! QEMU itself tells of its switch, on a second monitor: what it has said before its death can still
//! be read after it.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::stage::Stage;
use super::{Kill, LIMIT, Scene};
use crate::journal::Line;
use crate::qmp::Qmp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Suspending,
    Intent,
    Switched,
    Verifying,
}

/// Odd, as every second kill's rest is deleted while the machine is off.
const MOMENTS: [Moment; 5] = [
    Moment::Suspending,
    Moment::Intent,
    Moment::Switched,
    Moment::Verifying,
    Moment::Suspending,
];

pub(super) async fn kill(scene: &mut Scene, kill: &mut Kill, number: u32) -> Result<()> {
    let moment = MOMENTS[number as usize % MOMENTS.len()];
    let stage = Stage::of_active(scene, number).await?;
    let mut monitor = scene.monitor()?;
    let known = scene.journal().merges();
    let deletion = scene.api.delete(&stage.snapshot).await?;
    if moment == Moment::Switched {
        monitor = tokio::task::spawn_blocking(move || -> Result<Qmp> {
            monitor.wait_for(has_switched)?;
            Ok(monitor)
        })
        .await??;
    } else {
        scene
            .until_written(&known, move |line| moment.is(line))
            .await?;
    }
    kill.moment = moment.name().to_owned();
    if moment == Moment::Suspending {
        // The intent follows soon.
        kill.delay /= 4;
    }
    // A timer of the runtime is too coarse for these delays.
    std::thread::sleep(kill.delay);
    scene.kill_qemu()?;
    kill.switched = moment == Moment::Switched || monitor.has_said(has_switched);
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    let image = stage.starts_from(scene)?;
    kill.on_base = image == stage.base;
    let known = kill.on_base || image == stage.top;
    ensure!(known, "it starts from {}", image.display());
    stage.end(scene, kill, &ended).await
}

impl Moment {
    fn is(self, line: &Line) -> bool {
        match self {
            Self::Suspending => line.window.as_deref() == Some("suspending"),
            Self::Intent => line.window.as_deref() == Some("intent"),
            Self::Switched => false,
            Self::Verifying => line.phase == "verifying",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Suspending => "suspending written down",
            Self::Intent => "intent written down",
            Self::Switched => "QEMU has switched",
            Self::Verifying => "verifying written down",
        }
    }
}

/// QEMU writes the base alone from here on.
fn has_switched(event: &Value) -> bool {
    event["event"] == "BLOCK_JOB_COMPLETED" && event["data"]["error"].is_null()
}

/// On which side of the switch QEMU died how often, and what the machine starts from then, as a line of
/// the report. `Err` with the same when one of them never was.
pub(super) fn sides(kills: &[Kill]) -> Result<String, String> {
    let count = |is: fn(&Kill) -> bool| kills.iter().filter(|kill| is(kill)).count();
    let (switched, base) = (count(|kill| kill.switched), count(|kill| kill.on_base));
    let (before, top) = (kills.len() - switched, kills.len() - base);
    let line = format!(
        "QEMU died {before} times before its switch and {switched} times after it; the machine \
         starts from the overlay {top} times and from the base {base} times"
    );
    match [before, switched, top, base].contains(&0) {
        true => Err(line),
        false => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_was_never_hit_is_seen() {
        let kill = |switched, on_base| Kill {
            switched,
            on_base,
            ..Kill::default()
        };
        let told = sides(&[kill(false, false), kill(false, true), kill(true, true)]);
        let told = told.unwrap_or_else(|one_sided| panic!("{one_sided}"));
        assert!(told.contains("2 times before its switch and 1 times after"));
        assert!(told.contains("the overlay 1 times and from the base 2 times"));
        assert!(sides(&[kill(false, false), kill(false, true)]).is_err());
        assert!(sides(&[kill(true, true), kill(false, true)]).is_err());
    }
}
