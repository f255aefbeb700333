//! How answers look: cached views with their entity tags, and acknowledged writes with their tokens.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LINK,
            LOCATION, VARY,
        },
    },
};
use futures_util::{FutureExt as _, TryFutureExt as _, future};
use serde::Serialize;

use super::{caller::Caller, view_body::ViewBody};
use crate::{
    app::App,
    cache::{
        Read, Status, Token, Value,
        recording::{self, Recall},
    },
    config::CacheStatusAudience,
    db::Written,
    error::AppError,
    http::middleware::ACCESS_LOG,
    queries::{CachedQuery, view::View},
    services::once::{Created, Maker},
};

const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The client may keep it and has to ask. Nothing here that would let a shared cache keep it: RFC 9111, section 3.5.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const VARIES: HeaderValue = HeaderValue::from_static("Authorization, Accept, Accept-Encoding");

/// What a cached query yields, for whoever may see it.
///
/// # Errors
/// [`AppError::NotFound`], and what keeps it from being loaded.
pub async fn cached<Q: CachedQuery<Value = View>>(
    app: &App,
    request: &HttpRequest,
    caller: &Caller,
    query: Q,
) -> Result<HttpResponse, AppError> {
    view(app, request, caller, &app.queries.get(query, caller.token.as_ref()).await?)
}

/// What a cached query yields, if the caller is allowed to see it. Both are found out at once, and nothing is told of what
/// there is to whoever is not.
///
/// # Errors
/// What `allowed` says, [`AppError::NotFound`], and what keeps it from being loaded.
pub fn cached_if<'r, Q: CachedQuery<Value = View>, A>(
    allowed: impl Future<Output = Result<A, AppError>> + 'r,
    app: &'r App,
    request: &'r HttpRequest,
    caller: &'r Caller,
    query: Q,
) -> impl Future<Output = Result<HttpResponse, AppError>> + 'r {
    // Not as an `async fn`, whose future would have room for both once more.
    let read = app.queries.get(query, caller.token.as_ref()).map_err(AppError::from);
    future::try_join(allowed, read).map(move |read| view(app, request, caller, &read?.1))
}

/// 200, 304 if the client has it, 404 if it is known that there is none.
///
/// What leads here has to be decided by the request and by what was read through the cache, for [the next request like
/// it](super::memo) is answered without any of it being done again, as long as all that was read holds.
///
/// # Errors
/// [`AppError::NotFound`].
pub fn view(
    app: &App,
    request: &HttpRequest,
    caller: &Caller,
    read: &Read<View>,
) -> Result<HttpResponse, AppError> {
    let view = read.value.as_ref().ok_or(AppError::NotFound)?;
    let mut response = show(app, request, caller, view.clone(), read.status)?;
    if let Some(made_of) = recording::take().and_then(|reads| MadeOf::new(reads, view)) {
        response.extensions_mut().insert(made_of);
    }
    Ok(response)
}

/// What an answer is made of.
pub(super) struct MadeOf {
    /// All that was read for it.
    pub reads: Vec<Recall>,
    /// Which of these it shows.
    pub shown: usize,
}

impl MadeOf {
    fn new(reads: Vec<Recall>, view: &Value<View>) -> Option<Self> {
        let shows = |read: &Recall| read.value::<View>().is_some_and(|read| read.is(view));
        let shown = reads.iter().position(shows)?;
        Some(Self { reads, shown })
    }
}

/// 200, or 304 if the client has it.
///
/// # Errors
/// When something of it makes no header.
pub(super) fn show(
    app: &App,
    request: &HttpRequest,
    caller: &Caller,
    view: Value<View>,
    status: Status,
) -> Result<HttpResponse, AppError> {
    let etag = HeaderValue::from_bytes(view.etag()).map_err(AppError::internal)?;
    let next = view.next_cursor().map(|cursor| next_link(app, request, cursor)).transpose()?;
    let not_modified =
        request.headers().get_all(IF_NONE_MATCH).any(|sent| matches_weakly(sent.as_bytes(), etag.as_bytes()));
    let mut response = if not_modified {
        HttpResponse::NotModified().finish()
    } else {
        let mut response = HttpResponse::Ok().body(ViewBody::new(view));
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response
    };
    if caller.is_staff.is_none() || log::log_enabled!(target: ACCESS_LOG, log::Level::Info) {
        response.extensions_mut().insert(status);
    }
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, PRIVATE);
    headers.insert(VARY, VARIES);
    if let Some(next) = next {
        headers.insert(LINK, next);
    }
    if let Some(is_staff) = caller.is_staff {
        write_status(app, is_staff, &status, headers)?;
    }
    Ok(response)
}

/// Says how the cache fared, now that it is known who the caller is.
///
/// # Errors
/// When it makes no header.
pub fn show_status(app: &App, is_staff: bool, response: &mut HttpResponse) -> Result<(), AppError> {
    let status = response.extensions().get::<Status>().copied();
    status.map_or(Ok(()), |status| write_status(app, is_staff, &status, response.headers_mut()))
}

fn write_status(app: &App, is_staff: bool, status: &Status, headers: &mut HeaderMap) -> Result<(), AppError> {
    let is_shown = match app.cache_status {
        CacheStatusAudience::All => true,
        CacheStatusAudience::Staff => is_staff,
        CacheStatusAudience::None => false,
    };
    if is_shown && !status.is_silent() {
        headers.insert(CACHE_STATUS, HeaderValue::try_from(status.to_string()).map_err(AppError::internal)?);
    }
    Ok(())
}

/// Weak comparison of RFC 9110, section 8.8.3.2.
fn matches_weakly(sent: &[u8], etag: &[u8]) -> bool {
    fn opaque(tag: &[u8]) -> &[u8] {
        tag.strip_prefix(b"W/").unwrap_or(tag)
    }
    let wanted = opaque(etag);
    sent.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|tag| tag == b"*" || opaque(tag) == wanted)
}

/// The next page: this URL with another cursor.
fn next_link(app: &App, request: &HttpRequest, cursor: &str) -> Result<HeaderValue, AppError> {
    let kept =
        request.query_string().split('&').filter(|part| !part.is_empty() && !part.starts_with("cursor="));
    let query: String = kept.flat_map(|part| [part, "&"]).collect();
    let link = format!("<{}{}?{query}cursor={cursor}>; rel=\"next\"", app.public_url, request.path());
    HeaderValue::try_from(link).map_err(AppError::internal)
}

/// A write that made something: 201 with where it is; 200 if it was there.
///
/// # Errors
/// When the path makes no header.
pub fn created(app: &App, written: Written<Created>) -> Result<HttpResponse, AppError> {
    let Created { path, by, .. } = &written.value;
    let location = HeaderValue::try_from(format!("{}{path}", app.public_url)).map_err(AppError::internal)?;
    let by = *by;
    // Who made it may not have announced it yet, and this request has nothing to announce: only the database is sure to
    // know of it.
    let token = if by == Maker::ThisRequest { written.token } else { Token::unknown() };
    let written = Written { token, ..written };
    let status = if by == Maker::Another { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = object(status, &written.map(|created| created.view))?;
    response.headers_mut().insert(LOCATION, location);
    if by == Maker::SameKey {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A write that changed something: 200 with what it is now.
///
/// # Errors
/// When the entity tag makes no header.
pub fn changed(written: &Written<View>) -> Result<HttpResponse, AppError> {
    object(StatusCode::OK, written)
}

fn object(status: StatusCode, written: &Written<View>) -> Result<HttpResponse, AppError> {
    let mut response = acknowledged(status, written)?.body(written.value.body());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, PRIVATE);
    headers.insert(VARY, VARIES);
    headers.insert(ETAG, HeaderValue::from_bytes(written.value.etag()).map_err(AppError::internal)?);
    Ok(response)
}

/// What is read from the rows each time, for the caller alone: nobody may keep it.
///
/// # Errors
/// When the cursor makes no link.
pub fn uncached(app: &App, request: &HttpRequest, view: &View) -> Result<HttpResponse, AppError> {
    let mut response = HttpResponse::Ok().body(view.body());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    if let Some(cursor) = view.next_cursor() {
        headers.insert(LINK, next_link(app, request, cursor)?);
    }
    Ok(response)
}

/// A write to what is for the caller alone: 200 with what it is now.
///
/// # Errors
/// When the token makes no header.
pub fn changed_uncached(written: &Written<View>) -> Result<HttpResponse, AppError> {
    let mut response = acknowledged(StatusCode::OK, written)?.body(written.value.body());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    Ok(response)
}

/// A write that leaves nothing to show: 204.
///
/// # Errors
/// When the token makes no header.
pub fn done(written: &Written<()>) -> Result<HttpResponse, AppError> {
    Ok(acknowledged(StatusCode::NO_CONTENT, written)?.insert_header((CACHE_CONTROL, NO_STORE)).finish())
}

/// A write that yields secrets, which nobody may keep.
///
/// # Errors
/// When the token makes no header.
pub fn secrets(status: StatusCode, written: &Written<impl Serialize>) -> Result<HttpResponse, AppError> {
    Ok(acknowledged(status, written)?.insert_header((CACHE_CONTROL, NO_STORE)).json(&written.value))
}

/// Every acknowledged write has its token: there is no other way to make its response.
fn acknowledged<T>(status: StatusCode, written: &Written<T>) -> Result<HttpResponseBuilder, AppError> {
    let token = HeaderValue::try_from(written.token.to_string()).map_err(AppError::internal)?;
    let mut response = HttpResponse::build(status);
    response.insert_header((CONSISTENCY_TOKEN, token));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_compares_weakly_and_knows_lists_and_the_star() {
        assert!(matches_weakly(b"\"1-a\"", b"\"1-a\""));
        assert!(matches_weakly(b"W/\"1-a\"", b"\"1-a\""));
        assert!(matches_weakly(b"\"x\", \"1-a\"", b"W/\"1-a\""));
        assert!(matches_weakly(b"*", b"\"1-a\""));
        assert!(!matches_weakly(b"\"1-b\"", b"\"1-a\""));
        assert!(!matches_weakly(b"", b"\"1-a\""));
    }
}
