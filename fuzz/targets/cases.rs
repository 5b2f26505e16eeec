//! Files of cases that rules are tested with.
#![no_main]

use detection::report::test;
use detection::rules::{RuleSet, load_texts};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const RULE: &str = "title: r\nlogsource: {}\ndetection: {s: {x: 1}, condition: s}\n";

static RULES: LazyLock<RuleSet> = LazyLock::new(|| load_texts(vec![("r.yml".to_owned(), RULE.to_owned())]).0);

fuzz_target!(|text: &str| {
    let report = test(&RULES, &[("fuzz.yml".to_owned(), text.to_owned())]);
    assert_eq!(report.passed + report.failed, report.cases.len());
});
