//! Documents that say what is so: links lead somewhere, invariants have their tests, rules have theirs, and nothing
//! speaks of the machine it was written on.

use crate::tree::{Tree, rust};
use crate::{clean, finds};
use regex::Regex;
use std::collections::BTreeSet;

/// Relative links of all documents lead to files.
fn links(tree: &Tree) -> Vec<String> {
    let link = Regex::new(r"\]\(([^)#\s]+)(#[^)]*)?\)").expect("the pattern is well formed");
    let mut found = Vec::new();
    for (path, text) in tree.files("", ".md") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in link.captures_iter(&prose(text)).map(|captures| captures[1].to_owned()) {
            if !target.contains("://") && !target.starts_with("mailto:") && !tree.holds(&join(folder, &target)) {
                found.push(format!("{path}: {target} is not there"));
            }
        }
    }
    found
}

/// A document without its blocks of code.
fn prose(text: &str) -> String {
    let parts = text.split("```").step_by(2);
    parts.collect::<Vec<_>>().join("\n")
}

fn join(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Every invariant names a test that is there.
fn invariants(tree: &Tree) -> Vec<String> {
    const PAGE: &str = "docs/invariants.md";
    let mut found = Vec::new();
    let rows = tree.get(PAGE).unwrap_or_default().lines().filter(|line| line.starts_with("| "));
    let rows = rows.filter(|line| !line.contains("| held by |"));
    let mut count = 0;
    for row in rows {
        count += 1;
        let named = row.split('`').find(|part| part.contains("::")).and_then(|part| part.rsplit_once("::"));
        let Some((file, test)) = named else {
            found.push(format!("{PAGE}: no test is named: {row}"));
            continue;
        };
        match tree.get(file) {
            None => found.push(format!("{PAGE}: there is no {file}")),
            Some(text) if !text.contains(&format!("fn {test}(")) => found.push(format!("{PAGE}: {file} has no {test}")),
            Some(_) => {}
        }
    }
    if count == 0 {
        found.push(format!("{PAGE}: lists nothing"));
    }
    found
}

/// Every rule that raises alerts is expected by a test of its file.
fn rules(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    let word = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default();
    for (path, text) in tree.files("cluster/rules/", ".yml").filter(|(path, _)| !path.contains("/tests/")) {
        let tests = path.replace("cluster/rules/", "cluster/rules/tests/");
        let Some(cases) = tree.get(&tests) else {
            found.push(format!("{path}: has no {tests}"));
            continue;
        };
        let referred: BTreeSet<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- ")).collect();
        for document in text.split("\n---") {
            let name = document.lines().find(|line| line.starts_with("name:")).map(word);
            let Some(name) = name else { continue };
            let listed = text.lines().any(|line| line.trim_start().starts_with("rules:") && line.contains(&name));
            let silent = (referred.contains(name.as_str()) || listed) && !document.contains("generate: true");
            if !silent && !cases.lines().any(|line| line.contains("expect:") && line.contains(&name)) {
                found.push(format!("{path}: no test of {tests} expects {name}"));
            }
        }
    }
    found
}

/// Nothing speaks of somebody's machine.
fn machines(tree: &Tree) -> Vec<String> {
    let own = Regex::new(r"(/(root|Users|work)/|/home/[a-z])").expect("the pattern is well formed");
    let mut found = Vec::new();
    // `./dev` writes the included file, which is not committed.
    let all =
        tree.files("", "").filter(|(path, _)| *path != ".cargo/machine.toml" && !path.starts_with("tests/tests/tidy/"));
    for (path, text) in all.filter(|(path, _)| !path.starts_with("crates/detection/tests/") && !path.ends_with(".log"))
    {
        for (number, _) in (1..).zip(text.lines()).filter(|(_, line)| own.is_match(line)) {
            found.push(format!("{path}:{number}: a path of somebody's machine"));
        }
    }
    found
}

/// One sentence a line.
fn sentences(tree: &Tree) -> Vec<String> {
    let two = Regex::new(r"[a-z)`\]]{2}[.!?] [A-Z][a-z]*[ ,.]").expect("the pattern is well formed");
    let mut found = Vec::new();
    for (path, text) in tree.files("docs/", ".md").chain(tree.files("README.md", "")) {
        let mut is_code = false;
        for (number, line) in (1..).zip(text.lines()) {
            is_code ^= line.starts_with("```");
            if !is_code && !line.starts_with('|') && two.is_match(line) {
                found.push(format!("{path}:{number}: one sentence a line"));
            }
        }
    }
    found
}

/// Tests that documents promise have bodies: the page of invariants is only as good as what it names.
#[test]
fn every_invariant_has_its_test() {
    let tree = Tree::repository();
    assert!(rust(&tree).count() > 100, "the repository was not found");
    clean(&invariants(&tree));
}

#[test]
fn links_lead_somewhere() {
    clean(&links(&Tree::repository()));
}

#[test]
fn every_rule_has_its_test() {
    clean(&rules(&Tree::repository()));
}

#[test]
fn nothing_speaks_of_somebody_s_machine() {
    clean(&machines(&Tree::repository()));
}

#[test]
fn documents_have_one_sentence_a_line() {
    clean(&sentences(&Tree::repository()));
}

#[test]
fn planted_documents_are_found() {
    finds(links, &[("docs/a.md", "[b](b.md) [c](../c.md#x) [d](https://d)"), ("c.md", "")], &["b.md is not there"]);
    finds(links, &[("docs/a.md", "```\n[b](b.md)\n```")], &[]);
    let page =
        "| invariant | held by |\n|---|---|\n| A | `x.rs::one` |\n| B | `x.rs::two` |\n| C | `y.rs::one` |\n| D | |";
    let files = [("docs/invariants.md", page), ("x.rs", "fn one() {}")];
    finds(invariants, &files, &["no two", "there is no y.rs", "no test is named"]);
    finds(invariants, &[], &["lists nothing"]);
    let pair = "name: base\n---\nname: burst\ncorrelation:\n  rules: [base]\n---\nname: lone";
    let cases = "- name: x\n  expect: [burst]";
    let files = [("cluster/rules/a.yml", pair), ("cluster/rules/tests/a.yml", cases), ("cluster/rules/b.yml", "")];
    finds(rules, &files, &["expects lone", "has no"]);
    let home = ["/ho", "me/ann/x"].concat();
    finds(machines, &[("a.toml", &home)], &["a.toml:1"]);
    finds(sentences, &[("docs/a.md", "First one. Second one.\n```\na. B c\n```\n| a. B c |")], &["a.md:1"]);
}
