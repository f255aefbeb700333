//! `/v1/workspaces/{workspace}/search`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::membership,
    domain::id::WorkspaceId,
    error::AppError,
    http::{caller::Caller, params::PageQuery, reply},
    queries::{
        channels::private_channels_of,
        search::{Search, Types, normalised},
    },
};

/// Longest search, in characters.
const WORDS_MAX: usize = 200;

/// What is sought.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchQuery {
    /// Words that all have to occur; `"a phrase"`, `one or other`, `-without`.
    #[param(required = true, value_type = String, min_length = 1, max_length = 200)]
    q: Option<String>,
    /// What to search, separated by commas: `document`, `message`; both if absent.
    r#type: Option<String>,
}

impl SearchQuery {
    fn words(&self) -> Result<String, AppError> {
        let words = normalised(self.q.as_deref().unwrap_or_default());
        if words.is_empty() || words.contains('\0') {
            return Err(AppError::parameter("q", "must say what is sought"));
        }
        if words.chars().count() > WORDS_MAX {
            return Err(AppError::parameter("q", format!("must be at most {WORDS_MAX} characters")));
        }
        Ok(words)
    }

    fn types(&self) -> Result<Types, AppError> {
        let Some(list) = &self.r#type else { return Ok(Types { documents: true, messages: true }) };
        let mut types = Types { documents: false, messages: false };
        for word in list.split(',').map(str::trim) {
            match word {
                "document" => types.documents = true,
                "message" => types.messages = true,
                _ => return Err(AppError::parameter("type", "must be document, message or both")),
            }
        }
        Ok(types)
    }
}

pub(super) async fn search(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
    sought: Query<SearchQuery>,
    page: Query<PageQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let (workspace, user, token) = (path.into_inner(), caller.actor.user_id, caller.token.as_ref());
    membership(&app.queries, caller.actor, workspace, token).await?;
    let (words, types) = (sought.words()?, sought.types()?);
    let private_channels = private_channels_of(&app.queries, workspace, user, token).await?;
    let after = page.position(&app.cursors, Search::scope(workspace, &words, types))?;
    let (limit, cursors) = (page.limit()?, app.cursors.clone());
    let query = Search { workspace, words, types, private_channels, after, limit, cursors };
    reply::cached(&app, &request, &caller, query).await
}
