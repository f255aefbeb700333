//! Cached search: the same words under the same rights are the same search, whoever asks.

use diesel::QueryResult;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    CachedQuery, Kind,
    documents::DocumentView,
    messages::MessageView,
    tags,
    view::{Page, View},
};
use crate::{
    cache::{ArgumentsHash, Key, Tag},
    db::Reader,
    domain::id::{ChannelId, WorkspaceId},
    http::cursor::{CursorKey, Scope},
    models::{
        documents::DocumentDetails,
        messages::MessageDetails,
        search::{MATCH_BEGINS, MATCH_ENDS, Match, Rank, Sought},
    },
};

/// Something that was found.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchResult {
    /// What it is.
    pub r#type: &'static str,
    /// How well it matches; only to be compared with others of the same search.
    pub score: f64,
    /// The passages that match, as HTML: matches stand in `<mark>`, everything else is escaped.
    pub highlight: String,
    pub object: Found,
    #[serde(skip)]
    #[schema(ignore)]
    rank: Rank,
}

/// What was found; a document without its content.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Found {
    Document(Box<DocumentView>),
    Message(Box<MessageView>),
}

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Types {
    pub documents: bool,
    pub messages: bool,
}

/// A search within a workspace.
#[derive(Debug)]
pub struct Search {
    pub workspace: WorkspaceId,
    /// Normalised: see [`normalised`].
    pub words: String,
    pub types: Types,
    /// The private channels that the caller reads. Who is in a workspace sees everything else.
    pub private_channels: Vec<ChannelId>,
    pub after: Option<Rank>,
    pub limit: u16,
    pub cursors: CursorKey,
}

impl Search {
    /// What its cursors are for.
    #[must_use]
    pub fn scope(workspace: WorkspaceId, words: &str, types: Types) -> Scope {
        Scope::filtered("search", workspace.as_uuid(), &(words, types))
    }
}

/// Words that mean little. Left out of a search, unless it has no others or they stand in a phrase.
const STOP_WORDS: &[&str] = &[
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "but", "by", "do", "does", "for", "from",
    "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its", "me", "my",
    "of", "on", "our", "she", "so", "that", "the", "their", "them", "then", "there", "these", "they", "this",
    "to", "us", "was", "we", "were", "what", "when", "where", "which", "who", "will", "with", "you", "your",
];

/// The same search in one spelling: case, white space and words that mean little make no difference.
#[must_use]
pub fn normalised(words: &str) -> String {
    let words = words.to_lowercase();
    let mut kept: Vec<String> = Vec::new();
    // Every other piece stands between quotes.
    for (index, piece) in words.split('"').enumerate() {
        let piece = piece.split_whitespace();
        if index % 2 == 1 {
            kept.push(format!("\"{}\"", piece.collect::<Vec<_>>().join(" ")));
            continue;
        }
        kept.extend(piece.filter(|word| !means_little(word)).map(str::to_owned));
    }
    // What stood beside it may be gone.
    kept.dedup_by(|next, last| next == "or" && last == "or");
    while kept.first().is_some_and(|word| word == "or") {
        kept.remove(0);
    }
    while kept.last().is_some_and(|word| word == "or") {
        kept.pop();
    }
    if kept.is_empty() { words.split_whitespace().collect::<Vec<_>>().join(" ") } else { kept.join(" ") }
}

/// Also with punctuation, an ending such as in `what's`, or a minus in front.
fn means_little(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
    STOP_WORDS.contains(&bare.split(['\'', '’']).next().unwrap_or_default())
}

impl CachedQuery for Search {
    type Value = View;
    const KIND: Kind = Kind::Search;

    fn key(&self) -> Key {
        let arguments = (&self.words, self.types, &self.private_channels, self.after, self.limit);
        let key = Key::new("workspace", self.workspace.as_uuid(), 1).suffix("search");
        key.arguments(ArgumentsHash::of(&arguments))
    }

    /// Results end with their time. But when a channel becomes private, what was public about it must not stay in them.
    fn tags(&self) -> Vec<Tag> {
        vec![tags::workspace_channels(self.workspace)]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let limit = i64::from(self.limit) + 1;
        let sought = Sought { workspace: self.workspace, words: &self.words, after: self.after, limit };
        let mut found = Vec::new();
        if self.types.documents {
            let documents = DocumentDetails::search(db, &sought).await?;
            found.extend(documents.into_iter().map(SearchResult::document));
        }
        if self.types.messages {
            let messages = MessageDetails::search(db, &sought, &self.private_channels).await?;
            found.extend(messages.into_iter().map(SearchResult::message));
        }
        found.sort_unstable_by_key(|result| std::cmp::Reverse(result.rank));
        let scope = Self::scope(self.workspace, &self.words, self.types);
        let sign = |last: &SearchResult| self.cursors.sign(scope, &last.rank);
        Ok(Some(View::page(Page::new(found, self.limit, sign))))
    }
}

impl SearchResult {
    fn document(found: Match<DocumentDetails>) -> Self {
        let rank = Rank { score: found.score, id: found.row.id.as_uuid() };
        let object = Found::Document(Box::new(DocumentView::new(found.row, None)));
        Self::new("document", rank, &found.highlight, object)
    }

    fn message(found: Match<MessageDetails>) -> Self {
        let rank = Rank { score: found.score, id: found.row.id.as_uuid() };
        let object = Found::Message(Box::new(MessageView::from(found.row)));
        Self::new("message", rank, &found.highlight, object)
    }

    #[expect(clippy::cast_precision_loss, reason = "scores are small")]
    fn new(r#type: &'static str, rank: Rank, highlight: &str, object: Found) -> Self {
        Self { r#type, score: rank.score as f64 / 1e6, highlight: to_html(highlight), object, rank }
    }
}

/// What people wrote must not become markup of whoever shows it.
fn to_html(highlight: &str) -> String {
    let mut html = String::with_capacity(highlight.len() + 32);
    for c in highlight.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            MATCH_BEGINS => html.push_str("<mark>"),
            MATCH_ENDS => html.push_str("</mark>"),
            _ => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_escaped_and_matches_are_marked() {
        assert_eq!(
            to_html("<b>\u{2}plan\u{3}</b> & \"x\""),
            "&lt;b&gt;<mark>plan</mark>&lt;/b&gt; &amp; &quot;x&quot;"
        );
    }

    #[test]
    fn spellings_of_one_search_are_one() {
        for (typed, sought) in [
            ("  Road\tMAP \u{a0}2026 ", "road map 2026"),
            ("the plan for the road", "plan road"),
            ("the plan \"State of  the Art\" -draft or sketch", "plan \"state of the art\" -draft or sketch"),
            ("What's the plan?", "plan?"),
            ("unicorn or the", "unicorn"),
            ("-the plan or or road", "plan or road"),
            ("To be", "to be"),
            ("OR", "or"),
            ("  ", ""),
        ] {
            assert_eq!(normalised(typed), sought);
        }
    }
}
