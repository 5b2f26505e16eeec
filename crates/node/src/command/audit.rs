//! `holdfast audit verify`: fetches a region's logs and recomputes them, trusting nothing but the keys.

use super::remote::{Client, Remote};
use anyhow::{Context, bail};
use audit::Tile;
use audit::checkpoint::NoteKey;
use audit::verify::{Source, verify_log};
use serde_json::Value;
use tokio::runtime::Handle;

/// Reads a log over the API. The verifier is synchronous: each file is waited for.
struct Remotely<'a> {
    client: &'a Client,
    name: &'a str,
}

impl Source for Remotely<'_> {
    type Error = anyhow::Error;

    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Self::Error> {
        let path = format!("/v1/audit/logs/{}/{tile}", self.name);
        tokio::task::block_in_place(|| Handle::current().block_on(self.client.bytes(&path))).map(Some)
    }

    /// Details are checked by the node, which holds them: see `/v1/audit/verification`.
    fn detail(&mut self, _index: u64) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(None)
    }
}

/// Verifies every log of the region that answers.
pub async fn verify(remote: &Remote) -> anyhow::Result<()> {
    let client = remote.connect().await?;
    let logs = client.get("/v1/audit/logs").await?;
    let mut results = Vec::new();
    for log in logs["logs"].as_array().into_iter().flatten() {
        let text = |field: &str| log[field].as_str().with_context(|| format!("the list of logs has no {field}"));
        let (name, verifier) = (text("name")?, text("verifier")?);
        let key: NoteKey = verifier.parse().with_context(|| format!("{name}: the verifier's key"))?;
        let note = client.bytes(&format!("/v1/audit/logs/{name}/checkpoint")).await?;
        let note = String::from_utf8(note).with_context(|| format!("{name}: the checkpoint"))?;
        let mut source = Remotely { client: &client, name };
        let verified = verify_log(&note, &key, None, &mut source);
        let report = verified.map_err(|error| anyhow::anyhow!("{name}: the log could not be verified: {error:?}"))?;
        results.push((name.to_owned(), report));
    }
    let details = client.get("/v1/audit/verification").await?;
    let sound = results.iter().all(|(_, report)| report.is_proven()) && details["verified"] == Value::Bool(true);
    if remote.json {
        let logs: Vec<Value> = results
            .iter()
            .map(|(name, report)| serde_json::json!({"log": name, "entries": report.checkpoint.size, "root": report.checkpoint.root, "sound": report.is_proven(), "findings": report.findings.iter().map(ToString::to_string).collect::<Vec<_>>()}))
            .collect();
        println!("{:#}", serde_json::json!({"verified": sound, "logs": logs, "details": details}));
    } else {
        for (name, report) in &results {
            let word = if report.is_proven() { "sound" } else { "NOT SOUND" };
            println!("{name}: {} entries, {word}", report.checkpoint.size);
            for finding in &report.findings {
                println!("  {finding}");
            }
        }
        for log in details["logs"].as_array().into_iter().flatten().filter(|log| log["verified"] != Value::Bool(true)) {
            println!("{}: {}", log["name"], log["problem"]);
        }
    }
    if sound { Ok(()) } else { bail!("the audit log does not hold") }
}
