//! Files of the archive, damaged: they are read or refused, whatever their bytes are.
#![no_main]

mod support;

use archive::search::{Ask, Limits, Progress, Question, run};
use archive::{Archive, Span, Tenants};
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

struct Filled {
    archive: Archive,
    path: PathBuf,
    bytes: Vec<u8>,
}

static FILLED: LazyLock<Filled> = LazyLock::new(|| {
    // What the reader of Parquet panics at is caught where files are read, and must not end the run; ours must.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or("", |place| place.file());
        if !["/parquet-", "/arrow-"].iter().any(|reader| place.contains(reader)) {
            eprintln!("{panic}");
            std::process::abort();
        }
    }));
    let archive = support::archive(&[("acme", "door opened")]);
    archive.roll(support::NOW_MS).expect("the disk is there");
    let path = archive.files().remove(0).path.clone();
    let bytes = std::fs::read(&path).expect("it was written");
    Filled { archive, path, bytes }
});

const QUESTIONS: [&str; 3] = [
    "SELECT * FROM events ORDER BY time",
    "SELECT count(*) AS n FROM events WHERE user_name = 'u3' AND time > '2026-01-01'",
    "SELECT max(severity_id) AS n FROM events WHERE matches(fields, 'user.name', 'U3')",
];

fuzz_target!(|input: (u16, Vec<(u16, u8)>)| {
    let (cut, damage) = input;
    let mut bytes = FILLED.bytes.clone();
    bytes.truncate(bytes.len().saturating_sub((cut / 64).into()));
    for (place, with) in damage {
        // The footer, by which all else is found, is at the end.
        let size = bytes.len();
        if let Some(byte) = size.checked_sub(usize::from(place) + 1).and_then(|place| bytes.get_mut(place)) {
            *byte ^= with;
        }
    }
    std::fs::write(&FILLED.path, bytes).expect("the disk is there");
    for text in QUESTIONS {
        let (ask, tenants) = (Ask::Sql(text.to_owned()), Tenants::one("acme"));
        let question = Question { tenants, audit: Tenants::All, span: Span::ALL, ask, rows_max: 100 };
        let _ = run(&FILLED.archive, &question, Limits::default(), &Arc::new(Progress::default()));
    }
});
