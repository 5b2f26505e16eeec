//! The router and its description: one is made from the other, so they cannot disagree.

use crate::core::Core;
use crate::guard::{Api, guard};
use crate::problem::{Missing, Problem, Violation};
use crate::routes;
use axum::Router;
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;

/// Problem details (RFC 9457): `type` is stable and for programs, `detail` is for people.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code, reason = "only its description is used")]
struct ProblemDocument {
    /// `https://holdfast.dev/problems/…`.
    r#type: String,
    /// The status in words.
    title: String,
    /// The status.
    status: u16,
    /// What exactly.
    detail: String,
    /// `urn:holdfast:request:…`: the request, in logs.
    instance: String,
    /// When to come again.
    retry_after_ms: Option<u64>,
    /// Everything that is wrong with the request.
    violations: Option<Vec<Violation>>,
    /// What this region has not yet of what the session has seen.
    missing: Option<Vec<Missing>>,
    /// The operation of a transaction whose precondition failed.
    operation: Option<usize>,
    /// The limit that was passed.
    max_bytes: Option<u64>,
    /// A session token to go on with after writes were lost.
    repaired: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Holdfast Core API", description = "Tenants' data in many regions, with its security operations.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")),
    components(schemas(ProblemDocument)),
    modifiers(&SessionScheme)
)]
struct Document;

struct SessionScheme;

impl Modify for SessionScheme {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of POST /v1/sessions: only from the address that logged in."));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("session", SecurityScheme::Http(scheme.build()));
    }
}

fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(routes::session::router())
        .merge(routes::admin::router())
        .merge(routes::records::router())
        .merge(routes::transactions::router())
        .merge(routes::audit::router())
        .merge(routes::detection::router())
        .merge(routes::alerts::router())
        .merge(routes::search::router())
        .merge(routes::incidents::router())
        .merge(routes::incident_acts::router())
        .merge(routes::escalation::router())
        .merge(routes::tickets::router())
        .merge(routes::notices::router())
        .merge(routes::pipeline::router())
        .merge(routes::cluster::router())
}

/// Every operation may answer a problem.
fn add_problems(document: &mut OpenApi) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let problem =
        ResponseBuilder::new().description("What went wrong").content("application/problem+json", content).build();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".into(), RefOr::T(problem.clone()));
        }
    }
}

/// The OpenAPI document.
pub fn document() -> OpenApi {
    let (_, mut document) = described().split_for_parts();
    add_problems(&mut document);
    document
}

/// The router of the whole API over a [`Core`]. Requests need a [`crate::Peer`] among their extensions.
pub fn router(core: Arc<dyn Core>) -> Router {
    let (router, mut document) = described().split_for_parts();
    add_problems(&mut document);
    let document = Bytes::from(document.to_json().expect("the document has only strings for keys"));
    let api = Api { core, document };
    router
        .fallback(|| async { Problem::not_found("resource") })
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
        .layer(axum::middleware::from_fn_with_state(api.clone(), guard))
        .with_state(api)
}
