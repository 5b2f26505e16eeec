//! Disk buffers: what was acknowledged is read, in order, through damage and kills; what is damaged is told of; it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use pipeline::buffer::{BYTES_MIN, Buffer, BufferConfig, Next, NotAppended, Sync, WhenFull};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn config() -> BufferConfig {
    BufferConfig { max_bytes: BYTES_MIN, when_full: WhenFull::Block, sync: Sync::System }
}

/// Appends one record: its number.
fn one(buffer: &mut Buffer, bytes: &[u8]) -> Result<u64, NotAppended> {
    assert_eq!(buffer.append(&[bytes.to_vec()])?, 1);
    Ok(buffer.next_sequence() - 1)
}

/// Everything that can be read now: records, and how many are said to be missing.
fn drain(buffer: &mut Buffer) -> (Vec<(u64, Vec<u8>)>, u64) {
    let (mut records, mut missing) = (Vec::new(), 0);
    // Each call goes on: more calls than records and damaged places there cannot be.
    for _ in 0..100_000 {
        match buffer.read().unwrap() {
            Next::Nothing => return (records, missing),
            Next::Record { sequence, bytes } => records.push((sequence, bytes)),
            Next::Damaged { records, .. } => missing += records,
        }
    }
    panic!("reading does not end");
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "segment"));
    found.sort();
    found
}

#[test]
fn what_is_confirmed_is_not_read_again_and_its_room_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut buffer = Buffer::open(folder.path(), config()).unwrap();
    let record = vec![7; 10_000];
    let mut count = 0;
    loop {
        match one(&mut buffer, &record) {
            Ok(sequence) => assert_eq!(sequence, count),
            Err(NotAppended::Full) => break,
            Err(error) => panic!("{error}"),
        }
        count += 1;
    }
    assert!(buffer.size_bytes() <= BYTES_MIN && count > 95, "{count} records of 10 kB in 1 MiB");
    assert_eq!(drain(&mut buffer).0.len() as u64, count);
    buffer.confirm(count / 2).unwrap();
    assert!(one(&mut buffer, &record).is_ok(), "half of it was given back");
    drop(buffer);
    let mut buffer = Buffer::open(folder.path(), config()).unwrap();
    let (records, missing) = drain(&mut buffer);
    assert_eq!((records[0].0, records.len() as u64, missing), (count / 2 + 1, count - count / 2, 0));
    buffer.confirm(count).unwrap();
    assert_eq!((buffer.waiting(), drain(&mut buffer).0.len()), (0, 0));
    for _ in 0..300 {
        let sequence = one(&mut buffer, &record).unwrap();
        assert_eq!(drain(&mut buffer).0.len(), 1);
        buffer.confirm(sequence).unwrap();
    }
    assert!(segments(folder.path()).len() <= 2);
}

#[test]
fn what_was_read_and_not_confirmed_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut buffer = Buffer::open(folder.path(), config()).unwrap();
    for number in 0..3_u8 {
        one(&mut buffer, &[number]).unwrap();
    }
    assert_eq!(drain(&mut buffer).0.len(), 3);
    buffer.confirm(0).unwrap();
    buffer.rewind();
    assert_eq!(drain(&mut buffer).0, [(1, vec![1]), (2, vec![2])]);
    assert!(matches!(one(&mut buffer, &vec![0; BYTES_MIN as usize]), Err(NotAppended::TooLarge)));
}

#[test]
fn a_damaged_cursor_repeats_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut buffer = Buffer::open(folder.path(), config()).unwrap();
    one(&mut buffer, b"one").unwrap();
    buffer.confirm(0).unwrap();
    one(&mut buffer, b"two").unwrap();
    drop(buffer);
    std::fs::write(folder.path().join("cursor"), "9 00000000").unwrap();
    assert_eq!(drain(&mut Buffer::open(folder.path(), config()).unwrap()).0.len(), 2);
}

#[derive(Clone, Debug)]
enum Act {
    Append(Vec<u8>),
    Read(usize),
    Confirm,
    /// The process is killed; the end of the last file that was never synced may be lost, from this share on.
    Kill(proptest::sample::Index),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..20_000).prop_map(Act::Append),
        2 => (1..6_usize).prop_map(Act::Read),
        2 => Just(Act::Confirm),
        1 => any::<proptest::sample::Index>().prop_map(Act::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Truncated at any byte of the last file, again and again: every record before the cut is read, in order, once
    /// confirmed never again, and nothing is read that was not appended.
    #[test]
    fn kills_at_any_byte_lose_only_what_was_behind_them(acts in proptest::collection::vec(act(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut buffer = Buffer::open(folder.path(), config()).unwrap();
        // What must still be there: number and bytes, oldest first.
        let mut expect: std::collections::VecDeque<(u64, Vec<u8>)> = Default::default();
        let mut read = 0;
        for act in acts {
            match act {
                Act::Append(bytes) => match one(&mut buffer, &bytes) {
                    Ok(sequence) => expect.push_back((sequence, bytes)),
                    Err(NotAppended::Full) => prop_assert!(buffer.size_bytes() > BYTES_MIN / 2),
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                },
                Act::Read(count) => for _ in 0..count {
                    match buffer.read().unwrap() {
                        Next::Nothing => prop_assert_eq!(read, expect.len()),
                        Next::Record { sequence, bytes } => {
                            prop_assert_eq!(&(sequence, bytes), &expect[read]);
                            read += 1;
                        }
                        Next::Damaged { .. } => return Err(TestCaseError::fail("nothing is damaged")),
                    }
                },
                Act::Confirm => if read > 0 {
                    buffer.confirm(expect[read - 1].0).unwrap();
                    expect.drain(..read);
                    read = 0;
                },
                Act::Kill(at) => {
                    drop(buffer);
                    let last = segments(folder.path()).pop().unwrap();
                    let bytes = std::fs::read(&last).unwrap();
                    let cut = at.index(bytes.len() + 1);
                    std::fs::write(&last, &bytes[..cut]).unwrap();
                    buffer = Buffer::open(folder.path(), config()).unwrap();
                    // What lay behind the cut is gone: it is counted back from the end of the file.
                    let mut end = bytes.len();
                    let first = u64::from_str_radix(last.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
                    while let Some((sequence, record)) = expect.back() {
                        if *sequence < first || end <= cut {
                            break;
                        }
                        end -= record.len() + 24;
                        expect.pop_back();
                    }
                    read = 0;
                }
            }
        }
        buffer.rewind();
        let (records, missing) = drain(&mut buffer);
        prop_assert_eq!(missing, 0);
        prop_assert_eq!(records, Vec::from(expect));
    }

    /// Any bytes damaged in any file: what is read was appended, in order; records that no damage touched are all
    /// read; those that are missing are told of; and it ends.
    #[test]
    fn damage_costs_what_it_touches_and_is_told_of(
        sizes in proptest::collection::vec(0..20_000_usize, 1..80),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), 1..=255_u8), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut buffer = Buffer::open(folder.path(), config()).unwrap();
        let mut places: Vec<(PathBuf, std::ops::Range<u64>, Vec<u8>)> = Vec::new();
        for (number, size) in sizes.into_iter().enumerate() {
            let bytes = vec![number as u8; size];
            if one(&mut buffer, &bytes).is_err() {
                break;
            }
            let file = segments(folder.path()).pop().unwrap();
            let end = std::fs::metadata(&file).unwrap().len();
            places.push((file, end - 24 - size as u64..end, bytes));
        }
        let count = places.len() as u64;
        let files = segments(folder.path());
        let mut touched = BTreeSet::new();
        for (file, place, with) in damage {
            let file = file.get(&files);
            let mut bytes = std::fs::read(file).unwrap();
            let place = place.index(bytes.len());
            bytes[place] ^= with;
            std::fs::write(file, bytes).unwrap();
            touched.extend((0..).zip(&places).filter(|(_, (at, range, _))| at == file && range.contains(&(place as u64))).map(|(n, _)| n));
        }
        drop(buffer);
        let mut buffer = Buffer::open(folder.path(), config()).unwrap();
        let (records, missing) = drain(&mut buffer);
        // The same byte may be damaged twice, and so be whole again: then it is read.
        for (sequence, bytes) in &records {
            prop_assert_eq!(bytes, &places[*sequence as usize].2);
        }
        prop_assert!(records.is_sorted_by(|one, other| one.0 < other.0));
        let read: BTreeSet<u64> = records.iter().map(|(sequence, _)| *sequence).collect();
        for (sequence, _) in (0..count).zip(&places) {
            prop_assert!(read.contains(&sequence) || touched.contains(&sequence), "record {} is missing", sequence);
        }
        // Damage at the very end cannot be told from a torn end, which is cut off and counted in bytes.
        let behind = count - read.last().map_or(0, |last| last + 1);
        prop_assert!(missing + behind >= count - read.len() as u64);
        prop_assert!(missing == count - read.len() as u64 || buffer.torn_bytes() > 0);
    }
}
