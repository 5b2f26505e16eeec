//! Several records of one tenant at once, conflicts between regions, and how far writes have got.

use crate::extract::{InTenant, Json, NoQuery, Query, Who, check_key};
use crate::guard::Api;
use crate::headers::{ReadHead, ReadHeaderDoc, SESSION, WriteHeaderDoc, WriteHeaders};
use crate::page::Seal;
use crate::problem::Problem;
use crate::routes::list::{ListQuery, seal_next};
use crate::routes::records::{check_patch, seen};
use crate::routes::{header, json};
use crate::types::{
    Change, ConflictList, DurabilityView, Durable, Etag, Fields, Operation, OperationResult, Patch, Precondition,
};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use model::limit::TRANSACTION_OPERATIONS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(transact)).routes(routes!(conflicts)).routes(routes!(durability))
}

/// Operations that happen all or not at all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transaction {
    /// 1 to 128 of them; preconditions see the records as they were before the transaction.
    operations: Vec<OperationBody>,
}

/// One operation.
///
/// `if_match` is `*` (exists) or an entity tag without quotes; `if_none_match` is `*` (does not exist).
#[derive(Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum OperationBody {
    /// The record's fields become exactly these; without `if_match` it only creates.
    Put {
        table: String,
        key: String,
        #[schema(value_type = BTreeMap<String, Value>)]
        fields: Fields,
        if_match: Option<String>,
        if_none_match: Option<String>,
    },
    /// Fields change, or counters are added to.
    Patch {
        table: String,
        key: String,
        #[serde(default)]
        #[schema(value_type = BTreeMap<String, Value>)]
        set: Fields,
        #[serde(default)]
        increment: BTreeMap<String, i64>,
        if_match: Option<String>,
    },
    /// The record goes.
    Delete { table: String, key: String, if_match: Option<String> },
    /// Nothing changes: only the precondition is checked.
    Check { table: String, key: String, if_match: Option<String>, if_none_match: Option<String> },
}

/// A transaction that is durable.
#[derive(Serialize, ToSchema)]
pub(crate) struct TransactionView {
    /// One for each operation, in order.
    results: Vec<OperationResult>,
    /// `as_asked`, or `locally` when other regions did not confirm in time: poll, do not repeat.
    durable: Durable,
}

fn precondition(at: &str, if_match: Option<String>, if_none_match: Option<String>) -> Result<Precondition, Problem> {
    match (if_match.as_deref(), if_none_match.as_deref()) {
        (None, None) => Ok(Precondition::Unstated),
        (Some("*"), None) => Ok(Precondition::Exists),
        (Some(tag), None) => match Etag::new(tag) {
            Some(tag) => Ok(Precondition::Matches(vec![tag])),
            None => Err(Problem::invalid(format!("{at}.if_match"), "'*' or an entity tag without quotes")),
        },
        (None, Some("*")) => Ok(Precondition::Absent),
        (None, Some(_)) => Err(Problem::invalid(format!("{at}.if_none_match"), "only '*'")),
        (Some(_), Some(_)) => Err(Problem::invalid(at, "say either if_match or if_none_match")),
    }
}

impl OperationBody {
    fn read(self, index: usize) -> Result<Operation, Problem> {
        let at = format!("operations[{index}]");
        let (table, key, precondition, change) = match self {
            Self::Put { table, key, fields, if_match, if_none_match } => {
                (table, key, precondition(&at, if_match, if_none_match)?, Some(Change::Put(fields)))
            }
            Self::Patch { table, key, set, increment, if_match } => {
                let patch = Patch { set, increment };
                check_patch(&at, &patch)?;
                (table, key, precondition(&at, if_match, None)?, Some(Change::Patch(patch)))
            }
            Self::Delete { table, key, if_match } => {
                (table, key, precondition(&at, if_match, None)?, Some(Change::Delete))
            }
            Self::Check { table, key, if_match, if_none_match } => {
                let precondition = precondition(&at, if_match, if_none_match)?;
                if precondition == Precondition::Unstated {
                    return Err(Problem::invalid(at, "a check needs if_match or if_none_match"));
                }
                (table, key, precondition, None)
            }
        };
        model::schema::check_name(&table).map_err(|_| Problem::not_found("table"))?;
        check_key(&format!("{at}.key"), &key)?;
        Ok(Operation { table, key, precondition, change })
    }
}

/// Change several records at once
///
/// All or nothing, in this region and in every other.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/transactions", tag = "records", request_body = Transaction,
    security(("session" = [])), params(("tenant" = String, Path), WriteHeaderDoc),
    responses((status = 200, body = TransactionView),
        (status = 202, description = "Durable in this region only, so far", body = TransactionView)))]
async fn transact(
    State(api): State<Api>,
    who: Who,
    InTenant(tenant): InTenant,
    _: NoQuery,
    headers: WriteHeaders,
    body: Json<Transaction>,
) -> Result<Response, Problem> {
    let count = body.value.operations.len();
    if !(1..=TRANSACTION_OPERATIONS_MAX).contains(&count) {
        let message = format!("1 to {TRANSACTION_OPERATIONS_MAX} operations, not {count}");
        return Err(Problem::invalid("operations", message));
    }
    let operations = body.value.operations.into_iter().enumerate().map(|(index, operation)| operation.read(index));
    let operations = operations.collect::<Result<Vec<_>, _>>()?;
    let options = headers.options("POST", &[&tenant, "transactions"], &Precondition::Unstated, &body.bytes);
    let done = api.core.transact(&who.caller, &who.session, &tenant, operations, &options).await?;
    let status = match done.durable {
        Durable::AsAsked => StatusCode::OK,
        Durable::Locally => StatusCode::ACCEPTED,
    };
    let mut response = json(status, &TransactionView { results: done.results, durable: done.durable })?;
    seen(&mut response, &tenant, done.durable, &done.token, done.replayed)?;
    Ok(response)
}

/// List concurrent overwrites, newest first
///
/// Two regions wrote a field at once: the value that lost was kept here.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/conflicts", tag = "records", security(("session" = [])),
    params(("tenant" = String, Path), ListQuery), responses((status = 200, body = ConflictList)))]
async fn conflicts(
    State(api): State<Api>,
    who: Who,
    InTenant(tenant): InTenant,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let seal = Seal::new(&*api.core, &who.session, "conflicts", &[Some(&tenant)]);
    let mut list = api.core.conflicts(&who.caller, &who.session, &tenant, &query.page(&seal)?).await?;
    seal_next(&seal, &mut list.next);
    json(StatusCode::OK, &list)
}

/// How far the writes of a session token have got
///
/// Give the token of a write's answer as `Holdfast-Session`.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/durability", tag = "records", security(("session" = [])),
    params(("tenant" = String, Path), ReadHeaderDoc), responses((status = 200, body = DurabilityView)))]
async fn durability(
    State(api): State<Api>,
    who: Who,
    InTenant(tenant): InTenant,
    _: NoQuery,
    head: ReadHead,
) -> Result<Response, Problem> {
    let token = head.token.ok_or_else(|| Problem::invalid("Holdfast-Session", "the token of a write's answer"))?;
    let view = api.core.durability(&who.caller, &who.session, &tenant, &token).await?;
    let mut response = json(StatusCode::OK, &view)?;
    response.headers_mut().insert(SESSION, header(&token)?);
    Ok(response)
}
