//! When rules are others: every key of a rule, a pipeline or a `packs.toml` that a detector's effects depend on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use detection::packs;
use detection::rules::RuleSet;
use std::collections::BTreeSet;

const RULES: &str = "title: Denied\nname: denied\nlogsource: {product: holdfast}\nlevel: low\ntags: [attack.t1110]\n\
    references: [runbooks/denied.md]\ndetection: {s: {Operation: denied, Noise: 1, 'User|expand': '%admins%'}, condition: s}\n---\n\
    title: Often\nname: often\ncorrelation: {type: event_count, rules: [denied], group-by: [user.name], timespan: 5m, condition: {gte: 3}}\n";
const PIPELINE: &str = "vars: {admins: [root]}\ntransformations:\n\
    - {id: names, type: field_name_mapping, mapping: {Operation: api.operation}}\n\
    - {id: fill, type: value_placeholders}\n\
    - {id: more, type: add_condition, conditions: {status_id: 2}}\n\
    - {id: less, type: drop_detection_item, fields: [Noise]}\n";
const PACKS: &str = "[tenants]\nalerts_per_rule_hour = 7\nalerts_show_text = true\n\
    [[pack]]\nname = \"shared\"\nfolders = [\"../elsewhere\"]\npipelines = [\"p.yml\"]\ntenants = [\"acme\"]\nshadow = false\n\
    [[tenant]]\nname = \"acme\"\ndisable = []\n";

fn load(rules: &str, pipeline: &str, packs: &str) -> RuleSet {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("elsewhere/r.yml", rules), ("cluster/p.yml", pipeline), ("cluster/packs.toml", packs)] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let (rules, errors) = packs::load(&folder.path().join("cluster")).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

#[test]
fn whatever_a_detectors_effects_depend_on_makes_another_set() {
    let texts = [RULES, PIPELINE, PACKS];
    let was = load(RULES, PIPELINE, PACKS);
    // Which text, what of it becomes what, and whether the rules mean something else then.
    let changes = [
        (0, "denied, Noise", "granted, Noise", true),
        (0, "product: holdfast", "product: other", true),
        (0, "gte: 3", "gte: 4", true),
        (0, "group-by: [user.name]", "group-by: [user.uid]", true),
        (0, "level: low", "level: high", false),
        (0, "tags: [attack.t1110]", "tags: [attack.t1078]", false),
        (0, "runbooks/denied.md", "runbooks/other.md", false),
        (0, "title: Often", "title: Many", false),
        (0, "name: often", "name: often\nshadow: true", false),
        (0, "level: low", "level: low\nalerts: true", false),
        (1, "Operation: api.operation", "Operation: api.service", true),
        (1, "[root]", "[root, toor]", true),
        (1, "status_id: 2", "status_id: 1", true),
        (1, "fields: [Noise]", "fields: [Nothing]", true),
        (2, "alerts_per_rule_hour = 7", "alerts_per_rule_hour = 8", false),
        (2, "alerts_show_text = true", "alerts_show_text = false", false),
        (2, "shadow = false", "shadow = true", false),
        (2, "disable = []", "disable = [\"often\"]", false),
        (2, "disable = []", "disable = [\"denied\"]", false),
        (2, "tenants = [\"acme\"]", "tenants = [\"acme\", \"globex\"]", false),
    ];
    let mut identities = BTreeSet::from([was.identity()]);
    for (place, from, to, means_other) in changes {
        let mut now = texts.map(str::to_owned);
        assert!(now[place].contains(from), "{from}");
        now[place] = now[place].replace(from, to);
        let now = load(&now[0], &now[1], &now[2]);
        assert_eq!(now.fingerprint() != was.fingerprint(), means_other, "{from} -> {to}");
        assert!(identities.insert(now.identity()), "{from} -> {to}");
    }
}

#[test]
fn words_that_change_nothing_make_no_other_set() {
    let was = load(RULES, PIPELINE, PACKS);
    for now in [
        load(&format!("# A comment.\n{RULES}"), PIPELINE, PACKS),
        load(&RULES.replace("name: denied\n", "name: denied\ndescription: what it is about\n"), PIPELINE, PACKS),
        load(RULES, &PIPELINE.replace("Operation: api.operation", "Operation: api.operation, Other: a.b"), PACKS),
        load(RULES, &PIPELINE.replace("admins: [root]", "admins: [root], nobody: [x]"), PACKS),
    ] {
        assert_eq!((now.fingerprint(), now.identity()), (was.fingerprint(), was.identity()));
    }
}

#[test]
fn a_shard_is_another_where_its_part_is() {
    let (was, now) = (load(RULES, PIPELINE, PACKS), load(RULES, PIPELINE, &PACKS.replace("= 7", "= 8")));
    assert!((0..4).all(|shard| was.shard(shard, 4).identity() != now.shard(shard, 4).identity()));
}

#[test]
fn what_a_set_has_beyond_another_is_what_changed_and_what_that_is_about() {
    let was = load(RULES, PIPELINE, PACKS);
    let beyond = |now: &RuleSet| {
        let beyond = now.beyond(&was);
        (beyond.rules().len(), beyond.correlations().len())
    };
    assert_eq!(beyond(&was), (0, 0));
    assert_eq!(beyond(&load(&RULES.replace("gte: 3", "gte: 4"), PIPELINE, PACKS)), (1, 1));
    assert_eq!(beyond(&load(&RULES.replace("level: low", "level: high"), PIPELINE, PACKS)), (0, 0));
}
