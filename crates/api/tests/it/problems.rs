//! Each way a request can end badly has its status, its type and its members.

use crate::client::Client;
use api::{Missing, Problem, Unauthenticated, Unavailable, Violation};
use serde_json::json;
use std::time::Duration;

const RECORD: &str = "/v1/tenants/acme/tables/calls/records/k";

fn all() -> Vec<(Problem, u16, &'static str)> {
    use Unauthenticated as Who;
    let after = Duration::from_millis(1500);
    let missing = vec![Missing { origin: "r1.0".into(), wanted: 5, known: 3 }];
    let violations = vec![Violation { at: "a".into(), message: "b".into() }];
    let unavailable = |reason| Problem::unavailable(reason, "why", after);
    vec![
        (Problem::malformed("x"), 400, "malformed"),
        (Problem::unauthenticated(), 401, "session-missing"),
        (Problem::Unauthenticated(Who::SessionInvalid), 401, "session-invalid"),
        (Problem::Unauthenticated(Who::SessionExpired), 401, "session-expired"),
        (Problem::Unauthenticated(Who::SessionIpMismatch), 401, "session-ip-mismatch"),
        (Problem::Unauthenticated(Who::SessionRevoked), 401, "session-revoked"),
        (Problem::Unauthenticated(Who::CredentialsRefused), 401, "credentials-refused"),
        (Problem::Unauthenticated(Who::MfaRequired), 401, "mfa-required"),
        (Problem::forbidden("x"), 403, "forbidden"),
        (Problem::MustChangePassword, 403, "must-change-password"),
        (Problem::not_found("tenant"), 404, "not-found"),
        (Problem::conflict("x"), 409, "conflict"),
        (Problem::IdempotencyReuse, 409, "idempotency-reuse"),
        (Problem::LostWrites { region: "us".into(), repaired: "t".into() }, 410, "lost-writes"),
        (Problem::PreconditionFailed { operation: Some(2) }, 412, "precondition-failed"),
        (Problem::TooLarge { max_bytes: 7 }, 413, "too-large"),
        (Problem::Invalid { violations }, 422, "invalid"),
        (Problem::Behind { missing, retry_after: after }, 425, "behind"),
        (Problem::PreconditionRequired, 428, "precondition-required"),
        (Problem::TooMany { retry_after: after }, 429, "too-many-requests"),
        (Problem::Internal, 500, "internal"),
        (unavailable(Unavailable::NoQuorum), 503, "no-quorum"),
        (unavailable(Unavailable::RpoGuard), 503, "rpo-guard"),
        (unavailable(Unavailable::ShuttingDown), 503, "shutting-down"),
        (unavailable(Unavailable::Starting), 503, "starting"),
        (unavailable(Unavailable::Timeout), 503, "timeout"),
    ]
}

#[tokio::test]
async fn every_problem_of_the_core_keeps_its_status_type_and_members() {
    let client = Client::new();
    for (problem, status, kind) in all() {
        *client.core.problem.lock().unwrap() = Some(problem.clone());
        let answer = client.get("/v1/tenants").await;
        assert_eq!((answer.status.as_u16(), answer.kind().as_str()), (status, kind));
        let document = answer.json();
        for member in ["title", "detail"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{kind} {member}");
        }
        let instance = document["instance"].as_str().unwrap();
        assert_eq!(instance.strip_prefix("urn:holdfast:request:").unwrap(), answer.header("holdfast-request"));
        assert_eq!(problem.retry_after().is_some(), answer.headers.contains_key("retry-after"), "{kind}");
        match kind {
            "behind" => {
                assert_eq!(answer.header("retry-after"), "2", "rounded up");
                assert_eq!(document["retry_after_ms"], 1500);
                assert_eq!(document["missing"], json!([{"origin": "r1.0", "wanted": 5, "known": 3}]));
            }
            "invalid" => assert_eq!(document["violations"], json!([{"at": "a", "message": "b"}])),
            "precondition-failed" => assert_eq!(document["operation"], 2),
            "lost-writes" => assert_eq!(document["repaired"], "t"),
            "too-large" => assert_eq!(document["max_bytes"], 7),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_panic_is_a_problem_and_the_next_request_is_served() {
    let client = Client::new();
    let answer = client.get("/v1/tenants/acme/tables/calls/records/panic").await;
    assert_eq!((answer.status.as_u16(), answer.kind().as_str()), (500, "internal"));
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("as the test asked"), "no detail leaves");
    assert_eq!(client.get("/v1/me").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_answered() {
    let answer = Client::new().get("/v1/tenants/acme/tables/calls/records/forever").await;
    assert_eq!((answer.status.as_u16(), answer.kind().as_str()), (503, "timeout"));
}

#[tokio::test]
async fn a_session_is_of_its_address() {
    let mut client = Client::new();
    assert_eq!(client.get("/v1/me").await.json()["user"]["login"], "alice");
    client.address = "192.0.2.2".parse().unwrap();
    assert_eq!(client.get("/v1/me").await.kind(), "session-ip-mismatch");
    let headers = [("x-forwarded-for", crate::client::HOME), ("forwarded", "for=192.0.2.1")];
    assert_eq!(client.send("GET", "/v1/me", &headers, "").await.kind(), "session-ip-mismatch");
    client.bearer = Some("nonsense".into());
    assert_eq!(client.get("/v1/me").await.kind(), "session-invalid");
}

#[tokio::test]
async fn a_login_gives_a_token_that_works() {
    let mut client = Client::new();
    client.bearer = None;
    let login = |password: &str| json!({"login": "bob", "password": password});
    let refused = client.json("POST", "/v1/sessions", &[], login("wrong")).await;
    assert_eq!(refused.kind(), "credentials-refused");
    let answer = client.json("POST", "/v1/sessions", &[], login("right")).await;
    assert_eq!(answer.status, 201);
    client.bearer = answer.json()["token"].as_str().map(str::to_owned);
    assert_eq!(client.get("/v1/me").await.json()["user"]["login"], "bob");
    assert_eq!(client.send("DELETE", "/v1/sessions/current", &[], "").await.status, 204);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let client = Client::new();
    for path in ["/", "/v1", "/v1/nothing", "/v1/tenants/", "/v1/tenants/acme/tables/calls/records/"] {
        assert_eq!(client.get(path).await.kind(), "not-found", "{path}");
    }
    let answer = client.send("DELETE", "/v1/tenants", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.kind().as_str()), (405, "method-not-allowed"));
    assert!(answer.header("allow").contains("POST"));
    let impossible = client.get("/v1/tenants/NO%20NAME").await.json();
    let unknown = client.get("/v1/tenants/globex").await.json();
    assert_eq!(impossible["detail"], unknown["detail"]);
}

#[tokio::test]
async fn bodies_of_another_type_shape_or_size_are_refused() {
    let client = Client::new();
    let put = |kind: &'static str, body: String| {
        let client = &client;
        async move { client.send("PUT", RECORD, &[("content-type", kind)], body).await }
    };
    assert_eq!(put("text/plain", "{}".into()).await.status, 415);
    assert_eq!(client.send("PUT", RECORD, &[], "{}").await.status, 415);
    let zipped = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert_eq!(client.send("PUT", RECORD, &zipped, "{}").await.status, 415);
    assert_eq!(put("application/json", "{".into()).await.kind(), "malformed");
    assert_eq!(put("application/json", "{\"fields\":{}} x".into()).await.kind(), "malformed");
    assert_eq!(
        put("application/json", format!("{{\"fields\":{{\"a\":{}", "[".repeat(100_000))).await.kind(),
        "malformed"
    );
    for shape in ["[]", "[{}]", "{}", "{\"fields\":[]}", "{\"fields\":{},\"more\":1}", "{\"fields\":{},\"fields\":{}}"]
    {
        assert_eq!(put("application/json", shape.into()).await.kind(), "invalid", "{shape}");
    }
    let exact = |size: usize| format!("{{\"fields\":{{}}}}{}", " ".repeat(size - 13));
    assert_eq!(put("application/json; charset=utf-8", exact(api::limit::BODY_BYTES_MAX)).await.status, 201);
    assert_eq!(put("application/json", exact(api::limit::BODY_BYTES_MAX + 1)).await.kind(), "too-large");
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 65536])));
    let body = axum::body::Body::from_stream(endless);
    let answer = client.send("PUT", RECORD, &[("content-type", "application/json")], body).await;
    assert_eq!(answer.kind(), "too-large", "not believed, but counted");
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_everywhere() {
    let client = Client::new();
    for path in ["/v1/me", "/v1/tenants", RECORD, "/v1/tenants/acme/conflicts", "/v1/alerts", "/v1/audit/entries"] {
        assert_eq!(client.get(&format!("{path}?surprise=1")).await.kind(), "invalid", "{path}");
    }
}

#[tokio::test]
async fn the_metric_knows_templates_not_paths() {
    let client = Client::new();
    client.get(RECORD).await;
    client.get("/nowhere/at/all").await;
    client.send("BREW", "/v1/me", &[], "").await;
    let wanted = [
        ("GET", "/v1/tenants/{tenant}/tables/{table}/records/{key}".to_owned(), 404),
        ("GET", "unmatched".to_owned(), 404),
        ("OTHER", "/v1/me".to_owned(), 405),
    ];
    assert_eq!(*client.core.observed.lock().unwrap(), wanted);
}

#[tokio::test]
async fn a_trace_goes_on_and_secrets_are_not_shown() {
    let client = Client::new();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    client.send("GET", "/v1/me", &[("traceparent", trace)], "").await;
    let caller = client.core.caller.lock().unwrap().clone().unwrap();
    assert_eq!(caller.trace.unwrap().span, 0x00f0_67aa_0ba9_02b7);
    assert!(!format!("{caller:?}").contains(client.bearer.as_ref().unwrap().as_str()));
}
