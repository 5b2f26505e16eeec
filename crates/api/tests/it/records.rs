//! Records: preconditions, options, transactions, events and files.

use crate::client::Client;
use api::types::{Change, Durability, Patch, Precondition};
use serde_json::{Value, json};

const RECORD: &str = "/v1/tenants/acme/tables/calls/records/k";
const TRANSACTIONS: &str = "/v1/tenants/acme/transactions";

fn fields(value: Value) -> Value {
    json!({ "fields": value })
}

#[tokio::test]
async fn a_record_lives_by_its_entity_tag() {
    let client = Client::new();
    assert_eq!(client.get(RECORD).await.kind(), "not-found");
    let created = client.json("PUT", RECORD, &[], fields(json!({"a": 1, "b": "x"}))).await;
    assert_eq!((created.status.as_u16(), created.header("holdfast-session")), (201, "seen"));
    let tag = created.header("etag").to_owned();
    assert_eq!(format!("\"{}\"", created.json()["etag"].as_str().unwrap()), tag);
    let read = client.get(RECORD).await;
    assert_eq!((read.header("etag"), read.json()["fields"].clone()), (tag.as_str(), json!({"a": 1, "b": "x"})));
    assert_eq!(read.header("cache-control"), "no-store");
    assert_eq!(client.json("PUT", RECORD, &[], fields(json!({}))).await.status, 428);
    assert_eq!(client.json("PUT", RECORD, &[("if-none-match", "*")], fields(json!({}))).await.status, 412);
    assert_eq!(client.json("PUT", RECORD, &[("if-match", "\"other\"")], fields(json!({}))).await.status, 412);
    let patch = json!({"set": {"b": null}, "increment": {"a": 4}});
    assert_eq!(client.json("PATCH", RECORD, &[], patch.clone()).await.status, 428);
    let patched = client.json("PATCH", RECORD, &[("if-match", &tag)], patch).await;
    assert_eq!(patched.status, 200);
    assert_ne!(patched.header("etag"), tag);
    assert_eq!(client.get(RECORD).await.json()["fields"], json!({"a": 5, "b": null}));
    assert_eq!(client.send("DELETE", RECORD, &[], "").await.status, 428);
    assert_eq!(client.send("DELETE", RECORD, &[("if-match", &tag)], "").await.status, 412);
    let deleted = client.send("DELETE", RECORD, &[("if-match", "*")], "").await;
    assert_eq!((deleted.status.as_u16(), deleted.bytes.len()), (204, 0));
    assert_eq!(client.send("DELETE", RECORD, &[("if-match", "*")], "").await.status, 404);
}

#[tokio::test]
async fn a_reader_who_has_it_gets_no_body() {
    let client = Client::new();
    let created = client.json("PUT", RECORD, &[], fields(json!({"a": 1}))).await;
    let tag = created.header("etag");
    let cached = client.send("GET", RECORD, &[("if-none-match", tag)], "").await;
    assert_eq!((cached.status.as_u16(), cached.bytes.len(), cached.header("etag")), (304, 0, tag));
    assert_eq!(client.send("GET", RECORD, &[("if-none-match", "\"old\"")], "").await.status, 200);
    assert_eq!(client.send("GET", RECORD, &[("if-match", "\"old\"")], "").await.status, 412);
}

#[tokio::test]
async fn the_options_of_a_write_reach_the_core() {
    let client = Client::new();
    let headers = [("holdfast-durability", "remote:2"), ("holdfast-session", "mine"), ("idempotency-key", "again")];
    let answer = client.json("PUT", RECORD, &headers, fields(json!({}))).await;
    assert_eq!((answer.status.as_u16(), answer.json()["durable"].clone()), (202, json!("locally")));
    assert_eq!(answer.header("location"), "/v1/tenants/acme/durability");
    assert_eq!(answer.header("idempotency-replayed"), "true");
    let write = client.core.write.lock().unwrap().clone().unwrap();
    assert_eq!((write.durability, write.token.as_deref()), (Durability::Remote(2), Some("mine")));
    let poll = client.send("GET", "/v1/tenants/acme/durability", &[("holdfast-session", "seen")], "").await;
    assert_eq!(poll.json()["durable_in"], json!(["us"]));
    assert_eq!(client.get("/v1/tenants/acme/durability").await.kind(), "invalid");
}

#[tokio::test]
async fn the_fingerprint_tells_a_retry_from_reuse_of_a_key() {
    let client = Client::new();
    let mut prints = Vec::new();
    let requests = [
        ("PUT", RECORD, "\"x\"", fields(json!({"a": 1}))),
        ("PUT", RECORD, "\"x\"", fields(json!({"a": 2}))),
        ("PUT", RECORD, "\"y\"", fields(json!({"a": 1}))),
        ("PUT", "/v1/tenants/acme/tables/calls/records/l", "\"x\"", fields(json!({"a": 1}))),
        ("PATCH", RECORD, "\"x\"", json!({"set": {"a": 1}})),
    ];
    for (method, path, tag, body) in &requests {
        let mut same = Vec::new();
        for _ in 0..2 {
            client.json(method, path, &[("idempotency-key", "k1"), ("if-match", tag)], body.clone()).await;
            same.push(client.core.write.lock().unwrap().take().unwrap().fingerprint.unwrap());
        }
        assert_eq!(same[0], same[1]);
        assert!(!prints.contains(&same[0]), "{method} {path} {tag} {body}");
        prints.push(same[0]);
    }
    client.json("PUT", RECORD, &[], fields(json!({}))).await;
    assert_eq!(client.core.write.lock().unwrap().take().unwrap().fingerprint, None);
}

#[tokio::test]
async fn wrong_headers_and_parameters_are_named() {
    let client = Client::new();
    let wrong = [
        ("holdfast-durability", "soon"),
        ("holdfast-durability", "remote:99"),
        ("idempotency-key", "with space"),
        ("idempotency-key", ""),
        ("if-match", "unquoted"),
        ("holdfast-session", ""),
    ];
    for (name, value) in wrong {
        let answer = client.json("PUT", RECORD, &[(name, value)], fields(json!({}))).await;
        let at = answer.json()["violations"][0]["at"].as_str().unwrap().to_lowercase();
        assert_eq!((answer.status.as_u16(), at.as_str()), (422, name), "{value}");
    }
    let both = [("if-match", "*"), ("if-none-match", "*")];
    assert_eq!(client.json("PUT", RECORD, &both, fields(json!({}))).await.status, 422);
    let records = "/v1/tenants/acme/tables/calls/records";
    for query in ["limit=0", "limit=501", "limit=-1", "limit=1&limit=2", "level=best", "level=session", "fields=a,,b"] {
        assert_eq!(client.get(&format!("{records}?{query}")).await.status, 422, "{query}");
    }
    let long = format!("{records}/{}", "k".repeat(513));
    assert_eq!(client.json("PUT", &long, &[], fields(json!({}))).await.kind(), "invalid");
    assert_eq!(client.get(&format!("{records}/%ff")).await.kind(), "malformed");
    for patch in [json!({}), json!({"set": {"a": 1}, "increment": {"a": 1}}), json!({"increment": {"a": 1.5}})] {
        let answer = client.json("PATCH", RECORD, &[("if-match", "*")], patch.clone()).await;
        assert_eq!(answer.kind(), "invalid", "{patch}");
    }
}

#[tokio::test]
async fn keys_may_hold_anything_and_fields_are_chosen() {
    let client = Client::new();
    let path = "/v1/tenants/acme/tables/calls/records/a%2Fb%20%C3%A4";
    assert_eq!(client.json("PUT", path, &[], fields(json!({"a": 1, "b": 2}))).await.status, 201);
    let read = client.get(&format!("{path}?fields=b&level=local")).await.json();
    assert_eq!((read["key"].clone(), read["fields"].clone()), (json!("a/b ä"), json!({"b": 2})));
}

#[tokio::test]
async fn a_transaction_keeps_its_operations_in_order() {
    let client = Client::new();
    let body = json!({"operations": [
        {"op": "put", "table": "calls", "key": "a", "fields": {"x": 1}, "if_none_match": "*"},
        {"op": "patch", "table": "calls", "key": "b", "increment": {"n": -2}, "if_match": "v7"},
        {"op": "delete", "table": "calls", "key": "c"},
        {"op": "check", "table": "calls", "key": "d", "if_match": "*"},
    ]});
    let answer = client.json("POST", TRANSACTIONS, &[("idempotency-key", "t1")], body).await;
    assert_eq!((answer.status.as_u16(), answer.header("holdfast-session")), (200, "seen"));
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 4);
    let operations = client.core.operations.lock().unwrap().clone();
    let preconditions: Vec<_> = operations.iter().map(|operation| operation.precondition.clone()).collect();
    let tag = api::types::Etag::new("v7").unwrap();
    let wanted = [Precondition::Absent, Precondition::Matches(vec![tag]), Precondition::Unstated, Precondition::Exists];
    assert_eq!(preconditions, wanted);
    let patch = Patch { increment: [("n".to_owned(), -2)].into(), ..Patch::default() };
    assert_eq!(operations[1].change, Some(Change::Patch(patch)));
    assert_eq!((&operations[2].change, &operations[3].change), (&Some(Change::Delete), &None));
    assert!(client.core.write.lock().unwrap().as_ref().unwrap().fingerprint.is_some());
}

#[tokio::test]
async fn wrong_transactions_say_which_operation() {
    let client = Client::new();
    let delete = json!({"op": "delete", "table": "calls", "key": "c"});
    let wrong = [
        json!([]),
        json!(vec![delete.clone(); 129]),
        json!([{"op": "explode", "table": "calls", "key": "c"}]),
        json!([{"op": "delete", "table": "calls", "key": "c", "fields": {}}]),
        json!([{"op": "delete", "table": "calls", "key": ""}]),
        json!([{"op": "check", "table": "calls", "key": "c"}]),
        json!([{"op": "put", "table": "calls", "key": "c", "fields": {}, "if_none_match": "v1"}]),
        json!([{"op": "put", "table": "calls", "key": "c", "fields": {}, "if_match": "\"v1\""}]),
    ];
    for operations in wrong {
        let answer = client.json("POST", TRANSACTIONS, &[], json!({ "operations": operations })).await;
        assert_eq!(answer.kind(), "invalid", "{operations}");
    }
    let late = json!({"operations": [delete, {"op": "check", "table": "calls", "key": "c"}]});
    let answer = client.json("POST", TRANSACTIONS, &[], late).await;
    assert_eq!(answer.json()["violations"][0]["at"], "operations[1]");
}

#[tokio::test]
async fn events_are_taken_all_or_none() {
    let client = Client::new();
    let send = |body: &'static str| {
        let client = &client;
        async move { client.send("POST", "/v1/events?source=fw", &[("content-type", "application/x-ndjson")], body).await }
    };
    let answer = send("{\"a\":1}\r\n\n {\"b\": [2]} \n").await;
    assert_eq!((answer.status.as_u16(), answer.json()["accepted"].clone()), (202, json!(2)));
    assert_eq!(*client.core.lines.lock().unwrap(), ["{\"a\":1}", "{\"b\": [2]}"]);
    let answer = send("{\"a\":1}\n{broken\n[1]\n").await;
    let violations = answer.json()["violations"].clone();
    assert_eq!((violations[0]["at"].clone(), violations[1]["at"].clone()), (json!("line 2"), json!("line 3")));
    assert_eq!(send("\n \n").await.kind(), "invalid");
    for (key, expected) in [("a", json!(0)), ("a", json!(2)), ("with space", json!(null))] {
        let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", key)];
        let answer = client.send("POST", "/v1/events", &headers, "{\"c\":1}\n{\"d\":2}").await;
        assert_eq!(answer.json()["repeated"], expected, "{key}");
    }
    let many = "{}\n".repeat(api::limit::EVENTS_MAX + 1);
    let answer = client.send("POST", "/v1/events", &[("content-type", "application/x-ndjson")], many).await;
    assert_eq!(answer.kind(), "invalid");
}

#[tokio::test]
async fn files_of_a_log_have_one_address_each() {
    let client = Client::new();
    let log = "/v1/audit/logs/eu-0";
    assert_eq!(client.get(&format!("{log}/checkpoint")).await.bytes, b"holdfast/c/eu/0\n");
    for tile in ["tile/0/000", "tile/entries/x001/234", "tile/1/067.p/5"] {
        let answer = client.get(&format!("{log}/{tile}")).await;
        assert_eq!(String::from_utf8(answer.bytes).unwrap(), tile);
    }
    for wrong in ["tile/0/0", "tile/9/000", "tile/0/000.p/256", "tile/entries/../000", "tile/x"] {
        assert_eq!(client.get(&format!("{log}/{wrong}")).await.kind(), "not-found", "{wrong}");
    }
    assert_eq!(client.get("/v1/audit/logs/us-0/checkpoint").await.kind(), "not-found");
}

#[tokio::test]
async fn an_incident_is_worked_on() {
    let client = Client::new();
    let post = |what: &'static str, body: Value| {
        let client = &client;
        async move { client.json("POST", &format!("/v1/incidents/i1/{what}"), &[], body).await }
    };
    assert_eq!(post("acknowledge", json!({})).await.json()["history"][0]["act"], "acknowledged");
    assert_eq!(post("assign", json!({"assignee": "bob"})).await.json()["history"][0]["text"], "bob");
    assert_eq!(post("comments", json!({"text": "seen"})).await.json()["history"][0]["act"], "commented");
    assert_eq!(post("close", json!({"cause": "c"})).await.kind(), "invalid");
    assert_eq!(post("close", json!({"cause": "c", "actions": " "})).await.kind(), "invalid");
    let closed = post("close", json!({"cause": "c", "actions": "a"})).await.json();
    assert_eq!((closed["history"][0]["act"].clone(), closed["id"].clone()), (json!("closed"), json!("i1")));
    assert_eq!(client.get("/v1/incidents?status=open&limit=5").await.json()["incidents"][0]["status"], "new");
    assert_eq!(client.get("/v1/incidents/a%20b").await.kind(), "not-found");
}

#[tokio::test]
async fn incidents_are_found_and_a_poll_of_what_has_not_changed_is_empty() {
    let client = Client::new();
    let all = "status=new,on_hold&severity=low&priority=high&assignee=&entity=user:ann&text=x&sort=risk&limit=1";
    let found = client.get(&format!("/v1/incidents?{all}")).await;
    assert_eq!(found.json()["total"], 1);
    let poll =
        client.send("GET", &format!("/v1/incidents?{all}"), &[("if-none-match", found.header("etag"))], "").await;
    assert_eq!((poll.status.as_u16(), poll.bytes.len()), (304, 0));
    for wrong in ["status=acknowledged", "status=new,", "severity=worst", "entity=ann", "sort=age", "mood=bad"] {
        assert_eq!(client.get(&format!("/v1/incidents?{wrong}")).await.kind(), "invalid", "{wrong}");
    }
    assert_eq!(client.get("/v1/incidents/i1/timeline").await.json()["moments"][0]["kind"], "act");
}

#[tokio::test]
async fn an_act_on_an_incident_that_has_changed_is_refused_where_the_client_says_so() {
    let client = Client::new();
    let seen = client.get("/v1/incidents/i1").await;
    let close = |tag: &str| {
        let (client, tag, body) = (&client, tag.to_owned(), json!({"cause": "c", "actions": "a"}));
        async move { client.json("POST", "/v1/incidents/i1/close", &[("if-match", &tag)], body).await }
    };
    assert_eq!(close(seen.header("etag")).await.status, 200);
    assert_eq!(close("\"old\"").await.kind(), "precondition-failed");
    assert_eq!(close("*").await.status, 200);
}

#[tokio::test]
async fn every_act_takes_its_own_body_and_no_other() {
    let client = Client::new();
    let post = |what: &'static str, body: Value| {
        let client = &client;
        async move { client.json("POST", &format!("/v1/incidents/i1/{what}"), &[], body).await }
    };
    let good = [
        ("unassign", json!({})),
        ("unsuppress", json!({})),
        ("status", json!({"status": "on_hold", "why": "waiting"})),
        ("severity", json!({"severity": null})),
        ("priority", json!({"priority": "critical"})),
        ("post-mortem", json!({"text": "a script"})),
        ("merge", json!({"incidents": ["i2", "i3"]})),
        ("split", json!({"alerts": ["a1"], "why": "another"})),
        ("undo", json!({"change": "c1", "why": "wrong"})),
        ("suppress", json!({"until_ms": 9, "why": "known"})),
        ("clocks", json!({"clock": "processor_notice", "subject": "acme", "limit_hours": 12})),
        ("clocks/met", json!({"clock": "gdpr_authority", "subject": "CNIL", "reference": "1"})),
        ("clocks/stopped", json!({"clock": "nis2_early_warning", "subject": "CSIRT", "why": "no"})),
    ];
    for (what, body) in good {
        assert_eq!(post(what, body).await.status, 200, "{what}");
    }
    let wrong = [
        ("status", json!({"status": "acknowledged"})),
        ("severity", json!({"severity": "worst"})),
        ("post-mortem", json!({"text": " "})),
        ("merge", json!({"incidents": []})),
        ("split", json!({"alerts": ["a1"], "why": ""})),
        ("undo", json!({"change": "c1"})),
        ("suppress", json!({"until_ms": 9})),
        ("clocks", json!({"clock": "gdpr", "subject": "x"})),
        ("clocks/met", json!({"clock": "gdpr_authority", "subject": "CNIL"})),
    ];
    for (what, body) in wrong {
        assert_eq!(post(what, body).await.kind(), "invalid", "{what}");
    }
}

#[tokio::test]
async fn what_rests_is_listed_made_and_ended() {
    let client = Client::new();
    let made = client.json("POST", "/v1/mutes", &[], json!({"rule": "r", "until_ms": 9, "why": "test"})).await;
    assert_eq!((made.status.as_u16(), made.json()["id"].clone()), (201, json!("m1")));
    assert_eq!(client.get("/v1/mutes").await.json()["mutes"], json!([]));
    assert_eq!(client.send("DELETE", "/v1/mutes/m1", &[], "").await.status, 204);
}

#[tokio::test]
async fn a_policy_is_replaced_only_by_who_has_seen_it() {
    let client = Client::new();
    let put = |headers: &'static [(&'static str, &'static str)], body: Value| {
        let client = &client;
        async move { client.json("PUT", "/v1/escalation/policy", headers, body).await }
    };
    let seen = client.get("/v1/escalation/policy").await;
    assert_eq!((seen.json()["revision"].clone(), seen.header("etag")), (json!(1), "\"v1\""));
    assert_eq!(put(&[], json!({"text": "version = 1"})).await.kind(), "precondition-required");
    assert_eq!(put(&[("if-match", "\"v1\"")], json!({"text": "version = 1"})).await.json()["revision"], 2);
    assert_eq!(put(&[("if-match", "\"v0\"")], json!({"text": "x"})).await.kind(), "precondition-failed");
    assert_eq!(put(&[], json!({"text": ""})).await.kind(), "invalid");
    assert_eq!(client.get("/v1/escalation/on-call?at_ms=5").await.json()["at_ms"], 5);
    assert_eq!(client.get("/v1/escalations").await.json()["escalations"], json!([]));
}

#[tokio::test]
async fn a_ticket_is_opened_changed_and_found() {
    let client = Client::new();
    let opened = client.json("POST", "/v1/tickets", &[], json!({"incident": "i1", "queue": "jira"})).await;
    assert_eq!((opened.status.as_u16(), opened.json()["sync"].clone()), (201, json!("pending")));
    let patch = |body: Value| {
        let client = &client;
        async move { client.json("PATCH", "/v1/tickets/t1", &[], body).await }
    };
    assert_eq!(patch(json!({"state": "done", "fields": {"project": null}})).await.json()["state"], "done");
    assert_eq!(patch(json!({})).await.kind(), "invalid");
    assert_eq!(patch(json!({"status": "done"})).await.kind(), "invalid");
    assert_eq!(client.get("/v1/tickets?state=open&queue=jira&limit=3").await.json()["tickets"], json!([]));
    assert_eq!(client.get("/v1/tickets/t1").await.header("etag"), "\"v1\"");
}

#[tokio::test]
async fn events_of_the_past_are_searched_and_jobs_asked_for() {
    let client = Client::new();
    let search = |body: serde_json::Value| {
        let client = &client;
        async move { client.json("POST", "/v1/events/search", &[], body).await }
    };
    let done = search(serde_json::json!({"query": "user:ann"})).await;
    assert_eq!((done.status.as_u16(), done.json()["rows"][0]["user_name"].as_str()), (200, Some("ann")));
    assert_eq!(search(serde_json::json!({"sql": "slow"})).await.status.as_u16(), 202);
    for body in [
        serde_json::json!({}),
        serde_json::json!({"query": "a", "sql": "b"}),
        serde_json::json!({"query": "a".repeat(20_000)}),
    ] {
        assert_eq!(search(body).await.kind(), "invalid");
    }
    assert_eq!(search(serde_json::json!({"query": "a", "other": 1})).await.status.as_u16(), 422);
    let hunt = client.json("POST", "/v1/events/hunt", &[], serde_json::json!({"only": ["r1", "r2"]})).await;
    assert_eq!(hunt.json()["question"], "r1,r2");
    let path = "/v1/events/jobs/00000000000000000000000000000001";
    assert_eq!(client.get(&format!("{path}?after=5&limit=7")).await.json()["question"], "5+7");
    assert_eq!(client.get(&format!("{path}?limit=0")).await.kind(), "invalid");
    for path in ["/v1/events/jobs/1", "/v1/events/jobs/0000000000000000000000000000000g"] {
        assert_eq!(client.get(path).await.kind(), "not-found");
    }
    assert_eq!(client.json("DELETE", path, &[], serde_json::json!(null)).await.status.as_u16(), 204);
    assert_eq!(client.get("/v1/events/archive").await.json()["node"], "eu-1");
    assert_eq!(client.get("/v1/events/jobs").await.json()["jobs"].as_array().unwrap().len(), 1);
}
