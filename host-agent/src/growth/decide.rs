//! Whether a layer has room enough.

/// A layer that QEMU writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer {
    /// How far it is written; 0 when it was not since it was opened.
    pub(super) written_to: u64,
    /// When the hypervisor will say so; 0 for never.
    pub(super) watched_at: u64,
    /// The room that it has.
    pub(super) room: u64,
}

/// What is to be done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it has room, and whoever fills it is heard of.
    Enough,
    /// To be told when it is written beyond this byte.
    Watch(u64),
    /// It needs room for so many bytes.
    Give(u64),
}

/// `margin`: the room that shall be left when more is given, at most half of what there is.
pub(super) fn decide(layer: Layer, margin: u64) -> Next {
    let margin = margin.min(layer.room / 2);
    let watch = layer.room - margin;
    if layer.written_to >= watch {
        return Next::Give(
            layer
                .written_to
                .saturating_add(margin)
                .max(layer.room.saturating_add(1)),
        );
    }
    match layer.watched_at == watch {
        true => Next::Enough,
        false => Next::Watch(watch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn more_is_given_before_it_is_full() {
        let layer = |written_to, watched_at| Layer {
            written_to,
            watched_at,
            room: 1024 * MIB,
        };
        for (written_to, watched_at, next) in [
            (0, 0, Next::Watch(768 * MIB)),
            (0, 768 * MIB, Next::Enough),
            (767 * MIB, 768 * MIB, Next::Enough),
            (768 * MIB, 0, Next::Give(1024 * MIB + 1)),
            (1000 * MIB, 0, Next::Give(1256 * MIB)),
            (1024 * MIB, 0, Next::Give(1280 * MIB)),
        ] {
            assert_eq!(
                decide(layer(written_to, watched_at), 256 * MIB),
                next,
                "{written_to}"
            );
        }
        let small = Layer {
            written_to: MIB,
            watched_at: 0,
            room: 4 * MIB,
        };
        assert_eq!(decide(small, 256 * MIB), Next::Watch(2 * MIB));
    }

    proptest! {
        #[test]
        fn what_is_given_is_more_and_then_it_is_watched(written_to in 0..1_u64 << 50, room in 2..1_u64 << 50, margin in 1..1_u64 << 40) {
            let layer = Layer { written_to: written_to.min(room), watched_at: 0, room };
            match decide(layer, margin) {
                Next::Give(bytes) => prop_assert!(bytes > room),
                Next::Watch(at) => {
                    prop_assert!(at > layer.written_to && at < room);
                    prop_assert_eq!(decide(Layer { watched_at: at, ..layer }, margin), Next::Enough);
                }
                Next::Enough => prop_assert!(false, "it is not watched"),
            }
        }
    }
}
