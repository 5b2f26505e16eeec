//! Conditions on records: Sigma's selections and conditions, so that there is one language for "which events".
//!
//! Pure. A record that has not been taken apart has no fields, only its line, which keywords are looked for in.

use crate::record::Record;
use detection::sigma::{self, Document, FieldNames, Rule, View};
use detection::{Event, EventId, LogSource};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A condition as it is written: selections by their names and a `condition` over them, or the fields of one selection.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct ConditionConfig(Map<String, Value>);

/// A condition, compiled.
#[derive(Clone, Debug)]
pub struct Condition {
    names: FieldNames,
    rule: Rule,
}

/// Why a condition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCondition {
    /// It says nothing.
    #[error("the condition is empty: give it fields, such as {{ \"user.name\" = \"ann\" }}")]
    Empty,
    /// Fields of one selection and whole selections, side by side.
    #[error("'{0}' is a field beside selections: put it into a selection, such as selection = {{ … }}")]
    Mixed(String),
    /// Sigma's reason.
    #[error(transparent)]
    Sigma(sigma::Reason),
}

impl ConditionConfig {
    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(&self) -> Result<Condition, BadCondition> {
        let selections = self.0.iter().filter(|(name, _)| *name != "condition");
        let is_selection = |value: &Value| match value {
            Value::Object(_) => true,
            Value::Array(values) => values.iter().any(Value::is_object),
            _ => false,
        };
        let loose = selections.clone().find(|(_, value)| !is_selection(value));
        let whole = selections.clone().any(|(_, value)| is_selection(value));
        let body = match (loose, whole, self.0.contains_key("condition")) {
            (None, false, _) => return Err(BadCondition::Empty),
            (Some(_), false, false) => json!({"selection": self.0, "condition": "selection"}),
            (Some((name, _)), true, false) => return Err(BadCondition::Mixed(name.clone())),
            (_, _, true) => Value::Object(self.0.clone()),
            (None, true, false) => {
                let mut body = self.0.clone();
                body.insert("condition".into(), "all of them".into());
                Value::Object(body)
            }
        };
        // JSON is YAML: Sigma's own reader sees what it would see in a rule.
        let text = json!({"title": "condition", "logsource": {}, "detection": body}).to_string();
        let mut names = FieldNames::default();
        let (documents, errors) = sigma::parse(&"condition".into(), &text, &mut names);
        match (documents.into_iter().next(), errors.into_iter().next()) {
            (Some(Document::Rule(rule)), None) => Ok(Condition { names, rule }),
            (_, Some(error)) => Err(BadCondition::Sigma(error.reason)),
            _ => Err(BadCondition::Empty),
        }
    }
}

impl Condition {
    /// Whether it holds. The record is only borrowed for it: nothing is changed.
    pub fn holds(&self, record: &mut Record) -> bool {
        let parsed = record.fields.is_some();
        let event = Event {
            id: EventId::from_bytes([0; 16]),
            position: None,
            time_ms: 0,
            received_ms: 0,
            class_uid: 0,
            activity_id: 0,
            category_uid: 0,
            severity_id: 0,
            logsource: LogSource::default(),
            fields: record.fields.take().unwrap_or_default(),
            raw: record.raw.clone(),
        };
        let holds = self.rule.matches(&View::new(&self.names, &event));
        record.fields = parsed.then_some(event.fields);
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::SourceKind;

    fn record(fields: Value, raw: &'static str) -> Record {
        let mut flat = Default::default();
        detection::normalise::flatten(fields.as_object().unwrap(), &mut flat).unwrap();
        let fields = (!flat.is_empty()).then_some(flat);
        Record { source: SourceKind::Ndjson, received_ms: 0, position: None, tenant: None, raw: raw.into(), fields }
    }

    #[track_caller]
    fn check(condition: &str, fields: Value, raw: &'static str, expect: bool) {
        let config: ConditionConfig = toml::from_str(condition).unwrap();
        let mut record = record(fields, raw);
        let before = record.clone();
        assert_eq!(config.open().unwrap().holds(&mut record), expect, "{condition}");
        assert_eq!(record, before, "a condition changes nothing");
    }

    #[test]
    fn conditions_are_sigma_s() {
        let event = || json!({"user": {"name": "adm-1"}, "severity_id": 4, "src": "10.1.2.3"});
        check("severity_id = [4, 5]", event(), "", true);
        check("'user.name|startswith' = 'ADM'\nseverity_id = 4", event(), "", true);
        check(
            "a = { 'src|cidr' = '10.0.0.0/8' }\nb = { severity_id = 1 }\ncondition = 'a and not b'",
            event(),
            "",
            true,
        );
        check("a = { severity_id = 1 }\nb = { severity_id = 4 }", event(), "", false);
        check("words = ['refused']\ncondition = 'words'", json!({}), "connection refused", true);
        check("words = ['refused']\ncondition = 'words'", json!({}), "connection made", false);
    }

    #[test]
    fn a_condition_that_cannot_be_meant_is_refused() {
        let reason = |text: &str| toml::from_str::<ConditionConfig>(text).unwrap().open().unwrap_err();
        assert_eq!(reason(""), BadCondition::Empty);
        assert_eq!(reason("x = 1\na = { b = 2 }"), BadCondition::Mixed("x".into()));
        assert!(matches!(reason("a = { b = 2 }\ncondition = 'c'"), BadCondition::Sigma(_)));
        assert!(matches!(reason("'a|re' = '('"), BadCondition::Sigma(_)));
    }
}
