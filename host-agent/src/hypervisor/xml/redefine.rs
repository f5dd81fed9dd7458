//! Changes what a definition's disks start from, and leaves every other byte as it is.
//!
//! ```text
//!   <disk>                    with_overlays           <disk>
//!     <driver type='F'/>      ─────────────▶            <driver type='qcow2'/>
//!     <source A/>                                       <source NEW/>
//!     <backingStore> B                                  <backingStore> A
//!                             without_layers              <backingStore> B
//!                             ◀─────────────
//! ```
//!
//! Layers that libvirt has taken out below an image, it gets back: `with_layers_below`.
//!
//! A chain that the definition writes down overrules the images' headers, so it must follow; one
//! that it does not write down is left to the headers.

use std::ops::Range;

use livemerge_proto::ids::DiskTarget;
use livemerge_storage::{Format, Locator};

use super::disk::{Source, source};
use super::source::{Unwritable, format_name, path_attribute, source_element};
use super::{Element, Unreadable};
use crate::hypervisor::Overlay;

/// Why a definition cannot be changed like that. Nothing was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::hypervisor) enum Unchangeable {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
}

type Changed<T> = Result<T, Unchangeable>;

/// The definition with these overlays on top of their disks' sources.
pub(in crate::hypervisor) fn with_overlays(xml: &str, overlays: &[&Overlay]) -> Changed<String> {
    let domain = Element::parse(xml)?;
    let mut edits = Edits::default();
    for overlay in overlays {
        let disk = disk(&domain, &overlay.disk)?;
        if let Some(written) = disk.child("backingStore") {
            edits.before(&written.span, layer_open(disk)?);
            edits.after(&written.span, "</backingStore>".to_owned());
        }
        edits.format(disk, Format::Qcow2);
        edits.source(disk, &overlay.locator)?;
    }
    Ok(edits.apply(xml))
}

/// The definition with these layers (oldest first) taken out of a disk's chain, so that the kept
/// one lies where the youngest of them did. `None` when it names none of them.
pub(in crate::hypervisor) fn without_layers(
    xml: &str,
    target: &DiskTarget,
    removed: &[Locator],
    kept: (&Locator, Format),
) -> Changed<Option<String>> {
    let domain = Element::parse(xml)?;
    let disk = disk(&domain, target)?;
    let written = Written::of(disk)?;
    let Some(top) = written.place(removed)? else {
        return Ok(None);
    };
    let kept_level = written.kept(top, removed, kept.0)?;
    let mut edits = Edits::default();
    if top == 0 {
        let below = kept_level.and_then(|level| level.child("backingStore"));
        if let Some(old) = disk.child("backingStore") {
            let below = below.map_or("", |below| &xml[below.span.clone()]);
            edits.replace(&old.span, below.to_owned());
        }
        edits.format(disk, kept.1);
        edits.source(disk, kept.0)?;
    } else {
        let new = match kept_level {
            Some(level) => xml[level.span.clone()].to_owned(),
            None => layer(kept, "")?,
        };
        edits.replace(&written.levels[top].span, new);
    }
    Ok(Some(edits.apply(xml)))
}

/// The definition with these layers (oldest first) between an image of a disk's chain and what is
/// written below it, an end of the chain included.
pub(in crate::hypervisor) fn with_layers_below(
    xml: &str,
    target: &DiskTarget,
    image: &Locator,
    lost: &[(Locator, Format)],
) -> Changed<String> {
    let domain = Element::parse(xml)?;
    let written = Written::of(disk(&domain, target)?)?;
    let level = (0..written.levels.len()).find(|level| written.names(*level, image));
    let below = level.and_then(|level| written.levels[level].child("backingStore"));
    let below = below.ok_or_else(another_chain)?;
    let mut chain = xml[below.span.clone()].to_owned();
    for (locator, format) in lost {
        chain = layer((locator, *format), &chain)?;
    }
    let mut edits = Edits::default();
    edits.replace(&below.span, chain);
    Ok(edits.apply(xml))
}

/// The chain as a definition writes it down.
struct Written<'a> {
    /// The `<disk>`, and below it each `<backingStore>` that names something.
    levels: Vec<&'a Element>,
    sources: Vec<Source>,
    /// Whether it says where the chain ends.
    ends: bool,
}

impl<'a> Written<'a> {
    fn of(disk: &'a Element) -> Result<Self, Unreadable> {
        let (mut levels, mut sources) = (Vec::new(), Vec::new());
        let (mut next, mut ends) = (Some(disk), false);
        while let Some(level) = next {
            let named = source(level)?.ok_or_else(|| Unreadable::lacks("the source of a layer"))?;
            sources.push(named);
            levels.push(level);
            next = level.child("backingStore");
            ends = next.is_some_and(Element::is_empty);
            next = next.filter(|below| !below.is_empty());
        }
        Ok(Self {
            levels,
            sources,
            ends,
        })
    }

    fn names(&self, level: usize, locator: &Locator) -> bool {
        self.sources
            .get(level)
            .is_some_and(|source| source.locator() == Some(locator))
    }

    /// The level of the youngest removed layer.
    fn place(&self, removed: &[Locator]) -> Result<Option<usize>, Unreadable> {
        let is_removed = |source: &Source| source.locator().is_some_and(|at| removed.contains(at));
        let first = self.sources.iter().position(is_removed);
        match (first, removed.last()) {
            (Some(first), Some(top)) if !self.names(first, top) => Err(another_chain()),
            _ => Ok(first),
        }
    }

    /// The level of the kept layer, if it is written down, with all removed ones above it.
    fn kept(
        &self,
        top: usize,
        removed: &[Locator],
        kept: &Locator,
    ) -> Result<Option<&'a Element>, Unreadable> {
        let expected = removed.iter().rev().chain([kept]);
        for (level, expected) in (top..).zip(expected) {
            if level == self.levels.len() && !self.ends {
                return Ok(None);
            }
            if !self.names(level, expected) {
                return Err(another_chain());
            }
        }
        Ok(self.levels.get(top + removed.len()).copied())
    }
}

fn another_chain() -> Unreadable {
    Unreadable::new("writes down another chain than the one that is merged")
}

fn disk<'a>(domain: &'a Element, target: &DiskTarget) -> Result<&'a Element, Unreadable> {
    let devices = domain.children.iter().filter(|it| it.name == "devices");
    let disks = devices.flat_map(|devices| &devices.children);
    let is_wanted = |it: &&Element| {
        let name = it.child("target").and_then(|at| at.attribute("dev"));
        it.name == "disk" && name == Some(target.as_str())
    };
    let mut disks = disks.filter(is_wanted);
    disks
        .next()
        .ok_or_else(|| Unreadable::lacks(&format!("the disk {target}")))
}

/// The beginning of the `<backingStore>` that a disk's present source becomes.
fn layer_open(disk: &Element) -> Changed<String> {
    let named = source(disk)?.ok_or_else(|| Unreadable::lacks("the source of a disk"))?;
    let locator = named
        .locator()
        .ok_or_else(|| Unreadable::new("has a disk whose source is no volume"))?;
    let (kind, source) = source_element(locator)?;
    let driver = disk.child("driver");
    // What libvirt takes a source for whose format is not said.
    let format = driver.and_then(|driver| driver.attribute("type"));
    let format = format.unwrap_or("raw");
    Ok(format!(
        "<backingStore type='{kind}'><format type='{format}'/>{source}"
    ))
}

/// A layer that has this written below it.
fn layer((locator, format): (&Locator, Format), below: &str) -> Changed<String> {
    let (kind, source) = source_element(locator)?;
    let format = format_name(format);
    Ok(format!(
        "<backingStore type='{kind}'><format type='{format}'/>{source}{below}</backingStore>"
    ))
}

/// What is to be changed, by its place in the document.
#[derive(Default)]
struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    fn replace(&mut self, place: &Range<usize>, text: String) {
        self.0.push((place.clone(), text));
    }

    fn before(&mut self, place: &Range<usize>, text: String) {
        self.replace(&(place.start..place.start), text);
    }

    fn after(&mut self, place: &Range<usize>, text: String) {
        self.replace(&(place.end..place.end), text);
    }

    /// Sets an attribute's value, which stands between quotes of either kind.
    fn attribute(&mut self, element: &Element, name: &str, value: &str) {
        match element.place_of(name) {
            Some(found) => self.replace(&found.value_at, value.to_owned()),
            None => {
                let behind_name = element.tag.start + 1 + element.name.len();
                let text = format!(" {name}='{value}'");
                self.replace(&(behind_name..behind_name), text);
            }
        }
    }

    fn format(&mut self, disk: &Element, format: Format) {
        let format = format_name(format);
        match disk.child("driver") {
            Some(driver) => self.attribute(driver, "type", format),
            None => self.after(&disk.tag, format!("<driver name='qemu' type='{format}'/>")),
        }
    }

    fn source(&mut self, disk: &Element, locator: &Locator) -> Changed<()> {
        let source = disk.child("source");
        let source = source.ok_or_else(|| Unreadable::lacks("the source of a disk"))?;
        // Both belong to the one image that they stand with.
        let apart = [
            ("encryption", source),
            ("slices", source),
            ("encryption", disk),
        ];
        if apart.iter().any(|(name, at)| at.child(name).is_some()) {
            return Err(
                Unreadable::new("has a disk whose source is only a part, or encrypted").into(),
            );
        }
        if let Locator::Nbd(_) = locator {
            return self.server(disk, source, locator);
        }
        let old = source.place_of("file").or_else(|| source.place_of("dev"));
        let old = old.ok_or_else(|| Unreadable::new("has a disk whose source has no path"))?;
        let (kind, attribute, path) = path_attribute(locator)?;
        self.attribute(disk, "type", kind);
        self.replace(&old.key_at, attribute.to_owned());
        self.replace(&old.value_at, path);
        Ok(())
    }

    /// Another export in the place of one. Of a server libvirt writes down nothing but how it is reached.
    fn server(&mut self, disk: &Element, source: &Element, locator: &Locator) -> Changed<()> {
        let (kind, element) = source_element(locator)?;
        let reached = |child: &Element| matches!(&*child.name, "host" | "reconnect");
        if source.attribute("protocol") != Some("nbd") || !source.children.iter().all(reached) {
            return Err(Unreadable::new("has a disk whose source is more than an export").into());
        }
        self.attribute(disk, "type", kind);
        self.replace(&source.span, element);
        Ok(())
    }

    fn apply(mut self, document: &str) -> String {
        self.0.sort_by_key(|(place, _)| (place.start, place.end));
        let mut changed = String::with_capacity(document.len());
        let mut done = 0;
        for (place, text) in self.0 {
            changed.push_str(&document[done..place.start]);
            changed.push_str(&text);
            done = place.end;
        }
        changed.push_str(&document[done..]);
        changed
    }
}

#[cfg(test)]
mod tests;
