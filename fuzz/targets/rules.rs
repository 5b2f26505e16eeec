//! Rule files: documents, conditions, modifiers, filters, correlations; then whatever was taken meets an event.
#![no_main]

use detection::report::{Known, check, explain_all};
use detection::rules::load_texts;
use detection::sigma::Pipeline;
use detection::{RawEvent, SourceKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (rules, errors) = load_texts(vec![("fuzz.yml".to_owned(), text.to_owned())]);
    check(&rules, &errors, &Known::platform());
    let line = br#"{"time":1795467600000,"product":"p","x":"a","y":["b",1,null],"CommandLine":"cmd /c -enc QQ=="}"#;
    let source = SourceKind::Ndjson;
    let raw = RawEvent { source, received_ms: 1_795_467_600_000, position: None, bytes: line.to_vec().into() };
    let event = detection::normalise::normalise(&raw).expect("the line is sound");
    let mut worker = rules.program().worker();
    rules.program().run_raw(&mut worker, &raw).expect("the line is sound");
    // What is compiled and what is evaluated plainly say the same.
    let told: Vec<String> = explain_all(&rules, None, &event).into_iter().map(|told| told.rule).collect();
    let hits: Vec<String> = worker.hits().map(|hit| rules.rules()[hit].header.reference.id.to_string()).collect();
    assert_eq!(told, hits);
    let _ = detection::rules::load_texts_with(vec![("fuzz.yml".to_owned(), text.to_owned())], &Pipeline::ocsf());
});
