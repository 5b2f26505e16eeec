//! What OCSF 1.4 requires of the classes that are met here: their activities, their required attributes, and those of
//! which one must be there. Objects are held by their flat names: `user` is there where `user.name` is.
//!
//! Source: <https://schema.ocsf.io/1.4.0/>. Classes that are not listed are held to what every event must have.

use super::Refusal;
use detection::event::Fields;
use detection::normalise::class;
use serde_json::Value;
use std::ops::Bound;

/// What is required of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its number.
    pub uid: u32,
    /// Its name.
    pub name: &'static str,
    /// The largest of its activities, which begin at 1; 0 (unknown) and 99 (other) belong to every class.
    pub activity_max: u32,
    /// Attributes that must be there.
    pub required: &'static [&'static str],
    /// Attributes of which one must be there.
    pub one_of: &'static [&'static str],
}

const fn of(
    uid: u32,
    name: &'static str,
    activity_max: u32,
    required: &'static [&'static str],
    one_of: &'static [&'static str],
) -> Class {
    Class { uid, name, activity_max, required, one_of }
}

/// The classes, by their numbers.
pub const CLASSES: [Class; 10] = [
    of(class::BASE, "Base Event", 0, &[], &[]),
    of(class::PROCESS, "Process Activity", 5, &["actor", "device", "process"], &[]),
    of(class::DETECTION_FINDING, "Detection Finding", 3, &["finding_info.uid"], &[]),
    of(
        class::INCIDENT_FINDING,
        "Incident Finding",
        3,
        &["finding_info_list", "status_id"],
        &["assignee", "assignee_group"],
    ),
    of(class::ACCOUNT_CHANGE, "Account Change", 12, &["user"], &[]),
    of(class::AUTHENTICATION, "Authentication", 6, &["user"], &["service", "dst_endpoint"]),
    of(class::USER_ACCESS, "User Access Management", 2, &["privileges", "user"], &[]),
    of(class::NETWORK, "Network Activity", 7, &[], &["dst_endpoint", "src_endpoint"]),
    of(class::API_ACTIVITY, "API Activity", 4, &["actor", "api.operation", "src_endpoint"], &[]),
    of(class::DATASTORE, "Datastore Activity", 10, &["actor", "src_endpoint"], &["database", "databucket", "table"]),
];

/// The largest category.
const CATEGORY_MAX: u64 = 8;

/// Holds an event's fields to its class.
///
/// # Errors
/// The first attribute that is missing or cannot be.
pub fn validate(fields: &Fields) -> Result<(), Refusal> {
    let number = |attribute: &str| fields.get(attribute).and_then(Value::as_u64);
    let class_uid = number("class_uid").and_then(|uid| u32::try_from(uid).ok());
    let fault = |attribute: &str, why| {
        Err(Refusal::NotOcsf { class_uid: class_uid.unwrap_or(0), attribute: attribute.to_owned(), why })
    };
    let Some(uid) = class_uid else { return fault("class_uid", "is missing or no number") };
    for attribute in ["activity_id", "category_uid", "severity_id", "time", "type_uid"] {
        if number(attribute).is_none() {
            return fault(attribute, "is missing or no number");
        }
    }
    let (category, activity) = (number("category_uid").unwrap_or(0), number("activity_id").unwrap_or(0));
    if category != u64::from(uid / 1_000) || category > CATEGORY_MAX {
        return fault("category_uid", "is not the class's");
    }
    if number("type_uid") != Some(u64::from(uid) * 100 + activity) {
        return fault("type_uid", "is not 100 × class_uid + activity_id");
    }
    if !matches!(number("severity_id"), Some(0..=6 | 99)) {
        return fault("severity_id", "is not 0 to 6 or 99");
    }
    for attribute in ["metadata.product", "metadata.version"] {
        if !is_there(fields, attribute) {
            return fault(attribute, "is missing");
        }
    }
    let Some(class) = CLASSES.iter().find(|class| class.uid == uid) else { return Ok(()) };
    if activity != 99 && activity > u64::from(class.activity_max) {
        return fault("activity_id", "is none of the class's");
    }
    if let Some(missing) = class.required.iter().find(|attribute| !is_there(fields, attribute)) {
        return fault(missing, "is missing");
    }
    if !class.one_of.is_empty() && !class.one_of.iter().any(|attribute| is_there(fields, attribute)) {
        return fault(&class.one_of.join(" or "), "is missing");
    }
    Ok(())
}

/// Ends of names that OCSF has numbers for, beside those of enumerations (`…_id`).
const NUMBERS: [&str; 15] = [
    "port",
    "pid",
    "tid",
    "count",
    "size",
    "bytes",
    "bytes_in",
    "bytes_out",
    "packets",
    "packets_in",
    "packets_out",
    "duration",
    "exit_code",
    "start_time",
    "end_time",
];

/// Texts that are numbers where OCSF has numbers, as lines of text bring them, become numbers.
pub fn to_numbers(fields: &mut Fields) {
    for (name, value) in fields.iter_mut().filter(|(name, _)| !name.starts_with("unmapped.")) {
        let last = name.rsplit('.').next().unwrap_or_default();
        if (last.ends_with("_id") || NUMBERS.contains(&last))
            && let Some(number) = value.as_str().and_then(|text| text.parse::<i64>().ok())
        {
            *value = number.into();
        }
    }
}

/// Whether an attribute, or a part of it, has a value.
fn is_there(fields: &Fields, attribute: &str) -> bool {
    let has_value = |value: &Value| !matches!(value, Value::Null) && value.as_str() != Some("");
    if fields.get(attribute).is_some_and(has_value) {
        return true;
    }
    let inside = format!("{attribute}.");
    let from = (Bound::Included(inside.as_str()), Bound::Unbounded);
    fields.range::<str, _>(from).take_while(|(name, _)| name.starts_with(&inside)).any(|(_, value)| has_value(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn login() -> Fields {
        let object = json!({"class_uid": 3002, "category_uid": 3, "activity_id": 1, "type_uid": 300_201,
            "severity_id": 1, "time": 5, "user": {"name": "ann"}, "service": {"name": "sshd"},
            "metadata": {"version": "1.4.0", "product": {"name": "x"}}});
        let mut fields = Fields::new();
        detection::normalise::flatten(object.as_object().unwrap(), &mut fields).unwrap();
        fields
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Fields), expect: Option<&str>) {
        let mut fields = login();
        change(&mut fields);
        let found = validate(&fields).err();
        let attribute = found.map(|refusal| match refusal {
            Refusal::NotOcsf { attribute, .. } => attribute,
            other => panic!("{other}"),
        });
        assert_eq!(attribute.as_deref(), expect);
    }

    #[test]
    fn an_event_is_held_to_its_class() {
        check(|_| {}, None);
        for attribute in ["class_uid", "category_uid", "activity_id", "type_uid", "severity_id", "time"] {
            check(|fields| drop(fields.remove(attribute)), Some(attribute));
        }
        check(|fields| drop(fields.remove("user.name")), Some("user"));
        check(|fields| drop(fields.insert("user.name".into(), json!(""))), Some("user"));
        check(|fields| drop(fields.remove("service.name")), Some("service or dst_endpoint"));
        check(|fields| drop(fields.remove("metadata.product.name")), Some("metadata.product"));
        check(|fields| drop(fields.insert("severity_id".into(), json!(7))), Some("severity_id"));
        check(|fields| drop(fields.insert("category_uid".into(), json!(4))), Some("category_uid"));
        check(
            |fields| fields.extend([("activity_id".into(), json!(8)), ("type_uid".into(), json!(300_208))]),
            Some("activity_id"),
        );
    }

    #[test]
    fn a_name_that_only_begins_the_same_is_not_the_attribute() {
        check(
            |fields| {
                fields.remove("user.name");
                fields.insert("user_name".into(), json!("ann"));
            },
            Some("user"),
        );
    }

    proptest! {
        #[test]
        fn arbitrary_numbers_never_panic(class: u64, activity: u64, category: u64) {
            let mut fields = login();
            fields.extend([("class_uid", class), ("activity_id", activity), ("category_uid", category)]
                .map(|(name, number)| (name.to_owned(), json!(number))));
            let _ = validate(&fields);
        }
    }
}
