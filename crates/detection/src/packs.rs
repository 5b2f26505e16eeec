//! Packs and tenants: which folders of rules there are, who sees them, and what each tenant adds, leaves out and may use.
//!
//! One file, `packs.toml`; the form is told in the rule pack's `README.md`. Whoever loads it gets all of it or an error
//! with file and line: a configuration that is half understood would leave tenants unwatched.

mod document;

use crate::rules::{self, Builder, Group, RULES_MAX, RuleSet, Tenancy, View, read_file, read_folder};
use crate::sigma::{Audience, FILE_SIZE_BYTES_MAX, Pipeline, Reason, RuleError};
use document::{Document, Pack, Tenant, Tenants};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;

/// The file's name, where a folder is given.
pub const PACKS_FILE: &str = "packs.toml";
/// Most bytes of the file.
pub const PACKS_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most tenants with rules, quotas or packs of their own.
pub const TENANTS_MAX: usize = 10_000;

/// Reads rules: of a `packs.toml`, of a folder that holds one, or of a folder of rule files. The errors are of rules
/// that are left out.
///
/// # Errors
/// What is wrong with the `packs.toml`, with file and line.
pub fn load(path: &Path) -> Result<(RuleSet, Vec<RuleError>), RuleError> {
    let is_file = path.extension().is_some_and(|extension| extension == "toml");
    let file = if is_file { path.to_owned() } else { path.join(PACKS_FILE) };
    if !is_file && !file.exists() {
        return Ok(rules::load_dir(path));
    }
    let name: Arc<str> = file.display().to_string().into();
    let error = |reason| RuleError { file: name.clone(), line: 1, reason };
    let text = read_file(&file, PACKS_FILE_BYTES_MAX).map_err(error)?;
    let document = document::read(&name, &text)?;
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    Loader { name, text: &text, folder, builder: Builder::default() }.load(&document)
}

/// The files and folders that a `packs.toml` names, some of which may not be there; none where there is no such file, or
/// where it cannot be read.
pub fn sources(path: &Path) -> Vec<PathBuf> {
    let is_file = path.extension().is_some_and(|extension| extension == "toml");
    let file = if is_file { path.to_owned() } else { path.join(PACKS_FILE) };
    let text = std::fs::read_to_string(&file).ok().filter(|text| text.len() <= PACKS_FILE_BYTES_MAX);
    let Some(Ok(document)) = text.map(|text| document::read(&"".into(), &text)) else { return Vec::new() };
    let packs = document.pack.iter().map(Spanned::get_ref);
    let of_packs = packs.flat_map(|pack| {
        let pipelines = pack.pipelines.iter().filter(|name| *name != "ocsf").map(PathBuf::from);
        pack.folders.iter().cloned().chain(pipelines)
    });
    let of_tenants = document.tenant.iter().filter_map(|tenant| tenant.get_ref().rules.clone());
    let folder = file.parent().unwrap_or(Path::new(""));
    of_packs.chain(of_tenants).map(|name| folder.join(name)).collect()
}

/// A door for fuzzing: reads a file's text as far as that takes no other file.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) -> Result<(), RuleError> {
    document::read(&PACKS_FILE.into(), text).map(drop)
}

struct Loader<'a> {
    name: Arc<str>,
    text: &'a str,
    folder: PathBuf,
    builder: Builder,
}

/// A pack that was read, and who sees it.
struct Read<'a> {
    pack: &'a Pack,
    group: Group,
}

impl Read<'_> {
    /// Whether a tenant sees it; `None` for tenants that are not named.
    fn is_seen_by(&self, tenant: Option<&str>) -> bool {
        let names = self.pack.tenants.as_deref().unwrap_or_default();
        names.iter().any(|name| name == "*" || Some(name.as_str()) == tenant)
    }
}

impl Loader<'_> {
    fn error(&self, place: &std::ops::Range<usize>, why: impl Into<String>) -> RuleError {
        let line = document::line_of(self.text, place.start);
        RuleError { file: self.name.clone(), line, reason: Reason::Configuration { why: why.into() } }
    }

    fn load(mut self, document: &Document) -> Result<(RuleSet, Vec<RuleError>), RuleError> {
        let mut packs = Vec::new();
        let mut names = BTreeSet::new();
        for pack in &document.pack {
            if !names.insert(&pack.get_ref().name) {
                return Err(self.error(&pack.span(), format!("two packs are called {}", pack.get_ref().name)));
            }
            packs.push(self.pack(pack)?);
        }
        let mut tenancy = Tenancy { others: Some(self.view(&packs, None, &document.tenants)), ..Tenancy::default() };
        let mut named: BTreeMap<&str, Option<&Spanned<Tenant>>> = BTreeMap::new();
        for name in packs.iter().flat_map(|read| read.pack.tenants.as_deref().unwrap_or_default()) {
            named.extend((name != "*").then_some((name.as_str(), None)));
        }
        for tenant in &document.tenant {
            if let Some(Some(_)) = named.insert(&tenant.get_ref().name, Some(tenant)) {
                return Err(self.error(&tenant.span(), format!("tenant {} is told twice", tenant.get_ref().name)));
            }
        }
        if named.len() > TENANTS_MAX {
            return Err(self.error(&(0..0), format!("more than {TENANTS_MAX} tenants")));
        }
        for (name, tenant) in named {
            let mut view = self.view(&packs, Some(name), &document.tenants);
            if let Some(tenant) = tenant {
                self.tenant(tenant, &packs, &mut view)?;
            }
            tenancy.named.insert(name.into(), view);
        }
        Ok(self.builder.finish(tenancy))
    }

    fn pack<'a>(&mut self, spanned: &'a Spanned<Pack>) -> Result<Read<'a>, RuleError> {
        let pack = spanned.get_ref();
        let mut files = Vec::new();
        for folder in &pack.folders {
            let path = self.folder.join(folder);
            if !path.is_dir() {
                return Err(self.error(&spanned.span(), format!("{}: there is no such folder", path.display())));
            }
            files.extend(self.read(&path, pack.nested));
        }
        let pipeline = self.pipelines(&pack.pipelines, &spanned.span())?;
        let group = self.builder.add(files, &pipeline, RULES_MAX);
        if pack.tenants.is_some() {
            self.builder.give(&group, &Audience::Tenants, &pack.name);
        }
        if pack.shadow {
            self.builder.shadow(&group);
        }
        Ok(Read { pack, group })
    }

    fn read(&mut self, path: &Path, nested: bool) -> Vec<(String, String)> {
        let (files, errors) = read_folder(path, nested);
        self.builder.errors.extend(errors);
        let name = |name: String| path.join(name).display().to_string();
        files.into_iter().map(|(file, text)| (name(file), text)).collect()
    }

    fn text(&self, path: &Path, place: &std::ops::Range<usize>) -> Result<String, RuleError> {
        let text = read_file(path, FILE_SIZE_BYTES_MAX);
        text.map_err(|reason| self.error(place, format!("{}: {reason}", path.display())))
    }

    fn pipelines(&self, names: &[String], place: &std::ops::Range<usize>) -> Result<Arc<Pipeline>, RuleError> {
        let mut pipeline = Pipeline::default();
        for name in names {
            pipeline = pipeline.then(self.pipeline(name, place)?);
        }
        Ok(Arc::new(pipeline))
    }

    fn pipeline(&self, name: &str, place: &std::ops::Range<usize>) -> Result<Pipeline, RuleError> {
        if name == "ocsf" {
            return Ok(Pipeline::ocsf());
        }
        let path = self.folder.join(name);
        let text = self.text(&path, place)?;
        Pipeline::read(&path.display().to_string().into(), &text)
    }

    /// What a tenant sees of packs.
    fn view(&self, packs: &[Read<'_>], tenant: Option<&str>, defaults: &Tenants) -> View {
        let (alerts_max, shows_text) = (defaults.alerts_per_rule_hour, defaults.alerts_show_text);
        let mut view = View { alerts_max, shows_text, rules_max: defaults.rules_max, ..View::default() };
        for read in packs.iter().filter(|read| read.is_seen_by(tenant)) {
            read.group.rules.clone().for_each(|rule| view.rules.set(rule, true));
        }
        view
    }

    fn tenant(&mut self, spanned: &Spanned<Tenant>, packs: &[Read<'_>], view: &mut View) -> Result<(), RuleError> {
        let tenant = spanned.get_ref();
        view.alerts_max = tenant.alerts_per_rule_hour.unwrap_or(view.alerts_max);
        view.shows_text = tenant.alerts_show_text.unwrap_or(view.shows_text);
        view.rules_max = tenant.rules_max.unwrap_or(view.rules_max);
        let sees: Vec<&Group> =
            packs.iter().filter(|read| read.is_seen_by(Some(&tenant.name))).map(|read| &read.group).collect();
        for id in &tenant.disable {
            let found = self.builder.disable(id, &sees, &mut view.rules);
            if !found {
                return Err(self.error(&spanned.span(), format!("tenant {} sees no rule {id}", tenant.name)));
            }
            view.silent.insert(id.as_str().into());
        }
        let (own, is_told) = match &tenant.rules {
            Some(path) => (self.folder.join(path), true),
            None => (self.folder.join("tenants").join(&tenant.name), false),
        };
        let files = if own.is_dir() {
            self.read(&own, false)
        } else if own.is_file() {
            let text = self.text(&own, &spanned.span())?;
            vec![(own.display().to_string(), text)]
        } else if is_told {
            return Err(self.error(&spanned.span(), format!("{}: there is nothing", own.display())));
        } else {
            Vec::new()
        };
        let pipeline = self.pipelines(&tenant.pipelines, &spanned.span())?;
        self.builder.add_for_tenant((files, &pipeline), &tenant.name, &sees, &mut view.rules, view.rules_max);
        Ok(())
    }
}
