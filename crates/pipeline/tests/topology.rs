//! Topologies: what is read, what is refused with its line and advice, how it is drawn, and the user's own tests.

use pipeline::cases;
use pipeline::plan::Plan;
use pipeline::topology::graph::{Format, draw};
use pipeline::topology::{Finding, Topology};

fn read(text: &str) -> (Topology, Vec<Finding>) {
    Topology::read("t.toml", text, ".".into())
}

/// What is found, as `line: component: problem`, by the beginning of each.
#[track_caller]
fn check(text: &str, expect: &[&str]) {
    let (_, findings) = read(text);
    let found: Vec<String> =
        findings.iter().map(|finding| finding.to_string().trim_start_matches("t.toml:").to_owned()).collect();
    assert_eq!(found.len(), expect.len(), "{found:#?}");
    for (found, expect) in found.iter().zip(expect) {
        assert!(found.starts_with(expect), "{found}\nexpected {expect}");
    }
}

const SOURCE: &str = "[sources.lines]\ntype = 'syslog'\nmode = 'tcp'\naddress = '127.0.0.1:6514'\n";

const WHOLE: &str = r#"
[sources.firewall]
type = "syslog"
mode = "tcp"
address = "127.0.0.1:6514"

[transforms.cef]
type = "parse"
inputs = ["firewall"]
format = "cef"

[transforms.ways]
type = "route"
inputs = ["cef"]
ways.blocked = { action = "blocked" }
unmatched = "leave_out"

[transforms.ocsf]
type = "normalise"
inputs = ["ways.blocked"]
class = 4001
activity = 5
product = "acme"
map = { "src_endpoint.ip" = "src" }

[transforms.grave]
type = "filter"
inputs = ["alerts"]
where = { severity = "high" }

[sinks.detector]
inputs = ["ocsf"]

[sinks.copy]
type = "directory"
inputs = ["ocsf", "grave"]
folder = "out"

[[tests]]
name = "a blocked connection is network activity"
input = "firewall"
lines = ["CEF:0|a|b|c|d|e|5|src=10.0.0.1 action=blocked", "CEF:0|a|b|c|d|e|5|src=10.0.0.1 action=allowed", "nothing"]
expect.detector = [{ "src_endpoint.ip" = "10.0.0.1", class_uid = 4001 }]
expect.copy = [{ src_endpoint = { ip = "10.0.0.1" } }]
dead_letters.cef = ["not_cef"]
"#;

#[test]
fn a_whole_topology_is_read_drawn_and_tested() {
    let (topology, findings) = read(WHOLE);
    assert!(findings.is_empty(), "{findings:#?}");
    let text = draw(&topology, Format::Text);
    assert!(text.contains("source    firewall (syslog) → cef"), "{text}");
    assert!(text.contains("transform ways (route) → ocsf (.blocked)"), "{text}");
    assert!(draw(&topology, Format::Mermaid).contains("n_ways -->|blocked| n_ocsf"));
    assert!(draw(&topology, Format::Dot).contains("\"ocsf\" -> \"detector\";"));
    let report = cases::run(&topology, &topology.tests).unwrap();
    assert_eq!((report.passed, report.failed), (1, 0), "{:#?}", report.failures);
    let plan = Plan::new(&topology).unwrap();
    assert_eq!(plan.reached_from("alerts"), ["copy".into()]);
    assert_eq!(plan.reached_from("firewall"), ["detector".into(), "copy".into()]);
}

#[test]
fn a_test_that_does_not_hold_says_what_is_different() {
    let wrong = WHOLE.replace("class_uid = 4001 }]", "class_uid = 3002 }, {}]").replace("[\"not_cef\"]", "[]");
    let (topology, _) = read(&wrong);
    let report = cases::run(&topology, &topology.tests).unwrap();
    let expect = [
        "detector: 1 events arrived, 2 were expected",
        "detector, event 1: class_uid is 4001, expected 3002",
        "dead letters are {\"cef\": [\"not_cef\"]}, expected {\"cef\": []}",
    ];
    assert_eq!(report.failures[0].differences, expect);
    assert_eq!(report.failures[0].line, 39);
}

#[test]
fn what_nobody_else_listens_to_goes_to_detection() {
    let (topology, findings) = read(SOURCE);
    assert!(findings.is_empty(), "{findings:#?}");
    assert_eq!(Plan::new(&topology).unwrap().reached_from("lines"), ["detector".into()]);
}

#[test]
fn faults_are_found_with_their_lines_and_what_to_do() {
    let filter = |name: &str, inputs: &str| {
        format!("[transforms.{name}]\ntype = 'filter'\ninputs = [{inputs}]\nwhere = {{ a = 1 }}\n")
    };
    let copy = "[sinks.copy]\ntype = 'directory'\nfolder = 'out'\ninputs = ['lines']\n";
    check(
        &format!("{SOURCE}{}", copy.replace("'lines'", "'lnes'")),
        &["8: copy: there is no 'lnes' to listen to: did you mean 'lines'?"],
    );
    check(&format!("{SOURCE}{}", filter("a", "'lines'")), &["5: a: nobody listens to 'a'"]);
    check(&format!("{}{}", filter("a", "'b'"), filter("b", "'a'")), &["1: a: events would go round for ever: "]);
    check(&format!("{SOURCE}{copy}{}", copy.replace("copy", "more")), &["9: more: folder ./out is taken by 'copy'"]);
    check(
        &format!("{SOURCE}{}", SOURCE.replace("lines", "again")),
        &["5: again: tcp 127.0.0.1:6514 is taken by 'lines'"],
    );
    check(&format!("{SOURCE}{}", copy.replace("copy", "lines")), &["5: lines: another component has this name"]);
    check(&format!("{SOURCE}{}", copy.replace("copy", "audit")), &["5: audit: this name is the platform's own"]);
    check(&format!("{SOURCE}[sinks.detector]\ninputs = ['alerts']\n"), &["5: detector: 'alerts' must not reach"]);
    check(
        &format!("{SOURCE}[sinks.detector]\ninputs = ['lines']\nurl = 1\n"),
        &["7: detector: the platform's own sink"],
    );
    check(&SOURCE.replace("mode", "mood"), &["3: lines: unknown field `mood`"]);
    check(&SOURCE.replace("127.0.0.1:6514", "nowhere"), &["1: lines: invalid socket address"]);
    check(
        &format!("{SOURCE}{}", copy.replace("'lines'", "'lines', 'lines'")),
        &["8: copy: it listens to 'lines' twice"],
    );
    check(&copy.replace("'lines'", ""), &["4: copy: it needs inputs"]);
    check(&copy.replace("inputs = ['lines']\n", ""), &["1: copy: it needs inputs"]);
    check("[sauces.a]\n", &["1: there is no section 'sauces'"]);
    check("[sources.a\n", &["1: not TOML"]);
    check("[sources.A]\ntype = 'syslog'\n", &["1: A: a name is made of"]);
    let route = "[transforms.r]\ntype = 'route'\ninputs = ['lines']\nways.x = { a = 1 }\n";
    check(&format!("{SOURCE}{route}[sinks.detector]\ninputs = ['r.x']\n"), &["5: r: nobody listens to 'r.unmatched'"]);
    check(
        &format!("{SOURCE}{route}[sinks.detector]\ninputs = ['r']\n"),
        &["10: detector: there is no 'r' to listen to: did you mean 'r.unmatched'?"],
    );
    let regex = "[transforms.p]\ntype = 'parse'\nformat = 'regex'\npattern = '('\ninputs = ['lines']\n";
    check(&format!("{SOURCE}{regex}[sinks.detector]\ninputs = ['p']\n"), &["5: p: pattern: regex parse error"]);
    check(&format!("{SOURCE}[[tests]]\nname = 't'\ninput = 'x'\nlines = []\n"), &["5: tests: the test 't' names 'x'"]);
}

#[test]
fn one_event_is_not_copied_without_bound() {
    let mut text = SOURCE.to_owned();
    let mut before = "'lines'".to_owned();
    for level in 0..7 {
        for side in ["a", "b"] {
            text += &format!("[transforms.{side}{level}]\ntype = 'filter'\nwhere = {{ x = 1 }}\ninputs = [{before}]\n");
        }
        before = format!("'a{level}', 'b{level}'");
    }
    text += &format!("[sinks.detector]\ninputs = [{before}]\n");
    check(&text, &["61: detector: one event would reach it by 128 ways"]);
}

proptest::proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = read(&text);
    }
    #[test]
    fn arbitrary_changes_of_a_topology_never_panic(at in 0..WHOLE.len(), with in "[\\[\\]{}=.'\"a-z0-9\\n]{0,4}") {
        if WHOLE.is_char_boundary(at) {
            let _ = read(&format!("{}{with}{}", &WHOLE[..at], &WHOLE[(at + with.len()).min(WHOLE.len())..]));
        }
    }
}

#[test]
fn the_examples_are_sound_and_their_tests_hold() {
    let folder = std::path::Path::new("../../deploy/pipeline");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let (topology, findings) = Topology::read(&path.display().to_string(), &text, folder.to_owned());
            assert!(findings.is_empty(), "{findings:#?}");
            let report = cases::run(&topology, &topology.tests).unwrap();
            assert_eq!(report.failed, 0, "{}: {:#?}", path.display(), report.failures);
            assert!(report.passed > 0);
            count += 1;
        }
    }
    assert_eq!(count, 3);
}

#[test]
fn secrets_and_certificates_that_are_not_there_are_found_before_the_start() {
    struct Never;
    impl model::time::Clock for Never {
        fn wall_ms(&self) -> u64 {
            0
        }
        fn monotonic(&self) -> std::time::Duration {
            std::time::Duration::ZERO
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let text = "
[sources.posted]
type = 'http'
address = '127.0.0.1:0'
token = 'posted.token'
[sources.lines]
type = 'syslog'
mode = 'tls'
address = '127.0.0.1:0'
tls = { certificate = 'no.pem', key = 'no.key' }
[sinks.soc]
type = 'webhook'
inputs = ['alerts']
url = 'https://soc.example/hook'
secret = 'soc.secret'
[sinks.kept]
type = 'directory'
inputs = ['incidents']
folder = 'kept'
";
    let (topology, findings) = Topology::read("t.toml", text, folder.path().to_owned());
    assert_eq!(findings, []);
    std::fs::write(folder.path().join("soc.secret"), "short").unwrap();
    let clock: std::sync::Arc<dyn model::time::Clock> = std::sync::Arc::new(Never);
    let found: Vec<String> = topology.look("t.toml", &clock).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("t.toml:2: posted: ") && found[0].contains("posted.token"), "{}", found[0]);
    assert!(found[1].starts_with("t.toml:6: lines: ") && found[1].contains("no.pem"), "{}", found[1]);
    assert!(found[2].starts_with("t.toml:11: soc: ") && found[2].contains("at least 16"), "{}", found[2]);
    assert!(!folder.path().join("kept").exists(), "looking makes nothing");
    std::fs::write(folder.path().join("soc.secret"), "sixteen bytes or more").unwrap();
    assert_eq!(topology.look("t.toml", &clock).len(), 2);
}
