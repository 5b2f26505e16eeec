//! Logging in and out: passwords, one-time codes, lockout, addresses.

use crate::bed::{Bed, until};
use crate::people::{self, CHOSEN, Codes, GIVEN, Tenant, login};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn passwords_codes_and_first_logins_follow_the_rules() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let anyone = bed.client("eu-1");
    let code = Codes::new(&bed.first.totp).next().await;
    let with = |code: Option<&str>| json!({"login": bed.first.login, "password": bed.first.password, "totp": code});
    anyone.post("/v1/sessions", with(None)).await.problem(401, "mfa-required");
    anyone.post("/v1/sessions", with(Some("000000"))).await.problem(401, "mfa-required");
    let admin = login(&anyone, &bed.first.login, &bed.first.password, Some(code.clone())).await;
    anyone.post("/v1/sessions", with(Some(&code))).await.problem(401, "mfa-required");

    let new = |name: &str, password: &str| json!({"login": name, "person": "P", "tenant": null, "password": password, "grants": [{"role": "auditor"}]});
    for weak in [
        "Short-1a",
        "alllowercase-123",
        "ALLUPPERCASE-123",
        "NoDigitsAtAll-x",
        "NoSpecialChars123",
        "Petra-petra-1",
        "Password-1234",
    ] {
        let refused = admin.post("/v1/users", new("petra", weak)).await.problem(422, "invalid").json();
        assert_eq!(refused["violations"][0]["at"], "password", "{weak}");
    }
    for reserved in ["admin", "root", "agent", "Petra P"] {
        admin.post("/v1/users", new(reserved, GIVEN)).await.problem(422, "invalid");
    }
    admin.post("/v1/users", new("petra", GIVEN)).await.is(201);
    admin.post("/v1/users", new("petra", GIVEN)).await.problem(409, "conflict");

    let given = login(&anyone, "petra", GIVEN, None).await;
    assert_eq!(given.get("/v1/me").await.is(200).json()["must_change_password"], true);
    given.get("/v1/audit/entries").await.problem(403, "must-change-password");
    let change = |current: &str, new: &str| json!({"current": current, "new": new});
    given.put("/v1/me/password", change("Wrong-Horse-7-Battery", CHOSEN)).await.problem(401, "credentials-refused");
    given.put("/v1/me/password", change(GIVEN, "short")).await.problem(422, "invalid");
    given.put("/v1/me/password", change(GIVEN, CHOSEN)).await.is(204);
    // Sessions begun with the old password are void.
    given.get("/v1/me").await.problem(401, "session-revoked");
    let chosen = login(&anyone, "petra", CHOSEN, None).await;
    chosen.get("/v1/audit/entries").await.is(200);
}

#[tokio::test]
async fn a_failed_login_tells_nothing_and_ten_lock_the_account() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let anyone = bed.client("eu-1");
    let attempt = async |login: &str, password: &str| {
        anyone.post("/v1/sessions", json!({"login": login, "password": password})).await
    };
    let known = attempt(&bed.first.login, "Wrong-Horse-7-Battery").await.problem(401, "credentials-refused").json();
    let unknown = attempt("nobody", "Wrong-Horse-7-Battery").await.problem(401, "credentials-refused").json();
    assert_eq!(known["detail"], unknown["detail"]);
    for _ in 0..9 {
        attempt(&bed.first.login, "Wrong-Horse-7-Battery").await.problem(401, "credentials-refused");
    }
    // Now the right one is refused too.
    let code = Codes::new(&bed.first.totp).next().await;
    let right = json!({"login": bed.first.login, "password": bed.first.password, "totp": code});
    let locked = anyone.post("/v1/sessions", right).await.problem(429, "too-many-requests");
    assert!(locked.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 60));
}

#[tokio::test]
async fn a_session_is_of_its_address_and_ends_everywhere() {
    let Some(bed) = Bed::start("eu", "3").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let token = admin.token.clone().unwrap();
    let elsewhere = bed.client_from("eu-1", "127.0.0.2").with(&token);
    elsewhere.get("/v1/me").await.problem(401, "session-ip-mismatch");
    for node in ["eu-1", "eu-2", "eu-3"] {
        until("the session is known", async || {
            (bed.client(node).with(&token).get("/v1/me").await.status == 200).then_some(())
        })
        .await;
    }
    for nonsense in ["x", "AAAA", &token[..token.len() - 2], &format!("{token}A")] {
        bed.client("eu-1").with(nonsense).get("/v1/me").await.problem(401, "session-invalid");
    }
    bed.client("eu-1").get("/v1/me").await.problem(401, "session-missing");
    admin.ask(Method::DELETE, "/v1/sessions/current").send().await.is(204);
    admin.get("/v1/me").await.problem(401, "session-revoked");
    for node in ["eu-2", "eu-3"] {
        let client = bed.client(node).with(&token);
        until("the session is over", async || (client.get("/v1/me").await.kind() == "session-revoked").then_some(()))
            .await;
    }
}

#[tokio::test]
async fn roles_open_what_they_are_for() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let acme = Tenant::create(&admin, "acme").await;
    let reader = people::person(&acme.admin, "acme-rita", "acme", json!([{"role": "reader"}])).await;
    let path = people::record("acme", "k");
    acme.agent.put(&path, json!({"fields": {"name": "Grace"}})).await.is(201);
    reader.get(&path).await.is(200);
    reader.patch(&path, json!({"set": {"name": "x"}})).await.problem(403, "forbidden");
    for (who, name) in [(&acme.agent, "agent"), (&reader, "reader")] {
        let soc = ["/v1/incidents", "/v1/mutes", "/v1/escalation/policy", "/v1/escalations", "/v1/tickets"];
        for refused in ["/v1/audit/entries", "/v1/cluster/status", "/v1/audit/logs"].into_iter().chain(soc) {
            assert_eq!(who.get(refused).await.status, 403, "{name} {refused}");
        }
        who.post("/v1/tenants", json!({"name": "mine"})).await.problem(403, "forbidden");
        let user = json!({"login": "zed", "person": "Z", "tenant": "acme", "password": GIVEN, "grants": [{"role": "tenant-admin"}]});
        who.post("/v1/users", user).await.problem(403, "forbidden");
    }
    // Who runs a tenant does not read its data; who runs the platform neither.
    assert!([403, 404].contains(&acme.admin.get(&path).await.status.as_u16()));
    admin.get(&path).await.problem(404, "not-found");
    let escalation = json!({"login": "zed", "person": "Z", "tenant": "acme", "password": GIVEN, "grants": [{"role": "platform-admin"}]});
    assert!(acme.admin.post("/v1/users", escalation).await.status.is_client_error());
}
