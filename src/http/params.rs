//! Parameters of the URL.

use actix_web::{HttpRequest, web};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::cursor::{CursorKey, Scope};
use crate::error::AppError;

/// The query of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Entries on a page.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// Where the page begins: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Entries on a page unless the caller says otherwise, and at most.
const DEFAULT_LIMIT: u16 = 50;
const MAX_LIMIT: u16 = 100;

impl PageQuery {
    /// Where to begin: the position in the cursor, if there is one.
    ///
    /// # Errors
    /// When the cursor is none of this list.
    pub fn position<T: DeserializeOwned>(
        &self,
        cursors: &CursorKey,
        scope: Scope,
    ) -> Result<Option<T>, AppError> {
        Ok(self.cursor.as_deref().map(|cursor| cursors.verify(scope, cursor)).transpose()?)
    }

    /// Entries on a page.
    ///
    /// # Errors
    /// When it is not a number from 1 to 100.
    pub fn limit(&self) -> Result<u16, AppError> {
        let Some(limit) = &self.limit else { return Ok(DEFAULT_LIMIT) };
        match limit.parse() {
            Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
            _ => Err(AppError::parameter("limit", format!("must be 1 to {MAX_LIMIT}"))),
        }
    }
}

/// A path whose id is no id leads nowhere: 404, as for an id that nobody has.
#[must_use]
pub fn path_config() -> web::PathConfig {
    web::PathConfig::default().error_handler(|_, _: &HttpRequest| AppError::NotFound.into())
}

/// A query that cannot be read.
#[must_use]
pub fn query_config() -> web::QueryConfig {
    web::QueryConfig::default().error_handler(|err, _: &HttpRequest| {
        AppError::Malformed(format!("The query of the URL cannot be read: {err}.")).into()
    })
}
