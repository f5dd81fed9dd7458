//! Where the bytes of a chain lie: what a reader of a volume sees, piece by piece, and from which
//! of the volumes below.
//!
//! ```text
//!   top    ··DD····Z   depth 0     seen from the top:
//!   mid    DD··D·DD·   depth 1       DDDDD·DDZ
//!   base   D····D···   depth 2       110012110
//! ```
//!
//! [`survey`] sums it up by depth: what a job that merges some of the volumes would copy, where in
//! the volume that lies, and the room that it takes where it is written. Neither looks at data, nor keeps more than one piece
//! at a time: a large image that was written here and there has millions of them.

use crate::{Profile, StorageError};
use futures::{Stream, TryStreamExt as _};
use std::pin::Pin;

/// Where the data of a merge may go: both volumes take room in pieces of a size of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterBytes {
    /// Of the volume that is read.
    pub from: u64,
    /// Of the volume that the data would be copied into.
    pub kept: u64,
}

/// A piece of what a reader of a volume sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// The volume that it comes from: 0 for the one that is read, 1 for the one below it, and so on.
    pub depth: usize,
    /// What lies there.
    pub content: Content,
}

/// What a volume has of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Bytes.
    Data {
        /// They can be written anew without more room: they are not compressed.
        in_place: bool,
    },
    /// The mark, or a hole, that says that these are zeros.
    Zero,
    /// Nothing: no volume of the chain has it, and it reads as zeros.
    Nothing,
}

impl Extent {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// What a reader of a chain sees of one of its volumes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Bytes that a job copies which takes this volume away.
    pub data_bytes: u64,
    /// Bytes that it writes as zeros, without data.
    pub zero_bytes: u64,
    /// Room that the data take in the volume that is read, where nothing of them is: at most, since
    /// a cluster counts for every volume that has some of it.
    pub room_bytes: u64,
    /// The same in the other volume, where some of it may be written in place.
    pub new_bytes: u64,
}

impl std::iter::Sum for Share {
    fn sum<I: Iterator<Item = Self>>(shares: I) -> Self {
        shares.fold(Self::default(), |all, share| Self {
            data_bytes: all.data_bytes + share.data_bytes,
            zero_bytes: all.zero_bytes + share.zero_bytes,
            room_bytes: all.room_bytes + share.room_bytes,
            new_bytes: all.new_bytes + share.new_bytes,
        })
    }
}

/// Sums up by depth what a reader of a volume sees (`seen`). `kept` is what a reader of the volume
/// sees that the data would be copied into. Both begin at 0 and have no gaps. Depths from which
/// nothing is seen may be missing at the end.
///
/// # Errors
/// The first one of either.
pub async fn shares(
    seen: impl Stream<Item = Result<Extent, StorageError>>,
    kept: impl Stream<Item = Result<Extent, StorageError>>,
    clusters: ClusterBytes,
) -> Result<Vec<Share>, StorageError> {
    let survey = survey(seen, kept, clusters).await?;
    Ok(survey.seen.into_iter().map(|(share, _)| share).collect())
}

/// What a merge of some volumes of a chain would have to do, and what is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// By depth: what a reader of the volume sees, and where the data lie.
    pub seen: Vec<(Share, Profile)>,
    /// Room that the data take which the kept volume has of its own, whoever sees them.
    pub kept_bytes: u64,
}

/// The same, with where the data of each depth lie, and what the kept volume has.
///
/// # Errors
/// The first one of either.
pub async fn survey(
    seen: impl Stream<Item = Result<Extent, StorageError>>,
    kept: impl Stream<Item = Result<Extent, StorageError>>,
    clusters: ClusterBytes,
) -> Result<Survey, StorageError> {
    let mut seen = std::pin::pin!(seen);
    let mut kept = Kept {
        extents: std::pin::pin!(kept),
        at: None,
        own: Clusters::of(clusters.kept),
    };
    let mut sums: Vec<Sum> = Vec::new();
    while let Some(extent) = seen.try_next().await? {
        if sums.len() <= extent.depth {
            sums.resize_with(extent.depth + 1, || Sum::new(clusters));
        }
        let sum = &mut sums[extent.depth];
        match extent.content {
            Content::Data { .. } => {
                sum.data_bytes += extent.length;
                sum.profile.add(extent.start, extent.length);
                sum.room.take(extent.start, extent.end());
                kept.lacks(&extent, &mut sum.new).await?;
            }
            Content::Zero => sum.zero_bytes += extent.length,
            Content::Nothing => {}
        }
    }
    while kept.next().await?.is_some() {}
    Ok(Survey {
        seen: sums.into_iter().map(Sum::share).collect(),
        kept_bytes: kept.own.bytes,
    })
}

struct Sum {
    data_bytes: u64,
    zero_bytes: u64,
    profile: Profile,
    room: Clusters,
    new: Clusters,
}

impl Sum {
    fn new(clusters: ClusterBytes) -> Self {
        Self {
            data_bytes: 0,
            zero_bytes: 0,
            profile: Profile::default(),
            room: Clusters::of(clusters.from),
            new: Clusters::of(clusters.kept),
        }
    }

    fn share(self) -> (Share, Profile) {
        let share = Share {
            data_bytes: self.data_bytes,
            zero_bytes: self.zero_bytes,
            room_bytes: self.room.bytes,
            new_bytes: self.new.bytes,
        };
        (share, self.profile)
    }
}

/// Clusters that ranges touch. The ranges come in order.
struct Clusters {
    /// Of one.
    size: u64,
    bytes: u64,
    /// The end of the last one.
    end: u64,
}

impl Clusters {
    fn of(size: u64) -> Self {
        Self {
            size: size.max(1),
            bytes: 0,
            end: 0,
        }
    }

    fn take(&mut self, start: u64, end: u64) {
        let first = (start - start % self.size).max(self.end);
        let last = end.saturating_add(self.size - 1);
        let last = last - last % self.size;
        if last > first {
            self.bytes += last - first;
            self.end = last;
        }
    }
}

/// The volume that is kept, read as far as it was asked for.
struct Kept<'a, S> {
    extents: Pin<&'a mut S>,
    at: Option<Extent>,
    /// What of it is its own, so far.
    own: Clusters,
}

impl<S: Stream<Item = Result<Extent, StorageError>>> Kept<'_, S> {
    /// What of the piece it cannot take in place. The pieces come in order.
    async fn lacks(&mut self, wanted: &Extent, lacking: &mut Clusters) -> Result<(), StorageError> {
        let mut from = wanted.start;
        while from < wanted.end() {
            let Some(own) = self.over(from).await? else {
                lacking.take(from, wanted.end());
                return Ok(());
            };
            let until = own.end().min(wanted.end());
            if own.depth != 0 || own.content != (Content::Data { in_place: true }) {
                lacking.take(from, until);
            }
            from = until;
        }
        Ok(())
    }

    /// The piece that has the byte; `None` behind the end.
    async fn over(&mut self, byte: u64) -> Result<Option<Extent>, StorageError> {
        while self.at.is_none_or(|own| own.end() <= byte) {
            if self.next().await?.is_none() {
                return Ok(None);
            }
        }
        Ok(self.at)
    }

    async fn next(&mut self) -> Result<Option<Extent>, StorageError> {
        self.at = self.extents.try_next().await?;
        if let Some(extent) = &self.at
            && extent.depth == 0
            && matches!(extent.content, Content::Data { .. })
        {
            self.own.take(extent.start, extent.end());
        }
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    const NEW: Content = Content::Data { in_place: false };
    const DATA: Content = Content::Data { in_place: true };
    const KIB: u64 = 1 << 10;
    const USUAL: ClusterBytes = ClusterBytes {
        from: 64 * KIB,
        kept: 64 * KIB,
    };

    /// From lengths in KiB, depths and contents.
    fn map(
        pieces: &[(u64, usize, Content)],
    ) -> impl Stream<Item = Result<Extent, StorageError>> + use<> {
        let mut start = 0;
        let extents = pieces.iter().map(|(length, depth, content)| {
            let (length, depth, content) = (length * KIB, *depth, *content);
            start += length;
            Ok(Extent {
                start: start - length,
                length,
                depth,
                content,
            })
        });
        stream::iter(extents.collect::<Vec<_>>())
    }

    fn kib(data: u64, zero: u64, room: u64, new: u64) -> Share {
        Share {
            data_bytes: data * KIB,
            zero_bytes: zero * KIB,
            room_bytes: room * KIB,
            new_bytes: new * KIB,
        }
    }

    #[tokio::test]
    async fn each_depth_has_what_is_seen_of_it() {
        use Content::{Nothing, Zero};
        let seen = map(&[
            (64, 0, DATA),
            (128, 1, NEW),
            (64, 0, Zero),
            (64, 0, Nothing),
            (192, 1, DATA),
            (64, 3, Zero),
        ]);
        let kept = map(&[(1024, 0, Nothing)]);
        let shares = shares(seen, kept, USUAL).await.unwrap();
        let none = Share::default();
        let wanted = [
            kib(64, 64, 64, 64),
            kib(320, 0, 320, 320),
            none,
            kib(0, 64, 0, 0),
        ];
        assert_eq!(shares, wanted);
        assert_eq!(shares.into_iter().sum::<Share>(), kib(384, 128, 384, 384));
    }

    #[tokio::test]
    async fn what_the_kept_volume_has_in_place_takes_no_room() {
        use Content::{Nothing, Zero};
        type Case<'a> = (&'a [(u64, usize, Content)], u64);
        let cases: [Case<'_>; 8] = [
            (&[(640, 0, DATA)], 0),
            (&[(64, 0, DATA), (576, 0, Nothing)], 576),
            // Not its own, compressed, zeros, and behind its end.
            (&[(640, 1, DATA)], 640),
            (&[(640, 0, NEW)], 640),
            (&[(640, 0, Zero)], 640),
            (&[(320, 0, DATA)], 320),
            (&[], 640),
            // In small pieces.
            (
                &[(64, 0, DATA), (64, 1, DATA), (64, 0, Zero), (448, 0, DATA)],
                128,
            ),
        ];
        for (own, new) in cases {
            let in_one = shares(map(&[(640, 0, DATA)]), map(own), USUAL).await;
            let in_one = in_one.unwrap();
            assert_eq!(in_one, [kib(640, 0, 640, new)], "{own:?}");
            let pieces = [(64, 0, DATA); 10];
            let in_pieces = shares(map(&pieces), map(own), USUAL).await;
            assert_eq!(in_pieces.unwrap(), in_one);
        }
    }

    #[tokio::test]
    async fn what_the_kept_volume_has_of_its_own_is_counted_to_its_end() {
        use Content::{Nothing, Zero};
        let seen = || map(&[(64, 0, DATA), (576, 0, Nothing)]);
        for (kept, own) in [
            (&[][..], 0),
            (&[(640, 1, DATA)], 0),
            (&[(64, 0, DATA), (512, 0, Nothing), (64, 0, NEW)], 128),
            (
                &[(4, 0, DATA), (60, 0, Zero), (572, 0, Nothing), (4, 0, DATA)],
                128,
            ),
        ] {
            let found = survey(seen(), map(kept), USUAL).await.unwrap();
            assert_eq!(found.kept_bytes, own * KIB, "{kept:?}");
        }
    }

    #[tokio::test]
    async fn a_cluster_is_taken_once_and_whole() {
        use Content::Nothing;
        let seen = map(&[
            (2, 0, DATA),
            (2, 0, Nothing),
            (2, 0, DATA),
            (90, 0, Nothing),
            (64, 0, DATA),
        ]);
        let sums = shares(seen, map(&[]), USUAL).await.unwrap();
        assert_eq!(sums, [kib(68, 0, 192, 192)]);
    }

    #[tokio::test]
    async fn each_volume_takes_room_in_pieces_of_its_own() {
        use Content::Nothing;
        for (from, kept, room, new) in [
            (64, 2048, 128, 4096),
            (2048, 4, 4096, 8),
            (4, 64, 8, 128),
            (512, 512, 1024, 1024),
        ] {
            let seen = map(&[(4, 0, DATA), (4092, 0, Nothing), (4, 0, DATA)]);
            let clusters = ClusterBytes {
                from: from * KIB,
                kept: kept * KIB,
            };
            let sums = shares(seen, map(&[]), clusters).await.unwrap();
            assert_eq!(sums, [kib(8, 0, room, new)], "{from} {kept}");
        }
    }

    #[tokio::test]
    async fn an_error_of_either_is_the_answer() {
        let lost = || {
            let error = StorageError::Busy {
                what: "it".to_owned(),
            };
            stream::iter([Err(error)])
        };
        shares(lost(), map(&[]), USUAL).await.unwrap_err();
        let seen = map(&[(64, 0, DATA)]);
        shares(seen, lost(), USUAL).await.unwrap_err();
    }
}
