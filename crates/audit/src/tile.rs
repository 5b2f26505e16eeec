//! The files of a log as C2SP tlog-tiles names and encodes them: tiles of hashes, and bundles of entries.
//!
//! Paths are relative to the log's prefix: `tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]`.
//! It must accept exactly one spelling of each path and one encoding of each bundle.

use std::fmt;
use std::str::FromStr;

use crate::merkle::{HASH_SIZE_BYTES, Hash};

/// Levels of the tree in one tile.
pub const HEIGHT: u8 = 8;
/// Hashes in a full tile, entries in a full bundle.
pub const WIDTH: u16 = 1 << HEIGHT;
/// Bytes in the largest entry: what its length prefix can say.
pub const ENTRY_SIZE_BYTES_MAX: usize = u16::MAX as usize;
/// The highest level of tiles that a tree of 2^64 leaves has.
pub const LEVEL_MAX: u8 = 7;

/// Digits in one element of an index in a path.
const GROUP: u64 = 1000;
/// Elements of the largest index: 2^64 has 20 digits.
const GROUPS_MAX: usize = 7;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The hashes of a level of tiles, 0 being the leaves' hashes.
    Hashes {
        /// The level, at most [`LEVEL_MAX`].
        level: u8,
    },
    /// The entries themselves.
    Entries,
}

/// One file of a log. It can only be made with values that its path can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    kind: Kind,
    index: u64,
    width: u16,
}

/// A text is not the path of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile")]
pub struct NotATile;

/// Why a bundle could not be encoded or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// An entry is longer than its prefix can say.
    #[error("entry {position} of the bundle has {size_bytes} bytes, more than {ENTRY_SIZE_BYTES_MAX}")]
    EntryTooLong {
        /// Its place in the bundle.
        position: usize,
        /// Its length.
        size_bytes: usize,
    },
    /// The bytes end inside an entry.
    #[error("the bundle ends inside its entry {position}")]
    CutOff {
        /// The entry's place in the bundle.
        position: usize,
    },
    /// More entries than a bundle can have.
    #[error("the bundle has more than {WIDTH} entries")]
    TooMany,
}

impl Tile {
    /// A tile of hashes of `level`, or none when level or width are impossible. `width` is 1 to 256.
    pub fn hashes(level: u8, index: u64, width: u16) -> Option<Self> {
        let possible = level <= LEVEL_MAX && (1..=WIDTH).contains(&width);
        possible.then_some(Self { kind: Kind::Hashes { level }, index, width })
    }

    /// A bundle of entries, or none when the width is impossible. `width` is 1 to 256.
    pub fn entries(index: u64, width: u16) -> Option<Self> {
        (1..=WIDTH).contains(&width).then_some(Self { kind: Kind::Entries, index, width })
    }

    /// What it holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many full tiles of its level stand to its left.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds: 256 when full.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The index of its first hash or entry on its level.
    pub fn first(&self) -> u64 {
        self.index.saturating_mul(u64::from(WIDTH))
    }

    /// The tile as it is in a tree of `size` leaves: full, partial, or none when the tree does not reach it.
    pub fn at(kind: Kind, index: u64, size: u64) -> Option<Self> {
        let level = match kind {
            Kind::Hashes { level } if level <= LEVEL_MAX => level,
            Kind::Hashes { .. } => return None,
            Kind::Entries => 0,
        };
        let held = size >> (u32::from(level) * u32::from(HEIGHT));
        let left = held.checked_sub(index.checked_mul(u64::from(WIDTH))?)?;
        let width = left.min(u64::from(WIDTH)) as u16;
        (width > 0).then_some(Self { kind, index, width })
    }

    /// Every file of the log of `size` leaves: bundles of entries first, then tiles from level 0 up.
    pub fn all(size: u64) -> impl Iterator<Item = Self> {
        let kinds = std::iter::once(Kind::Entries).chain((0..=LEVEL_MAX).map(|level| Kind::Hashes { level }));
        kinds.flat_map(move |kind| (0..).map_while(move |index| Self::at(kind, index, size)))
    }
}

/// The bytes of a tile of hashes.
pub fn encode_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// The hashes of a tile, or none when the bytes are not of `width` hashes.
pub fn decode_hashes(bytes: &[u8], width: u16) -> Option<Vec<Hash>> {
    let expected = usize::from(width) * HASH_SIZE_BYTES;
    (bytes.len() == expected).then(|| bytes.chunks_exact(HASH_SIZE_BYTES).filter_map(Hash::from_slice).collect())
}

/// The bytes of a bundle: each entry behind its length in two bytes, big endian.
pub fn encode_entries<T: AsRef<[u8]>>(entries: &[T]) -> Result<Vec<u8>, BundleError> {
    if entries.len() > usize::from(WIDTH) {
        return Err(BundleError::TooMany);
    }
    let mut bytes = Vec::with_capacity(entries.iter().map(|entry| entry.as_ref().len() + 2).sum());
    for (position, entry) in entries.iter().enumerate() {
        let entry = entry.as_ref();
        let too_long = BundleError::EntryTooLong { position, size_bytes: entry.len() };
        bytes.extend_from_slice(&u16::try_from(entry.len()).map_err(|_| too_long)?.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// The entries of a bundle, which may be fewer than its path says.
pub fn decode_entries(mut bytes: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let position = entries.len();
        if position == usize::from(WIDTH) {
            return Err(BundleError::TooMany);
        }
        let (length, rest) = bytes.split_first_chunk::<2>().ok_or(BundleError::CutOff { position })?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or(BundleError::CutOff { position })?;
        entries.push(entry);
        bytes = rest;
    }
    Ok(entries)
}

impl fmt::Display for Tile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hashes { level } => write!(formatter, "tile/{level}/")?,
            Kind::Entries => formatter.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % GROUP];
        let mut rest = self.index / GROUP;
        while rest > 0 {
            groups.push(rest % GROUP);
            rest /= GROUP;
        }
        for group in groups[1..].iter().rev() {
            write!(formatter, "x{group:03}/")?;
        }
        write!(formatter, "{:03}", groups[0])?;
        if self.width < WIDTH { write!(formatter, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for Tile {
    type Err = NotATile;

    fn from_str(path: &str) -> Result<Self, NotATile> {
        let rest = path.strip_prefix("tile/").ok_or(NotATile)?;
        let (kind, rest) = rest.split_once('/').ok_or(NotATile)?;
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse::<u16>().map_err(|_| NotATile)?),
            None => (rest, WIDTH),
        };
        let index = parse_index(index)?;
        let tile = match kind {
            "entries" => Self::entries(index, width),
            level => Self::hashes(level.parse().map_err(|_| NotATile)?, index, width),
        };
        // Only one spelling counts: no plus signs, no leading zeros, no `.p/256`.
        tile.filter(|tile| tile.to_string() == path).ok_or(NotATile)
    }
}

fn parse_index(text: &str) -> Result<u64, NotATile> {
    let mut index = 0_u64;
    let mut groups = text.split('/').peekable();
    for _ in 0..GROUPS_MAX {
        let group = groups.next().ok_or(NotATile)?;
        let last = groups.peek().is_none();
        let digits = if last { group } else { group.strip_prefix('x').ok_or(NotATile)? };
        let number = digits.parse::<u64>().map_err(|_| NotATile)?;
        index = index.checked_mul(GROUP).and_then(|index| index.checked_add(number)).ok_or(NotATile)?;
        if last {
            return Ok(index);
        }
    }
    Err(NotATile)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let check = |tile: Option<Tile>, path: &str| {
            assert_eq!(tile.unwrap().to_string(), path);
            assert_eq!(path.parse(), Ok(tile.unwrap()));
        };
        check(Tile::hashes(0, 1_234_067, 256), "tile/0/x001/x234/067");
        check(Tile::hashes(0, 1_067, 256), "tile/0/x001/067");
        check(Tile::hashes(1, 0, 17), "tile/1/000.p/17");
        check(Tile::entries(273, 112), "tile/entries/273.p/112");
        check(Tile::entries(u64::MAX, 256), "tile/entries/x018/x446/x744/x073/x709/x551/615");
    }

    #[test]
    fn other_spellings_are_refused() {
        for path in [
            "tile/0/67",
            "tile/0/0067",
            "tile/00/067",
            "tile/+0/067",
            "tile/8/067",
            "tile/-1/067",
            "tile/0/x000/067",
            "tile/0/001/067",
            "tile/0/x001/x067",
            "tile/0/067.p/0",
            "tile/0/067.p/256",
            "tile/0/067.p/007",
            "tile/0/067.p/7/",
            "tile/data/067",
            "tile/0/",
            "tile/0",
            "/tile/0/067",
            "tile/entries/x018/x446/x744/x073/x709/x551/616",
            "",
        ] {
            assert_eq!(path.parse::<Tile>(), Err(NotATile), "{path}");
        }
    }

    #[test]
    fn files_of_a_log_cover_it_exactly() {
        let paths: Vec<_> = Tile::all(256 * 256 + 300).map(|tile| tile.to_string()).collect();
        assert_eq!(paths.len(), 258 + 258 + 2 + 1);
        assert_eq!(paths[257], "tile/entries/257.p/44");
        assert_eq!(&paths[515..], ["tile/0/257.p/44", "tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1"]);
        assert_eq!(Tile::all(0).count(), 0);
        assert_eq!(Tile::at(Kind::Hashes { level: 0 }, u64::MAX, u64::MAX), None);
    }

    proptest! {
        #[test]
        fn paths_come_back(level in 0..=LEVEL_MAX, index in any::<u64>(), width in 1..=WIDTH) {
            for tile in [Tile::hashes(level, index, width).unwrap(), Tile::entries(index, width).unwrap()] {
                prop_assert_eq!(tile.to_string().parse(), Ok(tile));
            }
        }

        #[test]
        fn arbitrary_paths_never_panic(path in "(tile/)?([0-9x/.p+-]|entries){0,30}", other in ".{0,30}") {
            if let Ok(tile) = path.parse::<Tile>() {
                prop_assert_eq!(tile.to_string(), path);
            }
            let _ = other.parse::<Tile>();
        }

        #[test]
        fn bundles_come_back(
            entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)
        ) {
            let bytes = encode_entries(&entries).unwrap();
            let decoded = decode_entries(&bytes).unwrap();
            prop_assert_eq!(&decoded, &entries);
            if !bytes.is_empty() && bytes.len() > entries.last().unwrap().len() + 2 {
                let cut = decode_entries(&bytes[..bytes.len() - 1]).map(|entries| entries.len());
                prop_assert!(cut != Ok(entries.len()));
            }
        }

        #[test]
        fn arbitrary_bundles_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(entries) = decode_entries(&bytes) {
                prop_assert_eq!(encode_entries(&entries).unwrap(), bytes.clone());
            }
            let _ = decode_hashes(&bytes, 3);
        }
    }

    #[test]
    fn entry_longer_than_its_prefix_is_refused() {
        let entries = [vec![0; ENTRY_SIZE_BYTES_MAX], vec![0; ENTRY_SIZE_BYTES_MAX + 1]];
        assert_eq!(encode_entries(&entries[..1]).unwrap().len(), ENTRY_SIZE_BYTES_MAX + 2);
        assert_eq!(encode_entries(&entries), Err(BundleError::EntryTooLong { position: 1, size_bytes: 65_536 }));
        assert_eq!(decode_entries(&[0; 2 * 257]), Err(BundleError::TooMany));
        assert_eq!(encode_entries(&vec![b""; 257]), Err(BundleError::TooMany));
    }

    #[test]
    fn hashes_come_back() {
        let hashes = [Hash::from_bytes([1; 32]), Hash::from_bytes([2; 32])];
        assert_eq!(decode_hashes(&encode_hashes(&hashes), 2).unwrap(), hashes);
        assert_eq!(decode_hashes(&encode_hashes(&hashes), 3), None);
    }
}
