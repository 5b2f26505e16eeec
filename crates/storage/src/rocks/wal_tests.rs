use super::*;
use proptest::prelude::*;

/// Writes logical records as RocksDB does; returns the file and where each record ends.
fn file_of(records: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let mut file = Vec::new();
    let mut ends = Vec::new();
    for record in records {
        let mut rest = &record[..];
        let mut is_first = true;
        loop {
            let room = BLOCK_BYTES - file.len() % BLOCK_BYTES;
            if room < HEADER_BYTES {
                file.resize(file.len() + room, 0);
                continue;
            }
            let (part, later) = rest.split_at(rest.len().min(room - HEADER_BYTES));
            let kind = match (is_first, later.is_empty()) {
                (true, true) => FULL,
                (true, false) => FIRST,
                (false, false) => MIDDLE,
                (false, true) => LAST,
            };
            let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), part);
            file.extend_from_slice(&sum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes());
            file.extend_from_slice(&(part.len() as u16).to_le_bytes());
            file.push(kind);
            file.extend_from_slice(part);
            rest = later;
            is_first = false;
            if rest.is_empty() {
                break;
            }
        }
        ends.push(file.len());
    }
    (file, ends)
}

fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let size = prop_oneof![4 => 1_usize..300, 1 => 30_000_usize..70_000];
    prop::collection::vec((size, any::<u8>()).prop_map(|(size, seed)| content(size, seed)), 1..8)
}

fn content(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|at| ((at as u8).wrapping_mul(31) ^ seed) | 1).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_write_that_stopped_anywhere_is_cut_off_behind_the_last_whole_record(
        records in records(), place in any::<prop::sample::Index>(),
    ) {
        let (file, ends) = file_of(&records);
        prop_assert_eq!(examine(&file), Tail::Whole);
        let length = place.index(file.len());
        let keep = ends.iter().rev().find(|end| **end <= length).copied().unwrap_or(0);
        match examine(&file[..length]) {
            Tail::Torn { keep: found } => prop_assert_eq!(found, keep),
            // A cut between records, or behind the padding of a block, loses nothing.
            Tail::Whole => prop_assert!(file[keep..length].iter().all(|byte| *byte == 0)),
            Tail::Damaged { at } => prop_assert!(false, "damage at {} of {}", at, length),
        }
    }

    #[test]
    fn a_flipped_bit_is_never_taken_for_an_unfinished_write(
        records in records(), place in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let (mut file, ends) = file_of(&records);
        let at = place.index(file.len());
        file[at] ^= 1 << bit;
        // The padding at the end of a block means nothing.
        let is_padding = BLOCK_BYTES - at % BLOCK_BYTES < HEADER_BYTES && !ends.contains(&(at + 1));
        let found = examine(&file);
        prop_assert!(matches!(found, Tail::Damaged { .. }) || is_padding, "{:?} at {} of {}", found, at, file.len());
    }

    #[test]
    fn pages_that_were_never_written_are_cut_off_only_at_the_end(records in records()) {
        let (mut file, ends) = file_of(&records);
        let keep = ends[ends.len() - 1];
        let grown = (keep + 2 * PAGE_BYTES).next_multiple_of(PAGE_BYTES);
        file.resize(grown, 0);
        let found = examine(&file);
        prop_assert!(matches!(found, Tail::Torn { keep: found } if found == keep), "{:?}, not {}", found, keep);
        let (behind, _) = file_of(&[content(100, 7)]);
        file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
        file.extend(behind);
        let is_damage = matches!(examine(&file), Tail::Damaged { .. });
        prop_assert!(is_damage);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), from in 0_usize..300) {
        let (mut file, _) = file_of(&[content(from + 1, 3)]);
        file.extend(bytes);
        examine(&file);
    }
}
