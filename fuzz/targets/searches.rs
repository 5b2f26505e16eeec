//! Questions in SQL to a small archive, planned and answered: never with what another tenant's events say.
#![no_main]

mod support;

use archive::search::{Ask, Limits, Progress, Question, run};
use archive::{Archive, Span, Tenants};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Only the other tenant's events have it.
const SECRET: &str = "zqxjkvb";

static ARCHIVE: LazyLock<Archive> = LazyLock::new(|| {
    let archive = support::archive(&[("acme", "door opened"), ("globex", SECRET)]);
    archive.roll(support::NOW_MS).expect("the disk is there");
    archive
});

fuzz_target!(|text: &str| {
    let ask = Ask::Sql(text.to_owned());
    let question = Question { tenants: Tenants::one("acme"), audit: Tenants::All, span: Span::ALL, ask, rows_max: 50 };
    let limits = Limits { memory_bytes: 16 << 20, time: Duration::from_secs(2) };
    let answer = run(&ARCHIVE, &question, limits, &Arc::new(Progress::default()));
    assert!(!format!("{answer:?}").contains(SECRET) || text.contains(SECRET), "another tenant's");
});
