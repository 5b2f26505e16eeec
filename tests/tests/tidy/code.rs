//! What code must not contain, how long its files are, and that none is dead.

use crate::tree::{Tree, body, rust, shipped};
use crate::{clean, finds};

/// Lines of a file without its tests.
const LINES_MAX: usize = 500;

/// Where code computes only, and what it must not touch there.
const PURE: [(&str, &[&str]); 7] = [
    ("crates/model/src/", WORLD),
    ("crates/keyring/src/", WORLD),
    ("crates/replication/src/", WORLD),
    ("crates/identity/src/", WORLD),
    ("crates/audit/src/", WORLD),
    ("crates/detection/src/", WORLD),
    (
        "crates/node/src/machine/",
        &["Instant::now", "SystemTime::now", "tokio::time", "tokio::task", "rand::", "std::fs"],
    ),
];
const WORLD: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "File::open",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "rand::",
];
/// Places where that is the purpose: rules are read from folders.
const EXCEPT: [(&str, &str); 2] =
    [("crates/detection/src/packs.rs", "std::fs"), ("crates/detection/src/rules/files.rs", "std::fs")];
/// The one place that reads the machine's clocks.
const CLOCKS: &str = "crates/node/src/world.rs";

fn purity(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in shipped(tree) {
        for (_, words) in PURE.iter().filter(|(folder, _)| path.starts_with(folder)) {
            for (number, line) in lines(text) {
                let excepted = |word: &str| EXCEPT.iter().any(|(place, allowed)| path == *place && *allowed == word);
                for word in words.iter().filter(|word| line.contains(**word) && !excepted(word)) {
                    found.push(format!("{path}:{number}: {word} in code that only computes"));
                }
            }
        }
    }
    found
}

fn clocks(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in shipped(tree).filter(|(path, _)| path.starts_with("crates/") && *path != CLOCKS) {
        for (number, line) in lines(text) {
            if line.contains("SystemTime::now") || line.contains("std::time::Instant::now") {
                found.push(format!("{path}:{number}: the machine's clock is read in {CLOCKS} only"));
            }
        }
    }
    found
}

/// Numbered lines of code, without comments.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    (1..).zip(code)
}

fn sizes(tree: &Tree) -> Vec<String> {
    let long = shipped(tree).map(|(path, text)| (path, text.lines().count())).filter(|(_, count)| *count > LINES_MAX);
    long.map(|(path, count)| format!("{path}: {count} lines without tests; the limit is {LINES_MAX}")).collect()
}

/// What is not finished, or waits for time to pass.
fn unfinished(tree: &Tree) -> Vec<String> {
    // Put together here, so that this file does not hold them itself.
    let words = [["to", "do!"], ["unimpl", "emented!"], ["db", "g!("], ["TO", "DO"], ["FIX", "ME"], ["#[ig", "nore"]];
    let words = words.map(|parts| parts.concat());
    let sleep = ["thread::", "sleep"].concat();
    // Clones share a build cache: what was built in one is run in another.
    let built_here = ["env!(\"CARGO_", "MANIFEST_DIR"].concat();
    let mut found = Vec::new();
    for (path, text) in rust(tree) {
        for (number, line) in (1..).zip(text.lines()) {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                found.push(format!("{path}:{number}: {word}"));
            }
            if line.contains(&built_here) {
                found.push(format!("{path}:{number}: the place where it was built; look from where it runs"));
            }
            let is_excused = path.starts_with("chaos/") || path.starts_with("benches/") || has_reason(text, number);
            if line.contains(&sleep) && !is_excused {
                found.push(format!("{path}:{number}: {sleep}: wait for what must happen, within a bound"));
            }
        }
    }
    found
}

/// Whether the lint that forbids a method was lifted, with a reason, a few lines before this one.
fn has_reason(text: &str, number: usize) -> bool {
    let before = text.lines().take(number).skip(number.saturating_sub(6));
    before.into_iter().any(|line| line.contains("clippy::disallowed_methods, reason"))
}

/// Every file says what it is.
fn purposes(tree: &Tree) -> Vec<String> {
    let silent = shipped(tree).filter(|(_, text)| !text.starts_with("//!"));
    let empty = shipped(tree).filter(|(_, text)| text.starts_with("//! placeholder"));
    let silent = silent.map(|(path, _)| format!("{path}: does not begin with its purpose (//!)"));
    silent.chain(empty.map(|(path, _)| format!("{path}: is a placeholder"))).collect()
}

/// Every file is a root or some other file's module.
fn dead(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, _) in rust(tree) {
        let package = ["crates/", "chaos/", "benches/", "tests/"].into_iter().find(|folder| path.starts_with(folder));
        let Some(package) = package else { continue };
        let package = if package == "crates/" {
            path.splitn(3, '/').take(2).collect::<Vec<_>>().join("/") + "/"
        } else {
            package.to_owned()
        };
        let inside = path.trim_start_matches(&package);
        let parts: Vec<&str> = inside.split('/').collect();
        let is_root = matches!(
            parts[..],
            ["src", "lib.rs" | "main.rs"]
                | ["src", "bin", ..]
                | ["build.rs"]
                | ["tests" | "examples" | "benches", _]
                | ["tests" | "examples" | "benches", _, "main.rs"]
        );
        let name = match parts[..] {
            [.., folder, "mod.rs"] => folder,
            [.., file] => file.trim_end_matches(".rs"),
            [] => continue,
        };
        let declared = |text: &str| {
            ["mod ", "pub mod ", "pub(crate) mod ", "pub(super) mod "].iter().any(|word| {
                let wanted = format!("{word}{name};");
                let opened = format!("{word}{name} {{");
                text.lines().any(|line| line.trim() == wanted || line.trim().starts_with(&opened))
            }) || text.contains(&format!("{name}.rs\"]"))
                // A program of another workspace, which this one carries as a text.
                || text.contains(&format!("include_str!(\"../../{inside}\")"))
        };
        if !is_root && !tree.files(&package, ".rs").any(|(other, text)| other != path && declared(text)) {
            found.push(format!("{path}: no file declares this module"));
        }
    }
    found
}

#[test]
fn code_that_computes_touches_nothing_else() {
    clean(&purity(&Tree::repository()));
}

#[test]
fn the_machine_s_clock_is_read_in_one_place() {
    clean(&clocks(&Tree::repository()));
}

#[test]
fn files_are_short() {
    clean(&sizes(&Tree::repository()));
}

#[test]
fn nothing_is_unfinished_and_nothing_sleeps() {
    clean(&unfinished(&Tree::repository()));
}

#[test]
fn every_file_says_what_it_is() {
    clean(&purposes(&Tree::repository()));
}

#[test]
fn no_file_is_dead() {
    clean(&dead(&Tree::repository()));
}

#[test]
fn planted_code_is_found() {
    let pure = |code| [("crates/replication/src/a.rs", code)];
    finds(purity, &pure("//! A.\nuse std::collections::BTreeMap;"), &[]);
    finds(purity, &pure("//! A.\nlet now = Instant::now();"), &["a.rs:2: Instant::now"]);
    finds(purity, &pure("//! A.\nuse std::fs;"), &["std::fs"]);
    finds(purity, &pure("//! Never std::fs.\n"), &[]);
    finds(purity, &pure("//! A.\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}"), &[]);
    finds(purity, &[("crates/node/src/machine/a.rs", "tokio::time::Instant::now()")], &["Instant::now", "tokio::time"]);
    finds(clocks, &[("crates/storage/src/a.rs", "std::time::SystemTime::now()")], &["world.rs"]);
    let long = format!("//! A.\n{}", "\n".repeat(LINES_MAX));
    finds(sizes, &[("crates/model/src/a.rs", &long)], &["501 lines"]);
    finds(sizes, &[("crates/model/src/a.rs", &format!("#[cfg(test)]\nmod tests {{\n{long}}}"))], &[]);
    let (word, sleep) = (["to", "do!()"].concat(), ["std::thread::", "sleep(x)"].concat());
    finds(unfinished, &[("crates/model/src/a.rs", &word), ("tests/tests/b.rs", &sleep)], &["a.rs:1", "b.rs:1"]);
    let built = ["Path::new(env!(\"CARGO_", "MANIFEST_DIR\"))"].concat();
    finds(unfinished, &[("crates/model/tests/a.rs", &built)], &["a.rs:1: the place where it was built"]);
    let excused = format!("#[expect(clippy::disallowed_methods, reason = \"why\")]\nfn a() {{\n{sleep}\n}}");
    finds(unfinished, &[("crates/sim/src/main.rs", &excused)], &[]);
    finds(purposes, &[("crates/model/src/a.rs", "use x;"), ("crates/model/src/b.rs", "//! B.")], &["a.rs"]);
    let files = [("crates/model/src/lib.rs", "mod a;"), ("crates/model/src/a.rs", ""), ("crates/model/src/b.rs", "")];
    finds(dead, &files, &["b.rs"]);
    assert_eq!(body("a\n#[cfg(test)]\nmod tests;\nb"), "a\n#[cfg(test)]\nmod tests;\nb");
}
