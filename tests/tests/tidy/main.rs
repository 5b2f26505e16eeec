//! The rules of the house, as tests: each check is a function over a tree of files, is run on the repository, and
//! is shown to find a violation that was planted.

mod code;
mod docs;
mod manifests;
mod tree;

use tree::Tree;

/// Fails with every violation, one a line.
fn clean(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// A tree of planted files, and how often a check must complain about it.
#[track_caller]
fn finds(check: impl Fn(&Tree) -> Vec<String>, files: &[(&str, &str)], words: &[&str]) {
    let found = check(&Tree::of(files));
    assert_eq!(found.len(), words.len(), "{found:#?}");
    for (violation, word) in found.iter().zip(words) {
        assert!(violation.contains(word), "{violation:?} does not say {word:?}");
    }
}
