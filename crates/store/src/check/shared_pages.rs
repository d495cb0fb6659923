//! Pages that more than one name claims.

use crate::extent::Extent;
use std::cmp::Reverse;

/// Pages that more than one name claims.
pub(super) struct SharedPages {
    /// Apart from each other, in the order of the file.
    extents: Vec<Extent>,
}

impl SharedPages {
    /// Those of `claimed`, of which each overlaps an extent that was claimed before. Two extents lie apart, or one within the other: the
    /// largest say it all.
    pub(super) fn of(mut claimed: Vec<Extent>) -> SharedPages {
        claimed.sort_unstable_by_key(|extent| (extent.offset(), Reverse(extent.end())));
        claimed.dedup_by(|extent, before| extent.offset() < before.end());
        SharedPages { extents: claimed }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// A claimed extent that shares pages with this one.
    pub(super) fn overlapping(&self, extent: Extent) -> Option<Extent> {
        let next = self.extents.partition_point(|other| other.end() <= extent.offset());
        self.extents.get(next).copied().filter(|other| other.offset() < extent.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::SizeClass;
    use proptest::prelude::*;

    /// Within 2 MiB.
    fn extent() -> impl Strategy<Value = Extent> {
        (0..8u8, 0..512u64)
            .prop_map(|(class, page)| Extent::new(SizeClass::new(class).unwrap(), page >> class).unwrap())
    }

    fn overlap(one: Extent, other: Extent) -> bool {
        one.offset() < other.end() && other.offset() < one.end()
    }

    proptest! {
        #[test]
        fn what_overlaps_any_of_them_is_found(
            claimed in proptest::collection::vec(extent(), 0..12),
            others in proptest::collection::vec(extent(), 1..50),
        ) {
            let shared = SharedPages::of(claimed.clone());
            prop_assert_eq!(shared.is_empty(), claimed.is_empty());
            for extent in claimed.iter().chain(&others) {
                let found = shared.overlapping(*extent);
                prop_assert_eq!(found.is_some(), claimed.iter().any(|other| overlap(*extent, *other)));
                if let Some(found) = found {
                    prop_assert!(overlap(*extent, found) && claimed.contains(&found));
                }
            }
        }
    }
}
