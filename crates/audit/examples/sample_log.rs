//! Writes a log as C2SP tlog-tiles lays it out, for verifiers that are not ours.
//!
//! `cargo run -p audit --example sample_log -- DIRECTORY [ENTRIES]` leaves there: `checkpoint`, `checkpoint.earlier`
//! (of half the size), `verifier.key`, the tiles and the bundles of entries. The signing key is a fixed one: the log
//! is a sample and proves nothing about anyone.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use audit::checkpoint::NoteSigner;
use audit::merkle::leaf_hash;
use audit::tile::{Kind, encode_entries, encode_hashes};
use audit::{Action, AuditEvent, Checkpoint, Frontier, Hash, Node, Outcome, Tile};
use keyring::{Secret, SigningKey};

const ORIGIN: &str = "holdfast/sample/eu/0";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().context("usage: sample_log DIRECTORY [ENTRIES]")?;
    let size: u64 = arguments.next().map_or(Ok(1_000), |entries| entries.parse())?;
    let directory = Path::new(&directory);
    let signer = NoteSigner::new(ORIGIN, SigningKey::from_seed(Secret::from_bytes([7; 32])))?;
    let sign = |size, root| Checkpoint::new(ORIGIN, size, root).sign(&signer).map(|note| note.to_string());

    let mut frontier = Frontier::new();
    let mut stored = BTreeMap::<Node, Hash>::new();
    let mut entries = Vec::new();
    let mut earlier = sign(0, frontier.root())?;
    for number in 0..size {
        let mut event = AuditEvent::new(1_700_000_000_000 + number, "eu", "eu-1", 0, Action::Login, Outcome::Success);
        event.user = Some(format!("user-{number}"));
        entries.push(event.encode());
        frontier.append(leaf_hash(&entries[number as usize]), |node, hash| {
            stored.insert(node, hash);
        });
        if frontier.size() == size / 2 {
            earlier = sign(frontier.size(), frontier.root())?;
        }
    }
    for tile in Tile::all(size) {
        let (first, end) = (tile.first(), tile.first() + u64::from(tile.width()));
        let bytes = match tile.kind() {
            Kind::Entries => encode_entries(&entries[first as usize..end as usize])?,
            Kind::Hashes { level } => {
                encode_hashes(&(first..end).map(|index| stored[&Node { level, index }]).collect::<Vec<_>>())
            }
        };
        let path = directory.join(tile.to_string());
        std::fs::create_dir_all(path.parent().context("a tile's path has a directory")?)?;
        std::fs::write(path, bytes)?;
    }
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("checkpoint"), sign(size, frontier.root())?)?;
    std::fs::write(directory.join("checkpoint.earlier"), earlier)?;
    std::fs::write(directory.join("verifier.key"), format!("{}\n", signer.key()))?;
    println!("{size} entries in {}", directory.display());
    Ok(())
}
