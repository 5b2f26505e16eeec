//! Sigma pipelines, and rules read through them.
#![no_main]

use detection::rules::load_texts_with;
use detection::sigma::Pipeline;
use libfuzzer_sys::fuzz_target;

const RULES: &str = "title: r\nname: r\nlogsource: {product: windows, category: process_creation}\ndetection: {s: {Image|endswith: sh, User|expand: '%v%'}, condition: s}\n\
    ---\ntitle: c\ncorrelation: {type: event_count, rules: r, group-by: [User], timespan: 5m, condition: {gte: 2}}\n";

fuzz_target!(|text: &str| {
    if let Ok(pipeline) = Pipeline::read(&"fuzz.yml".into(), text) {
        let _ = load_texts_with(vec![("r.yml".to_owned(), RULES.to_owned())], &pipeline);
    }
});
