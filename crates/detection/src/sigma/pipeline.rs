//! Pipelines: how rules of one taxonomy are read for the events at hand.
//!
//! Written as Sigma's processing pipelines are: fields are renamed, log sources replaced, placeholders filled,
//! conditions added. What a pipeline holds that is not listed here is an error, never ignored.

use super::error::{Reason, RuleError};
use super::pattern::{Pattern, read};
use super::scan;
use super::view::fold;
use super::yaml::{self, log_source, strings};
use super::{FILE_SIZE_BYTES_MAX, LogSourceFilter};
use serde_yaml_ng::{Mapping, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most transformations of a pipeline.
pub const TRANSFORMATIONS_MAX: usize = 1_024;
/// Most values that a placeholder stands for, and most values that one text with placeholders becomes.
pub const PLACEHOLDER_VALUES_MAX: usize = 10_000;

/// From Sigma's Windows and Linux names to those of OCSF, for rules as SigmaHQ writes them.
const TO_OCSF: &str = include_str!("ocsf.yml");

/// How rules are read; the default leaves them as they are.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    transformations: Vec<Transformation>,
    variables: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug)]
struct Transformation {
    action: Action,
    /// One of them must hold the rule's log source; none means every rule.
    sources: Vec<LogSourceFilter>,
}

#[derive(Clone, Debug)]
enum Action {
    Rename(BTreeMap<String, Vec<String>>),
    Prefix(String),
    Suffix(String),
    Source(LogSourceFilter),
    FillPlaceholders,
    AnyPlaceholder,
    Add(Mapping),
    Drop(Vec<String>),
    Refuse(String),
}

/// What a placeholder becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filling<'a> {
    Values(&'a [String]),
    Anything,
    Nothing,
}

impl Pipeline {
    /// Sigma's names to those of OCSF.
    pub fn ocsf() -> Self {
        Self::read(&"ocsf.yml".into(), TO_OCSF).expect("the pipeline that comes with the program is tested")
    }

    /// Reads a pipeline.
    ///
    /// # Errors
    /// What is wrong, with file and line.
    pub fn read(file: &Arc<str>, text: &str) -> Result<Self, RuleError> {
        let error = |line, reason| RuleError { file: file.clone(), line, reason };
        if text.len() > FILE_SIZE_BYTES_MAX {
            return Err(error(1, Reason::TooLarge));
        }
        let value = yaml::read(text).map_err(|(line, reason)| error(line + 1, reason))?;
        parse(&value).map_err(|(key, reason)| error(scan::line_of(text, 1, &key), reason))
    }

    /// Gives placeholders their values, beside those of the file's `vars`.
    #[must_use]
    pub fn with_values(mut self, placeholder: &str, values: Vec<String>) -> Self {
        self.variables.insert(placeholder.to_owned(), values);
        if !self.transformations.iter().any(|t| matches!(t.action, Action::FillPlaceholders)) {
            self.transformations.push(Transformation { action: Action::FillPlaceholders, sources: Vec::new() });
        }
        self
    }

    /// This pipeline, then another.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.transformations.extend(next.transformations);
        self.variables.extend(next.variables);
        self
    }

    /// What events call a rule's field: one name, or several of which any may hold it.
    pub fn forth(&self, source: &LogSourceFilter, field: &str) -> Vec<String> {
        let mut names = vec![field.to_owned()];
        for action in self.actions(source) {
            names = match action {
                Action::Rename(map) => {
                    names.into_iter().flat_map(|name| map.get(&name).cloned().unwrap_or_else(|| vec![name])).collect()
                }
                Action::Prefix(prefix) => names.into_iter().map(|name| format!("{prefix}{name}")).collect(),
                Action::Suffix(suffix) => names.into_iter().map(|name| format!("{name}{suffix}")).collect(),
                _ => names,
            };
        }
        names
    }

    /// What rules for that log source call an event's field: all names that [`Self::forth`] makes it of.
    pub fn back(&self, source: &LogSourceFilter, field: &str) -> Vec<String> {
        let mut names = vec![field.to_owned()];
        let actions: Vec<&Action> = self.actions(source).collect();
        for action in actions.into_iter().rev() {
            names = match action {
                Action::Rename(map) => names.into_iter().flat_map(|name| renamed_from(map, name)).collect(),
                Action::Prefix(prefix) => {
                    names.into_iter().filter_map(|name| name.strip_prefix(prefix.as_str()).map(str::to_owned)).collect()
                }
                Action::Suffix(suffix) => {
                    names.into_iter().filter_map(|name| name.strip_suffix(suffix.as_str()).map(str::to_owned)).collect()
                }
                _ => names,
            };
        }
        names
    }

    fn actions(&self, source: &LogSourceFilter) -> impl Iterator<Item = &Action> {
        self.transformations.iter().filter(|step| step.is_for(source)).map(|step| &step.action)
    }

    pub(super) fn source(&self, source: &LogSourceFilter) -> LogSourceFilter {
        let replaced = self.actions(source).filter_map(|action| match action {
            Action::Source(replacement) => Some(replacement.clone()),
            _ => None,
        });
        replaced.last().unwrap_or_else(|| source.clone())
    }

    pub(super) fn added(&self, source: &LogSourceFilter) -> impl Iterator<Item = &Mapping> {
        self.actions(source).filter_map(|action| if let Action::Add(fields) = action { Some(fields) } else { None })
    }

    pub(super) fn drops(&self, source: &LogSourceFilter, field: &str) -> bool {
        self.actions(source)
            .any(|action| matches!(action, Action::Drop(fields) if fields.iter().any(|name| name == field)))
    }

    pub(super) fn refusal(&self, source: &LogSourceFilter) -> Option<&str> {
        self.actions(source).find_map(|action| if let Action::Refuse(why) = action { Some(why.as_str()) } else { None })
    }

    pub(super) fn fill(&self, source: &LogSourceFilter, placeholder: &str) -> Filling<'_> {
        for action in self.actions(source) {
            match (action, self.variables.get(placeholder)) {
                (Action::FillPlaceholders, Some(values)) if !values.is_empty() => return Filling::Values(values),
                (Action::AnyPlaceholder, _) => return Filling::Anything,
                _ => {}
            }
        }
        Filling::Nothing
    }
}

/// What a map makes a name of; itself where the map does not know it.
fn renamed_from(map: &BTreeMap<String, Vec<String>>, name: String) -> Vec<String> {
    let mut from: Vec<String> =
        map.iter().filter(|(_, names)| names.contains(&name)).map(|(from, _)| from.clone()).collect();
    if from.is_empty() || !map.contains_key(&name) && from.contains(&name) {
        from.push(name);
    }
    from
}

impl Transformation {
    fn is_for(&self, source: &LogSourceFilter) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|wanted| wanted.contains(source))
    }
}

type Failure = (String, Reason);

fn wrong(key: &str, expected: &'static str) -> Failure {
    (key.to_owned(), Reason::Wrong { key: key.to_owned(), expected })
}

fn unsupported(key: &str, what: &str) -> Failure {
    (what.to_owned(), Reason::Unsupported { what: format!("{key} {what}") })
}

fn parse(value: &Value) -> Result<Pipeline, Failure> {
    let root = value.as_mapping().ok_or((String::new(), Reason::NotAMapping))?;
    let mut pipeline = Pipeline::default();
    for (key, value) in root {
        match key.as_str().unwrap_or_default() {
            "name" | "priority" | "allowed_backends" => {}
            "vars" => {
                let variables = value.as_mapping().ok_or_else(|| wrong("vars", "a mapping"))?;
                for (name, values) in variables {
                    let name = name.as_str().ok_or_else(|| wrong("vars", "a mapping with texts as keys"))?;
                    let values = texts(values).filter(|values| (1..=PLACEHOLDER_VALUES_MAX).contains(&values.len()));
                    let values = values.ok_or_else(|| wrong(name, "a value or a list of 1 to 10000"))?;
                    pipeline.variables.insert(name.to_owned(), values);
                }
            }
            "transformations" => {
                let steps = value.as_sequence().filter(|steps| steps.len() <= TRANSFORMATIONS_MAX);
                let steps = steps.ok_or_else(|| wrong("transformations", "a list of at most 1024"))?;
                pipeline.transformations = steps.iter().map(transformation).collect::<Result<_, _>>()?;
            }
            other => return Err(unsupported("pipeline key", other)),
        }
    }
    Ok(pipeline)
}

fn transformation(value: &Value) -> Result<Transformation, Failure> {
    let step = value.as_mapping().ok_or_else(|| wrong("transformations", "a list of mappings"))?;
    let text = |key: &'static str| step.get(key).and_then(Value::as_str).ok_or_else(|| wrong(key, "a text"));
    let action = match text("type")? {
        "field_name_mapping" => Action::Rename(renaming(step.get("mapping"))?),
        "field_name_prefix" => Action::Prefix(text("prefix")?.to_owned()),
        "field_name_suffix" => Action::Suffix(text("suffix")?.to_owned()),
        "change_logsource" => Action::Source(log_source(step).map_err(|key| wrong(&key, "a text"))?),
        "value_placeholders" => Action::FillPlaceholders,
        "wildcard_placeholders" => Action::AnyPlaceholder,
        "add_condition" => {
            let fields = step.get("conditions").and_then(Value::as_mapping);
            Action::Add(fields.ok_or_else(|| wrong("conditions", "a mapping"))?.clone())
        }
        "drop_detection_item" => {
            Action::Drop(step.get("fields").and_then(strings).ok_or_else(|| wrong("fields", "a list of fields"))?)
        }
        "rule_failure" => Action::Refuse(text("message")?.to_owned()),
        other => return Err(unsupported("transformation", other)),
    };
    let known = [
        "id",
        "type",
        "mapping",
        "prefix",
        "suffix",
        "product",
        "category",
        "service",
        "conditions",
        "fields",
        "message",
        "rule_conditions",
        "rule_cond_op",
    ];
    if let Some(key) = step.keys().filter_map(Value::as_str).find(|key| !known.contains(key)) {
        return Err(unsupported("key", key));
    }
    if step.get("rule_cond_op").and_then(Value::as_str).is_some_and(|operator| operator != "or") {
        return Err(unsupported("rule_cond_op", "and"));
    }
    let mut sources = Vec::new();
    for condition in step.get("rule_conditions").and_then(Value::as_sequence).unwrap_or(&Vec::new()) {
        let condition = condition.as_mapping().ok_or_else(|| wrong("rule_conditions", "a list of mappings"))?;
        match condition.get("type").and_then(Value::as_str) {
            Some("logsource") => sources.push(log_source(condition).map_err(|key| wrong(&key, "a text"))?),
            other => return Err(unsupported("rule condition", other.unwrap_or("without a type"))),
        }
    }
    Ok(Transformation { action, sources })
}

fn renaming(value: Option<&Value>) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let map = value.and_then(Value::as_mapping).ok_or_else(|| wrong("mapping", "a mapping"))?;
    map.iter()
        .map(|(from, to)| {
            let to = strings(to).filter(|names| !names.is_empty());
            Some((from.as_str()?.to_owned(), to?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| wrong("mapping", "names by name"))
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    match value {
        Value::Sequence(values) => values.iter().map(one).collect(),
        single => Some(vec![one(single)?]),
    }
}

/// A name pattern of a condition, such as `selection_*`.
pub(super) fn name_pattern(text: &str) -> Pattern {
    Pattern::new(&read(&fold(text)), false)
}
