//! What stands on the storage: images with their blocks, and which image each is an overlay of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use livemerge_storage::{Format, Locator};

/// How large a guest sees an image that was not made larger, in bytes.
pub const IMAGE_BYTES: u64 = 1 << 30;

/// An image: the blocks that it holds itself, and the image below it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Image {
    backing: Option<Locator>,
    blocks: BTreeMap<u64, u64>,
    format: Format,
    /// How large a guest sees it.
    bytes: u64,
}

/// The images of a host, or of several that share them: clones see the same.
///
/// A block's content is one number. What was never written reads as 0.
#[derive(Debug, Clone, Default)]
pub struct FakeImages(Arc<Mutex<BTreeMap<Locator, Image>>>);

impl FakeImages {
    /// Makes an empty qcow2 image on top of `backing`, as large as that, instead of one that was there.
    pub fn create(&self, image: &Locator, backing: Option<&Locator>) {
        let mut images = self.lock();
        let below = backing.and_then(|below| images.get(below));
        let new = Image {
            backing: backing.cloned(),
            blocks: BTreeMap::new(),
            format: Format::Qcow2,
            bytes: below.map_or(IMAGE_BYTES, |below| below.bytes),
        };
        images.insert(image.clone(), new);
    }

    /// An image has no header, as if it had been made so: nothing can be below it.
    pub fn make_raw(&self, image: &Locator) {
        if let Some(image) = self.lock().get_mut(image) {
            image.format = Format::Raw;
        }
    }

    /// What an image is; `None` when it is not there.
    pub fn format(&self, image: &Locator) -> Option<Format> {
        Some(self.lock().get(image)?.format)
    }

    /// A guest sees an image so large from now on, or larger if it was.
    pub fn grow(&self, image: &Locator, bytes: u64) {
        if let Some(image) = self.lock().get_mut(image) {
            image.bytes = image.bytes.max(bytes);
        }
    }

    /// How large a guest sees an image, in bytes; `None` when it is not there.
    pub fn bytes(&self, image: &Locator) -> Option<u64> {
        Some(self.lock().get(image)?.bytes)
    }

    /// Removes an image. Tells whether there was one.
    pub fn remove(&self, image: &Locator) -> bool {
        self.lock().remove(image).is_some()
    }

    /// The image below, as the header names it.
    pub fn backing(&self, image: &Locator) -> Option<Locator> {
        self.lock().get(image)?.backing.clone()
    }

    /// The chain that a start from this image would open, base first. `None` when an image is
    /// missing or the chain runs in a circle.
    pub fn chain(&self, active: &Locator) -> Option<Vec<Locator>> {
        let images = self.lock();
        let mut chain = vec![active.clone()];
        while let Some(backing) = images.get(chain.last()?)?.backing.clone() {
            if chain.contains(&backing) {
                return None;
            }
            chain.push(backing);
        }
        chain.reverse();
        Some(chain)
    }

    /// What a machine that starts from this image would read. `None` when the chain is broken.
    pub fn read(&self, active: &Locator, block: u64) -> Option<u64> {
        self.chain(active)
            .map(|chain| self.read_chain(&chain, block))
    }

    /// All blocks that a machine which starts from this image would read. `None` when the chain is
    /// broken.
    pub fn content(&self, active: &Locator) -> Option<BTreeMap<u64, u64>> {
        let chain = self.chain(active)?;
        let images = self.lock();
        let layers = chain.iter().filter_map(|layer| images.get(layer));
        Some(
            layers
                .flat_map(|image| &image.blocks)
                .map(|(block, value)| (*block, *value))
                .collect(),
        )
    }

    /// The blocks that an image holds itself.
    pub fn own_blocks(&self, image: &Locator) -> BTreeSet<u64> {
        self.allocated(std::slice::from_ref(image))
    }

    /// Writes a block of one image.
    pub fn write(&self, image: &Locator, block: u64, value: u64) {
        if let Some(image) = self.lock().get_mut(image) {
            image.blocks.insert(block, value);
        }
    }

    /// Loses a block of one image, as if it had never been written.
    pub(super) fn lose(&self, image: &Locator, block: u64) {
        if let Some(image) = self.lock().get_mut(image) {
            image.blocks.remove(&block);
        }
    }

    /// Which image names which as the one below, in its header.
    pub fn backings(&self) -> Vec<(Locator, Locator)> {
        let images = self.lock();
        let named = images
            .iter()
            .filter_map(|(image, it)| Some((image.clone(), it.backing.clone()?)));
        named.collect()
    }

    /// The images whose headers name one of these, each with that one.
    pub fn built_on(&self, layers: &[Locator]) -> Vec<(Locator, Locator)> {
        let images = self.lock();
        let built_on = images.iter().filter_map(|(image, it)| {
            let below = it.backing.as_ref()?;
            let means = |layer: &Locator| are_spelt_alike(layer, below);
            layers
                .iter()
                .any(means)
                .then(|| (image.clone(), below.clone()))
        });
        built_on.collect()
    }

    /// Whether there is such an image.
    pub fn exists(&self, image: &Locator) -> bool {
        self.lock().contains_key(image)
    }

    /// Reads through an open chain, whatever the headers say meanwhile.
    pub(super) fn read_chain(&self, chain: &[Locator], block: u64) -> u64 {
        let images = self.lock();
        let found = chain
            .iter()
            .rev()
            .find_map(|layer| images.get(layer)?.blocks.get(&block));
        found.copied().unwrap_or_default()
    }

    /// The blocks that these layers hold themselves.
    pub(super) fn allocated(&self, layers: &[Locator]) -> BTreeSet<u64> {
        let images = self.lock();
        layers
            .iter()
            .filter_map(|layer| images.get(layer))
            .flat_map(|image| image.blocks.keys())
            .copied()
            .collect()
    }

    pub(super) fn rebase(&self, image: &Locator, backing: Option<&Locator>) {
        if let Some(image) = self.lock().get_mut(image) {
            image.backing = backing.cloned();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Locator, Image>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of many images most are of others, and to compare paths part by part takes long. Here each is spelt one way.
fn are_spelt_alike(one: &Locator, other: &Locator) -> bool {
    match (one, other) {
        (Locator::File(one), Locator::File(other)) => one.as_os_str() == other.as_os_str(),
        _ => one == other,
    }
}
