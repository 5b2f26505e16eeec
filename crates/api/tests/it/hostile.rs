//! Whatever comes, the answer is the client's fault, never a defect.

use crate::client::Client;
use axum::body::Body;
use http::{HeaderValue, Request, Uri};
use proptest::prelude::*;

const PLACES: [(&str, &str); 27] = [
    ("POST", "/v1/sessions"),
    ("PUT", "/v1/me/password"),
    ("POST", "/v1/tenants"),
    ("POST", "/v1/users"),
    ("POST", "/v1/tenants/acme/tables"),
    ("PUT", "/v1/tenants/acme/tables/calls/records/k"),
    ("PATCH", "/v1/tenants/acme/tables/calls/records/k"),
    ("DELETE", "/v1/tenants/acme/tables/calls/records/k"),
    ("GET", "/v1/tenants/acme/tables/calls/records"),
    ("POST", "/v1/tenants/acme/transactions"),
    ("POST", "/v1/events"),
    ("POST", "/v1/events/search"),
    ("POST", "/v1/events/hunt"),
    ("GET", "/v1/events/jobs/00000000000000000000000000000001"),
    ("DELETE", "/v1/events/jobs/00000000000000000000000000000001"),
    ("GET", "/v1/incidents"),
    ("POST", "/v1/incidents/i1/close"),
    ("POST", "/v1/incidents/i1/split"),
    ("POST", "/v1/mutes"),
    ("PUT", "/v1/escalation/policy"),
    ("POST", "/v1/tickets"),
    ("PATCH", "/v1/tickets/t1"),
    ("GET", "/v1/notices/refused"),
    ("POST", "/v1/notices/refused/replay"),
    ("POST", "/v1/notices/refused/drop"),
    ("GET", "/v1/audit/entries"),
    ("GET", "/v1/audit/logs/eu-0/tile/0/000"),
];

const HEADERS: [&str; 8] = [
    "if-match",
    "if-none-match",
    "holdfast-durability",
    "holdfast-session",
    "idempotency-key",
    "traceparent",
    "content-encoding",
    "content-length",
];

fn send(client: &Client, request: Request<Body>) -> crate::client::Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(client.raw(request))
}

fn request(client: &Client, method: &str, uri: Uri) -> http::request::Builder {
    let bearer = format!("Bearer {}", client.bearer.as_ref().unwrap());
    Request::builder().method(method).uri(uri).header("authorization", bearer)
}

/// JSON of any shape, with the members of real requests among its names.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
        prop_oneof![Just("put"), Just("patch"), Just("*"), Just("lww")].prop_map(Into::into),
    ];
    let name = prop_oneof![
        Just("fields"),
        Just("set"),
        Just("increment"),
        Just("operations"),
        Just("op"),
        Just("table"),
        Just("key"),
        Just("login"),
        Just("name"),
        Just("password"),
        Just("if_match"),
        Just("grants"),
        Just("kind"),
        Just("other"),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let members = proptest::collection::vec((name.clone(), inner.clone()), 0..5);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(serde_json::Value::from),
            members.prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

fn no_defect(answer: &crate::client::Answer) {
    assert!(answer.status.as_u16() < 500, "{} {}", answer.status, String::from_utf8_lossy(&answer.bytes));
    if answer.status.is_client_error() {
        answer.kind();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_body_is_answered(place in 0..PLACES.len(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let client = Client::new();
        let (method, path) = PLACES[place];
        let kind = if path == "/v1/events" { "application/x-ndjson" } else { "application/json" };
        let request = request(&client, method, Uri::from_static(path)).header("content-type", kind);
        no_defect(&send(&client, request.body(Body::from(bytes)).unwrap()));
    }

    #[test]
    fn any_json_is_answered(place in 0..PLACES.len(), value in json()) {
        let client = Client::new();
        let (method, path) = PLACES[place];
        let request = request(&client, method, Uri::from_static(path)).header("content-type", "application/json");
        let request = request.header("if-match", "*");
        no_defect(&send(&client, request.body(Body::from(value.to_string())).unwrap()));
    }

    #[test]
    fn any_path_and_query_is_answered(
        place in 0..PLACES.len(),
        rest in "[ -~]{0,40}",
        query in "([a-z_]{0,10}=?[ -~]{0,20}&?){0,3}",
        is_below in any::<bool>(),
    ) {
        let client = Client::new();
        let (method, path) = PLACES[place];
        let text = if is_below { format!("{path}/{rest}?{query}") } else { format!("/{rest}?{query}") };
        let Ok(uri) = text.parse::<Uri>() else { return Ok(()) };
        no_defect(&send(&client, request(&client, method, uri).body(Body::empty()).unwrap()));
    }

    #[test]
    fn any_header_is_answered(
        place in 0..PLACES.len(),
        name in 0..HEADERS.len(),
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let client = Client::new();
        let (method, path) = PLACES[place];
        let request = request(&client, method, Uri::from_static(path)).header("content-type", "application/json");
        let request = request.header(HEADERS[name], value.clone());
        no_defect(&send(&client, request.body(Body::from("{\"fields\":{}}")).unwrap()));
        let alone = Request::builder().uri("/v1/me").header("authorization", value);
        no_defect(&send(&client, alone.body(Body::empty()).unwrap()));
    }
}
