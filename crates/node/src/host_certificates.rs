//! Looks at this node's certificates, and records those that expire soon.

use crate::config::Config;
use crate::machine::command::Command;
use crate::machine::note::Note;
use crate::node::Node;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often they are looked at, and recorded for as long as they expire soon.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 60 * 60);
/// Before the first look: a node that has just started may have no leader to record with.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// A certificate that is valid for less is told of. Renewing takes people.
const SOON_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A node's certificates, by what each is for.
pub(crate) fn of(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let tls = &config.tls;
    vec![("link", tls.certificate.clone()), ("api", tls.api_certificate.clone()), ("authority", tls.authority.clone())]
}

/// Runs until the node stops.
pub(crate) async fn watch(node: Arc<Node>, certificates: Vec<(&'static str, PathBuf)>) {
    let mut pause = FIRST_LOOK;
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK_EVERY;
        for (purpose, path) in &certificates {
            let now_ms = node.world.clock.wall_ms();
            let expires_ms = tokio::fs::read(path).await.ok().and_then(|pem| transport::expires_ms(&pem));
            let gauge = node.metrics.certificates.with_label_values(&[*purpose]);
            gauge.set(expires_ms.map_or(0, |ms| i64::try_from(ms / 1_000).unwrap_or(i64::MAX)));
            let Some(why) = concern(expires_ms, now_ms) else { continue };
            let note = Note {
                action: "certificate.expiring".into(),
                refused: Some(why.clone()),
                resource: Some(format!("certificates/{}/{purpose}", node.place.name)),
                node: node.place.id,
                ..Note::default()
            };
            tracing::warn!(purpose, path = %path.display(), why, "a certificate");
            if node.propose(node.cluster.home(), &Command::Note(note)).await.is_err() {
                // Without a leader nothing can be recorded: soon again.
                pause = FIRST_LOOK;
            }
        }
    }
}

/// What is to be told of a certificate, if anything.
fn concern(expires_ms: Option<u64>, now_ms: u64) -> Option<String> {
    match expires_ms {
        None => Some("cannot be read".into()),
        Some(expires_ms) if expires_ms <= now_ms => Some("has expired".into()),
        Some(expires_ms) if expires_ms - now_ms < SOON_MS => {
            Some(format!("expires in {} days", (expires_ms - now_ms) / DAY_MS))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_in_its_last_month_and_when_it_cannot_be_read() {
        let day = |days: u64| days * DAY_MS;
        assert_eq!(concern(Some(day(400)), day(300)), None);
        assert_eq!(concern(Some(day(330)), day(300)), None);
        assert_eq!(concern(Some(day(330) - 1), day(300)).as_deref(), Some("expires in 29 days"));
        assert_eq!(concern(Some(day(300)), day(300)).as_deref(), Some("has expired"));
        assert_eq!(concern(None, 0).as_deref(), Some("cannot be read"));
    }
}
