//! Where the program under test and the data of the drills are.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};

/// The program `holdfast`: as given, or beside this program.
pub fn binary(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("cannot tell where this program is")?.with_file_name("holdfast"),
    };
    if !path.is_file() {
        bail!("{}: no such program; build it with ./dev build, or say --binary PATH", path.display());
    }
    path.canonicalize().with_context(|| format!("{}: cannot be resolved", path.display()))
}

/// A file or folder of the repository: below the current folder, or beside it. Not where this program was built: clones
/// share what they build.
pub fn data(name: &str) -> Result<PathBuf> {
    let found = [".", ".."].into_iter().map(|base| Path::new(base).join(name)).find(|path| path.exists());
    let found = found.with_context(|| format!("{name}: not found; run this from the repository"))?;
    found.canonicalize().with_context(|| format!("{name}: cannot be resolved"))
}

/// A new folder for one run, below the system's folder for temporary files.
pub fn scratch(kind: &str) -> Result<PathBuf> {
    let base = std::env::temp_dir().join("holdfast");
    std::fs::create_dir_all(&base).with_context(|| format!("{}: cannot be created", base.display()))?;
    let path = base.join(format!("{kind}-{}", std::process::id()));
    if path.exists() {
        std::fs::remove_dir_all(&path).with_context(|| format!("{}: cannot be removed", path.display()))?;
    }
    Ok(path)
}

/// The analysis that measured recovery is judged by.
pub fn analysis() -> Result<audit::bia::Bia> {
    let path = data("cluster/bia.toml")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    audit::bia::Bia::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}
