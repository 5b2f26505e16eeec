//! What operators write: descriptions of clusters, impact analyses, policies.
#![no_main]

use audit::bia::Bia;
use identity::policy::check_policy_text;
use libfuzzer_sys::fuzz_target;
use model::cluster::Cluster;

fuzz_target!(|text: &str| {
    if let Ok(cluster) = Cluster::parse(text) {
        assert_eq!(Cluster::parse(&cluster.to_toml()).as_ref(), Ok(&cluster));
    }
    if let Err(error) = Bia::parse(text) {
        assert!(error.line <= 1 + text.matches('\n').count());
    }
    let _ = check_policy_text(text);
});
