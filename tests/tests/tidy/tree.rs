//! The files of the repository, read once; or files that a test planted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 4] = ["target", ".git", "node_modules", "proptest-regressions"];
/// Larger files are data.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Text files by their path from the root, in order.
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// The repository.
    pub fn repository() -> Self {
        // Tests run in their package's folder. Where it was built says nothing: clones share what they build.
        let root = Path::new("..");
        let mut files = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(root.join(&folder)).expect("a folder can be read") {
                let entry = entry.expect("an entry can be read");
                let path = folder.join(entry.file_name());
                let name = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type().expect("an entry has a type");
                if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                    folders.push(path);
                } else if kind.is_file() && entry.metadata().is_ok_and(|data| data.len() <= FILE_BYTES_MAX) {
                    // What is not text is none of our business; what vanished meanwhile neither.
                    if let Ok(text) = std::fs::read_to_string(root.join(&path)) {
                        files.insert(path.to_string_lossy().into_owned(), text);
                    }
                }
            }
        }
        Self { files }
    }

    /// Planted files.
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect() }
    }

    /// All files whose path begins and ends so.
    pub fn files<'a>(&'a self, begin: &'a str, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        all.filter(move |(path, _)| path.starts_with(begin) && path.ends_with(end))
    }

    /// One file.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether there is such a file, or a folder with files.
    pub fn holds(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        path.is_empty() || self.files.keys().any(|file| file == path || file.starts_with(&folder))
    }
}

/// Our own Rust code: what the programs are made of, and all tests of ours but those that must not compile.
pub fn rust(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.files("", ".rs").filter(|(path, _)| !path.contains("/tests/ui/") && !path.contains("third-party"))
}

/// Rust code that ships: without the tests in it.
pub fn shipped(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let is_test = |path: &str| path.ends_with("tests.rs") || path.contains("/tests/") || path.contains("/examples/");
    rust(tree).filter(move |(path, _)| path.contains("/src/") && !is_test(path)).map(|(path, text)| (path, body(text)))
}

/// A file up to its own tests.
pub fn body(text: &str) -> &str {
    let end = text.match_indices("#[cfg(test)]\nmod ").find(|(at, _)| {
        let rest = &text[*at + "#[cfg(test)]\n".len()..];
        rest.lines().next().is_some_and(|line| line.ends_with('{'))
    });
    end.map_or(text, |(at, _)| &text[..at])
}
