//! Making a thing once, however often the request is repeated (`Idempotency-Key`).
//!
//! The answer is kept in the transaction that makes the thing: both are there or neither. A repeated request gets the
//! first one's answer; one that comes while the first is under way, or with another body, is refused.

use crate::{
    app::App,
    auth::Actor,
    db::{Tx, Written},
    error::AppError,
    http::body::Once,
    models::idempotency_keys::IdempotencyKey,
    queries::view::View,
};

/// A thing that was made.
#[derive(Debug)]
pub struct Created {
    /// Where it is, below the service's URL.
    pub path: String,
    /// What it is.
    pub view: View,
    /// It was made by an earlier request with the same key.
    pub replayed: bool,
}

impl Created {
    /// A thing made just now.
    #[must_use]
    pub const fn new(path: String, view: View) -> Self {
        Self { path, view, replayed: false }
    }
}

/// Runs `make` in a transaction, unless a request with the same key has done so.
///
/// # Errors
/// What `make` returns; [`AppError::RequestInProgress`], [`AppError::IdempotencyKeyReused`].
pub async fn create(
    app: &App,
    actor: &Actor,
    once: Option<&Once>,
    make: impl AsyncFnOnce(&mut Tx) -> Result<Created, AppError>,
) -> Result<Written<Created>, AppError> {
    app.db
        .write(async |tx| {
            let Some(Once { key, path, fingerprint }) = once else { return make(tx).await };
            if !IdempotencyKey::lock(tx, actor.user_id, path, key).await? {
                return Err(AppError::RequestInProgress);
            }
            if let Some(kept) = IdempotencyKey::find(tx, actor.user_id, path, key).await? {
                if kept.fingerprint != fingerprint {
                    return Err(AppError::IdempotencyKeyReused);
                }
                let view = View { body: kept.body.into(), etag: kept.etag.into(), next_cursor: None };
                return Ok(Created { path: kept.location, view, replayed: true });
            }
            let created = make(tx).await?;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(AppError::internal);
            let row = IdempotencyKey {
                user_id: actor.user_id,
                path: path.clone(),
                key: key.clone(),
                fingerprint: fingerprint.to_vec(),
                location: created.path.clone(),
                etag: text(&created.view.etag)?,
                body: text(&created.view.body)?,
            };
            row.insert(tx).await?;
            Ok(created)
        })
        .await
}
