//! A seed is a run: what is found once is found again.

use sim::{Options, Plant, run};

#[test]
fn a_seed_gives_the_same_trace_again_and_holds() {
    let (first, second) =
        (run(Options { seed: 3, ..Options::default() }), run(Options { seed: 3, ..Options::default() }));
    assert_eq!(first.findings, Vec::<String>::new());
    assert!(first.acknowledged > 100, "{} writes and reads are no load", first.acknowledged);
    assert_eq!((first.trace, first.events), (second.trace, second.events));
}

#[test]
fn another_seed_is_another_run() {
    let (first, second) =
        (run(Options { seed: 3, ..Options::default() }), run(Options { seed: 5, ..Options::default() }));
    assert_ne!(first.trace, second.trace);
}

#[test]
fn a_leaf_that_is_not_written_is_missed() {
    let report = run(Options { seed: 1, plant: Some(Plant::AuditLeafDropped), ..Options::default() });
    assert!(report.findings.iter().any(|finding| finding.starts_with("audit")), "{:?}", report.findings);
}
