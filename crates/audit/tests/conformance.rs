//! Another implementation of the formats (Cloudflare's `tlog_tiles` and `signed_note`) accepts our logs,
//! and refuses forged ones.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::convert::Infallible;

use audit::checkpoint::{NoteKey, NoteSigner};
use audit::merkle::leaf_hash;
use audit::proof::{self, Span};
use audit::tile::{Kind, encode_entries, encode_hashes};
use audit::{Action, AuditEvent, Checkpoint, Frontier, Hash, Node, Outcome, Tile};
use keyring::{Secret, SigningKey};
use signed_note::{StandardVerifier, VerifierList};
use tlog_tiles::{HashReader as _, TileHashReader, TileReader};

const ORIGIN: &str = "holdfast/demo/eu/0";

struct Log {
    entries: Vec<Vec<u8>>,
    stored: BTreeMap<Node, Hash>,
    roots: Vec<Hash>,
}

impl Log {
    fn new(size: u64) -> Self {
        let mut frontier = Frontier::new();
        let mut log = Self { entries: Vec::new(), stored: BTreeMap::new(), roots: vec![frontier.root()] };
        for number in 0..size {
            let mut event = AuditEvent::new(number, "eu", "eu-1", 0, Action::RecordPut, Outcome::Success);
            event.request_id = Some(format!("r-{number}"));
            log.entries.push(event.encode());
            let leaf = leaf_hash(log.entries.last().expect("just pushed"));
            frontier.append(leaf, |node, hash| assert!(log.stored.insert(node, hash).is_none()));
            log.roots.push(frontier.root());
        }
        log
    }

    fn read(&self, span: Span) -> Result<Vec<Hash>, Infallible> {
        let nodes = (span.first..).take(span.count.into()).map(|index| Node { level: span.level, index });
        Ok(nodes.map_while(|node| self.stored.get(&node).copied()).collect())
    }

    fn bytes(&self, tile: Tile) -> Vec<u8> {
        let (first, width) = (tile.first(), u64::from(tile.width()));
        match tile.kind() {
            Kind::Entries => encode_entries(&self.entries[first as usize..(first + width) as usize]).unwrap(),
            Kind::Hashes { level } => {
                let nodes = (first..first + width).map(|index| Node { level, index });
                encode_hashes(&nodes.map(|node| self.stored[&node]).collect::<Vec<_>>())
            }
        }
    }

    fn files(&self, size: u64) -> BTreeMap<String, Vec<u8>> {
        Tile::all(size).map(|tile| (tile.to_string(), self.bytes(tile))).collect()
    }
}

fn theirs(hash: &Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash.as_bytes())
}

fn all_theirs(hashes: &[Hash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().map(theirs).collect()
}

fn signer() -> NoteSigner {
    NoteSigner::new(ORIGIN, SigningKey::from_seed(Secret::from_bytes([1; 32]))).unwrap()
}

fn verifiers(key: &NoteKey) -> VerifierList {
    VerifierList::new(vec![Box::new(StandardVerifier::new(&key.to_string()).unwrap())])
}

#[test]
fn signed_note_accepts_our_checkpoint_and_refuses_a_forged_one() {
    let log = Log::new(600);
    let note = Checkpoint::new(ORIGIN, 600, log.roots[600]).sign(&signer()).unwrap().to_string();
    let verifiers = verifiers(&signer().key());
    let read = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
    assert_eq!(read.verify(&verifiers).unwrap().0.len(), 1);
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(read.text()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), (ORIGIN, 600));
    assert_eq!(*checkpoint.hash(), theirs(&log.roots[600]));

    let forged = note.replace("\n600\n", "\n599\n");
    assert!(signed_note::Note::from_bytes(forged.as_bytes()).unwrap().verify(&verifiers).is_err());
}

#[test]
fn we_accept_their_signature() {
    let seed = [1; 32];
    let typed = [&[1_u8], seed.as_slice()].concat();
    let id = signer().key().to_string().split('+').nth(1).unwrap().to_owned();
    // Their private form is base64 of the type and the seed.
    let secret = format!("PRIVATE+KEY+{ORIGIN}+{id}+{}", base64(&typed));
    let theirs = signed_note::StandardSigner::new(&secret).unwrap();
    let text = format!("{ORIGIN}\n7\n{}\n", leaf_hash(b"x"));
    let mut note = signed_note::Note::new(text.as_bytes(), &[]).unwrap();
    note.add_sigs(&[&theirs]).unwrap();
    let note = String::from_utf8(note.to_bytes()).unwrap();
    let key = NoteKey::new(ORIGIN, SigningKey::from_seed(Secret::from_bytes(seed)).verifying_key()).unwrap();
    assert_eq!(Checkpoint::open(&note, &key), Ok(Checkpoint::new(ORIGIN, 7, leaf_hash(b"x"))));
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn tlog_tiles_accepts_our_inclusion_proofs_and_rejects_a_forged_leaf() {
    let log = Log::new(700);
    for (size, step) in [(1, 1), (2, 1), (255, 7), (256, 7), (257, 7), (600, 13), (700, 13)] {
        let root = theirs(&log.roots[size as usize]);
        for index in (0..size).step_by(step) {
            let proof = all_theirs(&proof::inclusion(index, size, |span| log.read(span)).unwrap());
            let leaf = tlog_tiles::record_hash(&log.entries[index as usize]);
            tlog_tiles::check_record(&proof, size, root, index, leaf).unwrap();

            let mut forged = log.entries[index as usize].clone();
            forged[20] ^= 1;
            let forged = tlog_tiles::record_hash(&forged);
            assert!(tlog_tiles::check_record(&proof, size, root, index, forged).is_err());
        }
    }
}

#[test]
fn tlog_tiles_accepts_our_consistency_proofs_and_rejects_a_rewritten_history() {
    let log = Log::new(600);
    let sizes = [1, 2, 3, 255, 256, 257, 511, 600];
    for size in sizes {
        for earlier in sizes.into_iter().filter(|earlier| *earlier < size) {
            let proof = all_theirs(&proof::consistency(earlier, size, |span| log.read(span)).unwrap());
            let (root, before) = (theirs(&log.roots[size as usize]), theirs(&log.roots[earlier as usize]));
            tlog_tiles::check_tree(&proof, size, root, earlier, before).unwrap();
            let rewritten = tlog_tiles::record_hash(b"rewritten");
            assert!(tlog_tiles::check_tree(&proof, size, root, earlier, rewritten).is_err());
        }
    }
}

struct Files(BTreeMap<String, Vec<u8>>);

impl TileReader for Files {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // Their paths name the height, which tlog-tiles fixes at 8.
        let path = |tile: &tlog_tiles::Tile| tile.path().replacen("tile/8/", "tile/", 1);
        tiles.iter().map(|tile| self.0.get(&path(tile)).cloned().ok_or(tlog_tiles::Error::InvalidTile)).collect()
    }

    fn save_tiles(&self, _tiles: &[tlog_tiles::Tile], _data: &[Vec<u8>]) {}
}

#[test]
fn tlog_tiles_authenticates_our_tiles_and_refuses_a_forged_one() {
    let size = 65_600;
    let log = Log::new(size);
    let root = theirs(&log.roots[size as usize]);
    let files = Files(log.files(size));
    let reader = TileHashReader::new(size, root, &files);
    let indices = [0, 255, 256, 300, 65_535, 65_536, 65_599];
    let stored: Vec<_> = indices.iter().map(|index| tlog_tiles::stored_hash_index(0, *index)).collect();
    for (index, hash) in indices.into_iter().zip(reader.read_hashes(&stored).unwrap()) {
        assert_eq!(hash, tlog_tiles::record_hash(&log.entries[index as usize]), "{index}");
        let proof = tlog_tiles::prove_record(size, index, &reader).unwrap();
        let ours: Vec<_> = proof.iter().map(|hash| Hash::from_bytes(hash.0)).collect();
        let leaf = leaf_hash(&log.entries[index as usize]);
        assert_eq!(proof::verify_inclusion(&leaf, index, size, &ours, &log.roots[size as usize]), Ok(()));
        assert_eq!(proof::inclusion(index, size, |span| log.read(span)).unwrap(), ours);
    }

    // Version 0.2.0 does not authenticate the first tiles it loads when several complete subtrees of the tree share a
    // tile, so the tree of this case is one complete subtree.
    let size = 65_536;
    let root = theirs(&log.roots[size as usize]);
    let mut files = Files(log.files(size));
    let index = [tlog_tiles::stored_hash_index(0, 300)];
    assert!(TileHashReader::new(size, root, &files).read_hashes(&index).is_ok());
    files.0.get_mut("tile/0/001").expect("the second tile of a long log")[44 * 32] ^= 1;
    assert!(TileHashReader::new(size, root, &files).read_hashes(&index).is_err());
}

#[test]
fn their_paths_are_ours() {
    for index in [0, 7, 999, 1_000, 1_234_067, 999_999_999] {
        for width in [1, 255, 256] {
            let theirs = tlog_tiles::Tile::new(8, 1, index, u32::from(width), false).path();
            let ours = Tile::hashes(1, index, width).unwrap().to_string();
            assert_eq!(theirs.replacen("tile/8/", "tile/", 1), ours);
        }
    }
}
