//! `/openapi.json` and `/docs`: the description of the API, for programs and for people. Everything the page needs comes
//! from this process.

use std::sync::{Arc, LazyLock};

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION},
    web::{Bytes, Path},
};
use utoipa_swagger_ui::{Config, serve};

use super::openapi::document;
use crate::error::AppError;

/// Nothing from elsewhere, and no scripts of the page's own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn get_openapi() -> HttpResponse {
    static TEXT: LazyLock<Bytes> =
        LazyLock::new(|| document().to_json().unwrap_or_default().into_bytes().into());
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_TYPE, "application/json"))
        .body(TEXT.clone())
}

/// Its parts are named relative to it.
pub(super) async fn get_docs() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "/docs/")).finish()
}

pub(super) async fn get_docs_file(file: Path<String>) -> Result<HttpResponse, AppError> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("/openapi.json")));
    let found = serve(&file, Arc::clone(&CONFIG)).map_err(|err| AppError::internal(err.to_string()))?;
    let found = found.ok_or(AppError::NotFound)?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((CONTENT_TYPE, found.content_type));
    if found.gzpipped {
        response.insert_header((CONTENT_ENCODING, "gzip"));
    }
    Ok(response.body(found.bytes.into_owned()))
}
