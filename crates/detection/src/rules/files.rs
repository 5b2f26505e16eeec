//! Folders of rule files. It reads, and decides nothing.

use super::{FILES_MAX, RuleSet, load_texts_with};
use crate::sigma::{FILE_SIZE_BYTES_MAX, Pipeline, Reason, RuleError};
use std::path::{Path, PathBuf};

/// Most folders within each other that are read.
const FOLDERS_DEEP_MAX: usize = 16;
/// Most rule files that are looked at to find those that are read.
const FILES_SEEN_MAX: usize = 100 * FILES_MAX;

/// Reads the `.yml` and `.yaml` files of a folder (not of folders in it), in the order of their names.
pub fn load_dir(path: &Path) -> (RuleSet, Vec<RuleError>) {
    load(path, false, &Pipeline::default())
}

/// Reads the rule files of a folder and all folders in it, through a pipeline.
pub fn load_tree(path: &Path, pipeline: &Pipeline) -> (RuleSet, Vec<RuleError>) {
    load(path, true, pipeline)
}

fn load(path: &Path, nested: bool, pipeline: &Pipeline) -> (RuleSet, Vec<RuleError>) {
    let (texts, mut errors) = read_folder(path, nested);
    let (rules, more) = load_texts_with(texts, pipeline);
    errors.extend(more);
    (rules, errors)
}

/// The rule files of a folder by their names within it, and those that cannot be read.
pub(crate) fn read_folder(path: &Path, nested: bool) -> (Vec<(String, String)>, Vec<RuleError>) {
    let mut found = Found::default();
    found.look(path, if nested { FOLDERS_DEEP_MAX } else { 0 }, nested);
    let Found { mut files, mut errors } = found;
    // Every node leaves out the same ones.
    files.sort();
    if files.len() > FILES_MAX {
        errors.push(error_of(path, Reason::TooManyFiles));
        files.truncate(FILES_MAX);
    }
    let mut texts = Vec::new();
    for file in files {
        match read_file(&file, FILE_SIZE_BYTES_MAX) {
            Ok(text) => {
                let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
                texts.push((name, text));
            }
            Err(reason) => errors.push(error_of(&file, reason)),
        }
    }
    (texts, errors)
}

/// The text of a file, which must not be larger than that.
pub(crate) fn read_file(path: &Path, size_bytes_max: usize) -> Result<String, Reason> {
    let unreadable = |error: std::io::Error| Reason::Unreadable { cause: error.to_string() };
    if std::fs::metadata(path).map_err(unreadable)?.len() > size_bytes_max as u64 {
        return Err(Reason::TooLarge);
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    // It may have grown meanwhile.
    if text.len() > size_bytes_max { Err(Reason::TooLarge) } else { Ok(text) }
}

fn error_of(path: &Path, reason: Reason) -> RuleError {
    RuleError { file: path.display().to_string().into(), line: 1, reason }
}

/// What is found while folders are looked through.
#[derive(Default)]
struct Found {
    files: Vec<PathBuf>,
    errors: Vec<RuleError>,
}

impl Found {
    fn look(&mut self, folder: &Path, deeper: usize, nested: bool) {
        let unreadable = |error: std::io::Error| Reason::Unreadable { cause: error.to_string() };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.errors.push(error_of(folder, unreadable(error))),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.errors.push(error_of(folder, unreadable(error))),
            };
            // Folders such as `.git`, and those that hold the earlier states of mounted files.
            if self.files.len() > FILES_SEEN_MAX || entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            let is_rule = path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
            if path.is_file() {
                self.files.extend(is_rule.then_some(path));
            } else if nested && path.is_dir() {
                if path.is_symlink() {
                    self.errors.push(error_of(&path, Reason::LinkedFolder));
                } else if deeper == 0 {
                    self.errors.push(error_of(&path, Reason::TooDeep));
                } else {
                    self.look(&path, deeper - 1, nested);
                }
            }
        }
    }
}
