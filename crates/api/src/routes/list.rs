//! What lists have in common: their parameters, and the page token around the place where they go on.

use crate::extract::page_limit;
use crate::page::Seal;
use crate::problem::Problem;
use crate::types::Page;
use serde::Deserialize;
use utoipa::IntoParams;

/// Bytes of what lists are searched for, and of names.
const SEARCH_BYTES_MAX: usize = 512;

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Items of a page: 1 to 500, 100 when not given.
    limit: Option<usize>,
    /// `next_page_token` of the page before; the other parameters must be the same.
    page_token: Option<String>,
}

/// The page that a request asks for.
pub(crate) fn page(seal: &Seal, limit: Option<usize>, token: Option<&str>) -> Result<Page, Problem> {
    Ok(Page { limit: page_limit(limit)?, after: seal.open(token)? })
}

/// Whether what is searched for is short enough.
pub(crate) fn bounded<const N: usize>(parameters: [(&str, &Option<String>); N]) -> Result<(), Problem> {
    match parameters.iter().find(|(_, text)| text.as_ref().is_some_and(|text| text.len() > SEARCH_BYTES_MAX)) {
        Some((name, _)) => Err(Problem::invalid(*name, format!("at most {SEARCH_BYTES_MAX} bytes"))),
        None => Ok(()),
    }
}

/// Whether a name, where one is given, is there and short enough.
pub(crate) fn named(at: &'static str, name: Option<&str>) -> Result<(), Problem> {
    match name {
        Some(name) if name.is_empty() || name.len() > SEARCH_BYTES_MAX => {
            Err(Problem::invalid(at, format!("1 to {SEARCH_BYTES_MAX} bytes")))
        }
        _ => Ok(()),
    }
}

/// The kind and the name of an entity.
pub(crate) fn entity(text: &str) -> Result<(String, String), Problem> {
    let (kind, name) =
        text.split_once(':').ok_or_else(|| Problem::invalid("entity", "kind and name, such as user:ann"))?;
    Ok((kind.to_owned(), name.to_owned()))
}

/// Seals the place where a list goes on.
pub(crate) fn seal_next(seal: &Seal, next: &mut Option<String>) {
    if let Some(place) = next.take() {
        *next = Some(seal.seal(&place));
    }
}

impl ListQuery {
    pub(crate) fn page(&self, seal: &Seal) -> Result<Page, Problem> {
        page(seal, self.limit, self.page_token.as_deref())
    }
}
