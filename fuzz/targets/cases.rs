//! Files of cases that rules are tested with.
#![no_main]

use detection::report::test;
use detection::rules::load_texts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let rule = "title: r\nlogsource: {}\ndetection: {s: {x: 1}, condition: s}\n";
    let (rules, _) = load_texts(vec![("r.yml".to_owned(), rule.to_owned())]);
    let report = test(&rules, &[("fuzz.yml".to_owned(), text.to_owned())]);
    assert_eq!(report.passed + report.failed, report.cases.len());
});
