//! Full-text search over `documents` and `messages`.
//!
//! What somebody typed is only ever a bound parameter of `websearch_to_tsquery`, which takes any text.

use diesel::{QueryResult, define_sql_function, prelude::*, sql_types::Text};
use diesel_full_text_search::{
    TsQuery, TsVector, TsVectorExtensions as _, configuration::TsConfigurationByName,
    websearch_to_tsquery_with_search_config,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{documents::DocumentDetails, messages::MessageDetails};
use crate::{
    db::{
        Reader,
        schema::{channels, document_details, documents, message_details, messages},
    },
    domain::id::{ChannelId, DocumentId, MessageId, WorkspaceId},
};

define_sql_function! { fn search_score(words: TsVector, sought: TsQuery) -> diesel::sql_types::BigInt; }
define_sql_function! { fn search_highlight(body: Text, sought: TsQuery) -> Text; }

/// What stands before and after a match in a highlight: characters that no text of ours contains.
pub const MATCH_BEGINS: char = '\u{2}';
pub const MATCH_ENDS: char = '\u{3}';

/// Where a page of results begins: after this one. Better results come first, of equal ones the younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank {
    /// How well it matches, in millionths.
    pub score: i64,
    pub id: Uuid,
}

/// Something that was found.
#[derive(Debug, Clone, Queryable)]
pub struct Match<T> {
    pub row: T,
    /// How well it matches, in millionths.
    pub score: i64,
    /// The passages that match.
    pub highlight: String,
}

/// What is sought, and where.
#[derive(Debug)]
pub struct Sought<'a> {
    pub workspace: WorkspaceId,
    pub words: &'a str,
    pub after: Option<Rank>,
    pub limit: i64,
}

#[diesel::dsl::auto_type(no_type_alias)]
fn query<'a>(words: &'a str) -> _ {
    // The configuration that the columns `words` are made with.
    let configuration: TsConfigurationByName = TsConfigurationByName("search_words");
    websearch_to_tsquery_with_search_config(configuration, words)
}

impl DocumentDetails {
    /// The documents of a workspace that match, best first.
    pub async fn search(db: &mut Reader, sought: &Sought<'_>) -> QueryResult<Vec<Match<Self>>> {
        let score = || search_score(documents::words, query(sought.words));
        let body = documents::title.concat("\n").concat(documents::content);
        let mut page = documents::table
            .inner_join(document_details::table.on(document_details::id.eq(documents::id)))
            .filter(documents::workspace_id.eq(sought.workspace))
            .filter(documents::words.matches(query(sought.words)))
            .select((Self::as_select(), score(), search_highlight(body, query(sought.words))))
            .order((score().desc(), documents::id.desc()))
            .limit(sought.limit)
            .into_boxed();
        if let Some(Rank { score: last, id }) = sought.after {
            let same = score().eq(last).and(documents::id.lt(DocumentId::from(id)));
            page = page.filter(score().lt(last).or(same));
        }
        db.list(page).await
    }
}

impl MessageDetails {
    /// The messages that match, best first: of the workspace's public channels and of those private ones.
    pub async fn search(
        db: &mut Reader,
        sought: &Sought<'_>,
        private_channels: &[ChannelId],
    ) -> QueryResult<Vec<Match<Self>>> {
        let score = || search_score(messages::words, query(sought.words));
        let public = channels::table
            .filter(channels::workspace_id.eq(sought.workspace))
            .filter(channels::is_private.eq(false))
            .select(channels::id);
        let mut page = messages::table
            .inner_join(message_details::table.on(message_details::id.eq(messages::id)))
            .filter(messages::workspace_id.eq(sought.workspace))
            .filter(messages::deleted_at.is_null())
            .filter(messages::channel_id.eq_any(public).or(messages::channel_id.eq_any(private_channels)))
            .filter(messages::words.matches(query(sought.words)))
            .select((Self::as_select(), score(), search_highlight(messages::content, query(sought.words))))
            .order((score().desc(), messages::id.desc()))
            .limit(sought.limit)
            .into_boxed();
        if let Some(Rank { score: last, id }) = sought.after {
            let same = score().eq(last).and(messages::id.lt(MessageId::from(id)));
            page = page.filter(score().lt(last).or(same));
        }
        db.list(page).await
    }
}
