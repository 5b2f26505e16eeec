//! Folders of rule files. It reads, and decides nothing.

use super::{FILES_MAX, RuleSet, load_texts_with};
use crate::sigma::{Pipeline, Reason, RuleError};
use std::path::{Path, PathBuf};

/// Most folders within each other that are read.
const FOLDERS_DEEP_MAX: usize = 16;

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
    let (mut files, mut texts, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    find_files(path, if nested { FOLDERS_DEEP_MAX } else { 0 }, &mut files, &mut errors);
    files.sort();
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
                texts.push((name, text));
            }
            Err(error) => errors.push(unreadable(&file, &error)),
        }
    }
    (texts, errors)
}

fn unreadable(file: &Path, error: &std::io::Error) -> RuleError {
    let reason = Reason::Unreadable { cause: error.to_string() };
    RuleError { file: file.display().to_string().into(), line: 1, reason }
}

fn find_files(folder: &Path, deeper: usize, files: &mut Vec<PathBuf>, errors: &mut Vec<RuleError>) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return errors.push(unreadable(folder, &error)),
    };
    let mut entries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).take(FILES_MAX).collect();
    entries.sort();
    for path in entries {
        let is_rule = path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
        if path.is_dir() && !path.is_symlink() && deeper > 0 {
            find_files(&path, deeper - 1, files, errors);
        } else if path.is_file() && is_rule && files.len() < FILES_MAX {
            files.push(path);
        }
    }
}
