//! Making a thing once, however often the request is repeated (`Idempotency-Key`).
//!
//! The answer is kept in the transaction that makes the thing: both are there or neither. A repeated request gets the
//! first one's answer; one that comes while the first is under way, or with another body, is refused.

use crate::{
    app::App,
    auth::Actor,
    db::{Work, Written},
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
    /// By which request it was made.
    pub by: Maker,
}

/// Which request has made a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// This one.
    ThisRequest,
    /// An earlier one with the same `Idempotency-Key`.
    SameKey,
    /// An earlier one that meant the same thing; this one has made nothing.
    Another,
}

impl Created {
    /// A thing made just now.
    #[must_use]
    pub const fn new(path: String, view: View) -> Self {
        Self { path, view, by: Maker::ThisRequest }
    }

    /// A thing that was there.
    #[must_use]
    pub const fn before(path: String, view: View) -> Self {
        Self { path, view, by: Maker::Another }
    }
}

/// Runs `make` in a transaction, unless a request with the same key has done so.
///
/// # Errors
/// What `make` returns; [`AppError::RequestInProgress`], [`AppError::IdempotencyKeyReused`].
pub async fn create(
    app: &App,
    actor: Actor,
    once: Option<Once>,
    make: impl Work<Created, AppError>,
) -> Result<Written<Created>, AppError> {
    app.db
        .write(async move |tx| {
            let Some(Once { key, path, fingerprint }) = once else { return make(tx).await };
            if !IdempotencyKey::lock(tx, actor.user_id, &path, &key).await? {
                return Err(AppError::RequestInProgress);
            }
            if let Some(kept) = IdempotencyKey::find(tx, actor.user_id, &path, &key).await? {
                if kept.fingerprint != fingerprint {
                    return Err(AppError::IdempotencyKeyReused);
                }
                let view = View::new(&kept.etag, None, kept.body.as_bytes());
                return Ok(Created { path: kept.location, view, by: Maker::SameKey });
            }
            let created = make(tx).await?;
            if created.by == Maker::Another {
                return Ok(created);
            }
            let text = |bytes| String::from_utf8(bytes).map_err(AppError::internal);
            let row = IdempotencyKey {
                user_id: actor.user_id,
                path,
                key,
                fingerprint: fingerprint.to_vec(),
                location: created.path.clone(),
                etag: text(created.view.etag().to_vec())?,
                body: text(created.view.body())?,
            };
            row.insert(tx).await?;
            Ok(created)
        })
        .await
}
