//! Where the bytes of a chain lie.

use super::{Fixture, SIZE, assert_not_found, base, clear, overlay};
use crate::{ClusterBytes, Content, LiveVolumes, Share, StorageError, VolumeInfo, shares};
use futures::TryStreamExt as _;

const MIB: u64 = 1 << 20;

/// From its first byte to its last, of each volume what no younger one hides; also while a machine
/// has it open.
pub async fn what_a_reader_sees_of_each_volume_is_told(
    store: &dyn LiveVolumes,
    fixture: &dyn Fixture,
) {
    let below = base(store, &fixture.name("seen-below")).await;
    let middle = overlay(store, &fixture.name("seen-middle"), &below).await;
    let top = overlay(store, &fixture.name("seen-top"), &middle).await;
    fixture.write(&below, 0, 4 * MIB, 1).await;
    fixture.write(&middle, 3 * MIB, 2 * MIB, 2).await;
    fixture.write(&top, MIB, MIB, 3).await;
    let opened = fixture.open(&top).await;
    assert_eq!(
        seen(store, &top, &below).await,
        [(MIB, 0), (2 * MIB, MIB), (2 * MIB, 0)]
    );
    assert_eq!(
        seen(store, &top, &top).await,
        [(MIB, 0), (2 * MIB, 2 * MIB), (2 * MIB, 2 * MIB)]
    );
    assert_eq!(
        seen(store, &middle, &below).await,
        [(2 * MIB, MIB), (3 * MIB, 0)]
    );
    let all = store.extents(&top.volume.name);
    let all: Vec<_> = all.try_collect().await.unwrap();
    let end = all.iter().fold(0, |end, extent| {
        assert_eq!(extent.start, end);
        end + extent.length
    });
    assert_eq!(end, SIZE);
    assert!(all.iter().any(|extent| extent.content == Content::Nothing));
    opened.close().await;
    clear(store, &[&top, &middle, &below]).await;
    let gone: Result<Vec<_>, StorageError> = store.extents(&top.volume.name).try_collect().await;
    assert_not_found(&gone);
}

/// The data of each depth, and the room that they would need in a volume.
async fn seen(store: &dyn LiveVolumes, from: &VolumeInfo, kept: &VolumeInfo) -> Vec<(u64, u64)> {
    let clusters = ClusterBytes {
        from: from.cluster_bytes,
        kept: kept.cluster_bytes,
    };
    let [from, kept] = [from, kept].map(|info| store.extents(&info.volume.name));
    let shares: Vec<Share> = shares(from, kept, clusters).await.unwrap();
    shares
        .iter()
        .map(|share| (share.data_bytes, share.new_bytes))
        .collect()
}
