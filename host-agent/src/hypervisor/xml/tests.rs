//! Definitions recorded from libvirt 9.0.0, and damaged ones.

use super::*;
use crate::hypervisor::MirrorState;
use livemerge_storage::{Format, Locator};
use proptest::prelude::*;

const CHAIN_OF_FOUR: &str = include_str!("recorded/chain_of_four.xml");
const SHUT_OFF: &str = include_str!("recorded/shut_off.xml");
const SHUT_OFF_WITH_CHAIN: &str = include_str!("recorded/shut_off_with_chain.xml");
const COMMIT_RUNNING: &str = include_str!("recorded/active_commit_running.xml");
const COMMIT_READY: &str = include_str!("recorded/active_commit_ready.xml");
const AFTER_PIVOT: &str = include_str!("recorded/after_pivot.xml");
const AFTER_PIVOT_INACTIVE: &str = include_str!("recorded/after_pivot_inactive.xml");

const NBD_CHAIN: &str = include_str!("recorded/nbd_chain.xml");

/// One line for each disk: `vda live: base.qcow2[8] l1.qcow2[7] ...`.
fn summary(xml: &str) -> Vec<String> {
    let machine = Definition::parse(xml).unwrap();
    assert_eq!(machine.unreadable, []);
    machine
        .disks
        .iter()
        .map(|disk| line(disk, machine.live))
        .collect()
}

fn line(disk: &Disk, live: bool) -> String {
    let mut line = format!("{}{}:", disk.target, if live { " live" } else { "" });
    if disk.device != Device::Disk {
        line.push_str(" other");
    }
    for layer in &disk.chain {
        let index = layer
            .index
            .map(|index| format!("[{index}]"))
            .unwrap_or_default();
        let format = match layer.format {
            Some(Format::Qcow2) => "qcow2",
            Some(Format::Raw) => "raw",
            None => "?",
        };
        line.push_str(&format!(" {}{index}={format}", name(&layer.source)));
    }
    if let Some(mirror) = &disk.mirror {
        let ready = match mirror.state {
            MirrorState::Copying => "",
            MirrorState::Ready => " ready",
            MirrorState::Pivoting => " pivoting",
        };
        line.push_str(&format!(
            " -> {:?} {}{ready}",
            mirror.kind,
            name(&mirror.target)
        ));
    }
    line
}

fn name(source: &Source) -> String {
    match source {
        Source::Volume(Locator::File(path)) => path.display().to_string(),
        Source::Volume(Locator::Block(path)) => format!("block {}", path.display()),
        Source::Volume(Locator::Nbd(uri)) => uri.clone(),
        other => format!("{other:?}"),
    }
}

#[test]
fn recorded_live_definitions() {
    let machine = Definition::parse(CHAIN_OF_FOUR).unwrap();
    assert_eq!(machine.name, "rec");
    assert_eq!(
        machine.id.to_string(),
        "11111111-2222-3333-4444-555555555555"
    );
    assert!(machine.live);
    assert_eq!(
        summary(CHAIN_OF_FOUR),
        [
            "vda live: /images/base.qcow2[8]=qcow2 /images/l1.qcow2[7]=qcow2 \
             /images/l2.qcow2[6]=qcow2 /images/l3.qcow2[5]=qcow2",
            "vdb live: /images/d2.raw[4]=raw",
            "vdc live: nbd+unix:///vol?socket=/images/n.sock[3]=raw",
            "sda live: other /images/cd.iso[2]=raw",
        ]
    );
    assert_eq!(
        summary(AFTER_PIVOT)[0],
        "vda live: /images/base.qcow2[8]=qcow2"
    );
}

#[test]
fn a_chain_over_nbd_is_known_if_its_definer_wrote_it_down() {
    let [overlay, base] =
        ["b", "a"].map(|name| format!("nbd+unix:///{name}?socket=/images/{name}.sock"));
    assert_eq!(
        summary(NBD_CHAIN),
        [format!("vda live: {base}[1]=qcow2 {overlay}[2]=qcow2")]
    );
    let open_end = Definition::parse(&NBD_CHAIN.replace("<backingStore/>", "")).unwrap();
    assert_eq!((open_end.disks.len(), open_end.unreadable.len()), (0, 1));
}

#[test]
fn recorded_active_commits() {
    let running = &summary(COMMIT_RUNNING)[0];
    assert!(
        running.ends_with("l3.qcow2[5]=qcow2 -> ActiveCommit /images/base.qcow2"),
        "{running}"
    );
    let ready = &summary(COMMIT_READY)[0];
    assert_eq!(*ready, format!("{running} ready"));
}

#[test]
fn recorded_inactive_definitions() {
    let alone = ["vda: /images/l3.qcow2=qcow2", "vdb: /images/d2.raw=raw"];
    assert_eq!(summary(SHUT_OFF)[..2], alone);
    assert_eq!(
        summary(AFTER_PIVOT_INACTIVE)[0],
        "vda: /images/base.qcow2=qcow2"
    );
    let chain = "vda: /images/base.qcow2=qcow2 /images/o.qcow2=qcow2";
    assert_eq!(summary(SHUT_OFF_WITH_CHAIN)[0], chain);
}

fn machine(live: bool, disk: &str) -> Result<Definition, Unreadable> {
    let id = if live { " id='1'" } else { "" };
    Definition::parse(&format!(
        "<domain{id}><name>a&amp;b&#33;</name><uuid>11111111-2222-3333-4444-555555555555</uuid>\
         <devices>{disk}</devices></domain>"
    ))
}

fn chain_of(live: bool, inside: &str) -> Result<String, Unreadable> {
    let target = "<target dev='vda'/>";
    let machine = machine(live, &format!("<disk {inside}{target}</disk>"))?;
    if let Some(error) = machine.unreadable.first() {
        return Err(error.clone());
    }
    Ok(machine.disks.iter().map(|disk| line(disk, live)).collect())
}

#[test]
fn a_name_is_unescaped() {
    assert_eq!(machine(true, "").unwrap().name, "a&b!");
}

#[test]
fn a_chain_without_its_end_is_unknown() {
    let overlay = "type='file'><driver type='qcow2'/><source file='/o' index='1'/>";
    let backing = "<backingStore type='file' index='2'><format type='qcow2'/><source file='/b'/>";
    let open = format!("{overlay}{backing}</backingStore>");
    let closed = format!("{overlay}{backing}<backingStore/></backingStore>");
    assert!(chain_of(true, overlay).is_err());
    assert!(chain_of(true, &open).is_err());
    assert_eq!(
        chain_of(true, &closed).unwrap(),
        "vda live: /b[2]=qcow2 /o[1]=qcow2"
    );
    // What is not running yet finds out when it starts.
    assert_eq!(chain_of(false, overlay).unwrap(), "vda: /o[1]=qcow2");
    assert_eq!(
        chain_of(false, &open).unwrap(),
        "vda: /b[2]=qcow2 /o[1]=qcow2"
    );
    let no_format = "type='file'><source file='/o' index='1'/>";
    assert!(chain_of(true, no_format).is_err());
    assert!(chain_of(true, &format!("{overlay}<backingStore type='file'/>")).is_err());
    let odd_index = "type='file'><driver type='raw'/><source file='/o' index='x'/>";
    assert!(chain_of(true, odd_index).is_err());
}

#[test]
fn sources_of_all_kinds() {
    for (inside, expected) in [
        (
            "type='block'><driver type='raw'/><source dev='/dev/v/a' index='1'/>",
            "block /dev/v/a[1]",
        ),
        (
            "type='network'><driver type='raw'/><source protocol='nbd' name='x'>\
             <host name='h' port='99'/></source>",
            "nbd://h:99/x",
        ),
        (
            "type='network'><driver type='raw'/><source protocol='rbd' name='p/x'/>",
            "Elsewhere(\"rbd\")",
        ),
        (
            "type='vhostuser'><driver type='raw'/><source type='unix' path='/s'/>",
            "Elsewhere(\"vhostuser\")",
        ),
        (
            "type='volume'><driver type='raw'/><source pool='p'/>",
            "Unresolved(\"volume\")",
        ),
        (
            "type='new'><driver type='raw'/><source/>",
            "Unresolved(\"new\")",
        ),
    ] {
        assert_eq!(
            chain_of(true, inside).unwrap(),
            format!("vda live: {expected}=raw")
        );
    }
    for empty in [
        "type='file' device='cdrom'>",
        "type='file'><source file=''/>",
        "type='file'><source/>",
    ] {
        assert_eq!(chain_of(true, empty).unwrap(), "", "{empty}");
    }
    for bad in [
        "type='network'><driver type='raw'/><source protocol='nbd' name='x'/>",
        "type='network'><driver type='raw'/><source name='x'/>",
        "type='file'><driver type='raw'/><source file='/a'/><mirror job='copy'/>",
        "type='file'><driver type='raw'/><source file='/a'/><dataStore type='file'/>",
    ] {
        assert!(chain_of(true, bad).is_err(), "{bad}");
    }
}

#[test]
fn every_source_of_a_disk_counts() {
    let disk = "<disk type='file'><driver type='qcow2'/><source file='/o'/><dataStore type='file'>\
                <format type='raw'/><source file='/data'/></dataStore><backingStore/>\
                <mirror type='file' job='copy'><source file='/copy'/></mirror>\
                <target dev='vda'/></disk>";
    let machine = machine(true, disk).unwrap();
    let names: Vec<_> = machine.disks[0].sources().map(name).collect();
    assert_eq!(names, ["/o", "/data", "/copy"]);
}

#[test]
fn what_is_not_a_machine() {
    for bad in [
        "",
        "x",
        "<domain",
        "<domain/>",
        "<pool><name/></pool>",
        "<domain><name>&bad;</name></domain>",
    ] {
        assert!(Definition::parse(bad).is_err(), "{bad}");
    }
    let deep = "<a>".repeat(100_000);
    assert!(Definition::parse(&deep).is_err());
}

/// Cuts out and puts in, at places of the recorded text.
fn damaged() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(String::new()),
        Just("<backingStore/>".to_owned()),
        Just("</backingStore>".to_owned()),
        Just("<".to_owned()),
        Just("'".to_owned()),
        Just("&#0;".to_owned()),
        "\\PC{0,8}",
    ];
    let text = prop_oneof![
        Just(CHAIN_OF_FOUR),
        Just(COMMIT_READY),
        Just(SHUT_OFF_WITH_CHAIN)
    ];
    (text, 0_usize..5000, 0_usize..200, piece).prop_map(|(text, at, cut, piece)| {
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        format!("{}{piece}{}", &text[..at], &text[end..])
    })
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,200}", tags in "(<[a-z]{1,3}( a='[a-z]')?/?>|</[a-z]{1,3}>|&[a-z#0-9]{0,4};){0,20}") {
        let _ = Definition::parse(&text);
        let _ = Definition::parse(&tags);
    }

    #[test]
    fn damage_never_panics(text in damaged()) {
        let _ = Definition::parse(&text);
    }

    /// Whatever end is cut off, a chain never comes out shorter.
    #[test]
    fn a_torn_definition_is_unreadable(cut in 1_usize..4000) {
        let end = CHAIN_OF_FOUR.trim_end().len().saturating_sub(cut);
        prop_assert!(Definition::parse(&CHAIN_OF_FOUR[..end]).is_err());
    }
}

#[test]
fn whether_discards_reach_the_images_is_said_by_the_driver() {
    let discards = |xml: &str| {
        let machine = Definition::parse(xml).unwrap();
        let disks = machine.disks.into_iter();
        disks.map(|disk| disk.discards).collect::<Vec<_>>()
    };
    let driver = "<driver name='qemu' type='qcow2'";
    assert!(CHAIN_OF_FOUR.contains(driver));
    assert!(!discards(CHAIN_OF_FOUR).contains(&true));
    let with =
        |value: &str| CHAIN_OF_FOUR.replacen(driver, &format!("{driver} discard='{value}'"), 1);
    assert!(discards(&with("unmap"))[0]);
    assert!(!discards(&with("unmap"))[1]);
    assert!(!discards(&with("ignore"))[0]);
}
