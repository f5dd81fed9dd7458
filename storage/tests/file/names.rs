//! No name and no link leads out of the domain.

use crate::rig::{LONG, Rig, name, open, order};
use livemerge_storage::{
    Format, LiveVolumes as _, Locator, NewVolume, Parent, RemovalOrder, StorageError, VolumeName,
    VolumeStore as _,
};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

fn invalid<T: std::fmt::Debug>(answer: &Result<T, StorageError>) {
    assert!(
        matches!(answer, Err(StorageError::Invalid(_))),
        "{answer:?}"
    );
}

#[test]
fn a_name_is_one_plain_component() {
    for bad in [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "a/b.qcow2",
        "../a.qcow2",
        "a..b.qcow2",
        ".a.qcow2",
        "-a.qcow2",
        ".livemerge",
        "a b.qcow2",
        "a\0.qcow2",
        "a\n.qcow2",
        "a:b.qcow2",
        "a,b.qcow2",
        "ä.qcow2",
        "nbd:unix:x",
        "json:{}",
        &"a".repeat(201),
    ] {
        assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
    }
    for good in ["a", "_a.qcow2", "A-1_b+c.img", &"a".repeat(200)] {
        assert_eq!(good.parse::<VolumeName>().unwrap().as_str(), good);
    }
}

/// Every call, for a name that is no volume's here, whatever lies under it.
#[tokio::test]
async fn a_foreign_name_is_refused_by_every_call() {
    let rig = Rig::new().await;
    let made = rig.base("v.qcow2").await;
    std::fs::write(rig.path("notes.txt"), "keep me").unwrap();
    for foreign in ["notes.txt", "missing.txt", "qcow2", "v.qcow2.bak"].map(name) {
        let store = &rig.store;
        invalid(&store.stat(&foreign).await);
        invalid(&store.grow(&foreign, 1 << 30).await);
        invalid(&store.parent_of(&foreign).await);
        invalid(&store.in_use(&foreign).await);
        invalid(&store.activate(&foreign).await);
        invalid(&store.deactivate(&foreign).await);
        invalid(
            &store
                .remove(&RemovalOrder {
                    volume: foreign.clone(),
                    ..order(&made, LONG)
                })
                .await,
        );
        let new = NewVolume {
            name: foreign,
            virtual_bytes: 1 << 20,
            parent: None,
        };
        invalid(&store.create(&new).await);
    }
    assert_eq!(std::fs::read(rig.path("notes.txt")).unwrap(), b"keep me");
}

/// What is under the name is a link, a directory, a pipe: never followed, opened or removed.
#[tokio::test]
async fn what_is_no_regular_file_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target.qcow2");
    std::fs::write(&target, "QFI\u{fb}").unwrap();
    let rig = Rig::new().await;
    let made = rig.base("v.qcow2").await;
    symlink(&target, rig.path("link.qcow2")).unwrap();
    symlink(rig.path("v.qcow2"), rig.path("inner.qcow2")).unwrap();
    symlink("/no/such", rig.path("dangling.qcow2")).unwrap();
    std::fs::create_dir(rig.path("dir.qcow2")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, rig.path("pipe.qcow2"), mode).unwrap();
    for odd in [
        "link.qcow2",
        "inner.qcow2",
        "dangling.qcow2",
        "dir.qcow2",
        "pipe.qcow2",
    ]
    .map(name)
    {
        let store = &rig.store;
        invalid(&store.stat(&odd).await);
        invalid(&store.grow(&odd, 1 << 30).await);
        invalid(&store.parent_of(&odd).await);
        invalid(&store.activate(&odd).await);
        invalid(
            &store
                .remove(&RemovalOrder {
                    volume: odd.clone(),
                    ..order(&made, Duration::ZERO)
                })
                .await,
        );
        invalid(
            &store
                .create(&NewVolume {
                    name: odd.clone(),
                    virtual_bytes: 1 << 20,
                    parent: None,
                })
                .await,
        );
        assert!(rig.path(odd.as_str()).symlink_metadata().is_ok());
    }
    assert_eq!(std::fs::read(&target).unwrap(), "QFI\u{fb}".as_bytes());
    let listed = futures::TryStreamExt::try_collect::<Vec<_>>(rig.store.list())
        .await
        .unwrap();
    assert_eq!(listed, std::slice::from_ref(&made));
    // They hold nothing either.
    rig.store
        .remove(&order(&made, Duration::ZERO))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_path_resolves_only_to_a_volume_directly_in_the_root() {
    let rig = Rig::new().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(rig.path("sub")).unwrap();
    symlink(outside.path(), rig.path("away")).unwrap();
    symlink(rig.root(), outside.path().join("alias")).unwrap();
    let resolve = |path: &Path| {
        rig.store
            .resolve(&Locator::File(path.to_owned()))
            .map(String::from)
    };
    let volume = Some("v.qcow2".to_owned());
    assert_eq!(
        resolve(&rig.path("v.qcow2")),
        volume,
        "also of a volume that is not there"
    );
    assert_eq!(resolve(&rig.path("sub/../v.qcow2")), volume);
    assert_eq!(resolve(&rig.path("./v.qcow2")), volume);
    assert_eq!(resolve(&outside.path().join("alias/v.qcow2")), volume);
    for outside in [
        rig.path("../v.qcow2"),
        rig.path("sub/v.qcow2"),
        // Through the link, `..` is not the root.
        rig.path("away/../v.qcow2"),
        rig.path("away/v.qcow2"),
        rig.path("notes.txt"),
        rig.path(".livemerge/new/v.qcow2"),
        rig.root(),
        "v.qcow2".into(),
        "/etc/passwd".into(),
        "".into(),
    ] {
        assert_eq!(resolve(&outside), None, "{}", outside.display());
    }
}

#[tokio::test]
async fn a_parent_outside_the_domain_is_refused() {
    let (rig, other) = (Rig::new().await, Rig::new().await);
    let foreign = other.base("below.qcow2").await;
    let before = rig.files();
    for path in [
        other.path("below.qcow2"),
        rig.path("../below.qcow2"),
        "below.qcow2".into(),
        "../below.qcow2".into(),
    ] {
        let parent = Parent {
            locator: Locator::File(path),
            format: Some(Format::Qcow2),
        };
        let new = NewVolume {
            name: name("v.qcow2"),
            virtual_bytes: 1 << 20,
            parent: Some(parent),
        };
        invalid(&rig.store.create(&new).await);
    }
    assert_eq!(rig.files(), before);
    assert_eq!(
        other.store.stat(&foreign.volume.name).await.unwrap(),
        foreign
    );
}

#[tokio::test]
async fn a_new_volume_never_has_a_raw_one_s_name() {
    let rig = Rig::new().await;
    let new = NewVolume {
        name: name("v.raw"),
        virtual_bytes: 1 << 20,
        parent: None,
    };
    invalid(&rig.store.create(&new).await);
    assert_eq!(rig.files(), []);
}

#[tokio::test]
async fn a_file_system_without_birth_times_is_refused_at_once() {
    let text = open(Path::new("/proc/self")).await.unwrap_err().to_string();
    assert!(text.contains("reports no birth times"), "{text}");
}

#[tokio::test]
async fn a_domain_is_a_directory_whose_own_part_is_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let missing = open(&dir.path().join("missing")).await;
    assert!(
        matches!(missing, Err(StorageError::NotFound { .. })),
        "{missing:?}"
    );
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(open(&dir.path().join("file")).await.is_err());
    let (root, elsewhere) = (dir.path().join("root"), dir.path().join("elsewhere"));
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, root.join(".livemerge")).unwrap();
    invalid(&open(&root).await);
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}
