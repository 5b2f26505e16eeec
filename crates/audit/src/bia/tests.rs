use proptest::prelude::*;

use super::*;

const REAL: &str = include_str!("../../../../cluster/bia.toml");

fn target(rto_ms: u64, rpo_ms: u64, rpo_remote_ms: u64) -> Target {
    Target { rto_ms, rpo_ms, rpo_remote_ms }
}

#[test]
fn the_cluster_s_analysis_keeps_its_rules() {
    let bia = Bia::parse(REAL).unwrap_or_else(|error| panic!("cluster/bia.toml: {error}"));
    assert!(bia.assets().len() >= 10);
    let class = |number| Class::new(number).unwrap();
    assert_eq!(bia.target(class(0), Disruption::ProcessKill), target(1_000, 0, 0));
    assert_eq!(bia.target(class(0), Disruption::RegionDestroyed), target(5_000, 1_000, 0));
    assert_eq!(bia.target(class(1), Disruption::RegionDestroyed), target(15_000, 5_000, 5_000));
    assert_eq!(bia.target(class(3), Disruption::LogicalCorruption), target(86_400_000, 3_600_000, 3_600_000));
    let audit = bia.asset("audit").expect("the audit log is an asset");
    assert_eq!(bia.asset_target(audit, Disruption::RegionDestroyed), target(15_000, 0, 0));
    assert_eq!(bia.asset_target(audit, Disruption::ProcessKill), target(2_000, 0, 0));
}

/// Replaces the first `from` in the real analysis and expects to be refused at the line where `to` then stands.
fn refused(from: &str, to: &str, rule: impl Fn(&Rule) -> bool) {
    assert!(REAL.contains(from), "{from}");
    let text = REAL.replacen(from, to, 1);
    let error = Bia::parse(&text).expect_err(to);
    assert!(rule(&error.rule), "{to}: {error}");
    let head = &REAL[..REAL.find(from).expect("checked above")];
    let line = 1 + head.matches('\n').count();
    assert!((line..=line + to.matches('\n').count()).contains(&error.line), "{to}: expected line {line}: {error}");
}

#[test]
fn broken_rules_are_named_with_their_line() {
    refused("number = 3", "number = 4", |rule| matches!(rule, Rule::Syntax(_)));
    refused("number = 3", "number = 2", |rule| *rule == Rule::Classes);
    refused("\"60 s\"", "\"60 weeks\"", |rule| matches!(rule, Rule::Duration(_)));
    refused("name = \"routing-state\"", "name = \"Routing\"", |rule| *rule == Rule::AssetName);
    refused("name = \"orders\"", "name = \"sessions\"", |rule| matches!(rule, Rule::AssetTwice(_)));
    refused("percent = 95", "percent = 0", |rule| matches!(rule, Rule::Minimum(_)));
    refused("mtpd = \"1 h\"", "mtpd = \"1 min\"", |rule| matches!(rule, Rule::Mtpd(_, Disruption::LogicalCorruption)));
    refused("availability = \"critical\"", "availability = 5", |rule| matches!(rule, Rule::Syntax(_)));
    refused("availability = \"critical\"", "availabilty = 4", |rule| matches!(rule, Rule::Syntax(_)));
    refused("depends_on = [\"sessions\"", "depends_on = [\"seasons\"", |rule| {
        matches!(rule, Rule::DependencyUnknown(_, _))
    });
    refused("depends_on = [\"sessions\"", "depends_on = [\"reports\"", |rule| {
        matches!(rule, Rule::DependencyClass(_, _))
    });
    refused("rpo = \"1 s\", rpo_remote = \"0 s\"", "rpo = \"1 s\", rpo_remote = \"2 s\"", |rule| {
        matches!(rule, Rule::Remote(_))
    });
}

#[test]
fn rules_between_classes_are_kept() {
    let error = |from: &str, to: &str| Bia::parse(&REAL.replacen(from, to, 1)).unwrap_err().rule;
    let class = |number| Class::new(number).unwrap();
    assert_eq!(
        error("process_kill = { rto = \"60 s\"", "process_kill = { rto = \"9 s\""),
        Rule::ClassOrder(class(3), Disruption::ProcessKill)
    );
    let line = REAL.lines().find(|line| line.starts_with("gray")).unwrap();
    assert_eq!(error(line, ""), Rule::TargetMissing(class(0), Disruption::Gray));
    assert_eq!(
        error("rto = \"15 s\", rpo = \"0 s\"", "rto = \"16 s\", rpo = \"0 s\""),
        Rule::WeakerTarget("audit".into(), Disruption::RegionDestroyed)
    );
    let reports = REAL.find("name = \"reports\"").unwrap();
    let (before, after) = REAL.split_at(reports);
    let text = format!("{before}{}", after.replacen("availability = \"low\"", "availability = 4", 1));
    assert_eq!(Bia::parse(&text).unwrap_err().rule, Rule::CriticalClass("reports".into()));
}

#[test]
fn an_oversized_file_is_refused_unread() {
    assert_eq!(Bia::parse(&"#".repeat(TEXT_SIZE_BYTES_MAX + 1)).unwrap_err().rule, Rule::Size);
}

proptest! {
    #[test]
    fn damaged_files_never_panic(at in any::<usize>(), with in ".{0,3}", length in 0_usize..20) {
        let bound = |mut at: usize| { while !REAL.is_char_boundary(at) { at -= 1; } at };
        let start = bound(at % REAL.len());
        let end = bound((start + length).min(REAL.len())).max(start);
        let text = format!("{}{with}{}", &REAL[..start], &REAL[end..]);
        if let Err(error) = Bia::parse(&text) {
            prop_assert!(error.line <= 1 + text.matches('\n').count());
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(.|\n){0,200}") {
        let _ = Bia::parse(&text);
    }
}
