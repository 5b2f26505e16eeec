//! Who may depend on whom, and who alone owns which dependency: the table in `docs/ARCHITECTURE.md` against manifests.

use crate::tree::{Tree, shipped};
use crate::{clean, finds};
use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = "docs/ARCHITECTURE.md";

/// A crate's row in the table.
struct Row {
    may: BTreeSet<String>,
    owns: BTreeSet<String>,
}

fn rows(tree: &Tree) -> Result<BTreeMap<String, Row>, String> {
    let text = tree.get(TABLE).unwrap_or_default();
    let part = text.split_once("<!-- tidy: dependencies -->").and_then(|(_, rest)| rest.split_once("<!-- /tidy -->"));
    let (part, _) = part.ok_or_else(|| format!("{TABLE}: the table of dependencies is not between its marks"))?;
    let list =
        |cell: &str| cell.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect();
    let rows = part.lines().filter(|line| line.starts_with("| `")).filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, may, owns] = cells[..] else { return None };
        Some((name.trim_matches('`').to_owned(), Row { may: list(may), owns: list(owns) }))
    });
    Ok(rows.collect())
}

/// The names in a table of a manifest.
fn names(manifest: &toml::Table, table: &str) -> BTreeSet<String> {
    manifest.get(table).and_then(toml::Value::as_table).map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

fn manifests(tree: &Tree) -> BTreeMap<String, toml::Table> {
    let crates = tree.files("crates/", "/Cargo.toml");
    let read = crates.map(|(path, text)| {
        let name = path.trim_start_matches("crates/").trim_end_matches("/Cargo.toml").to_owned();
        (name, text.parse().unwrap_or_default())
    });
    read.collect()
}

fn dependencies(tree: &Tree) -> Vec<String> {
    let rows = match rows(tree) {
        Ok(rows) => rows,
        Err(error) => return vec![error],
    };
    let manifests = manifests(tree);
    let mut found = Vec::new();
    for name in rows.keys().filter(|name| !manifests.contains_key(*name)) {
        found.push(format!("{TABLE}: there is no crate {name}"));
    }
    for (name, manifest) in &manifests {
        let Some(row) = rows.get(name) else {
            found.push(format!("crates/{name}: not in the table of {TABLE}"));
            continue;
        };
        let has = names(manifest, "dependencies");
        let ours = has.iter().filter(|dependency| manifests.contains_key(*dependency));
        for other in ours.filter(|other| !row.may.contains("all") && !row.may.contains(*other)) {
            found.push(format!("crates/{name}: may not depend on {other}"));
        }
        for (owner, theirs) in rows.iter().filter(|(owner, _)| *owner != name) {
            for dependency in theirs.owns.intersection(&has) {
                found.push(format!("crates/{name}: {dependency} belongs to {owner} alone"));
            }
        }
        for dependency in row.owns.difference(&has) {
            found.push(format!("crates/{name}: owns {dependency} by the table, but does not depend on it"));
        }
    }
    found
}

/// Versions are in the root manifest only.
fn versions(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree.files("", "/Cargo.toml").filter(|(path, _)| !path.contains("third-party")) {
        let manifest: toml::Table = text.parse().unwrap_or_default();
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(entries) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
            let inherits = |value: &toml::Value| value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
            for name in entries.iter().filter(|(_, value)| !inherits(value)).map(|(name, _)| name) {
                found.push(format!("{path}: {name} must have its version in the root manifest"));
            }
        }
    }
    found
}

/// Only programs choose a runtime with threads; everything else runs on the one it is given.
fn runtimes(tree: &Tree) -> Vec<String> {
    let code = shipped(tree).filter(|(path, _)| path.starts_with("crates/") && !path.starts_with("crates/node/"));
    let has = code.filter(|(_, text)| text.contains("new_multi_thread"));
    has.map(|(path, _)| format!("{path}: only the node starts a runtime with threads")).collect()
}

#[test]
fn crates_depend_on_what_the_table_allows() {
    clean(&dependencies(&Tree::repository()));
}

#[test]
fn versions_are_in_the_root_manifest() {
    clean(&versions(&Tree::repository()));
}

#[test]
fn only_the_node_starts_a_runtime_with_threads() {
    clean(&runtimes(&Tree::repository()));
}

#[test]
fn planted_dependencies_are_found() {
    let table = "<!-- tidy: dependencies -->\n| `model` | | |\n| `storage` | model | rocksdb |\n<!-- /tidy -->";
    let model = "[dependencies]\nserde.workspace = true";
    let storage = "[dependencies]\nmodel.workspace = true\nrocksdb.workspace = true";
    let tree = |model: &'static str| {
        [(TABLE, table), ("crates/model/Cargo.toml", model), ("crates/storage/Cargo.toml", storage)]
    };
    finds(dependencies, &tree(model), &[]);
    finds(dependencies, &tree("[dependencies]\nstorage.workspace = true"), &["may not depend on storage"]);
    finds(dependencies, &tree("[dependencies]\nrocksdb.workspace = true"), &["belongs to storage"]);
    finds(dependencies, &tree(model)[..2], &["no crate storage"]);
    finds(dependencies, &tree(model)[1..], &["between its marks"]);
    finds(versions, &[("crates/model/Cargo.toml", "[dependencies]\nserde = \"1\"")], &["serde"]);
    finds(runtimes, &[("crates/api/src/a.rs", "Builder::new_multi_thread()")], &["crates/api/src/a.rs"]);
}
