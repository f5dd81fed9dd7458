//! What the store reads from headers, beside what `qemu-img info` reads from the same files.

use crate::rig::{Rig, name, run};
use livemerge_storage::{Format, Locator, VolumeStore as _};
use serde_json::Value;

/// Images as QEMU makes them: name, options of `create`, size.
const IMAGES: &[(&str, &[&str], &str)] = &[
    ("v3.qcow2", &[], "1G"),
    ("v3.img", &[], "1G"),
    ("v2.qcow2", &["-o", "compat=0.10"], "1G"),
    ("odd.qcow2", &[], "1000"),
    ("sector.qcow2", &[], "512"),
    ("large.qcow2", &[], "2P"),
    ("small-clusters.qcow2", &["-o", "cluster_size=512"], "64M"),
    ("large-clusters.qcow2", &["-o", "cluster_size=2M"], "1T"),
    (
        "extended.qcow2",
        &["-o", "extended_l2=on,cluster_size=128k"],
        "1G",
    ),
    (
        "lazy.qcow2",
        &["-o", "lazy_refcounts=on,refcount_bits=64"],
        "1G",
    ),
    ("zstd.qcow2", &["-o", "compression_type=zstd"], "1G"),
    ("full.qcow2", &["-o", "preallocation=full"], "2M"),
    ("data.qcow2", &["-o", "data_file=DIR/data.raw"], "1G"),
    ("on-v3.qcow2", &["-b", "DIR/v3.qcow2", "-F", "qcow2"], "1G"),
    (
        "on-relative.qcow2",
        &["-b", "v3.qcow2", "-F", "qcow2"],
        "1G",
    ),
    (
        "on-larger.qcow2",
        &["-b", "DIR/v3.qcow2", "-F", "qcow2"],
        "3G",
    ),
    (
        "on-overlay.qcow2",
        &["-b", "on-v3.qcow2", "-F", "qcow2"],
        "1G",
    ),
    ("on-raw.qcow2", &["-b", "DIR/base.raw", "-F", "raw"], "1M"),
    (
        "v2-on-v3.qcow2",
        &["-o", "compat=0.10", "-b", "DIR/v3.qcow2", "-F", "qcow2"],
        "1G",
    ),
    (
        "v2-on-raw.qcow2",
        &["-o", "compat=0.10", "-b", "base.raw", "-F", "raw"],
        "1M",
    ),
    (
        "extended-on.qcow2",
        &["-o", "extended_l2=on", "-b", "DIR/v3.qcow2", "-F", "qcow2"],
        "1G",
    ),
    (
        "tiny-on.qcow2",
        &["-o", "cluster_size=512", "-b", "v3.qcow2", "-F", "qcow2"],
        "1G",
    ),
    (
        "luks.qcow2",
        &[
            "--object",
            "secret,id=s,data=abc",
            "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        ],
        "4M",
    ),
    (
        "data-on.qcow2",
        &[
            "-o",
            "data_file=DIR/data-on.raw",
            "-b",
            "DIR/v3.qcow2",
            "-F",
            "qcow2",
        ],
        "1G",
    ),
];

#[tokio::test]
async fn headers_say_to_us_what_they_say_to_qemu() {
    let rig = Rig::new().await;
    std::fs::write(rig.path("base.raw"), vec![1; 1 << 20]).unwrap();
    agrees(&rig, "base.raw").await;
    for (image, options, size) in IMAGES {
        let dir = rig.root().display().to_string();
        let options: Vec<String> = options
            .iter()
            .map(|text| text.replace("DIR", &dir))
            .collect();
        let path = rig.path(image).display().to_string();
        let mut args = vec!["create", "-q", "-f", "qcow2"];
        args.extend(options.iter().map(String::as_str));
        args.extend([path.as_str(), size]);
        run("qemu-img", &args).await;
        agrees(&rig, image).await;
    }
}

/// What other commands make of a header: bitmaps, a rebase, a conversion, a snapshot within.
#[tokio::test]
async fn headers_that_changed_say_the_same_too() {
    let rig = Rig::new().await;
    let below = rig.base("below.qcow2").await;
    rig.overlay("top.qcow2", &below).await;
    let (path, qcow2) = (rig.path("top.qcow2").display().to_string(), "qcow2");
    for args in [
        &["bitmap", "--add", "--enable", "-f", qcow2, &path, "mark"] as &[&str],
        &["bitmap", "--add", "--disable", "-f", qcow2, &path, "weekly"],
        &["bitmap", "--remove", "-f", qcow2, &path, "mark"],
        &["snapshot", "-c", "inside", &path],
        &["amend", "-f", qcow2, "-o", "lazy_refcounts=on", &path],
        &["rebase", "-u", "-f", qcow2, "-b", "", &path],
        &[
            "rebase",
            "-u",
            "-f",
            qcow2,
            "-b",
            "below.qcow2",
            "-F",
            qcow2,
            &path,
        ],
        &["resize", "-q", "-f", qcow2, &path, "16M"],
    ] {
        run("qemu-img", args).await;
        agrees(&rig, "top.qcow2").await;
    }
    let parent = rig
        .store
        .parent_of(&name("top.qcow2"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(parent.locator, below.locator);
}

async fn agrees(rig: &Rig, image: &str) {
    let path = rig.path(image).display().to_string();
    let text = run("qemu-img", &["info", "--output=json", &path]).await;
    let qemu: Value = serde_json::from_str(&text).unwrap();
    let ours = rig.store.stat(&name(image)).await.unwrap();
    assert_eq!(qemu["virtual-size"], ours.virtual_bytes, "{image}");
    // Some versions of QEMU add the space of a data file to it.
    if qemu["format-specific"]["data"]["data-file"].is_null() {
        assert_eq!(qemu["actual-size"], ours.allocated_bytes, "{image}");
    }
    assert_eq!(qemu["format"], format_text(ours.format), "{image}");
    if ours.format == Format::Qcow2 {
        assert_eq!(qemu["cluster-size"], ours.cluster_bytes, "{image}");
    }
    assert_eq!(qemu["encrypted"] == true, ours.encrypted, "{image}");
    let bitmaps = qemu["format-specific"]["data"]["bitmaps"].as_array();
    let bitmaps = bitmaps.into_iter().flatten();
    let bitmaps: Vec<_> = bitmaps
        .map(|bitmap| bitmap["name"].as_str().unwrap())
        .collect();
    assert_eq!(bitmaps, ours.bitmaps, "{image}");
    assert_eq!(
        rig.store.parent_of(&ours.volume.name).await.unwrap(),
        ours.parent,
        "{image}"
    );
    let Some(parent) = ours.parent else {
        assert!(qemu.get("backing-filename").is_none(), "{image}: {qemu}");
        return;
    };
    let full = qemu["full-backing-filename"].as_str().unwrap();
    assert_eq!(parent.locator, Locator::File(full.into()), "{image}");
    assert_eq!(
        qemu["backing-filename-format"],
        format_text(parent.format.unwrap()),
        "{image}"
    );
}

fn format_text(format: Format) -> &'static str {
    match format {
        Format::Qcow2 => "qcow2",
        Format::Raw => "raw",
    }
}
