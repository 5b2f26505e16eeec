use super::*;
use proptest::prelude::*;

fn letter(text: &str) -> Letter {
    let raw = text.to_owned().into();
    let record = Record { source: SourceKind::Syslog, received_ms: 1, position: None, tenant: None, raw, fields: None };
    Letter::of(2, &"parse".into(), &record, &Refusal::NoMatch)
}

fn texts(folder: &Path) -> Vec<String> {
    let (letters, unreadable) = list(folder).unwrap();
    assert_eq!(unreadable, 0);
    let raw = |letter: Letter| Record::try_from(letter.event).unwrap().raw;
    letters.into_iter().map(|(_, letter)| String::from_utf8(raw(letter).to_vec()).unwrap()).collect()
}

#[test]
fn letters_are_listed_dropped_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let mut dead = DeadLetters::open(folder.path(), BYTES_MAX).unwrap();
    dead.append(&[letter("a"), letter("b"), letter("c")]).unwrap();
    let (letters, _) = list(folder.path()).unwrap();
    drop_letters(folder.path(), &[letters[0].0], "ann").unwrap();
    assert_eq!(texts(folder.path()), ["b", "c"]);
    let sample = Letter { is_sample: true, ..letter("s") };
    dead.append(&[sample]).unwrap();
    assert_eq!(replay(folder.path(), &list(folder.path()).unwrap().0, "bob").unwrap(), 2);
    assert_eq!(texts(folder.path()), ["s"]);
    assert_eq!(replays(folder.path()).unwrap()[0].1.letters, [letter("b"), letter("c")]);
    let mut done = acts(folder.path()).unwrap();
    done.sort();
    let done: Vec<_> = done.into_iter().map(|(_, act)| (act.doing, act.by, act.letters)).collect();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        done,
        [(Doing::Drop, "ann".to_owned(), names(&["1-1"])), (Doing::Replay, "bob".to_owned(), names(&["1-2", "1-3"])),]
    );
}

#[test]
fn a_line_that_is_too_long_takes_no_other_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut dead = DeadLetters::open(folder.path(), BYTES_MAX).unwrap();
    dead.append(&[letter("a"), letter(&"x".repeat(LINE_BYTES_MAX as usize)), letter("b")]).unwrap();
    let (letters, unreadable) = list(folder.path()).unwrap();
    assert_eq!((letters.len(), unreadable), (2, 1));
    assert_eq!(letters[1].0, LetterId { file: 1, line: 3 });
}

#[test]
fn the_oldest_file_goes_where_the_bound_is_met() {
    let folder = tempfile::tempdir().unwrap();
    let mut dead = DeadLetters::open(folder.path(), 16 * 1024).unwrap();
    for number in 0..1_000 {
        dead.append(&[letter(&number.to_string())]).unwrap();
        assert!(dead.size_bytes() <= 16 * 1024);
    }
    assert!(dead.lost_files() > 0);
    assert_eq!(texts(folder.path()).last().unwrap(), "999");
    let newest = list(folder.path()).unwrap().0.pop().unwrap().0;
    drop_letters(folder.path(), &[LetterId { file: 1, line: 1 }, newest], "ann").unwrap();
    DeadLetters::open(folder.path(), 16 * 1024).unwrap();
    assert_eq!(read_gone(folder.path()).unwrap(), BTreeSet::from([newest]));
}

proptest! {
    #[test]
    fn a_kill_at_any_byte_loses_only_what_was_being_written(count in 1..6_usize, at: proptest::sample::Index) {
        let folder = tempfile::tempdir().unwrap();
        let mut dead = DeadLetters::open(folder.path(), BYTES_MAX).unwrap();
        let mut ends = Vec::new();
        for number in 0..count {
            dead.append(&[letter(&number.to_string())]).unwrap();
            ends.push(dead.size_bytes() as usize);
        }
        drop(dead);
        let path = file_path(folder.path(), 1);
        let bytes = std::fs::read(&path).unwrap();
        let cut = at.index(bytes.len() + 1);
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let mut dead = DeadLetters::open(folder.path(), BYTES_MAX).unwrap();
        dead.append(&[letter("after")]).unwrap();
        let mut expect: Vec<String> = (0..count).filter(|n| ends[*n] <= cut).map(|n| n.to_string()).collect();
        expect.push("after".into());
        prop_assert_eq!(texts(folder.path()), expect);
    }
    #[test]
    fn arbitrary_files_never_panic(bytes: Vec<u8>, gone in "\\PC*") {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(file_path(folder.path(), 1), bytes).unwrap();
        std::fs::write(folder.path().join(GONE), gone).unwrap();
        let _ = list(folder.path()).unwrap();
        DeadLetters::open(folder.path(), BYTES_MAX).unwrap().append(&[letter("x")]).unwrap();
    }
}
