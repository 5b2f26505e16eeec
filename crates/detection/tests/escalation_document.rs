//! Policy documents: what is right is read, what is wrong is told with its line, and nothing makes it panic.

use detection::Severity;
use detection::escalation::{Book, Channel, ERRORS_MAX, Reason, Target, parse};
use proptest::prelude::*;

const DOCUMENT: &str = r#"version = 1

[[webhook]]
name = "pager"
url = "https://pager.example/in"

[[person]]
login = "ann"
email = "ann@example.org"
webhook = "pager"

[[person]]
login = "bob"
email = "bob@example.org"

[[team]]
name = "soc"
members = ["ann", "bob"]

[[schedule]]
name = "primary"
time_zone = "Europe/Berlin"
[[schedule.layer]]
members = ["ann", "bob"]
from = "2026-01-05"
hand_over = "09:00"
every_days = 7
days = ["monday", "tuesday"]
hours = ["22:00", "06:00"]
[[schedule.override]]
login = "bob"
from = "2026-12-24T09:00"
to = "2026-12-26T09:00"

[[policy]]
name = "grave"
severity_min = "high"
tenants = ["acme"]
repeats = 2
fallback = ["team:soc"]
[[policy.step]]
notify = ["schedule:primary", "webhook:pager"]
acknowledge_within = "15m"
[[policy.step]]
notify = ["person:bob"]
acknowledge_within = "90s"

[[policy]]
name = "all"
severity_min = "informational"
[[policy.step]]
notify = ["person:ann"]
acknowledge_within = "1h"
"#;

fn right(text: &str) -> Book {
    parse("soc.toml", text.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// Replaces a text of the document and expects one fault, at a line.
fn check(what: &str, by: &str, line: u32, expect: impl Fn(&Reason) -> bool) {
    assert!(DOCUMENT.contains(what), "{what}");
    let text = DOCUMENT.replacen(what, by, 1);
    let errors = parse("soc.toml", text.as_bytes()).expect_err(by);
    assert!(errors.len() == 1 && expect(&errors[0].reason) && errors[0].line == line, "{by}: {errors:?}");
    assert!(errors[0].to_string().starts_with(&format!("soc.toml:{line}: ")));
}

#[test]
fn a_document_says_who_there_is_and_who_is_told() {
    let book = right(DOCUMENT);
    let policy = book.policy("acme", Severity::High).unwrap();
    assert_eq!((&*policy.name, policy.repeats, policy.round_ms()), ("grave", 2, 990_000));
    assert_eq!(policy.steps[0].notify[0], Target::Schedule("primary".into()));
    assert_eq!(&*book.policy("other", Severity::Critical).unwrap().name, "all");
    let (_, channels) = &book.reach(&Target::Person("ann".into()), 0)[0];
    assert!(matches!(&channels[..], [Channel::Email { .. }, Channel::Webhook { .. }]));
    assert_eq!(book.reach(&Target::Team("soc".into()), 0)[1].0, "team:soc/bob");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    check("version = 1", "version = 2", 1, |reason| matches!(reason, Reason::Version { found: 2 }));
    check("https://pager", "http://pager", 5, |reason| matches!(reason, Reason::NotHttps { .. }));
    check("ann@example.org", "ann at example", 9, |reason| matches!(reason, Reason::BadAddress { .. }));
    check("webhook = \"pager\"", "webhook = \"none\"", 10, |reason| matches!(reason, Reason::Unknown { .. }));
    check("\nemail = \"bob@example.org\"", "", 13, |reason| matches!(reason, Reason::Unreachable { .. }));
    check("members = [\"ann\", \"bob\"]", "members = []", 18, |reason| matches!(reason, Reason::Empty { .. }));
    check("login = \"bob\"\nfrom", "login = \"eve\"\nfrom", 31, |reason| matches!(reason, Reason::Unknown { .. }));
    check("2026-01-05", "2026-02-30", 25, |reason| matches!(reason, Reason::BadTime { .. }));
    check("hand_over = \"09:00\"", "hand_over = \"9\"", 26, |reason| matches!(reason, Reason::BadTime { .. }));
    check("every_days = 7", "every_days = 0", 27, |reason| matches!(reason, Reason::OutOfRange { .. }));
    check("\"tuesday\"", "\"tue\"", 28, |reason| matches!(reason, Reason::BadTime { .. }));
    check("[\"22:00\", \"06:00\"]", "[\"22:00\"]", 29, |reason| matches!(reason, Reason::OutOfRange { .. }));
    check("2026-12-26", "2026-12-23", 33, |reason| matches!(reason, Reason::Backwards));
    check("severity_min = \"high\"", "severity_min = \"dire\"", 37, |reason| matches!(reason, Reason::Unknown { .. }));
    check("repeats = 2", "repeats = 11", 39, |reason| matches!(reason, Reason::OutOfRange { .. }));
    check("fallback = [\"team:soc\"]", "", 36, |reason| matches!(reason, Reason::NoFallback { .. }));
    check("\"webhook:pager\"", "\"pager\"", 42, |reason| matches!(reason, Reason::BadTarget { .. }));
    check("person:bob", "person:eve", 45, |reason| matches!(reason, Reason::Unknown { .. }));
    check("\"15m\"", "\"15\"", 43, |reason| matches!(reason, Reason::OutOfRange { .. }));
    check("\"90s\"", "\"25h\"", 46, |reason| matches!(reason, Reason::OutOfRange { .. }));
    check("name = \"all\"", "name = \"grave\"", 49, |reason| matches!(reason, Reason::Duplicate { .. }));
    check("repeats = 2", "repeat = 2", 39, |reason| matches!(reason, Reason::NotToml { .. }));
    check("repeats = 2", "repeats = [", 40, |reason| matches!(reason, Reason::NotToml { .. }));
}

#[test]
fn a_zone_that_is_not_known_is_told() {
    let text = DOCUMENT.replace("Europe/Berlin", "Mars/Base");
    let errors = parse("soc.toml", text.as_bytes()).unwrap_err();
    assert!(matches!(&errors[0].reason, Reason::BadZone { name } if name == "Mars/Base") && errors[0].line == 22);
}

#[test]
fn limits_hold() {
    assert_eq!(parse("x", &vec![b' '; 600_000]).unwrap_err()[0].reason, Reason::TooLarge);
    assert_eq!(parse("x", b"\xff").unwrap_err()[0].reason, Reason::NotUtf8);
    let many = format!("version = 1\n{}", "[[team]]\nname = \"a\"\nmembers = [\"nobody\"]\n".repeat(1_000));
    assert_eq!(parse("x", many.as_bytes()).unwrap_err().len(), ERRORS_MAX);
    let more = format!("version = 1\n{}", "[[team]]\nname = \"a\"\nmembers = []\n".repeat(1_025));
    assert!(matches!(parse("x", more.as_bytes()).unwrap_err()[0].reason, Reason::TooMany { .. }));
    let deep = format!("version = {}", "[".repeat(40_000));
    assert!(matches!(parse("x", deep.as_bytes()).unwrap_err()[0].reason, Reason::NotToml { .. }));
    let steps = "[[policy.step]]\nnotify = [\"person:ann\"]\nacknowledge_within = \"1h\"\n".repeat(17);
    let errors = parse("x", format!("{DOCUMENT}{steps}").as_bytes()).unwrap_err();
    assert!(matches!(errors[0].reason, Reason::TooMany { what: "steps", .. }));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse("x", &bytes);
    }

    #[test]
    fn a_damaged_document_never_panics_and_errors_have_lines_of_it(
        at in 0..DOCUMENT.len(),
        length in 0..40usize,
        by in "\\PC{0,20}|[\\[\\]{}\"=\\n,.:0-9-]{0,20}",
    ) {
        let end = (at + length).min(DOCUMENT.len());
        let text = format!("{}{by}{}", &DOCUMENT[..at], &DOCUMENT[end..]);
        if let Err(errors) = parse("x", text.as_bytes()) {
            let lines = text.lines().count() as u32 + 1;
            prop_assert!(!errors.is_empty() && errors.iter().all(|error| (1..=lines).contains(&error.line)), "{:?}", errors);
        }
    }
}

#[test]
fn what_joins_alerts_and_how_fast_they_fade_is_in_the_document() {
    let more = "[joining]\nnever = [\"address:10.0.0.9\"]\nwindow = \"2h\"\n[risk]\nhalf_life = \"12h\"\n";
    let book = right(&format!("{DOCUMENT}{more}"));
    assert_eq!(book.join_never.iter().map(|entity| &*entity.name).collect::<Vec<_>>(), ["10.0.0.9"]);
    assert_eq!((book.join_window_ms, book.half_life_ms), (Some(7_200_000), Some(43_200_000)));
    let wrong = format!("{DOCUMENT}[joining]\nnever = [\"10.0.0.9\"]\nwindow = \"3s\"\n");
    let errors = parse("soc.toml", wrong.as_bytes()).unwrap_err();
    let reasons: Vec<&Reason> = errors.iter().map(|error| &error.reason).collect();
    assert!(matches!(reasons[..], [Reason::BadEntity { .. }, Reason::OutOfRange { .. }]), "{reasons:?}");
}

#[test]
fn a_policy_without_fallback_is_right_and_warned_of() {
    let warnings = right(DOCUMENT).warnings();
    assert_eq!(warnings, ["policy all has no fallback: nobody is told when its last step had no answer"]);
}
