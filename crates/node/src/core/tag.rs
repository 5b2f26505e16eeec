//! Entity tags: the version of a record as a session knows it.

use api::types::Etag;
use model::{Hlc, Origin, RegionId, Stamp};

/// The tag of a version.
pub(crate) fn of(stamp: Stamp) -> Etag {
    let Stamp { hlc, origin, sequence } = stamp;
    Etag::new(format!("{:x}-{}.{}-{sequence}", hlc.bits(), origin.region.get(), origin.incarnation))
        .expect("hexadecimal, digits, points and dashes may stand between quotes")
}

/// The version of a tag; a tag that is not ours is the version of nothing.
pub(crate) fn parse(tag: &Etag) -> Option<Stamp> {
    let mut parts = tag.as_str().split('-');
    let hlc = u64::from_str_radix(parts.next()?, 16).ok()?;
    let (region, incarnation) = parts.next()?.split_once('.')?;
    let sequence = parts.next()?.parse().ok()?;
    let origin = Origin::new(RegionId::new(region.parse().ok()?), incarnation.parse().ok()?);
    parts.next().is_none().then_some(Stamp { hlc: Hlc::from_bits(hlc), origin, sequence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tag_is_its_version(hlc: u64, region: u16, incarnation: u16, sequence: u64) {
            let stamp = Stamp {
                hlc: Hlc::from_bits(hlc),
                origin: Origin::new(RegionId::new(region), incarnation),
                sequence,
            };
            prop_assert_eq!(parse(&of(stamp)), Some(stamp));
        }

        #[test]
        fn arbitrary_tags_never_panic(text in "[!#-~]{1,64}") {
            if let Some(tag) = Etag::new(text) {
                let _ = parse(&tag);
            }
        }
    }
}
