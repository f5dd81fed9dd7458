//! Changes of definitions as libvirt 9.0.0 writes them, and of some that others have written.

use super::*;
use crate::hypervisor::xml::Definition;
use proptest::prelude::*;

const SHUT_OFF: &str = include_str!("../recorded/shut_off.xml");
const WITH_CHAIN: &str = include_str!("../recorded/shut_off_with_chain.xml");
const AFTER_PIVOT: &str = include_str!("../recorded/after_pivot_inactive.xml");

fn file(name: &str) -> Locator {
    Locator::File(format!("/images/{name}").into())
}

fn vda() -> DiskTarget {
    "vda".parse().unwrap()
}

fn overlay(disk: &str, locator: Locator) -> Overlay {
    let disk = disk.parse().unwrap();
    Overlay { disk, locator }
}

/// A definition with the disk `vda` between others, as it is written here.
fn machine(vda: &str) -> String {
    format!(
        "<domain type='qemu'>\n  <name>rec</name>\n  \
         <uuid>11111111-2222-3333-4444-555555555555</uuid>\n  <devices>\n    \
         <disk type='file' device='cdrom'>\n      <driver name='qemu' type='raw'/>\n      \
         <source file='/images/c'/>\n      <target dev='sda' bus='sata'/>\n    </disk>\n    \
         {vda}\n    <disk type='file'><driver type='qcow2'/><source file='/images/c'/>\
         <target dev='vdb'/></disk>\n  </devices>\n</domain>\n"
    )
}

fn without(xml: &str, removed: &[&str], kept: &Locator, format: Format) -> Changed<Option<String>> {
    let removed: Vec<_> = removed.iter().map(|name| file(name)).collect();
    without_layers(xml, &vda(), &removed, (kept, format))
}

/// The lines that are not the same, as `- before` and `+ after`.
fn difference(before: &str, after: &str) -> Vec<String> {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let lines = before.len().min(after.len());
    let same = (0..lines)
        .take_while(|at| before[*at] == after[*at])
        .count();
    let tail = before[same..].iter().rev().zip(after[same..].iter().rev());
    let tail = tail.take_while(|(a, b)| a == b).count();
    let gone = before[same..before.len() - tail].iter();
    let new = after[same..after.len() - tail].iter();
    let gone = gone.map(|line| format!("- {}", line.trim()));
    gone.chain(new.map(|line| format!("+ {}", line.trim())))
        .collect()
}

#[test]
fn only_the_source_changes_when_the_headers_say_the_rest() {
    let name = Definition::parse(SHUT_OFF).unwrap().disks[0].chain[0]
        .source
        .clone();
    let top = name.locator().unwrap();
    let changed = without_layers(
        SHUT_OFF,
        &vda(),
        std::slice::from_ref(top),
        (&file("kept"), Format::Qcow2),
    );
    let changed = changed.unwrap().unwrap();
    let expected = SHUT_OFF.replacen(&top.to_string(), "/images/kept", 1);
    assert_eq!(changed, expected);
}

#[test]
fn a_raw_base_takes_the_driver_s_format_and_leaves_its_other_attributes() {
    let disk = "<disk type='file' device='disk' snapshot='external'>\n      \
         <driver name='qemu' type='qcow2' cache='none' io=\"native\" discard='unmap'>\n        \
         <metadata_cache/>\n      </driver>\n      \
         <source file='/images/c' startupPolicy='optional'>\n        \
         <seclabel model='dac' relabel='no'/>\n      </source>\n      \
         <target dev='vda' bus='virtio'/>\n      <serial>a &amp; b</serial>\n    </disk>";
    let before = machine(disk);
    let after = without(&before, &["b", "c"], &file("a&b"), Format::Raw);
    assert_eq!(
        difference(&before, &after.unwrap().unwrap()),
        [
            "- <driver name='qemu' type='qcow2' cache='none' io=\"native\" discard='unmap'>",
            "- <metadata_cache/>",
            "- </driver>",
            "- <source file='/images/c' startupPolicy='optional'>",
            "+ <driver name='qemu' type='raw' cache='none' io=\"native\" discard='unmap'>",
            "+ <metadata_cache/>",
            "+ </driver>",
            "+ <source file='/images/a&amp;b' startupPolicy='optional'>",
        ]
    );
}

#[test]
fn a_base_of_another_kind_changes_the_kind() {
    let before = machine("<disk><source file='/images/c'/><target dev='vda'/></disk>");
    let base = Locator::Block("/dev/vg/a".into());
    let after = without(&before, &["c"], &base, Format::Raw)
        .unwrap()
        .unwrap();
    let expected = "<disk type='block'><driver name='qemu' type='raw'/>\
                    <source dev='/dev/vg/a'/><target dev='vda'/></disk>";
    assert_eq!(after, machine(expected));
    let back = with_overlays(&after, &[&overlay("vda", file("o"))]).unwrap();
    let expected = "<disk type='file'><driver name='qemu' type='qcow2'/>\
                    <source file='/images/o'/><target dev='vda'/></disk>";
    assert_eq!(back, machine(expected));
}

#[test]
fn a_chain_that_is_written_down_follows() {
    let disk = |chain: &str| {
        machine(&format!(
            "<disk type='file'><driver type='qcow2'/>{chain}<target dev='vda'/></disk>"
        ))
    };
    let level = |name: &str, below: &str| {
        format!(
            "<backingStore type='file'><format type='qcow2'/>\
             <source file='/images/{name}'/>{below}</backingStore>"
        )
    };
    let end = "<backingStore/>";
    let source = |name: &str| format!("<source file='/images/{name}'/>");
    let whole = |below: &str| level("c", &level("b", &level("a", below)));
    for below in [end, ""] {
        let before = disk(&format!("{}{}", source("d"), whole(below)));
        let after = |removed: &[&str], kept: &str| {
            without(&before, removed, &file(kept), Format::Qcow2)
                .unwrap()
                .unwrap()
        };
        let middle = level("c", &level("a", below));
        assert_eq!(
            after(&["b"], "a"),
            disk(&format!("{}{middle}", source("d")))
        );
        let two = level("a", below);
        assert_eq!(
            after(&["b", "c"], "a"),
            disk(&format!("{}{two}", source("d")))
        );
        let active = level("b", &level("a", below));
        assert_eq!(
            after(&["d"], "c"),
            disk(&format!("{}{active}", source("c")))
        );
        assert_eq!(
            after(&["b", "c", "d"], "a"),
            disk(&format!("{}{below}", source("a")))
        );
    }
    // Written down in part: the headers say the rest.
    let part = disk(&format!("{}{}", source("d"), level("c", "")));
    let after = without(&part, &["b", "c"], &file("a"), Format::Qcow2)
        .unwrap()
        .unwrap();
    let new = level("a", "").replace("'/images/a'", "\"/images/a\"");
    assert_eq!(after, disk(&format!("{}{new}", source("d"))));
    let after = without(&part, &["b", "c", "d"], &file("a"), Format::Qcow2);
    assert_eq!(after.unwrap().unwrap(), disk(&source("a")));
    let untouched = without(&part, &["b"], &file("a"), Format::Qcow2).unwrap();
    assert_eq!(untouched, None);
}

#[test]
fn another_chain_that_is_written_down_is_not_changed() {
    for (removed, kept) in [
        (&["base.qcow2", "o.qcow2"][..], "older"),
        (&["o.qcow2"], "other"),
        (&["base.qcow2", "top"], "older"),
    ] {
        let refused = without(WITH_CHAIN, removed, &file(kept), Format::Qcow2);
        assert!(refused.is_err(), "{removed:?} {kept}: {refused:?}");
    }
}

#[test]
fn layers_that_were_taken_out_below_an_image_are_put_back() {
    let level = |name: &str, below: &str| {
        format!(
            "<backingStore type='file'><format type='qcow2'/>\
             <source file=\"/images/{name}\"/>{below}</backingStore>"
        )
    };
    let disk = |below: &str| {
        machine(&format!(
            "<disk type='file'><driver type='qcow2'/><source file='/images/d'/>{below}\
             <target dev='vda'/></disk>"
        ))
    };
    // Something of its own that the lowest layer has, and both ends of a chain.
    let nbd = "<backingStore type='network'><format type='raw'/><source protocol='nbd' name='v'>\
               <host name='h'/><reconnect delay='7'/></source></backingStore>";
    for below in ["<backingStore/>", "", nbd] {
        let chain = level("c", &level("b", &level("a", below)));
        let whole = disk(&chain);
        for (image, removed, kept) in [
            ("d", &["c"][..], "b"),
            ("d", &["b", "c"], "a"),
            ("c", &["b"], "a"),
        ] {
            let short = without(&whole, removed, &file(kept), Format::Qcow2);
            let short = short.unwrap().unwrap();
            assert_ne!(short, whole);
            let lost: Vec<_> = removed
                .iter()
                .map(|name| (file(name), Format::Qcow2))
                .collect();
            let back = with_layers_below(&short, &vda(), &file(image), &lost).unwrap();
            assert_eq!(back, whole, "{image} {removed:?}");
        }
    }
    // A pull of all has said that nothing lies below.
    let lost = [(file("a&a"), Format::Raw), (file("c"), Format::Qcow2)];
    let back = with_layers_below(&disk("<backingStore/>"), &vda(), &file("d"), &lost).unwrap();
    let read = &Definition::parse(&back).unwrap().disks[1];
    let layers = read.chain.iter();
    let layers: Vec<_> = layers
        .map(|layer| {
            (
                layer.source.locator().cloned().unwrap(),
                layer.format.unwrap(),
            )
        })
        .collect();
    let [raw, young] = lost.clone();
    assert_eq!(layers, [raw, young, (file("d"), Format::Qcow2)]);
    assert!(read.ends);
    // What writes nothing below it is left to its header.
    for (xml, image) in [(disk(""), "d"), (disk("<backingStore/>"), "c")] {
        let refused = with_layers_below(&xml, &vda(), &file(image), &lost);
        assert!(refused.is_err(), "{refused:?}");
    }
}

#[test]
fn an_overlay_takes_the_place_of_the_source() {
    for (before, chain) in [
        (SHUT_OFF, None),
        (
            WITH_CHAIN,
            Some(["base.qcow2", "o.qcow2", "new"].as_slice()),
        ),
        (AFTER_PIVOT, Some(&["base.qcow2", "new"])),
    ] {
        let others = [overlay("vda", file("new")), overlay("vdb", file("new-b"))];
        let after = with_overlays(before, &others.each_ref()).unwrap();
        let [was, is] = [before, &after].map(|xml| Definition::parse(xml).unwrap());
        assert_eq!(was.disks[2..], is.disks[2..]);
        let names = |disk: usize| -> Vec<Locator> {
            let layers = is.disks[disk].chain.iter();
            layers
                .filter_map(|layer| layer.source.locator().cloned())
                .collect()
        };
        match chain {
            // The header of the overlay says what is below.
            None => assert_eq!(names(0), [file("new")]),
            Some(chain) => {
                let chain: Vec<_> = chain.iter().map(|name| file(name)).collect();
                assert_eq!(names(0), chain);
                assert!(is.disks[0].ends);
            }
        }
        assert_eq!(names(1), [file("new-b")]);
        let both = [&is.disks[0], &is.disks[1]].map(|disk| disk.chain.last().unwrap().format);
        assert_eq!(both, [Some(Format::Qcow2); 2]);
        if chain.is_some() {
            let below = [0, 1].map(|at: usize| was.disks[at].chain.last().unwrap().source.clone());
            let removed = [file("new")];
            let kept = below[0].locator().unwrap();
            let back = without_layers(&after, &vda(), &removed, (kept, Format::Qcow2));
            let back = Definition::parse(&back.unwrap().unwrap()).unwrap();
            assert_eq!(back.disks[0], was.disks[0]);
        }
    }
}

#[test]
fn an_export_gives_way_to_another_one() {
    let export = |name: &str| Locator::Nbd(format!("nbd+unix:///{name}?socket=/run/a.sock"));
    let disk = |name: &str| {
        let (kind, source) = source_element(&export(name)).unwrap();
        machine(&format!(
            "<disk type='{kind}'><driver type='qcow2'/>{source}<target dev='vda'/></disk>"
        ))
    };
    let changed = with_overlays(&disk("old"), &[&overlay("vda", export("new"))]).unwrap();
    assert_eq!(changed, disk("new"));
    let reached = "<host transport=\"unix\"";
    let more = disk("old").replace(reached, &format!("<auth username='u'/>{reached}"));
    assert!(with_overlays(&more, &[&overlay("vda", export("new"))]).is_err());
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let nbd = Locator::Nbd("nbd://h/x".to_owned());
    let source = "<source file='/images/c'/>";
    for (disk, kept) in [
        (source.to_owned(), &nbd),
        (
            "<source protocol='nbd' name='v'><host name='h'/></source>".to_owned(),
            &file("a"),
        ),
        (source.replace("/>", "><encryption/></source>"), &file("a")),
        (source.replace("/>", "><slices/></source>"), &file("a")),
        (format!("{source}<encryption/>"), &file("a")),
    ] {
        let kind = if disk.contains("nbd") {
            "network"
        } else {
            "file"
        };
        let xml = machine(&format!(
            "<disk type='{kind}'>{disk}<target dev='vda'/></disk>"
        ));
        if kind == "file" {
            assert!(without(&xml, &["c"], kept, Format::Qcow2).is_err(), "{xml}");
        }
        let new = if kept == &nbd { nbd.clone() } else { file("o") };
        assert!(
            with_overlays(&xml, &[&overlay("vda", new)]).is_err(),
            "{xml}"
        );
    }
    let missing = overlay("vdz", file("o"));
    assert!(with_overlays(SHUT_OFF, &[&missing]).is_err());
}

proptest! {
    #[test]
    fn nothing_panics_and_what_comes_out_can_be_read(
        cut in 0..WITH_CHAIN.len(),
        name in "[ -~]{1,20}",
    ) {
        let kept = file(&name);
        let removed = [file("o.qcow2")];
        let damaged = format!("{}{}", &WITH_CHAIN[..cut], &WITH_CHAIN[(cut + 3).min(WITH_CHAIN.len())..]);
        if let Ok(Some(changed)) = without_layers(&damaged, &vda(), &removed, (&kept, Format::Raw)) {
            Element::parse(&changed).unwrap();
        }
        let changed = with_overlays(WITH_CHAIN, &[&overlay("vda", kept.clone())]).unwrap();
        let read = Definition::parse(&changed).unwrap();
        prop_assert_eq!(read.disks[0].chain.last().unwrap().source.locator(), Some(&kept));
    }
}
