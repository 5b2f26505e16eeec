//! Hostile rule files, pipelines and cases: whatever they hold, they are read or refused, quickly and in bounded memory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use detection::normalise::normalise;
use detection::report;
use detection::rules::{RuleSet, load_texts};
use detection::sigma::{Pipeline, Reason};
use detection::{RawEvent, SourceKind};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A list of aliases of a list: small as text, gigabytes when it is made.
fn bomb() -> String {
    let (ones, many) = (vec!["1"; 16_000].join(","), vec!["*a"; 10_000].join(","));
    format!("x: &a [{ones}]\ny: [{many}]\n")
}

#[test]
fn a_small_file_of_aliases_is_refused_before_it_grows() {
    let good = "title: good\nlogsource: {}\ndetection:\n  s: &s {x: ['*a*']}\n  t: *s\n  condition: s and t\n---\n";
    let (rules, errors) = load_texts(vec![("r.yml".into(), format!("{good}{}", bomb()))]);
    assert_eq!((rules.rules().len(), errors.len()), (1, 1));
    assert_eq!((errors[0].line, &errors[0].reason), (8, &Reason::TooLarge));
    assert_eq!(Pipeline::read(&"p.yml".into(), &bomb()).unwrap_err().reason, Reason::TooLarge);
    let case = bomb().replace("\ny:", "\n  y:").replace("x:", "- x:");
    let told = report::test(&RuleSet::default(), &[("c.yml".to_owned(), case)]);
    assert_eq!(told.cases[0].error.as_deref(), Some("the file is too large"));
}

#[test]
fn a_case_that_asks_for_a_long_event_many_times_is_refused_before_it_grows() {
    let case = |size: usize| {
        let text = "x".repeat(size);
        format!("- {{name: n, expect: [], events: [{{json: {{x: {text}}}, count: 100000}}]}}\n")
    };
    let told = |size| report::test(&RuleSet::default(), &[("c.yml".to_owned(), case(size))]).cases.remove(0).error;
    assert_eq!(told(1_000_000).as_deref(), Some("more events than a case may have"));
    assert_eq!(told(100), None);
}

#[track_caller]
fn refused(text: &str, expect: &str) {
    let (_, errors) = load_texts(vec![("r.yml".into(), text.into())]);
    let told: Vec<String> = errors.iter().map(|error| error.reason.to_string()).collect();
    assert!(told.iter().any(|reason| reason.contains(expect)), "{told:?}");
}

fn rule(detection: &str) -> String {
    format!("title: t\nlogsource: {{}}\ndetection:\n{detection}\n")
}

#[test]
fn what_a_small_text_asks_for_is_bounded() {
    // A condition that names many selections many times.
    let selections: String = (0..15_000).map(|n| format!("  s{n}: {{x: 1}}\n")).collect();
    let condition = vec!["1 of s*"; 5_000].join(" or ");
    refused(&rule(&format!("{selections}  condition: {condition}")), "come to too much");
    // Many expressions that each grow large, and one that is larger than any may be.
    let regexes: Vec<String> = (0..5_000).map(|n| format!("'(a{n}{{9}}){{99}}'")).collect();
    refused(&rule(&format!("  s: {{x|re: [{}]}}\n  condition: s", regexes.join(","))), "come to too much");
    refused(&rule("  s: {x|re: '((a{99}){99}){99}'}\n  condition: s"), "bad regular expression");
    refused(&rule(&format!("  s: {{x|re: '{}'}}\n  condition: s", "a".repeat(5_000))), "longer than 4096 bytes");
    // A pattern that takes a look at every character for each of its own.
    refused(&rule(&format!("  s: {{x: '{}'}}\n  condition: s", "a?".repeat(2_000))), "at most 2048 characters");
    refused(
        &rule(&format!("  s: {{x|windash|base64offset|contains: '{}'}}\n  condition: s", " -a".repeat(20))),
        "of fewer dashes",
    );
    refused(
        &rule(&format!("  s: {{x|{}base64: a}}\n  condition: s", "base64offset|".repeat(30))),
        "cannot be used here",
    );
    let values: Vec<String> = (0..10_000).map(|n| format!("v{n}")).collect();
    let pipeline = Pipeline::default().with_values("v", values);
    let many = vec!["'%v%'"; 20_000].join(",");
    let text = rule(&format!("  s: {{x|expand: [{many}]}}\n  condition: s"));
    let (_, errors) = detection::rules::load_texts_with(vec![("r.yml".into(), text)], &pipeline);
    assert_eq!(errors[0].reason, Reason::TooCostly);
}

#[test]
fn a_sequence_of_many_rules_is_refused_before_its_ways_are_made() {
    let names: Vec<String> = (0..256).map(|n| format!("r{n}")).collect();
    let rules: String = names
        .iter()
        .map(|name| format!("title: {name}\nlogsource: {{}}\ndetection: {{s: {{x: 1}}, condition: s}}\n---\n"))
        .collect();
    let of = |count: usize| {
        let list = names.join(", ");
        format!(
            "title: c\ncorrelation: {{type: temporal_ordered, rules: [{list}], timespan: 1m, condition: {{gte: {count}}}}}\n"
        )
    };
    refused(&(rules.clone() + &of(128)), "more than 1024 sets of rules");
    for count in [1, 255, 256] {
        let (set, errors) = load_texts(vec![("r.yml".into(), rules.clone() + &of(count))]);
        assert!(errors.is_empty() && set.correlations().len() == 1, "{count}: {errors:?}");
    }
}

#[test]
fn many_filters_nest_no_deeper_than_one_and_there_are_not_too_many_of_one_rule() {
    let filter = "---\ntitle: f\nlogsource: {}\nfilter:\n  rules: any\n  s: {y: 1}\n  condition: not s\n";
    let text = rule("  s: {x: 1}\n  condition: s")
        + &(0..5_000).map(|n| filter.replace("title: f", &format!("title: f{n}"))).collect::<String>();
    // A stack as small as any thread's that reads or runs rules.
    let read = std::thread::Builder::new().stack_size(512 * 1024).spawn(move || {
        let (rules, errors) = load_texts(vec![("r.yml".into(), text)]);
        let report = report::check(&rules, &errors, &report::Known::default());
        (rules.rules().len(), errors.len(), report.filters)
    });
    assert_eq!(read.unwrap().join().unwrap(), (1, 5_000 - 256, 5_000));
}

#[test]
fn correlations_in_the_worst_order_are_tied_all_the_same() {
    let mut text = String::new();
    for n in (1..5_000).rev() {
        text += &format!(
            "title: c{n}\ncorrelation: {{type: event_count, rules: c{}, timespan: 1m, condition: {{gte: 1}}}}\n---\n",
            n - 1
        );
    }
    text += "title: c0\nlogsource: {}\ndetection: {s: {x: 1}, condition: s}\n";
    let (rules, errors) = load_texts(vec![("r.yml".into(), text)]);
    assert!(errors.is_empty() && rules.correlations().len() == 4_999, "{errors:?}");
}

#[test]
fn folders_are_read_alike_everywhere_and_what_is_left_out_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let good = rule("  s: {x: 1}\n  condition: s");
    write("a/good.yml", good.as_bytes());
    write(".hidden/good.yml", good.as_bytes());
    write("large.yml", &vec![b'#'; 1024 * 1024 + 1]);
    write("bytes.yml", b"title: \xff");
    std::os::unix::fs::symlink(folder.path().join("a"), folder.path().join("link")).unwrap();
    let deep = "d/".repeat(20);
    write(&format!("{deep}deep.yml"), good.as_bytes());
    let (rules, errors) = detection::rules::load_tree(folder.path(), &Pipeline::default());
    let told: Vec<&Reason> = errors.iter().map(|error| &error.reason).collect();
    assert_eq!(rules.rules().len(), 1);
    assert_eq!(told.len(), 4, "{told:?}");
    for reason in [Reason::TooLarge, Reason::LinkedFolder, Reason::TooDeep] {
        assert!(told.contains(&&reason), "{told:?}");
    }
}

/// Pieces of rule files, so that what is put together of them often comes far.
const PIECES: [&str; 48] = [
    "title: t\n",
    "name: n\n",
    "logsource: {product: p}\n",
    "logsource: {}\n",
    "detection:\n",
    "  s: {x: 1}\n",
    "  s:\n    x|contains: [a, 'b*']\n",
    "  t: [a, b]\n",
    "  condition: s\n",
    "  condition: s and not 1 of t*\n",
    "  condition: ((s or t)\n",
    "filter:\n",
    "  rules: any\n",
    "  rules: [t]\n",
    "correlation:\n",
    "  type: event_count\n",
    "  type: temporal\n",
    "  type: value_percentile\n",
    "  timespan: 5m\n",
    "  timespan: 9999999999999999999y\n",
    "  condition: {gte: 2}\n",
    "  condition: {gte: -1e400, lt: .nan}\n",
    "  condition: t and not u\n",
    "  group-by: [x]\n",
    "  aliases: {a: {t: x}}\n",
    "---\n",
    "--- ",
    "...\n",
    "%YAML 1.2\n",
    "&a ",
    "*a",
    "!tag ",
    "- ",
    "? ",
    ": ",
    "|\n",
    ">\n",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "\\",
    "\u{feff}",
    "é\n",
    "\0",
    "x|re|expand: '%a%('\n",
];

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![9 => proptest::sample::select(&PIECES[..]).prop_map(str::to_owned), 1 => "\\PC{0,6}"];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Values of every kind, nested.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}|[*?\\\\%a./:-]{0,8}|%v%|10.0.0.0/[0-9]{1,3}|[0-9]{1,3}[smhdwMy]".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((key(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Keys that documents have, and fields with modifiers.
fn key() -> impl Strategy<Value = String> {
    let words = [
        "title",
        "name",
        "id",
        "level",
        "tags",
        "status",
        "references",
        "logsource",
        "product",
        "detection",
        "filter",
        "rules",
        "condition",
        "correlation",
        "type",
        "group-by",
        "timespan",
        "aliases",
        "generate",
        "alerts",
        "shadow",
        "field",
        "gte",
        "percentile",
        "expression",
        "vars",
        "transformations",
        "mapping",
        "conditions",
        "fields",
        "message",
        "rule_conditions",
        "expect",
        "events",
        "count",
        "every_s",
        "json",
        "audit",
        "syslog",
        "action",
    ];
    let modified = "[a-z]?(\\|(contains|all|re|i|m|expand|windash|base64offset|wide|utf16|cidr|gt|exists|fieldref|hour|week|neq|cased)){1,3}";
    prop_oneof![
        3 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => modified,
        1 => "\\PC{0,4}",
    ]
}

fn kind(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(names).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_rule_files_are_read_or_refused_with_a_line_of_theirs(text in pieces(), noise in "\\PC{0,80}") {
        for text in [text, noise] {
            let (_, errors) = load_texts(vec![("r.yml".into(), text.clone())]);
            for error in errors {
                prop_assert!(error.line >= 1 && error.line as usize <= text.lines().count() + 1, "{error} of {text:?}");
            }
        }
    }

    #[test]
    fn documents_of_arbitrary_values_are_read_or_refused(
        detection in value(), condition in "(s|t|1 of s\\*|all of them|not|and|or|\\(|\\)| ){0,9}", correlation in value(), extra in (key(), value()),
    ) {
        let mut rule = json!({"title": "r", "logsource": {}, "detection": {"s": detection, "t": {"x": 1}, "condition": condition}});
        rule[extra.0.as_str()] = extra.1.clone();
        let mut filter = json!({"title": "f", "logsource": {}, "filter": {"rules": "any", "s": detection, "condition": condition}});
        filter[extra.0.as_str()] = extra.1.clone();
        let mut about = json!({"title": "c", "correlation": {"type": "temporal", "rules": ["r"], "timespan": "5m", "condition": correlation}});
        about["correlation"][extra.0.as_str()] = extra.1;
        let text = [rule, filter, about].map(|document| document.to_string()).join("\n---\n");
        let (rules, errors) = load_texts(vec![("r.yml".into(), text)]);
        report::check(&rules, &errors, &report::Known::platform());
    }

    #[test]
    fn correlations_of_arbitrary_parts_are_read_or_refused(
        kind in kind(&["event_count", "value_count", "temporal", "temporal_ordered", "value_sum", "value_avg", "value_median", "value_percentile", "x"]),
        bounds in proptest::collection::vec((kind(&["gt", "gte", "lt", "lte", "eq", "neq", "field", "percentile", "expression", "x"]), value()), 0..4),
        timespan in "[0-9]{0,20}[smhdwMyx]?|\\PC{0,3}",
        expression in "(r|u|not|and|or|\\(|\\)| ){0,12}",
    ) {
        let base = |name: &str| json!({"title": name, "logsource": {}, "detection": {"s": {"x": name}, "condition": "s"}});
        let bounds: Value = bounds.into_iter().collect::<serde_json::Map<_, _>>().into();
        for condition in [bounds, expression.into()] {
            let about = json!({"title": "c", "correlation": {"type": kind, "rules": ["r", "u"], "group-by": "g", "timespan": timespan, "condition": condition}});
            let text = [base("r"), base("u"), about].map(|document| document.to_string()).join("\n---\n");
            let (rules, errors) = load_texts(vec![("r.yml".into(), text)]);
            report::check(&rules, &errors, &report::Known::platform());
            prop_assert_eq!(rules.correlations().len() + errors.len(), 1);
        }
    }

    #[test]
    fn arbitrary_pipelines_are_read_or_refused(
        steps in proptest::collection::vec((kind(&["field_name_mapping", "field_name_prefix", "field_name_suffix", "change_logsource", "value_placeholders",
            "wildcard_placeholders", "add_condition", "drop_detection_item", "rule_failure", "x"]), proptest::collection::vec((key(), value()), 0..4)), 0..4),
        vars in value(), noise in pieces(),
    ) {
        let steps: Vec<Value> = steps
            .into_iter()
            .map(|(kind, fields)| {
                let mut step = json!({"type": kind, "prefix": "p.", "suffix": ".s", "message": "no", "mapping": {"x": ["y", "z"]}});
                step.as_object_mut().unwrap().extend(fields);
                step
            })
            .collect();
        let _ = Pipeline::read(&"p.yml".into(), &noise);
        if let Ok(pipeline) = Pipeline::read(&"p.yml".into(), &json!({"vars": vars, "transformations": steps}).to_string()) {
            let text = rule("  s: {x|expand: ['%v%', a], y: 1}\n  condition: s");
            let _ = detection::rules::load_texts_with(vec![("r.yml".into(), text)], &pipeline);
        }
    }

    #[test]
    fn arbitrary_cases_are_run_or_refused(case in value(), step in (key(), value()), noise in pieces()) {
        let (rules, _) = load_texts(vec![("r.yml".into(), rule("  s: {x: 1}\n  condition: s"))]);
        let whole = json!([{"name": "n", "expect": [], "events": [{"json": case}, {step.0.as_str(): step.1}]}]);
        let told = report::test(&rules, &[("a".to_owned(), whole.to_string()), ("b".to_owned(), noise)]);
        prop_assert_eq!(told.passed + told.failed, told.cases.len());
    }

    #[test]
    fn arbitrary_events_are_explained(rule_parts in value(), event in value()) {
        let text = json!({"title": "r", "logsource": {}, "detection": {"s": rule_parts, "t": {"x": null}, "condition": "s or not t"}});
        let (rules, _) = load_texts(vec![("r.yml".into(), text.to_string())]);
        let bytes = json!({"x": event}).to_string();
        let raw = RawEvent { source: SourceKind::Ndjson, received_ms: 1_795_467_600_000, position: None, bytes: bytes.into() };
        if let Ok(event) = normalise(&raw) {
            let told = report::explain_all(&rules, Some("r"), &event);
            let mut worker = rules.program().worker();
            rules.program().run(&mut worker, &event);
            prop_assert!(told.iter().all(|one| one.matches == (worker.hits().len() > 0)));
        }
    }
}

#[test]
fn what_nests_too_deep_to_be_read_in_time_is_refused_before_it_is_read() {
    for (text, is_read) in [("[".repeat(60_000), false), ("{a: ".repeat(60_000), false), ("[".repeat(300), true)] {
        let (_, errors) = load_texts(vec![("a.yml".to_owned(), text)]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(!errors[0].to_string().contains("opening brackets"), is_read, "{errors:?}");
    }
}
