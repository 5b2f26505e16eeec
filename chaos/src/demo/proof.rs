//! Step 5: the audit log holds, and everything that steps 1 to 4 did is in it.

use super::Tour;
use crate::check::audit::{self, Expected};
use crate::probe;
use anyhow::Result;

pub(super) async fn step(tour: &mut Tour) -> Result<()> {
    let regions: Vec<usize> = (0..tour.site.regions.len()).collect();
    for region in &regions {
        let (holds, size, logs) = probe::verify(&tour.site, *region).await?;
        let name = tour.site.regions[*region].clone();
        if holds {
            tour.say(format!("{name}: every leaf, hash and root of its logs recomputed, {size} entries, all hold"));
        } else {
            tour.fall_short(format!("the audit log of {name} does not hold: {logs}"));
        }
    }
    let entries = probe::audit(&tour.site, &regions, tour.from_ms).await?;
    let count = |begins: &[&str]| {
        let is_one =
            |one: &&Expected| one.actions.iter().any(|action| begins.iter().any(|begin| action.starts_with(begin)));
        tour.kept.iter().filter(is_one).count()
    };
    let (logins, views) = (count(&["login"]), count(&["record.view"]));
    let changes = tour.kept.len() - logins - views;
    let finding = audit::check(&tour.kept, &entries);
    tour.say(format!("clients kept the numbers of {logins} logins, {views} views and {changes} changes"));
    tour.measured("entries", entries.len());
    tour.measured("expected", tour.kept.len());
    if finding.holds() {
        tour.say(format!("each of them is in the log ({} entries), with its outcome and its record", entries.len()));
    }
    if !finding.holds() {
        tour.fall_short(format!(
            "{} of {} are not in the audit log as they should",
            finding.violated, finding.examined
        ));
        finding.violations.into_iter().take(5).for_each(|violation| tour.fall_short(violation));
    }
    Ok(())
}
