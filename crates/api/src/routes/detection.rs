//! Events in, and how detection does.

use crate::extract::{NoQuery, Query, Who, body};
use crate::guard::Api;
use crate::headers::{IdempotencyDoc, IdempotencyKey};
use crate::limit::{EVENT_BYTES_MAX, EVENTS_MAX, VIOLATIONS_MAX};
use crate::page::Seal;
use crate::problem::{Problem, Violation};
use crate::routes::json;
use crate::routes::list::{ListQuery, seal_next};
use crate::types::{DetectionStatus, Ingested, RuleFilter, RuleList};
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(ingest)).routes(routes!(detection)).routes(routes!(rules))
}

/// Where events come from.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceQuery {
    /// The source's name, for rules: `http` when not given.
    source: Option<String>,
}

/// Lines of JSON objects: all are well-formed, or none is taken.
pub(crate) struct Lines(Vec<Bytes>);

impl FromRequest<Api> for Lines {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        lines(&body(request, "application/x-ndjson").await?).map(Self)
    }
}

fn lines(bytes: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let mut events = Vec::new();
    let mut violations = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match check_line(line) {
            Ok(()) => events.push(bytes.slice_ref(line)),
            Err(message) => violations.push(Violation { at: format!("line {}", index + 1), message }),
        }
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
        if events.len() > EVENTS_MAX {
            return Err(Problem::invalid("body", format!("more than {EVENTS_MAX} events")));
        }
    }
    match (violations.is_empty(), events.is_empty()) {
        (false, _) => Err(Problem::Invalid { violations }),
        (true, true) => Err(Problem::invalid("body", "no events")),
        (true, false) => Ok(events),
    }
}

fn check_line(line: &[u8]) -> Result<(), String> {
    if line.len() > EVENT_BYTES_MAX {
        return Err(format!("{} bytes; {EVENT_BYTES_MAX} are allowed", line.len()));
    }
    if line[0] != b'{' {
        return Err("not a JSON object".into());
    }
    serde_json::from_slice::<&RawValue>(line).map(|_| ()).map_err(|error| format!("not JSON: {error}"))
}

/// Send events to the detection pipeline
///
/// One JSON object a line. The answer comes when they are durable. Where there is none, send the same again: under
/// the same `Idempotency-Key` the request counts once, and without a key each line that says when it happened does.
#[utoipa::path(post, path = "/v1/events", tag = "detection", security(("session" = [])),
    params(SourceQuery, IdempotencyDoc),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 202, body = Ingested)))]
async fn ingest(
    State(api): State<Api>,
    who: Who,
    Query(query): Query<SourceQuery>,
    IdempotencyKey(key): IdempotencyKey,
    Lines(lines): Lines,
) -> Result<Response, Problem> {
    let source = query.source.as_deref().unwrap_or("http");
    model::schema::check_name(source).map_err(|error| Problem::invalid("source", error.to_string()))?;
    json(StatusCode::ACCEPTED, &api.core.ingest(&who.caller, &who.session, source, lines, key.as_deref()).await?)
}

/// How detection in this region does
///
/// Every shard: who has it, which rules are in charge and on trial, what was counted, and how far behind it is. Any
/// node of the region answers.
#[utoipa::path(get, path = "/v1/detection", tag = "detection", security(("session" = [])),
    responses((status = 200, body = DetectionStatus)))]
async fn detection(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.detection(&who.caller, &who.session).await?)
}

/// List the rules that the node that answers has read
///
/// A tenant's own SOC sees those that apply to the tenant.
#[utoipa::path(get, path = "/v1/detection/rules", tag = "detection", security(("session" = [])), params(ListQuery),
    responses((status = 200, body = RuleList)))]
async fn rules(State(api): State<Api>, who: Who, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let seal = Seal::new(&*api.core, &who.session, "detection/rules", &[]);
    let filter = RuleFilter { page: query.page(&seal)? };
    let mut list = api.core.rules(&who.caller, &who.session, &filter).await?;
    seal_next(&seal, &mut list.next);
    json(StatusCode::OK, &list)
}
