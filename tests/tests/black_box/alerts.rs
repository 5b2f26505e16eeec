//! Alerts as a tenant's own analysts see them.

use crate::bed::{Bed, until};
use crate::people::{first, person};
use serde_json::{Value, json};

const PACKS: &str = r#"
[[pack]]
name = "platform"
folders = ["platform"]

[[pack]]
name = "shared"
folders = ["shared"]
tenants = ["*"]
"#;

fn rule(name: &str) -> String {
    format!(
        "title: {name}\nname: {name}\nlevel: high\nlogsource: {{product: vault}}\n\
         detection: {{opened: {{kind: opened}}, condition: opened}}\n"
    )
}

fn opened(tenant: &str) -> String {
    json!({"product": "vault", "kind": "opened", "user": {"name": format!("{tenant}-ann")},
        "metadata": {"tenant_uid": tenant}})
    .to_string()
}

/// What a session sees, as pairs of rule and tenant.
fn seen(list: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts = list["alerts"].as_array().into_iter().flatten();
    let mut seen: Vec<_> = alerts.map(|alert| (text(&alert["rule"]), text(&alert["tenant"]))).collect();
    seen.sort();
    seen
}

#[tokio::test]
async fn a_tenants_analysts_see_its_alerts_and_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    for pack in ["platform", "shared"] {
        std::fs::create_dir(folder.path().join(pack)).unwrap();
        std::fs::write(folder.path().join(format!("{pack}/rules.yml")), rule(pack)).unwrap();
    }
    std::fs::write(folder.path().join("packs.toml"), PACKS).unwrap();
    let rules = folder.path().display().to_string();
    let Some(bed) = Bed::start_with(&["--regions", "eu", "--nodes", "1", "--rules", &rules]).await else { return };
    let admin = first(&bed, &bed.client("eu-1")).await;
    let mut analysts = Vec::new();
    for tenant in ["acme", "bolt"] {
        admin.post("/v1/tenants", json!({"name": tenant})).await.is(201);
        let analyst = person(&admin, &format!("{tenant}-sam"), tenant, json!([{"role": "soc"}])).await;
        let events = analyst.ask(reqwest::Method::POST, "/v1/events").body("application/x-ndjson", opened(tenant));
        events.send().await.is(202);
        analysts.push((tenant, analyst));
    }
    let of = |rule: &str, tenant: &str| (rule.to_owned(), tenant.to_owned());
    let all = until("all alerts", async || {
        let list = admin.get("/v1/alerts").await.is(200).json();
        let of_vault = seen(&list).into_iter().filter(|(rule, _)| rule == "platform" || rule == "shared");
        let of_vault: Vec<_> = of_vault.collect();
        (of_vault.len() >= 4).then_some((list, of_vault))
    });
    let (list, all) = all.await;
    let expected =
        vec![of("platform", "platform"), of("platform", "platform"), of("shared", "acme"), of("shared", "bolt")];
    assert_eq!(all, expected);
    for (tenant, analyst) in &analysts {
        assert_eq!(seen(&analyst.get("/v1/alerts").await.is(200).json()), [of("shared", tenant)]);
        assert_eq!(seen(&analyst.get("/v1/alerts?tenant=platform").await.is(200).json()), []);
        for alert in list["alerts"].as_array().unwrap() {
            let answer = analyst.get(&format!("/v1/alerts/{}", alert["id"].as_str().unwrap())).await;
            if alert["tenant"] == *tenant {
                assert_eq!(answer.is(200).json()["entities"][0], format!("user:{tenant}-ann"));
            } else {
                answer.problem(404, "not-found");
            }
        }
        let rules = analyst.get("/v1/detection/rules").await.is(200).json();
        let ids: Vec<_> = rules["rules"].as_array().unwrap().iter().map(|rule| &rule["id"]).collect();
        assert_eq!(ids, ["shared"], "the platform's rules are not for it to see");
        analyst.get("/v1/detection").await.problem(403, "forbidden");
        analyst.get("/v1/incidents").await.problem(403, "forbidden");
    }
    bed.assert_no_panic();
}
