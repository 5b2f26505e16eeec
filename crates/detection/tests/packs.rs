//! Packs and tenants: who sees which rules, with what state, quotas and words.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{Detector, Effect, Options};
use detection::packs;
use detection::report::{listing, tenants};
use detection::rules::RuleSet;
use detection::{Alert, AlertId, Event};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use support::{NOW_MS, audit, feed};

const SHARED: &str = "title: Denied\nname: denied\nlogsource: {product: holdfast}\ndetection: {s: {api.operation: denied}, condition: s}\nalerts: true\n---\n\
    title: Denied often\nname: often\ncorrelation: {type: event_count, rules: [denied], group-by: [actor.user.name], timespan: 5m, condition: {gte: 3}}\n---\n\
    title: Viewed\nname: viewed\nlogsource: {product: holdfast}\ndetection: {s: {api.operation: record.view}, condition: s}\n";
/// For the platform: many denials from one address, whoever the tenants are.
const PLATFORM: &str = "title: Denied\nname: denied\nlogsource: {product: holdfast}\ndetection: {s: {api.operation: denied}, condition: s}\n---\n\
    title: Probe\nname: probe\ncorrelation: {type: event_count, rules: [denied], group-by: [src_endpoint.ip], timespan: 5m, condition: {gte: 4}}\n";

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn load(toml: &str, files: &[(&str, &str)]) -> Result<(RuleSet, Vec<String>), String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("shared/a.yml", SHARED), ("platform/p.yml", PLATFORM), ("packs.toml", toml)]);
    write(folder.path(), files);
    let prefix = format!("{}/", folder.path().display());
    let (rules, errors) = packs::load(folder.path()).map_err(|error| error.to_string().replace(&prefix, ""))?;
    Ok((rules, errors.iter().map(|error| error.to_string().replace(&prefix, "")).collect()))
}

#[track_caller]
fn load_clean(toml: &str, files: &[(&str, &str)]) -> RuleSet {
    let (rules, errors) = load(toml, files).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

const TWO_PACKS: &str = "[[pack]]\nname = \"ours\"\nfolders = [\"platform\"]\n\n[[pack]]\nname = \"shared\"\nfolders = [\"shared\"]\ntenants = [\"*\"]\n";

fn denials(tenant: &str, from: u64, count: u64) -> Vec<Event> {
    let body = json!({"action": "denied", "outcome": "denied", "user": "ann", "tenant": tenant, "address": "203.0.113.9", "resource": "secret"});
    (from..from + count).map(|n| audit(n, n * 1_000, body.clone())).collect()
}

fn by_tenant(alerts: &BTreeMap<AlertId, Arc<Alert>>) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for alert in alerts.values() {
        *counts.entry((alert.tenant.to_string(), alert.rule.id.to_string())).or_default() += 1;
    }
    counts
}

fn run(rules: &RuleSet, events: Vec<Event>) -> BTreeMap<AlertId, Arc<Alert>> {
    feed(&mut Detector::new(rules.clone(), Options::default()), events).alerts
}

fn count(alerts: &BTreeMap<AlertId, Arc<Alert>>, tenant: &str, rule: &str) -> usize {
    by_tenant(alerts).get(&(tenant.to_owned(), rule.to_owned())).copied().unwrap_or(0)
}

#[test]
fn tenants_are_counted_apart_and_the_platform_sees_them_together() {
    let rules = load_clean(TWO_PACKS, &[]);
    let alerts = run(&rules, [denials("acme", 0, 2), denials("globex", 2, 2)].concat());
    assert_eq!((count(&alerts, "acme", "denied"), count(&alerts, "globex", "denied")), (2, 2));
    assert_eq!(count(&alerts, "acme", "often") + count(&alerts, "globex", "often"), 0, "two and two are not three");
    assert_eq!(count(&alerts, "platform", "probe"), 1);
    let alerts = run(&rules, [denials("acme", 0, 3), denials("globex", 3, 2)].concat());
    assert_eq!((count(&alerts, "acme", "often"), count(&alerts, "globex", "often")), (1, 0));
    let nobody = run(&rules, denials("", 0, 3));
    assert_eq!(nobody.values().filter(|alert| &*alert.tenant != "platform").count(), 0);
}

#[test]
fn a_tenant_is_part_of_the_id_of_its_alerts() {
    let rules = load_clean(TWO_PACKS, &[]);
    let mut event = denials("acme", 0, 1).remove(0);
    let one: BTreeSet<AlertId> = run(&rules, vec![event.clone()]).into_keys().collect();
    event.fields.insert("metadata.tenant_uid".to_owned(), json!("globex"));
    let other: BTreeSet<AlertId> = run(&rules, vec![event]).into_keys().collect();
    assert!(!one.is_empty() && one.is_disjoint(&other));
}

#[test]
fn a_tenant_sees_the_packs_it_is_given_and_no_others() {
    let toml = TWO_PACKS.replace("[\"*\"]", "[\"acme\"]");
    let rules = load_clean(&toml, &[]);
    let alerts = run(&rules, [denials("acme", 0, 1), denials("globex", 1, 1)].concat());
    assert_eq!((count(&alerts, "acme", "denied"), count(&alerts, "globex", "denied")), (1, 0));
    assert_eq!((rules.rules_of_tenant("acme"), rules.rules_of_tenant("globex")), (2, 0));
}

#[test]
fn a_tenants_filter_narrows_its_copy_and_nobody_elses_rule() {
    let filter = "title: not the scanner\nlogsource: {product: holdfast}\nfilter:\n  rules: [denied]\n  s: {src_endpoint.ip: 203.0.113.9}\n  condition: not s\n";
    let toml = format!("{TWO_PACKS}\n[[tenant]]\nname = \"acme\"\n");
    let rules = load_clean(&toml, &[("tenants/acme/f.yml", filter)]);
    let alerts = run(&rules, [denials("acme", 0, 3), denials("globex", 3, 3)].concat());
    assert_eq!((count(&alerts, "acme", "denied"), count(&alerts, "globex", "denied")), (0, 3));
    assert_eq!((count(&alerts, "acme", "often"), count(&alerts, "globex", "often")), (0, 1));
    let mut elsewhere = denials("acme", 0, 3);
    elsewhere.iter_mut().for_each(|e| drop(e.fields.insert("src_endpoint.ip".to_owned(), json!("198.51.100.7"))));
    let alerts = run(&rules, elsewhere);
    assert_eq!((count(&alerts, "acme", "denied"), count(&alerts, "acme", "often")), (3, 1));
}

#[test]
fn a_tenants_files_speak_as_the_packs_they_narrow_do() {
    let renames =
        "transformations: [{type: field_name_mapping, mapping: {User: actor.user.name, Operation: api.operation}}]\n";
    let pack = "title: Denied\nname: denied\nlogsource: {product: holdfast}\ndetection: {s: {Operation: denied}, condition: s}\nalerts: true\n";
    let filter = "title: f\nlogsource: {product: holdfast}\nfilter:\n  rules: [denied]\n  s: {User: ann}\n  condition: not s\n---\n\
        title: Twice\nname: twice\ncorrelation: {type: event_count, rules: [denied], group-by: [User], timespan: 5m, condition: {gte: 2}}\n";
    let own =
        "title: Mine\nname: mine\nlogsource: {product: holdfast}\ndetection: {s: {Operation: denied}, condition: s}\n";
    let toml = "[[pack]]\nname = \"p\"\nfolders = [\"p\"]\npipelines = [\"p.yml\"]\ntenants = [\"*\"]\n\
        [[tenant]]\nname = \"acme\"\n[[tenant]]\nname = \"globex\"\nrules = \"own\"\npipelines = [\"p.yml\"]\n";
    let files = [
        ("p.yml", renames),
        ("p/r.yml", pack),
        ("tenants/acme/f.yml", filter),
        ("own/r.yml", own),
        ("own/c.yml", &filter[filter.find("---").unwrap()..]),
    ];
    let rules = load_clean(toml, &files);
    let alerts = run(&rules, [denials("acme", 0, 2), denials("globex", 2, 2), denials("initech", 4, 2)].concat());
    assert_eq!((count(&alerts, "acme", "denied"), count(&alerts, "acme", "twice")), (0, 0));
    assert_eq!((count(&alerts, "globex", "mine"), count(&alerts, "globex", "twice")), (2, 1));
    assert_eq!((count(&alerts, "globex", "denied"), count(&alerts, "initech", "denied")), (2, 2));
}

#[test]
fn a_tenants_own_rules_see_only_its_events() {
    let own = "title: Twice\nname: twice\ncorrelation: {type: event_count, rules: [denied], group-by: [actor.user.name], timespan: 5m, condition: {gte: 2}}\n---\n\
        title: Mine\nname: mine\nlogsource: {product: holdfast}\ndetection: {s: {api.operation: denied}, condition: s}\n";
    let toml =
        format!("{TWO_PACKS}\n[[tenant]]\nname = \"acme\"\n[[tenant]]\nname = \"globex\"\nrules = \"own.yml\"\n");
    let rules = load_clean(&toml, &[("tenants/acme/f.yml", own), ("own.yml", own)]);
    let alerts = run(&rules, [denials("acme", 0, 2), denials("globex", 2, 2), denials("initech", 4, 2)].concat());
    for tenant in ["acme", "globex"] {
        assert_eq!((count(&alerts, tenant, "twice"), count(&alerts, tenant, "mine")), (1, 2), "{tenant}");
    }
    assert_eq!((count(&alerts, "initech", "twice"), count(&alerts, "initech", "mine")), (0, 0));
    // A correlation of its own does not silence the shared rule it is about, for nobody.
    assert_eq!((count(&alerts, "acme", "denied"), count(&alerts, "initech", "denied")), (2, 2));
}

#[test]
fn a_tenant_does_without_the_rules_it_disables() {
    let toml = format!(
        "{TWO_PACKS}\n[[tenant]]\nname = \"acme\"\ndisable = [\"often\"]\n[[tenant]]\nname = \"globex\"\ndisable = [\"denied\"]\n"
    );
    // A filter of what is disabled does not bring it back.
    let filter = "title: f\nlogsource: {product: holdfast}\nfilter:\n  rules: [denied]\n  s: {api.operation: denied}\n  condition: s\n";
    let rules = load_clean(&toml, &[("tenants/globex/f.yml", filter)]);
    let alerts = run(&rules, [denials("acme", 0, 3), denials("globex", 3, 3), denials("initech", 6, 3)].concat());
    assert_eq!((count(&alerts, "acme", "denied"), count(&alerts, "acme", "often")), (3, 0));
    assert_eq!((count(&alerts, "globex", "denied"), count(&alerts, "globex", "often")), (0, 0));
    assert_eq!((count(&alerts, "initech", "denied"), count(&alerts, "initech", "often")), (3, 1));
}

#[test]
fn alerts_beyond_the_quota_are_counted_and_told_once() {
    let toml = format!("{TWO_PACKS}\n[[tenant]]\nname = \"acme\"\nalerts_per_rule_hour = 5\n");
    let rules = load_clean(&toml, &[]);
    let mut detector = Detector::new(rules.clone(), Options::default());
    let alerts = feed(&mut detector, denials("acme", 0, 9)).alerts;
    assert_eq!((count(&alerts, "acme", "denied"), count(&alerts, "acme", "holdfast-tenant-quota-exceeded")), (5, 1));
    assert_eq!(detector.counts().held, 4);
    // After a restart it goes on where it was, and tells nothing twice.
    let rows = detector.take_rows().into_iter().filter_map(|(key, bytes)| Some((key, bytes?)));
    let (mut restored, _) = Detector::restore(rules, Options::default(), rows).unwrap();
    let more = feed(&mut restored, denials("acme", 9, 3)).alerts;
    assert_eq!((count(&more, "acme", "denied"), count(&more, "acme", "holdfast-tenant-quota-exceeded")), (0, 0));
    assert_eq!(restored.counts().held, 3);
    let others = feed(&mut restored, denials("globex", 20, 9)).alerts;
    assert_eq!(count(&others, "globex", "denied"), 9, "one tenant's quota is not another's");
}

#[test]
fn more_rules_than_a_tenant_may_have_are_refused_with_file_and_line() {
    let toml = format!("{TWO_PACKS}\n[[tenant]]\nname = \"acme\"\nrules_max = 1\n");
    let own = |name: &str| {
        format!(
            "title: {name}\nname: {name}\nlogsource: {{product: holdfast}}\ndetection: {{s: {{api.operation: denied}}, condition: s}}\n---\n"
        )
    };
    let own = own("one") + &own("two");
    let (rules, errors) = load(&toml, &[("tenants/acme/f.yml", &own)]).unwrap();
    assert_eq!(errors, ["tenants/acme/f.yml:6: more than the 1 rules that the tenant may have"]);
    assert_eq!(rules.rules_of_tenant("acme"), 3);
}

#[test]
fn what_a_tenants_alert_carries_are_tuples_unless_it_says_otherwise() {
    let toml = format!("{TWO_PACKS}\n[[tenant]]\nname = \"open\"\nalerts_show_text = true\n");
    let rules = load_clean(&toml, &[]);
    let alerts = run(&rules, [denials("acme", 0, 1), denials("open", 1, 1)].concat());
    let texts: BTreeMap<&str, &str> = alerts.values().map(|alert| (&*alert.tenant, &*alert.events[0].text)).collect();
    assert!(texts["acme"].is_empty() && texts["open"].contains("secret"), "{texts:?}");
    let json = serde_json::to_string(&alerts.values().find(|a| &*a.tenant == "acme").unwrap()).unwrap();
    assert!(!json.contains("secret"), "{json}");
}

#[test]
fn a_plain_folder_of_rules_lets_no_tenants_words_travel() {
    let (rules, errors) = detection::rules::load_texts(vec![("a.yml".into(), SHARED.into())]);
    assert!(errors.is_empty(), "{errors:?}");
    let alerts = run(&rules, [denials("acme", 0, 3), denials("platform", 3, 1)].concat());
    let carried: BTreeSet<&str> = alerts.values().flat_map(|alert| &alert.events).map(|event| &*event.text).collect();
    assert_eq!(count(&alerts, "platform", "denied"), 4, "the rules are the platform's");
    // Its own events say what happened; a tenant's only that it did.
    assert_eq!(carried, BTreeSet::from(["", "denied Failure secret"]));
    assert!(alerts.values().any(|alert| !alert.events[0].entities.is_empty()));
}

#[test]
fn shared_predicates_are_compiled_once_for_all_tenants() {
    let mut toml = TWO_PACKS.to_owned();
    let before = load_clean(&toml, &[]).program().size();
    for number in 0..200 {
        toml += &format!("\n[[tenant]]\nname = \"t{number}\"\nrules = \"own.yml\"\n");
    }
    let own = "title: Mine\nname: mine\nlogsource: {product: holdfast}\ndetection: {s: {api.operation: denied}, condition: s}\n";
    let after = load_clean(&toml, &[("own.yml", own)]).program().size();
    assert_eq!((after.predicates, after.rules), (before.predicates, before.rules + 200));
}

#[test]
fn what_is_wrong_with_the_file_is_told_with_its_line() {
    for (toml, expect) in [
        ("[[pack]]\nname = \"a\"\nfolders = [\"shared\"]\ncolour = 1\n", "packs.toml:4: unknown field `colour`"),
        ("[[pack]]\nname = \"a\"\nfolders = [\"nowhere\"]\n", "packs.toml:1: nowhere: there is no such folder"),
        ("[[pack]]\nname = 7\n", "packs.toml:2: invalid type"),
        (
            "\n[[pack]]\nname = \"a\"\nfolders = []\n[[pack]]\nname = \"a\"\nfolders = []\n",
            "packs.toml:5: two packs are called a",
        ),
        ("[[tenant]]\nname = \"a\"\n\n[[tenant]]\nname = \"a\"\n", "packs.toml:4: tenant a is told twice"),
        ("[[tenant]]\nname = \"a\"\ndisable = [\"x\"]\n", "packs.toml:1: tenant a sees no rule x"),
        ("[[tenant]]\nname = \"a\"\nrules = \"x.yml\"\n", "packs.toml:1: x.yml: there is nothing"),
        ("[[pack]]\nname = \"a\"\nfolders = [\"shared\"]\npipelines = [\"p.yml\"]\n", "packs.toml:1: p.yml: "),
        ("[tenants]\nrules = 4\n", "packs.toml:2: unknown field `rules`"),
    ] {
        let error = load(toml, &[]).unwrap_err();
        assert!(error.starts_with(expect), "{error}");
    }
}

#[test]
fn rules_in_shadow_count_and_raise_nothing() {
    let toml = TWO_PACKS.replace("tenants = [\"*\"]\n", "tenants = [\"*\"]\nshadow = true\n");
    let mut detector = Detector::new(load_clean(&toml, &[]), Options::default());
    let mut effects = Vec::new();
    for event in denials("acme", 0, 3) {
        detector.step(NOW_MS, detection::engine::Input::Event(event), &mut effects);
    }
    let raised: Vec<&Effect> = effects.iter().filter(|effect| matches!(effect, Effect::Alert(_))).collect();
    assert!(raised.is_empty(), "{raised:?}");
    let shadows = detector.shadows();
    assert_eq!((shadows["denied"].alerts, shadows["often"].alerts), (3, 1));
    assert_eq!(shadows["often"].first[0].events.len(), 3);
    assert_eq!(detector.counts().shadowed, 4);
}

#[test]
fn shards_of_tenants_rules_raise_what_the_whole_raises() {
    let toml = format!("{TWO_PACKS}\n[[tenant]]\nname = \"acme\"\n");
    let filter = "title: f\nlogsource: {product: holdfast}\nfilter:\n  rules: [viewed]\n  s: {actor.user.name: bob}\n  condition: s\n";
    let rules = load_clean(&toml, &[("tenants/acme/f.yml", filter)]);
    let events = [denials("acme", 0, 3), denials("globex", 3, 3)].concat();
    let whole: BTreeSet<AlertId> = run(&rules, events.clone()).into_keys().collect();
    let parts: BTreeSet<AlertId> =
        (0..5).flat_map(|number| run(&rules.shard(number, 5), events.clone()).into_keys()).collect();
    assert_eq!(parts, whole);
    assert!(whole.len() > 8);
}

#[test]
fn the_rules_of_one_tenant_raise_its_alerts_and_no_others() {
    let own = "title: Twice\nname: twice\ncorrelation: {type: event_count, rules: [denied], group-by: [actor.user.name], timespan: 5m, condition: {gte: 2}}\n---\n\
        title: f\nlogsource: {product: holdfast}\nfilter:\n  rules: [viewed]\n  s: {actor.user.name: bob}\n  condition: s\n";
    let toml =
        format!("{TWO_PACKS}\n[[tenant]]\nname = \"acme\"\n[[tenant]]\nname = \"globex\"\nrules = \"own.yml\"\n");
    let rules = load_clean(&toml, &[("tenants/acme/f.yml", own), ("own.yml", own)]);
    let events = [denials("acme", 0, 3), denials("globex", 3, 3), denials("initech", 6, 3)].concat();
    let whole = run(&rules, events.clone());
    for tenant in ["acme", "globex", "initech"] {
        let of_it = events.iter().filter(|event| event.text("metadata.tenant_uid") == Some(tenant)).cloned();
        let part: BTreeSet<AlertId> = run(&rules.for_tenant(tenant), of_it.collect()).into_keys().collect();
        let its = whole.values().filter(|alert| &*alert.tenant == tenant).map(|alert| alert.id).collect();
        assert_eq!(part, its, "{tenant}");
        assert!(part.len() >= 4, "{tenant}");
    }
}

#[test]
fn a_tenant_is_listed_the_rules_that_are_for_it_and_what_it_may_do() {
    let own = "title: Mine\nname: mine\nlogsource: {product: holdfast}\ndetection: {s: {api.operation: denied}, condition: s}\n";
    let toml = format!("{TWO_PACKS}\n[[tenant]]\nname = \"acme\"\nrules_max = 7\ndisable = [\"often\", \"viewed\"]\n");
    let rules = load_clean(&toml, &[("tenants/acme/own.yml", own)]);
    let ids = |rules: &RuleSet, tenant| {
        listing(rules, tenant).iter().map(|one| one.header.reference.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&rules, None), ["denied", "denied", "mine", "often", "probe", "viewed"]);
    assert_eq!(ids(&rules.for_tenant("acme"), Some("acme")), ["denied", "mine"]);
    assert_eq!(ids(&rules.for_tenant("globex"), Some("globex")), ["denied", "often", "viewed"]);
    let limits = tenants(&rules);
    let of = |place: usize| {
        let of = &limits[place];
        (of.tenant.as_deref(), of.rules, of.own, of.rules_max, of.alerts_per_rule_hour, of.disabled.len())
    };
    assert_eq!((limits.len(), of(0), of(1)), (2, (Some("acme"), 2, 1, 7, 100, 2), (None, 2, 0, 500, 100, 0)));
}
