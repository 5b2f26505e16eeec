//! What is said about rules: explanations, checks, tests, coverage, backtests; and how rules are read: filters,
//! pipelines, placeholders, parts of times, conditions of correlations.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::event::{Event, RawEvent};
use detection::normalise::normalise;
use detection::report::{self, FindingKind, Known, Part, backtest, check, coverage, explain, explain_all};
use detection::rules::{RuleSet, load_dir, load_texts, load_texts_with};
use detection::sigma::{
    Aggregate, CorrelationKind, Document, FieldNames, LogSourceFilter, Pipeline, Reason, RuleExpression, parse,
};
use detection::{LogSource, Position, SourceKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::{NOW_MS, data, pack, unpacked};

fn rules(text: &str) -> RuleSet {
    let (rules, errors) = load_texts(vec![("r.yml".to_owned(), text.to_owned())]);
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

fn raw(body: &Value) -> RawEvent {
    let position = Some(Position { stream: "s".into(), sequence: 1 });
    RawEvent { source: SourceKind::Ndjson, received_ms: NOW_MS, position, bytes: body.to_string().into() }
}

fn event(body: &Value) -> Event {
    normalise(&raw(body)).unwrap()
}

fn hits(rules: &RuleSet, body: &Value) -> Vec<usize> {
    let mut worker = rules.program().worker();
    rules.program().run_raw(&mut worker, &raw(body)).unwrap();
    worker.hits().collect()
}

const SHELL: &str = "title: Shell\nname: shell\nlogsource: {product: p}\ntags: [attack.execution, attack.t1086, attack.g0007]\n\
     detection:\n  selection:\n    Image|endswith: ['\\sh', '\\bash']\n    User: root\n  filter:\n    Parent: cron\n  \
     condition: selection and not filter\n";
const NO_ADMINS: &str = "---\ntitle: No admins\nlogsource: {product: p}\nfilter:\n  rules: [shell]\n  admins:\n    \
     Host|startswith: adm\n  condition: not admins\n";

#[test]
fn an_explanation_tells_selection_by_selection_with_values() {
    let rules = rules(SHELL);
    let event = event(&json!({"product": "p", "Image": "C:\\bash", "User": "ann"}));
    let told = explain(&rules, 0, &event).unwrap();
    assert!(!told.matches && told.source_fits && !told.conditions[0].holds);
    assert_eq!(
        told.selections.iter().map(|s| (s.name.as_str(), s.holds)).collect::<Vec<_>>(),
        [("selection", false), ("filter", false)]
    );
    let Part::All { parts, .. } = &told.selections[0].part else { panic!("{told:?}") };
    let fields: BTreeMap<&str, _> = parts
        .iter()
        .map(|part| if let Part::Field(field) = part { (field.field.as_str(), field) } else { panic!("{part:?}") })
        .collect();
    assert!(fields["Image"].holds && !fields["User"].holds);
    assert_eq!(fields["Image"].met, ["ends with \"\\\\bash\""]);
    assert_eq!(
        (&*fields["User"].unmet, &*fields["User"].values),
        (&["is \"root\"".to_owned()][..], &["ann".to_owned()][..])
    );
    assert!(serde_json::to_string(&told).unwrap().contains("\"kind\":\"field\""));
    let other = explain(&rules, 0, &self::event(&json!({"product": "q"}))).unwrap();
    assert!(!other.source_fits && !other.matches);
    assert_eq!(explain_all(&rules, Some("shell"), &event).len(), 1);
    assert!(explain_all(&rules, None, &event).is_empty() && explain(&rules, 1, &event).is_none());
}

#[test]
fn a_filter_takes_matches_away_and_the_explanation_says_so() {
    let filtered = rules(&(SHELL.to_owned() + NO_ADMINS));
    let body = |host: &str| json!({"product": "p", "Image": "C:\\bash", "User": "root", "Host": host});
    assert_eq!((hits(&filtered, &body("web1")), hits(&filtered, &body("adm1"))), (vec![0], vec![]));
    let told = explain(&filtered, 0, &event(&body("adm1"))).unwrap();
    assert!(told.conditions[0].holds_alone && !told.conditions[0].holds);
    let [added] = told.added.as_slice() else { panic!("{told:?}") };
    assert_eq!((added.is_filter, added.selection.holds, added.selection.name.as_str()), (true, false, "No admins"));
    let hash = |rules: &RuleSet| rules.rules()[0].header.reference.semantic_hash;
    assert_ne!(hash(&filtered), hash(&rules(SHELL)));
    let any = NO_ADMINS.replace("[shell]", "any");
    assert_eq!(hits(&rules(&(SHELL.to_owned() + &any)), &body("adm1")), Vec::<usize>::new());
    let elsewhere = any.replace("product: p", "product: q");
    assert_eq!(hits(&rules(&(SHELL.to_owned() + &elsewhere)), &body("adm1")), vec![0]);
    let (_, errors) = load_texts(vec![("f.yml".to_owned(), SHELL.to_owned() + &NO_ADMINS.replace("shell", "nobody"))]);
    assert_eq!(errors[0].reason, Reason::UnknownRule { name: "nobody".to_owned() });
}

#[test]
fn rules_that_can_never_match_are_reported() {
    let rule = |title: &str, detection: &str| {
        format!("title: {title}\nlogsource: {{product: holdfast}}\ndetection: {{{detection}}}\n---\n")
    };
    let text = [
        rule("right", "s: {status: Failure, user.name|contains: a}, condition: s"),
        rule("itself", "s: {status: a}, condition: s and not s"),
        rule("two values", "s: {status: a}, t: {status: b}, condition: s and t"),
        rule("part", "s: {status: abc}, t: {status|contains: z}, condition: s and t"),
        rule("absent", "s: {status: a}, t: {status: null}, condition: all of them"),
        rule("field", "s: {stauts: a}, condition: s"),
        rule("part of it", "s: {stauts: a}, t: {status: a}, condition: s or t"),
        rule("always", "s: {status: a}, condition: not s"),
    ]
    .concat();
    let (rules, errors) = load_texts(vec![("r.yml".to_owned(), text)]);
    let report = check(&rules, &errors, &Known::platform());
    let found: Vec<(&str, &FindingKind)> = report.findings.iter().map(|f| (f.rule.as_str(), &f.kind)).collect();
    let unknown = FindingKind::UnknownField { field: "stauts".to_owned(), never: true };
    let partly = FindingKind::UnknownField { field: "stauts".to_owned(), never: false };
    assert_eq!(
        found,
        [
            ("itself", &FindingKind::Contradiction),
            ("two values", &FindingKind::Contradiction),
            ("part", &FindingKind::Contradiction),
            ("absent", &FindingKind::Contradiction),
            ("field", &unknown),
            ("part of it", &partly),
            ("always", &FindingKind::EvaluatedAlways),
        ]
    );
    let sources = vec![LogSource { product: Some("linux".into()), ..LogSource::default() }];
    let report = check(&rules, &errors, &Known { sources, ..Known::default() });
    let unmatched = report.findings.iter().filter(|f| matches!(f.kind, FindingKind::UnmatchedSource { .. })).count();
    assert_eq!((unmatched, report.rules, report.program.rules), (8, 8, 8));
    let event = normalise(&raw(&json!({"product": "linux", "Image": "sh", "time": NOW_MS}))).unwrap();
    let known = Known::platform().and_of([&event]);
    let text = |source: &str, field: &str| {
        format!(
            "title: {field} of {source}\nlogsource: {{product: {source}}}\ndetection: {{s: {{{field}: a}}, condition: s}}\n---\n"
        )
    };
    let (rules, errors) = load_texts(vec![(
        "r.yml".to_owned(),
        text("linux", "Image") + &text("linux", "Imago") + &text("macos", "Image") + &text("holdfast", "status"),
    )]);
    let found: Vec<String> = check(&rules, &errors, &known).findings.into_iter().map(|f| f.rule).collect();
    assert_eq!(found, ["Imago of linux", "Image of macos"]);
}

#[test]
fn the_pack_is_clean_and_its_tests_pass_by_the_report_too() {
    let (rules, errors) = load_dir(&pack());
    let report = check(&rules, &errors, &Known::platform());
    assert!(report.is_clean(), "{:?}", report.findings);
    let file = |name: &str| (name.to_owned(), std::fs::read_to_string(pack().join("tests").join(name)).unwrap());
    let told = report::test(
        &rules,
        &["api-data.yml", "api-logins.yml", "api-sessions.yml", "linux-ssh.yml", "platform.yml"].map(file),
    );
    assert_eq!(told.failed, 0, "{:?}", told.cases);
    assert!(told.passed > 10);
    let wrong = "- name: nothing\n  expect: [api_brute_force]\n  events: [{audit: {action: login, outcome: success}}]\n\
                 - name: broken\n  expect: []\n  events: [{audit: {action: login, outcome: perhaps}}]\n";
    let told = report::test(&rules, &[("w.yml".to_owned(), wrong.to_owned()), ("x.yml".to_owned(), "{".to_owned())]);
    assert_eq!((told.passed, told.failed, &*told.cases[0].missing), (0, 3, &["api_brute_force".to_owned()][..]));
    assert!(told.cases[1].error.is_some() && told.cases[2].error.is_some() && !told.untested.is_empty());
}

#[test]
fn coverage_counts_techniques_under_the_names_of_today() {
    let report = coverage(&rules(SHELL));
    assert_eq!(report.techniques.keys().collect::<Vec<_>>(), ["T1059.001"]);
    assert_eq!(report.tactics.keys().collect::<Vec<_>>(), ["execution"]);
    assert_eq!((report.techniques["T1059.001"].alerting, report.sources["p/*/*"]), (1, 1));
    assert_eq!(report.renamed["t1086"], "T1059.001");
}

#[test]
fn a_backtest_counts_what_live_events_would_match() {
    let rules = rules(SHELL);
    let body = |user: &str| raw(&json!({"product": "p", "Image": "\\sh", "User": user, "time": NOW_MS}));
    let bad = RawEvent { bytes: "{".into(), ..body("root") };
    let report = backtest(&rules, &[body("root"), body("ann"), body("ROOT"), bad]);
    assert_eq!((report.events, report.rules[0].hits, report.rules[0].first_ms), (4, 2, NOW_MS));
    assert_eq!(report.rejected["not_json"], 1);
}

#[test]
fn a_pipeline_renames_fills_adds_and_refuses() {
    let text = "name: mine\nvars: {admins: [ann, bob]}\ntransformations:\n  - {type: value_placeholders}\n  - type: field_name_mapping\n    \
                mapping: {User: [actor.user.name, user.name], Image: process.file.path}\n    rule_conditions: [{type: logsource, product: p}]\n  \
                - {type: add_condition, conditions: {tenant: acme}}\n  - {type: drop_detection_item, fields: [Noise]}\n  \
                - {type: change_logsource, product: q}\n  - {type: rule_failure, message: no macOS here, rule_conditions: [{type: logsource, product: macos}]}\n";
    let pipeline = Pipeline::read(&"p.yml".into(), text).unwrap();
    let rule = "title: t\nlogsource: {product: p}\ndetection:\n  s: {User|expand: '%admins%', Image|contains|expand: 'x%admins%y', Noise: 1}\n  condition: s\n";
    let load = |text: &str, pipeline: &Pipeline| load_texts_with(vec![("r.yml".to_owned(), text.to_owned())], pipeline);
    let (rules, errors) = load(rule, &pipeline);
    assert!(errors.is_empty(), "{errors:?}");
    let body = |field: &str, user: &str| json!({"product": "q", "tenant": "acme", field: user, "process": {"file": {"path": "-XbobY-"}}});
    assert_eq!(hits(&rules, &body("user.name", "Ann")), [0]);
    assert_eq!(hits(&rules, &body("actor.user.name", "bob")), [0]);
    assert!(hits(&rules, &body("User", "bob")).is_empty() && hits(&rules, &body("user.name", "eve")).is_empty());
    let (_, errors) = load(&rule.replace("product: p", "product: macos"), &pipeline);
    assert_eq!(errors[0].to_string(), "r.yml:2: the pipeline refuses it: no macOS here");
    let source = LogSourceFilter { product: Some("p".into()), ..LogSourceFilter::default() };
    assert_eq!(pipeline.forth(&source, "User"), ["actor.user.name", "user.name"]);
    assert_eq!(pipeline.back(&source, "user.name"), ["User"]);
    let error = Pipeline::read(&"p.yml".into(), "name: x\ntransformations:\n  - type: magic\n").unwrap_err();
    assert_eq!(error.to_string(), "p.yml:3: transformation magic is not supported");
}

#[test]
fn fields_go_to_ocsf_and_back() {
    let pipeline = Pipeline::ocsf();
    let source = LogSourceFilter { category: Some("process_creation".into()), ..LogSourceFilter::default() };
    for field in ["Image", "CommandLine", "ParentImage", "User", "Hashes"] {
        let there = pipeline.forth(&source, field);
        assert_ne!(there, [field]);
        assert!(there.iter().all(|name| pipeline.back(&source, name) == [field]), "{field} {there:?}");
    }
    assert_eq!(pipeline.forth(&LogSourceFilter::default(), "Image"), ["Image"]);
}

#[test]
fn parts_of_a_time_are_compared() {
    let text = "title: t\nlogsource: {}\ndetection:\n  night: {at|hour|gte: 22}\n  early: {at|hour|lt: 5}\n  monday: {at|day: [23, 30]}\n  condition: monday and (night or early)\n";
    let rules = rules(text);
    for (at, expect) in [
        ("2026-11-23T23:10:00Z", true),
        ("2026-11-23T04:59:59Z", true),
        ("2026-11-23T05:00:00Z", false),
        ("2026-11-24T23:00:00Z", false),
        ("never", false),
    ] {
        assert_eq!(!hits(&rules, &json!({"at": at})).is_empty(), expect, "{at}");
    }
}

fn kind_of(kind: &str, condition: &str) -> Result<CorrelationKind, Reason> {
    let text = format!(
        "title: c\ncorrelation:\n  type: {kind}\n  rules: [a, b, c]\n  group-by: [x]\n  timespan: 5m\n{condition}"
    );
    let (documents, errors) = parse(&"c.yml".into(), &text, &mut FieldNames::default());
    match (documents.into_iter().next(), errors.into_iter().next()) {
        (Some(Document::Correlation(correlation)), None) => Ok(correlation.kind),
        (_, Some(error)) => Err(error.reason),
        (document, None) => panic!("{document:?}"),
    }
}

#[test]
fn conditions_of_correlations_are_read_whole() {
    use RuleExpression::{All, Any, Not, Rule};
    assert_eq!(kind_of("event_count", "  condition: {gt: 9}"), Ok(CorrelationKind::EventCount { at_least: 10 }));
    assert!(
        matches!(kind_of("event_count", "  condition: {gte: 3, lte: 5}"), Ok(CorrelationKind::Count { bounds, .. }) if bounds.len() == 2)
    );
    assert!(
        matches!(kind_of("value_count", "  condition: {field: [u, v], neq: 5}"), Ok(CorrelationKind::Count { fields, .. }) if fields.len() == 2)
    );
    assert!(matches!(
        kind_of("value_sum", "  condition: {field: n, gt: 1000000}"),
        Ok(CorrelationKind::Value { of: Aggregate::Sum, .. })
    ));
    assert!(matches!(
        kind_of("value_avg", "  condition: {field: n, lt: 1.5}"),
        Ok(CorrelationKind::Value { of: Aggregate::Average, .. })
    ));
    assert!(matches!(
        kind_of("value_percentile", "  condition: {field: n, percentile: 95, gt: 4}"),
        Ok(CorrelationKind::Value { of: Aggregate::Percentile(95.0), .. })
    ));
    assert_eq!(kind_of("temporal", ""), Ok(CorrelationKind::Temporal { at_least: 3 }));
    let condition = All(vec![Rule(0), Any(vec![Rule(1), Not(Box::new(Rule(2)))])]);
    let expect = Ok(CorrelationKind::Expression { condition, ordered: false });
    assert_eq!(kind_of("temporal", "  condition: a and (b or not c)"), expect);
    assert_eq!(kind_of("temporal", "  condition: {expression: a and (b or not c)}"), expect);
    assert_eq!(kind_of("temporal", "  condition: a and d"), Err(Reason::UnknownSelection { name: "d".to_owned() }));
    assert_eq!(kind_of("temporal", "  condition: a and"), Err(Reason::BadCondition { at: "its end".to_owned() }));
    assert!(
        kind_of("value_sum", "  condition: {gt: 1}").is_err()
            && kind_of("event_count", "  condition: {more: 1}").is_err()
    );
}

#[test]
fn the_examples_of_the_specification_are_read() {
    let Some(folder) = data("sigma/schema") else { return };
    let mut read = 0;
    for kind in ["correlation", "filter", "rules"] {
        for file in std::fs::read_dir(folder.join(kind)).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let (documents, errors) = parse(&path.display().to_string().into(), &text, &mut FieldNames::default());
            assert!(errors.is_empty() && documents.len() == 1, "{errors:?}");
            read += 1;
        }
    }
    assert_eq!(read, 12);
}

#[test]
fn what_public_rules_are_not_supported_is_told_with_file_line_and_reason() {
    let Some(archive) = unpacked("sigma/sigmahq-rules.tar.gz") else { return };
    let mut told = BTreeMap::<String, usize>::new();
    for folder in ["unsupported", "deprecated"] {
        let (_, errors) = detection::rules::load_tree(&archive.path().join(folder), &Pipeline::default());
        for error in errors {
            assert!(error.line > 0 && error.file.ends_with(".yml"), "{error}");
            *told.entry(error.reason.to_string()).or_default() += 1;
        }
    }
    eprintln!("{told:?}");
    assert!(told.keys().any(|reason| reason.starts_with("aggregation in a condition")), "{told:?}");
}
