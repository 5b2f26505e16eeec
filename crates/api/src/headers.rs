//! Headers of records: preconditions, durability, session tokens, idempotency keys.

use crate::guard::Api;
use crate::limit::{ETAGS_MAX, REMOTES_MAX, TOKEN_BYTES_MAX};
use crate::problem::Problem;
use crate::types::{Durability, Etag, Precondition, WriteOptions};
use axum::extract::FromRequestParts;
use http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use model::limit::IDEMPOTENCY_KEY_BYTES_MAX;
use utoipa::IntoParams;

/// What a client has seen, and what an answer has seen.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("holdfast-session");
/// When a write is done.
pub(crate) const DURABILITY: HeaderName = HeaderName::from_static("holdfast-durability");
/// The same request again is answered as the first time.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is the stored one.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The headers of a write, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) struct WriteHeaderDoc {
    /// `region` (default) or `remote:K`: durable in K other regions too.
    #[param(rename = "Holdfast-Durability", example = "remote:1")]
    durability: Option<String>,
    /// What this client has seen: the write comes after it in every region.
    #[param(rename = "Holdfast-Session")]
    session: Option<String>,
    /// Names the request: repeated with the same key, it happens once.
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
}

/// The key of a request that is no write of records, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) struct IdempotencyDoc {
    /// Names the request: repeated with the same key, it happens once.
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
}

/// The preconditions of a write, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) struct PreconditionDoc {
    /// `*` or entity tags: required to change or delete what exists.
    #[param(rename = "If-Match", example = "*")]
    if_match: Option<String>,
    /// `*`: only if there is no such record.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// What the headers of a read of records may say, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) struct ReadHeaderDoc {
    /// What this client has seen: for `level=session`.
    #[param(rename = "Holdfast-Session")]
    session: Option<String>,
}

/// The only value of a header, as text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(name.as_str(), "given twice"));
    }
    value.to_str().map(Some).map_err(|_| Problem::invalid(name.as_str(), "not visible ASCII"))
}

/// The session token of the request.
pub(crate) fn session_token(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(token) = single(headers, &SESSION)? else { return Ok(None) };
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(Problem::invalid(SESSION.as_str(), format!("a token has 1 to {TOKEN_BYTES_MAX} bytes")));
    }
    Ok(Some(token.to_owned()))
}

/// What `If-Match` and `If-None-Match` say.
pub(crate) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    match (single(headers, &IF_MATCH)?, single(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::Unstated),
        (Some(text), None) => Ok(match etags(IF_MATCH.as_str(), text)? {
            None => Precondition::Exists,
            // A weak tag never matches here (RFC 9110, section 13.1.1).
            Some(tags) => {
                Precondition::Matches(tags.into_iter().filter_map(|(weak, tag)| (!weak).then_some(tag)).collect())
            }
        }),
        (None, Some(text)) => Ok(match etags(IF_NONE_MATCH.as_str(), text)? {
            None => Precondition::Absent,
            Some(tags) => Precondition::Differs(tags.into_iter().map(|(_, tag)| tag).collect()),
        }),
        (Some(_), Some(_)) => Err(Problem::invalid("If-Match", "say either If-Match or If-None-Match")),
    }
}

/// Reads `*` (none) or a list of entity tags, each with whether it is weak.
fn etags(at: &str, text: &str) -> Result<Option<Vec<(bool, Etag)>>, Problem> {
    if text.trim() == "*" {
        return Ok(None);
    }
    let wrong = || Problem::invalid(at, "'*' or entity tags in quotes, separated by commas");
    let mut tags = Vec::new();
    let mut rest = text.trim();
    loop {
        let weak = rest.starts_with("W/");
        let quoted = if weak { &rest[2..] } else { rest };
        let (tag, after) = quoted.strip_prefix('"').and_then(|open| open.split_once('"')).ok_or_else(wrong)?;
        tags.push((weak, Etag::new(tag).ok_or_else(wrong)?));
        if tags.len() > ETAGS_MAX {
            return Err(Problem::invalid(at, format!("at most {ETAGS_MAX} entity tags")));
        }
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => return Ok(Some(tags)),
            None => return Err(wrong()),
        }
    }
}

/// Reads `region` or `remote:K`.
fn durability(text: &str) -> Result<Durability, Problem> {
    let wrong =
        || Problem::invalid("Holdfast-Durability", format!("'region' or 'remote:K' with K of 1 to {REMOTES_MAX}"));
    if text == "region" {
        return Ok(Durability::Region);
    }
    let count = text.strip_prefix("remote:").ok_or_else(wrong)?;
    // `parse` would take a sign and leading zeros.
    if count.is_empty() || count.starts_with('0') || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count = count.parse::<u8>().ok().filter(|count| *count <= REMOTES_MAX).ok_or_else(wrong)?;
    Ok(Durability::Remote(count))
}

/// What `Idempotency-Key` says.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = single(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
    let fits = !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX;
    if !fits || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
        return Err(Problem::invalid("Idempotency-Key", message));
    }
    Ok(Some(key.to_owned()))
}

/// The key of a request that is no write of records.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl FromRequestParts<Api> for IdempotencyKey {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        idempotency_key(&parts.headers).map(Self)
    }
}

/// The options of a write; the fingerprint is added by [`WriteHeaders::options`].
pub(crate) struct WriteHeaders {
    options: WriteOptions,
}

impl WriteHeaders {
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let durability = single(headers, &DURABILITY)?.map(durability).transpose()?.unwrap_or_default();
        let idempotency_key = idempotency_key(headers)?;
        let options = WriteOptions { durability, idempotency_key, fingerprint: None, token: session_token(headers)? };
        Ok(Self { options })
    }

    /// The options, with the fingerprint of what was asked when the request has a key.
    pub(crate) fn options(
        mut self,
        method: &str,
        place: &[&str],
        precondition: &Precondition,
        body: &[u8],
    ) -> WriteOptions {
        if self.options.idempotency_key.is_some() {
            let mut hasher = blake3::Hasher::new();
            let precondition = format!("{precondition:?}");
            for part in std::iter::once(&method).chain(place).chain(std::iter::once(&precondition.as_str())) {
                hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
            }
            hasher.update(body);
            self.options.fingerprint = Some(*hasher.finalize().as_bytes());
        }
        self.options
    }
}

/// The headers of a write of one record.
pub(crate) struct WriteHead {
    pub(crate) precondition: Precondition,
    pub(crate) headers: WriteHeaders,
}

impl FromRequestParts<Api> for WriteHead {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let headers = WriteHeaders::read(&parts.headers)?;
        Ok(Self { precondition: precondition(&parts.headers)?, headers })
    }
}

/// The headers of a transaction: no preconditions, they are in its operations.
impl FromRequestParts<Api> for WriteHeaders {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Self::read(&parts.headers)
    }
}

/// The headers of a read.
pub(crate) struct ReadHead {
    pub(crate) precondition: Precondition,
    pub(crate) token: Option<String>,
}

impl FromRequestParts<Api> for ReadHead {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Ok(Self { precondition: precondition(&parts.headers)?, token: session_token(&parts.headers)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn tag(text: &str) -> Etag {
        Etag::new(text).expect("a tag")
    }

    #[test]
    fn preconditions_are_read_as_rfc_9110_says() {
        let read = |name: HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).expect("ASCII"));
            precondition(&headers)
        };
        assert_eq!(read(IF_MATCH, "*"), Ok(Precondition::Exists));
        assert_eq!(read(IF_NONE_MATCH, "*"), Ok(Precondition::Absent));
        assert_eq!(read(IF_MATCH, "\"a\" , \"b,c\""), Ok(Precondition::Matches(vec![tag("a"), tag("b,c")])));
        assert_eq!(read(IF_MATCH, "W/\"a\""), Ok(Precondition::Matches(vec![])));
        assert_eq!(read(IF_NONE_MATCH, "W/\"a\""), Ok(Precondition::Differs(vec![tag("a")])));
        for wrong in ["", "a", "\"a", "\"a\"\"b\"", "\"a\",", "\"\"", "*,\"a\""] {
            assert!(read(IF_MATCH, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durability_has_one_spelling_each() {
        assert_eq!(durability("region"), Ok(Durability::Region));
        assert_eq!(durability("remote:2"), Ok(Durability::Remote(2)));
        for wrong in ["", "remote", "remote:", "remote:0", "remote:+1", "remote:01", "remote:17", "remote:300", "all"] {
            assert!(durability(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            for name in [IF_MATCH, IF_NONE_MATCH, DURABILITY, IDEMPOTENCY_KEY, SESSION] {
                let mut headers = HeaderMap::new();
                headers.insert(name, value.clone());
                let _ = precondition(&headers);
                let _ = WriteHeaders::read(&headers);
            }
        }
    }
}
