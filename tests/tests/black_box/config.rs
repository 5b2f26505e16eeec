//! Configuration: what is wrong is refused with file, line and reason, before anything is touched.

use crate::bed::{Bed, holdfast, said};
use std::path::Path;

/// Changes a file, asks for a check, and puts the file back.
#[track_caller]
fn refused(bed: &Bed, file: &str, change: impl Fn(String) -> String, words: &[&str]) {
    let path = bed.path(file);
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(before.clone())).unwrap();
    let output = holdfast(&["check-config", &bed.config("eu-1")]);
    std::fs::write(&path, before).unwrap();
    let said = said(&output);
    assert!(!output.status.success(), "accepted: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not said:\n{said}");
    }
}

#[test]
fn wrong_configuration_names_file_line_and_reason() {
    let Some(bed) = Bed::described(&["--regions", "eu", "--nodes", "1"]) else { return };
    let checked = holdfast(&["check-config", &bed.config("eu-1")]);
    assert!(checked.status.success(), "{}", said(&checked));

    let node = "nodes/eu-1/node.toml";
    refused(&bed, node, |text| format!("speed = 3\n{text}"), &["node.toml", "line 1", "speed"]);
    refused(&bed, node, |text| text.replace("data = \"data\"", "data = 5"), &["node.toml", "line", "data"]);
    refused(&bed, node, |text| text.replace("[keys]", "[keys"), &["node.toml", "line"]);
    refused(&bed, node, |text| format!("{text}\n[raft]\nheartbeat_ms = 5\n"), &["node.toml", "heartbeat_ms = 5"]);
    refused(&bed, node, |text| text.replace("eu-1", "eu-9"), &["node.toml", "eu-9", "eu-1"]);
    refused(&bed, node, |text| text.replace("node.pem", "none.pem"), &["none.pem"]);
    refused(
        &bed,
        node,
        |text| format!("{text}\n[detection]\nwebhook = {{ url = \"http://example.org\", secret = \"s\" }}\n"),
        &["webhook"],
    );
    refused(&bed, "cluster.toml", |text| text.replace("groups = 2", "groups = 0"), &["cluster.toml", "groups = 0"]);
    refused(&bed, "cluster.toml", |text| text.replace("groups = 2", "groups = two"), &["cluster.toml", "line"]);
    refused(&bed, "cluster.toml", |text| text.replace("name = \"eu\"", "name = \"E U\""), &["cluster.toml", "E U"]);
    refused(&bed, "nodes/eu-1/audit.key", |_| "nonsense".into(), &["audit.key"]);
    refused(&bed, "nodes/eu-1/api.pem", |_| "nonsense".into(), &["api.pem"]);
    refused(&bed, "nodes/eu-1/api.key", |_| String::new(), &["api.key"]);
}

#[test]
fn a_folder_without_rules_is_told() {
    let Some(bed) = Bed::described(&["--regions", "eu", "--nodes", "1"]) else { return };
    let rules = bed.path("rules");
    std::fs::create_dir_all(Path::new(&rules).join("linux")).unwrap();
    let path = bed.path("nodes/eu-1/node.toml");
    let node = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{node}\n[detection]\nrules = \"{rules}\"\n")).unwrap();
    let output = holdfast(&["check-config", &bed.config("eu-1")]);
    assert!(said(&output).contains("there are no rules") && output.status.success(), "{}", said(&output));
}

#[test]
fn wrong_rules_name_file_line_and_reason() {
    let Some(bed) = Bed::described(&["--regions", "eu", "--nodes", "1"]) else { return };
    let rules = bed.path("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(
        Path::new(&rules).join("bad.yml"),
        "title: A\nname: a\ndetection:\n  one: {a: 1}\n  condition: two\n",
    )
    .unwrap();
    let output = holdfast(&["rules", "check", &rules]);
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("bad.yml:"), "{said}");
    assert!(said.contains("two") || said.contains("logsource"), "{said}");
}

#[test]
fn a_node_does_not_start_on_an_empty_disk_unasked_nor_a_cluster_in_a_used_folder() {
    let Some(bed) = Bed::described(&["--regions", "eu", "--nodes", "1"]) else { return };
    let started = holdfast(&["start", "--config", &bed.config("eu-1")]);
    assert!(!started.status.success());
    assert!(said(&started).contains("--first"), "{}", said(&started));
    let again = holdfast(&["init", &bed.path(""), "--base-port", "0"]);
    assert!(!again.status.success());
    assert!(said(&again).contains("not empty"), "{}", said(&again));
}

#[test]
fn secrets_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(bed) = Bed::described(&["--regions", "eu", "--nodes", "1"]) else { return };
    for file in ["ca.key", "bootstrap.toml", "nodes/eu-1/node.key", "nodes/eu-1/api.key", "nodes/eu-1/audit.key"] {
        let mode = std::fs::metadata(bed.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} has mode {mode:o}");
    }
}
