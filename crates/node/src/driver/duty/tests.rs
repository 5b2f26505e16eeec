//! Who has a duty, and what becomes of one whose work ends.

use super::*;
use crate::driver::bed::Bed;
use detection::engine::COVERAGE_DEGRADED;
use detection::rollout::Care;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Panics, gives up, and then works.
struct Flaky(AtomicUsize);

#[async_trait]
impl Work for Flaky {
    fn duty(&self) -> String {
        "flaky".into()
    }

    async fn work(&self, mut post: Post) -> Lost {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => panic!("planted"),
            1 => Lost,
            _ => {
                let stored = post.report(vec![(b"done".to_vec(), Some(b"1".to_vec()))], Vec::new()).await;
                if stored.is_err() { Lost } else { std::future::pending().await }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_duty_whose_work_ends_is_taken_up_again_and_told() {
    let bed = Bed::start("", Care::default()).await;
    let flaky: Arc<dyn Work> = Arc::new(Flaky(AtomicUsize::new(0)));
    let duties = tokio::spawn(run(Arc::clone(&bed.node), vec![flaky]));
    bed.until(|bed| !bed.node.home().machine.duty_rows("flaky", b"done").unwrap().is_empty()).await;
    assert_eq!(bed.node.metrics.duties.with_label_values(&["flaky", "taken_up_again"]).get(), 2);
    assert_eq!(bed.alerts_of(COVERAGE_DEGRADED), 2);
    duties.abort();
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_report_that_cannot_be_stored_is_told() {
    struct Large;
    #[async_trait]
    impl Work for Large {
        fn duty(&self) -> String {
            "large".into()
        }
        async fn work(&self, mut post: Post) -> Lost {
            let text = model::Value::Text("x".repeat(model::limit::VALUE_BYTES_MAX + 1));
            let note = crate::driver::record::note(&post.node, "alert.raised", "alerts/large".into());
            let set = vec![(crate::driver::record::ONLY, model::Merge::Lww, text)];
            let table = crate::machine::control::platform::ALERTS;
            let must = crate::machine::command::Must::BeAbsent;
            let write = crate::driver::record::record(table, "large".into(), must, set, note);
            let row = (b"row".to_vec(), Some(vec![0; 5_000_000]));
            let _ = post.report(vec![row, (b"done".to_vec(), Some(vec![1]))], vec![write]).await;
            std::future::pending().await
        }
    }
    let bed = Bed::start("", Care::default()).await;
    let duties = tokio::spawn(run(Arc::clone(&bed.node), vec![Arc::new(Large) as Arc<dyn Work>]));
    bed.until(|bed| bed.alerts_of(COVERAGE_DEGRADED) == 1).await;
    let rows = bed.node.home().machine.duty_rows("large", b"").unwrap();
    assert_eq!(rows, [(b"done".to_vec(), vec![1])], "what fits is stored");
    for what in ["left_out", "refused"] {
        assert_eq!(bed.node.metrics.duties.with_label_values(&["large", what]).get(), 1, "{what}");
    }
    duties.abort();
    bed.stop().await;
}

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().map(|id| NodeId::new(*id)).collect()
}

fn leases(of: &[(&str, u64)]) -> BTreeMap<String, Lease> {
    of.iter()
        .map(|(duty, id)| ((*duty).to_owned(), Lease { holder: NodeId::new(*id), epoch: 2, life: Some(7), number: 0 }))
        .collect()
}

#[test]
fn duties_go_to_those_that_live_and_move_only_once_things_are_settled() {
    let begin = Instant::now();
    let duties: BTreeSet<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
    let share = || Share { since: begin, living: BTreeSet::new(), settled: begin };
    let at = |ms| begin + Duration::from_millis(ms);
    let next = |share: &mut Share, ms, living: &[u64], held: &[(&str, u64)]| {
        share.next(at(ms), ids(living), &duties, &leases(held)).map(|(duty, to)| (duty, to.get()))
    };
    assert_eq!(next(&mut share(), 0, &[1], &[]), Some(("a".into(), 1)), "what nobody has is given at once");
    let held = [("a", 1), ("b", 2), ("c", 1), ("d", 2)];
    let mut new = share();
    assert_eq!(next(&mut new, 100, &[1], &held), None, "a new leader has not heard the others yet");
    assert_eq!(next(&mut new, 1_600, &[1], &held), Some(("b".into(), 1)), "2 is dead");
    assert_eq!(next(&mut new, 1_700, &[1, 2, 3], &held), None, "3 has just come");
    assert_eq!(next(&mut new, 12_000, &[1, 2, 3], &held), Some(("b".into(), 3)));
    let even = [("a", 1), ("b", 2), ("c", 3), ("d", 2)];
    assert_eq!(next(&mut new, 13_000, &[1, 2, 3], &even), None, "one more is even enough");
}
