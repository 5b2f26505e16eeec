//! Events as they arrive: audit entries, syslog, NDJSON, OTLP records, badges; the compiled program reads them as normalising does.
#![no_main]

use detection::normalise::normalise;
use detection::rules::{RuleSet, load_texts};
use detection::{RawEvent, SourceKind};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const RULE: &str = "title: t\nlogsource: {}\ndetection: {k: [a], s: {a: b, n.x|exists: true, service|exists: false}, condition: k or s}\n";

static RULES: LazyLock<RuleSet> = LazyLock::new(|| load_texts(vec![("r.yml".to_owned(), RULE.to_owned())]).0);

fuzz_target!(|bytes: &[u8]| {
    let rules = &*RULES;
    let (mut fast, mut slow) = (rules.program().worker(), rules.program().worker());
    use SourceKind::{Audit, Badge, Ndjson, Otlp, Parsed, Syslog};
    for source in [Audit, Syslog, Ndjson, Otlp, Badge, Parsed] {
        let raw = RawEvent { source, received_ms: 1_795_467_600_000, position: None, bytes: bytes.to_vec().into() };
        let look = rules.program().run_raw(&mut fast, &raw);
        match normalise(&raw) {
            Ok(event) => {
                assert_eq!(look.expect("it is read").time_ms, event.time_ms);
                rules.program().run(&mut slow, &event);
                assert!(fast.hits().eq(slow.hits()));
            }
            Err(reject) => assert_eq!(look.expect_err("it is rejected"), reject),
        }
    }
});
