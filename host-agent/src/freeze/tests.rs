//! Guests that are thawed although nobody asks for it any more.

use super::*;
use crate::hypervisor::fake::{FakeHypervisor, FakeImages, GuestAgent, Pace};
use crate::hypervisor::{HypervisorError, Overlay};
use livemerge_storage::Locator;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;
use uuid::Uuid;

const REQUEST: Uuid = Uuid::from_u128(9);
const LONG: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// A machine whose guest can be frozen, and the agent's directory.
struct Rig {
    host: FakeHypervisor,
    vm: VmId,
    overlay: Overlay,
    dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let images = FakeImages::default();
        let [base, overlay] = ["/base", "/overlay"].map(|path| Locator::File(path.into()));
        let host = FakeHypervisor::new(images.clone(), Pace::Manual);
        let vm = VmId::from(Uuid::from_u128(1));
        host.add_vm(vm, "one", &[("vda", std::slice::from_ref(&base))]);
        host.set_guest_agent(vm, GuestAgent::Answers, 1);
        images.create(&overlay, Some(&base));
        Self {
            host,
            vm,
            overlay: Overlay {
                disk: "vda".parse().unwrap(),
                locator: overlay,
            },
            dir: TempDir::new().unwrap(),
        }
    }

    fn open(&self, hold: Duration) -> Arc<Freezes> {
        open(&self.host, self.dir.path(), hold)
    }

    async fn freeze(&self, freezes: &Arc<Freezes>) -> Result<Frozen, Problem> {
        let vm = self.host.peek(self.vm).unwrap();
        let overlays = [self.overlay.clone()];
        freezes.freeze(&vm, REQUEST, &overlays).await
    }

    fn writes(&self) -> bool {
        self.host.guest_write(self.vm, &self.overlay.disk, 0, 1)
    }

    fn mark(&self) -> PathBuf {
        self.dir.path().join(format!("{}.frozen", self.vm))
    }

    async fn until_thawed(&self) {
        until(|| self.writes() && !self.mark().exists()).await;
    }

    /// An agent's process that dies while the guest is frozen, with its overlays on or not.
    async fn die(&self, overlaid: bool) {
        let process = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (host, vm, overlay) = (self.host.clone(), self.vm, self.overlay.clone());
        let dir = self.dir.path().to_owned();
        let frozen = process.spawn(async move {
            let freezes = open(&host, &dir, LONG);
            let (seen, overlays) = (host.peek(vm).unwrap(), [overlay]);
            let frozen = freezes.freeze(&seen, REQUEST, &overlays).await.unwrap();
            if overlaid {
                host.add_overlays(vm, &overlays).await.unwrap();
            }
            frozen
        });
        let frozen = frozen.await.unwrap();
        process.shutdown_background();
        tokio::time::sleep(20 * POLL).await;
        drop(frozen);
        tokio::time::sleep(20 * POLL).await;
        assert!(self.mark().exists(), "the mark outlives the process");
        assert!(!self.writes(), "nobody is left who would thaw it");
    }
}

fn open(host: &FakeHypervisor, dir: &Path, hold: Duration) -> Arc<Freezes> {
    let policy = Policy {
        hold,
        ..Policy::default()
    };
    Freezes::open(dir, Arc::new(host.clone()), policy, Shutdown::new()).unwrap()
}

async fn until(so: impl Fn() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(POLL).await;
        }
    };
    timeout(LIMIT, wait).await.expect("in time");
}

fn unknown() -> HypervisorError {
    HypervisorError::Unknown("hangs".to_owned())
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_guest_frozen() {
    let rig = Rig::new();
    let freezes = rig.open(LONG);
    let frozen = rig.freeze(&freezes).await.unwrap();
    assert!(!rig.writes() && rig.mark().exists());
    drop(frozen);
    rig.until_thawed().await;
    // Who thaws it may not have let go of it yet.
    freezes.taken(rig.vm, REQUEST).await;
    // Also one that did not wait for the freeze.
    let mut impatient = Box::pin(rig.freeze(&freezes));
    assert!(futures::poll!(&mut impatient).is_pending());
    drop(impatient);
    until(|| rig.host.calls().len() > 2).await;
    rig.until_thawed().await;
}

#[tokio::test]
async fn no_caller_keeps_a_guest_frozen_for_longer_than_the_bound() {
    let rig = Rig::new();
    let freezes = rig.open(20 * POLL);
    let frozen = rig.freeze(&freezes).await.unwrap();
    assert!(!rig.writes());
    rig.until_thawed().await;
    assert!(!frozen.thaw().await, "it was not frozen until then");
    let again = rig.freeze(&freezes).await.unwrap();
    assert!(again.thaw().await);
}

#[tokio::test]
async fn a_guest_that_somebody_else_has_thawed_was_not_frozen() {
    let rig = Rig::new();
    let frozen = rig.freeze(&rig.open(LONG)).await.unwrap();
    rig.host.thaw_guest(rig.vm, LIMIT).await.unwrap();
    assert!(!frozen.thaw().await);
}

#[tokio::test]
async fn a_starting_agent_thaws_what_its_predecessor_left() {
    for overlaid in [false, true] {
        let rig = Rig::new();
        rig.die(overlaid).await;
        let freezes = rig.open(LONG);
        rig.until_thawed().await;
        // The overlays were seen while it was frozen, so they came on while it was.
        let expected = match overlaid {
            true => Consistency::Frozen,
            false => Consistency::Unknown,
        };
        freezes.stopped().await;
        assert_eq!(freezes.taken(rig.vm, REQUEST).await, expected);
    }
}

/// libvirt comes later than the agent, and answers nothing at first.
#[tokio::test]
async fn a_starting_agent_goes_on_until_the_guest_is_thawed() {
    let rig = Rig::new();
    rig.die(true).await;
    rig.host.disconnect();
    let freezes = rig.open(LONG);
    tokio::time::sleep(20 * POLL).await;
    assert!(!rig.writes());
    rig.host.fail_next("thaw_guest", unknown());
    let not_yet = HypervisorError::Refused("the agent is not connected".to_owned());
    rig.host.fail_next("thaw_guest", not_yet);
    rig.host.connect();
    rig.until_thawed().await;
    freezes.stopped().await;
    let taken = freezes.taken(rig.vm, REQUEST).await;
    assert_eq!(taken, Consistency::Frozen, "it was so all the time");
}

/// What a mark says beside its name is no condition.
#[tokio::test]
async fn a_mark_that_cannot_be_read_is_a_mark() {
    let rig = Rig::new();
    rig.die(false).await;
    fs::write(rig.mark(), b"{\"half").unwrap();
    let _freezes = rig.open(LONG);
    rig.until_thawed().await;
}

#[tokio::test]
async fn a_machine_that_is_off_or_gone_is_not_thawed() {
    for gone in [false, true] {
        let rig = Rig::new();
        rig.die(false).await;
        if gone {
            rig.host.remove_vm(rig.vm);
        } else {
            rig.host.kill_vm(rig.vm);
        }
        let _freezes = rig.open(LONG);
        until(|| !rig.mark().exists()).await;
    }
}

/// It is shown, no other freeze is begun, and whoever has seen to it takes the mark away.
#[tokio::test]
async fn a_guest_that_cannot_be_thawed_is_shown() {
    let rig = Rig::new();
    let freezes = rig.open(LONG);
    let mut stuck = freezes.stuck();
    let frozen = rig.freeze(&freezes).await.unwrap();
    rig.host.set_guest_agent(rig.vm, GuestAgent::Silent, 1);
    assert!(!frozen.thaw().await);
    let shown = stuck.wait_for(|stuck| stuck.contains(&rig.vm));
    timeout(LIMIT, shown).await.unwrap().unwrap();
    assert!(rig.mark().exists());
    let refused = rig.freeze(&freezes).await.unwrap_err();
    assert_eq!(refused.reason, Reason::GuestAgentUnavailable);
    fs::remove_file(rig.mark()).unwrap();
    let gone = stuck.wait_for(BTreeSet::is_empty);
    timeout(2 * LIMIT, gone).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_that_stops_thaws_first() {
    let rig = Rig::new();
    let freezes = rig.open(LONG);
    let frozen = rig.freeze(&freezes).await.unwrap();
    let stops = tokio::spawn(async move { freezes.stopped().await });
    tokio::time::sleep(10 * POLL).await;
    assert!(!stops.is_finished(), "it waits for the caller");
    drop(frozen);
    timeout(LIMIT, stops).await.unwrap().unwrap();
    assert!(rig.writes() && !rig.mark().exists());
}
