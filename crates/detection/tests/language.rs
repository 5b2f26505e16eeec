//! How rules are read: placeholders, modifiers beside each other, filters, pipelines that reach what is about rules, and
//! what would match everything or nothing without a word.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{Detector, Options};
use detection::event::RawEvent;
use detection::report::{self, FindingKind, Known};
use detection::rules::{RuleSet, load_texts_with};
use detection::sigma::Pipeline;
use detection::{Position, SourceKind};
use serde_json::{Value, json};
use support::{NOW_MS, feed, plain};

fn raw(body: &Value) -> RawEvent {
    let position = Some(Position { stream: "s".into(), sequence: 1 });
    RawEvent { source: SourceKind::Ndjson, received_ms: NOW_MS, position, bytes: body.to_string().into() }
}

fn hits(rules: &RuleSet, body: &Value) -> Vec<usize> {
    let mut worker = rules.program().worker();
    rules.program().run_raw(&mut worker, &raw(body)).unwrap();
    worker.hits().collect()
}

fn load(text: &str, pipeline: &str) -> (RuleSet, Vec<String>) {
    let pipeline = Pipeline::read(&"p.yml".into(), pipeline).unwrap();
    let (rules, errors) = load_texts_with(vec![("r.yml".to_owned(), text.to_owned())], &pipeline);
    (rules, errors.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn load_clean(text: &str, pipeline: &str) -> RuleSet {
    let (rules, errors) = load(text, pipeline);
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

/// The errors of a rule with one selection, of lines each within it.
fn errors_of(selection: &str, pipeline: &str) -> Vec<String> {
    let text = format!("title: t\nlogsource: {{}}\ndetection:\n  s:\n    {selection}\n  condition: s\n");
    load(&text, pipeline).1
}

const NOTHING: &str = "name: nothing\n";

#[test]
fn a_placeholder_that_nothing_is_given_for_refuses_its_rule() {
    let rule = |selection: &str, condition: &str| {
        format!(
            "title: t\nlogsource: {{}}\ndetection:\n  all: {{a: 1}}\n  filter:\n    {selection}\n  condition: {condition}\n"
        )
    };
    let unfilled = "r.yml:6: nothing is given for the placeholder %home%";
    for (selection, condition) in [
        ("place|expand: '%home%'", "not filter"),
        ("place|expand: '%home%'", "all and not filter"),
        ("place|neq|expand: '%home%'", "filter"),
        ("place|expand|contains: ['x', 'a%home%b']", "filter"),
        ("place|re|expand: '^%home%$'", "not filter"),
    ] {
        let text = rule(selection, condition);
        let (rules, errors) = load(&text, NOTHING);
        assert_eq!((rules.rules().len(), errors), (0, vec![unfilled.to_owned()]), "{selection}");
        let filled = "vars: {home: [berlin]}\ntransformations: [{type: value_placeholders}]\n";
        assert_eq!(load_clean(&text, filled).rules().len(), 1);
        let anything = "transformations: [{type: wildcard_placeholders}]\n";
        assert_eq!(load_clean(&text, anything).rules().len(), 1);
    }
    let error = Pipeline::read(&"p.yml".into(), "vars: {home: []}\n").unwrap_err();
    assert_eq!(error.to_string(), "p.yml:1: home must be a value or a list of 1 to 10000");
}

#[test]
fn an_escaped_percent_sign_is_no_placeholder() {
    let text = "title: t\nlogsource: {}\ndetection:\n  s: {field|expand: '\\%plain%name%'}\n  condition: s\n";
    let rules = load_clean(text, "vars: {name: [x, y]}\ntransformations: [{type: value_placeholders}]\n");
    assert_eq!(hits(&rules, &json!({"field": "%plainx"})), [0]);
    assert!(hits(&rules, &json!({"field": "\\%plainx"})).is_empty());
    let (_, errors) = load(text, NOTHING);
    assert_eq!(errors, ["r.yml:4: nothing is given for the placeholder %name%"]);
}

/// Every modifier with a value that fits it and most others.
const MODIFIERS: [&str; 26] = [
    "contains",
    "startswith",
    "endswith",
    "all",
    "cased",
    "neq",
    "windash",
    "expand",
    "re",
    "i",
    "cidr",
    "exists",
    "fieldref",
    "gt",
    "lte",
    "minute",
    "year",
    "base64",
    "base64offset",
    "wide",
    "utf16",
    "utf16be",
    "m",
    "s",
    "gte",
    "week",
];

/// Whether a modifier may stand before another, by what they do.
fn is_allowed(first: &str, second: &str) -> bool {
    let is_one = |set: &[&str]| [first, second].map(|word| set.contains(&word));
    let both = |one: &[&str], other: &[&str]| {
        one.contains(&first) && other.contains(&second) || other.contains(&first) && one.contains(&second)
    };
    let parts = ["contains", "startswith", "endswith"];
    let numbers = ["gt", "lte", "gte"];
    let times = ["minute", "year", "week"];
    let encodings = ["base64", "base64offset", "wide", "utf16", "utf16be"];
    let flags = ["i", "m", "s"];
    if first == second {
        return encodings.contains(&first);
    }
    // Flags are of a regular expression before them.
    if is_one(&flags) != [false, false] {
        return first == "re" && flags.contains(&second);
    }
    // Only one way to compare, and what changes a text changes a text.
    let compares = [&["re", "cidr", "exists", "fieldref"][..], &numbers].concat();
    let is_both = |set: &[&str]| is_one(set) == [true, true];
    if is_both(&parts) || is_both(&compares) || is_both(&times) || both(&compares, &encodings) {
        return false;
    }
    !(both(&parts, &["re", "cidr", "exists"])
        || both(&parts, &numbers)
        || both(&times, &[&["re", "cidr", "exists", "fieldref", "cased", "windash", "expand"][..], &parts, &encodings].concat())
        || both(&["windash"], &compares)
        || both(&["cased"], &["cidr", "exists"])
        || both(&["cased", "expand"], &numbers)
        || both(&["expand"], &["exists"])
        || both(&["all"], &["neq", "exists"])
        // What is encoded has no dashes and no placeholders any more.
        || encodings.contains(&first) && ["windash", "expand"].contains(&second))
}

#[test]
fn two_modifiers_do_what_they_say_together_or_are_refused() {
    let filled = "vars: {x: [value]}\ntransformations: [{type: value_placeholders}]\n";
    for first in MODIFIERS {
        for second in MODIFIERS {
            let has = |word: &str| first == word || second == word;
            let value = if has("exists") {
                "true"
            } else if ["gt", "lte", "gte", "minute", "year", "week"].into_iter().any(has) {
                "7"
            } else if has("cidr") {
                "10.0.0.0/8"
            } else if has("expand") {
                "'%x%value'"
            } else {
                "value"
            };
            let errors = errors_of(&format!("f|{first}|{second}: {value}"), filled);
            // Alone, that encoding begins with a mark that is no text.
            let is_marked = has("utf16") && !has("base64") && !has("base64offset")
                || first.starts_with("base64") && second == "utf16";
            let told = errors.first().map_or("", String::as_str);
            if is_allowed(first, second) && !is_marked {
                assert!(errors.is_empty(), "{first}|{second}: {errors:?}");
            } else {
                assert!(
                    told.contains("cannot be used here") || told.contains("must be"),
                    "{first}|{second}: {errors:?}"
                );
            }
        }
    }
}

#[test]
fn encoded_values_are_those_that_the_text_means() {
    let hits = |selection: &str, text: &str| {
        let rule = format!("title: t\nlogsource: {{}}\ndetection:\n  s:\n    {selection}\n  condition: s\n");
        !hits(&load_clean(&rule, NOTHING), &json!({"x": text})).is_empty()
    };
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    for dash in ["-enc", "/enc", "\u{2013}enc"] {
        assert!(hits("x|windash|base64offset|contains: '-enc'", &base64(&format!("a {dash} b"))), "{dash}");
    }
    assert!(hits(r"x|base64: '\\\\srv\*'", &base64(r"\\srv*")) && !hits(r"x|base64: '\\\\srv'", &base64(r"\\\\srv")));
    assert!(hits("x|wide: ab", "a\0b\0"));
    for (selection, expect) in [
        ("x|base64: 'a*b'", "r.yml:5: x|base64 must be without wildcards, which have no meaning in encoded text"),
        (
            "x|base64offset|contains: a",
            "r.yml:5: x|base64offset|contains must be long enough that something of it is the same whatever stands around it",
        ),
        ("x|utf16: ab", "r.yml:5: x|utf16 must be ASCII, or encoded with base64 as well"),
        ("x|wide: ä", "r.yml:5: x|wide must be ASCII, or encoded with base64 as well"),
    ] {
        assert_eq!(errors_of(selection, NOTHING), [expect], "{selection}");
    }
}

#[test]
fn what_would_match_everything_is_refused() {
    let rule = |detection: &str| format!("title: t\nlogsource: {{}}\ndetection: {{{detection}}}\n");
    let noise = "transformations: [{type: drop_detection_item, fields: [Noise]}]\n";
    for (detection, pipeline, expect) in [
        ("s: {}, condition: s", NOTHING, "s must be a mapping of at least one field"),
        ("s: [{}, {x: 1}], condition: s", NOTHING, "s must be a mapping of at least one field"),
        ("s: [], condition: s", NOTHING, "s must be a mapping or a list"),
        ("s: {x: 1}, t: {Noise: 1}, condition: s and not t", noise, "the pipeline drops all of t"),
        ("s: [{x: 1}, {Noise: 1}], condition: s", noise, "the pipeline drops all of s"),
    ] {
        let (rules, errors) = load(&rule(detection), pipeline);
        assert_eq!((rules.rules().len(), errors), (0, vec![format!("r.yml:3: {expect}")]), "{detection}");
    }
    assert_eq!(load_clean(&rule("s: {x: 1, Noise: 1}, condition: s"), noise).rules().len(), 1);
}

const BASE: &str = "title: r\nname: r\nlogsource: {product: p}\ndetection: {s: {x: 1}, condition: s}\n";

#[test]
fn a_filter_says_what_it_is_for() {
    let filter = |rules: &str| {
        format!("{BASE}---\ntitle: f\nlogsource: {{product: p}}\nfilter:\n{rules}  only: {{y: 1}}\n  condition: only\n")
    };
    let body = json!({"product": "p", "x": 1});
    for (rules, expect) in [
        ("", "r.yml:6: rules is missing"),
        ("  rules:\n", "r.yml:6: rules is missing"),
        ("  rules: []\n", "r.yml:9: rules must be any, or a list of ids or names"),
    ] {
        let (set, errors) = load(&filter(rules), NOTHING);
        assert_eq!(errors, [expect]);
        assert_eq!(hits(&set, &body), [0], "a filter that is refused narrows nothing");
    }
    assert!(hits(&load_clean(&filter("  rules: any\n"), NOTHING), &body).is_empty());
    let elsewhere =
        filter("  rules: [r]\n").replace("title: f\nlogsource: {product: p}", "title: f\nlogsource: {product: q}");
    let report = report::check(&load_clean(&elsewhere, NOTHING), &[], &Known::default());
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.rule.as_str(), &finding.kind)).collect();
    assert_eq!((report.filters, found), (1, vec![("f", &FindingKind::NarrowsNothing)]));
    let broken = filter("  rules: [r]\n").replace("condition: only\n", "condition: only and more\n");
    assert_eq!(load(&broken, NOTHING).1, ["r.yml:11: the condition names more, which no selection is called"]);
}

const RENAMES: &str = "transformations:\n  - {type: field_name_mapping, mapping: {User: actor.user.name, Bytes: traffic.bytes, Path: [one.path, two.path]}}\n";

fn alerts(rules: &RuleSet, bodies: &[Value]) -> Vec<String> {
    let events = (0..).zip(bodies).map(|(n, body)| plain(n, NOW_MS - 10_000_000 + n * 1_000, body.clone()));
    let net = feed(&mut Detector::new(rules.clone(), Options::default()), events);
    let mut told: Vec<String> = net.alerts.values().map(|alert| alert.rule.id.to_string()).collect();
    told.sort();
    told
}

#[test]
fn a_pipeline_reaches_what_correlations_group_by_and_reckon_with() {
    let rule = "title: r\nname: r\nlogsource: {}\ndetection: {s: {User|exists: true}, condition: s}\n---\n";
    let correlation = |name: &str, body: &str| {
        format!("title: {name}\nname: {name}\ncorrelation: {{rules: r, timespan: 60s, {body}}}\n---\n")
    };
    let text = [
        rule.to_owned(),
        correlation("grouped", "type: event_count, group-by: [User], condition: {gte: 2}"),
        correlation("summed", "type: value_sum, condition: {field: Bytes, gte: 10}"),
        correlation("aliased", "type: event_count, group-by: [who], aliases: {who: {r: User}}, condition: {gte: 2}"),
        correlation("either", "type: event_count, group-by: [Path], condition: {gte: 2}"),
        "title: above\nname: above\ncorrelation: {type: event_count, rules: grouped, group-by: [User], timespan: 60s, condition: {gte: 1}}\n".to_owned(),
    ]
    .concat();
    let body = |path: &str| json!({"actor.user.name": "ann", "traffic.bytes": 6, path: "p"});
    let rules = load_clean(&text, RENAMES);
    assert_eq!(alerts(&rules, &[body("one.path"), body("two.path")]), ["above", "aliased", "either", "summed"]);
    assert_eq!(alerts(&rules, &[json!({"User": "ann"})]), Vec::<String>::new());
}

#[test]
fn a_field_under_several_names_is_missing_where_all_are() {
    let rule =
        |selection: &str| format!("title: t\nlogsource: {{}}\ndetection: {{s: {{{selection}}}, condition: s}}\n");
    let holds = |selection: &str, body: &Value| !hits(&load_clean(&rule(selection), RENAMES), body).is_empty();
    let (none, one, both) = (json!({"z": 1}), json!({"two.path": "a"}), json!({"one.path": "a", "two.path": "b"}));
    for (selection, expect) in [
        ("Path: null", [true, false, false]),
        ("Path|exists: false", [true, false, false]),
        ("Path|exists: true", [false, true, true]),
        ("Path: [null, b]", [true, false, true]),
        ("Path|neq: b", [true, true, false]),
        ("Path: a", [false, true, true]),
    ] {
        assert_eq!([&none, &one, &both].map(|body| holds(selection, body)), expect, "{selection}");
    }
}

#[test]
fn a_filter_of_rules_that_a_pipeline_changed_speaks_as_their_author_does_or_as_events_do() {
    let pipeline = format!(
        "{RENAMES}  - {{type: change_logsource, product: q, rule_conditions: [{{type: logsource, product: p}}]}}\n"
    );
    let filter = |field: &str, product: &str| {
        let rule =
            "title: r\nname: r\nlogsource: {product: p, category: c}\ndetection: {s: {x: 1}, condition: s}\n---\n";
        format!(
            "{rule}title: f\nlogsource: {{product: {product}}}\nfilter:\n  rules: [r]\n  s: {{{field}: adm}}\n  condition: not s\n"
        )
    };
    let body = |user: &str| json!({"product": "q", "x": 1, "actor.user.name": user});
    for (field, product) in [("User", "p"), ("actor.user.name", "q")] {
        let rules = load_clean(&filter(field, product), &pipeline);
        assert_eq!((hits(&rules, &body("adm")).len(), hits(&rules, &body("ann")).len()), (0, 1), "{field}");
    }
}

#[test]
fn generate_is_of_correlations_and_alerts_of_any_rule() {
    let rule = |more: &str| {
        format!("title: r\nname: r\nlogsource: {{}}\n{more}detection: {{s: {{x: 1}}, condition: s}}\n---\n")
    };
    let correlation = |beside: &str, inside: &str| {
        format!(
            "title: c\nname: c\n{beside}correlation: {{type: event_count, rules: r, timespan: 60s, condition: {{gte: 1}}{inside}}}\n---\n\
            title: d\nname: d\ncorrelation: {{type: event_count, rules: c, timespan: 60s, condition: {{gte: 1}}}}\n"
        )
    };
    for (rule_more, beside, inside, expect) in [
        ("", "", "", vec!["d"]),
        ("", "generate: true\n", "", vec!["d", "r"]),
        ("", "", ", generate: true", vec!["d", "r"]),
        ("alerts: true\n", "", "", vec!["d", "r"]),
        ("", "alerts: true\n", "", vec!["c", "d"]),
    ] {
        let rules = load_clean(&(rule(rule_more) + &correlation(beside, inside)), NOTHING);
        assert_eq!(alerts(&rules, &[json!({"x": 1})]), expect, "{rule_more}{beside}{inside}");
    }
    for (text, expect) in [
        (rule("generate: true\n"), "r.yml:4: generate in a rule that is no correlation (use alerts) is not supported"),
        (rule("shadow: 'yes'\n"), "r.yml:4: shadow must be true or false"),
        (rule("alerts: 'true'\n"), "r.yml:4: alerts must be true or false"),
        (rule("") + &correlation("generate: 'true'\n", ""), "r.yml:8: generate must be true or false"),
    ] {
        assert_eq!(load(&text, NOTHING).1[0], expect);
    }
}

#[test]
fn an_extended_condition_names_all_of_its_rules_and_may_do_so_alone() {
    let rule = |name: &str| {
        format!("title: {name}\nname: {name}\nlogsource: {{}}\ndetection: {{s: {{x: {name}}}, condition: s}}\n---\n")
    };
    let text = |rules: &str, condition: &str| {
        format!(
            "{}{}{}title: t\nname: t\ncorrelation: {{type: temporal, {rules}timespan: 60s, condition: {condition}}}\n",
            rule("a"),
            rule("b"),
            rule("c")
        )
    };
    let alone = load_clean(&text("", "a and (b or not c)"), NOTHING);
    assert_eq!(alerts(&alone, &[json!({"x": "a"}), json!({"x": "b"})]), ["t"]);
    assert_eq!(
        load(&text("rules: [a, b, c], ", "a and b"), NOTHING).1,
        ["r.yml:18: the condition does not name c, which is among its rules"]
    );
}

#[test]
fn lines_and_reasons_are_those_of_the_mistake() {
    let text = "title: no condition without a selection\ndescription: the condition is wrong\nlogsource: {}\ndetection:\n  s: {x: 1}\n  condition: s and t\n\
        --- {title: u, name: u, logsource: {}, detection: {s: {x: 1}, condition: s}}\n---\n%YAML 1.2\n---\n\
        title: v\nname: v\nlogsource: {}\ndetection: {s: {x: 1}, condition: s}\n---\n\
        title: above\nname: above\ncorrelation: {type: temporal, rules: [below], timespan: 1m}\n---\n\
        title: below\nname: below\ncorrelation: {type: temporal, rules: [nobody], timespan: 1m}\n";
    let (rules, errors) = load(text, NOTHING);
    assert_eq!(rules.rules().len(), 2);
    assert_eq!(
        errors,
        [
            "r.yml:6: the condition names t, which no selection is called",
            "r.yml:20: refers to nobody, which no rule is called",
            "r.yml:16: refers to below, which is refused",
        ]
    );
}

#[test]
fn a_title_id_or_tag_that_every_alert_would_carry_for_nothing_is_refused() {
    let of = |key: &str, value: &str| {
        format!("title: t\n{key}: {value}\nlogsource: {{}}\ndetection: {{s: {{f: 1}}, condition: s}}\n")
            .replace("title: t\ntitle:", "title:")
    };
    for (key, expected) in [("title", "a text"), ("id", "a text"), ("name", "a text"), ("tags", "a list of texts")] {
        let value = |length: usize| {
            let text = "ä".repeat(length);
            if key == "tags" { format!("[{text}]") } else { text }
        };
        assert_eq!(load(&of(key, &value(256)), NOTHING).1, [] as [&str; 0]);
        let errors = load(&of(key, &value(257)), NOTHING).1;
        assert!(
            errors.len() == 1 && errors[0].ends_with(&format!("{expected} of at most 256 characters")),
            "{errors:?}"
        );
    }
}
