//! Cached reads about documents: the list, one, and its versions.

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    CachedQuery, Kind, tags, timestamp,
    users::PersonView,
    view::{Page, View},
};
use crate::{
    cache::{ArgumentsHash, Key, Tag},
    db::Reader,
    domain::id::{DocumentId, WorkspaceId},
    http::cursor::{CursorKey, Scope},
    models::{
        documents::{Document, DocumentDetails, DocumentVersion},
        users::User,
    },
};

/// A document; in lists, without its content.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Document)]
pub struct DocumentView {
    pub id: DocumentId,
    pub object: &'static str,
    pub workspace_id: WorkspaceId,
    pub parent_id: Option<DocumentId>,
    pub title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    pub author: PersonView,
    pub last_edited_by: PersonView,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl DocumentView {
    /// A document with or without its content.
    #[must_use]
    pub fn new(row: DocumentDetails, content: Option<String>) -> Self {
        Self {
            id: row.id,
            object: "document",
            workspace_id: row.workspace_id,
            parent_id: row.parent_id,
            title: row.title,
            content,
            author: PersonView {
                id: row.author_id,
                name: row.author_name,
                display_name: row.author_display_name,
                avatar_url: row.author_avatar_url,
            },
            last_edited_by: PersonView {
                id: row.last_edited_by,
                name: row.editor_name,
                display_name: row.editor_display_name,
                avatar_url: row.editor_avatar_url,
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }

    /// The tags of the persons it shows.
    fn learned_tags(&self) -> [Tag; 2] {
        [tags::user(self.author.id), tags::user(self.last_edited_by.id)]
    }
}

/// What a document was at some time; in lists, without its content.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DocumentVersion)]
pub struct DocumentVersionView {
    /// The document's id: a version is known by both.
    pub id: DocumentId,
    pub object: &'static str,
    pub version: i64,
    pub title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    pub edited_by: PersonView,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
}

impl DocumentVersionView {
    fn new(row: DocumentVersion, editor: User, with_content: bool) -> Self {
        Self {
            id: row.document_id,
            object: "document_version",
            version: row.version,
            title: row.title,
            content: with_content.then_some(row.content),
            edited_by: PersonView::from(editor),
            created_at: row.created_at,
            updated_at: row.created_at,
        }
    }
}

/// A document of a workspace.
#[derive(Debug)]
pub struct DocumentById {
    pub workspace: WorkspaceId,
    pub document: DocumentId,
}

impl CachedQuery for DocumentById {
    type Value = View;
    const KIND: Kind = Kind::Document;

    fn key(&self) -> Key {
        // Under another workspace there is no such document: that is another entry.
        Key::new("document", self.document.as_uuid(), 1).sub_id(self.workspace.as_uuid())
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::document(self.document)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let row = DocumentDetails::find(db, self.workspace, self.document).await?;
        let Some((row, content)) = row else { return Ok(None) };
        let view = DocumentView::new(row, Some(content));
        learned.extend(view.learned_tags());
        Ok(Some(View::object(view.version, &view)))
    }
}

/// A page of a workspace's documents, newest first, without their contents.
#[derive(Debug)]
pub struct DocumentsOfWorkspace {
    pub workspace: WorkspaceId,
    pub after: Option<DocumentId>,
    pub limit: u16,
    pub cursors: CursorKey,
}

impl DocumentsOfWorkspace {
    /// What its cursors are for.
    #[must_use]
    pub fn scope(workspace: WorkspaceId) -> Scope {
        Scope::new("documents", workspace.as_uuid())
    }
}

impl CachedQuery for DocumentsOfWorkspace {
    type Value = View;
    const KIND: Kind = Kind::Document;

    fn key(&self) -> Key {
        let arguments = ArgumentsHash::of(&(self.limit, self.after));
        Key::new("workspace", self.workspace.as_uuid(), 1).suffix("documents").arguments(arguments)
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::workspace_documents(self.workspace)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let rows = DocumentDetails::list(db, self.workspace, self.after, i64::from(self.limit) + 1).await?;
        let sign = |last: &DocumentDetails| self.cursors.sign(Self::scope(self.workspace), &last.id);
        let page = Page::new(rows, self.limit, sign).map(|row| DocumentView::new(row, None));
        learned.extend(page.data.iter().flat_map(DocumentView::learned_tags));
        Ok(Some(View::page(page)))
    }
}

/// Loads a version of a document. It never changes; the person who made it may.
///
/// # Errors
/// Those of the database.
pub async fn load_version(
    db: &mut Reader,
    (workspace, document, version): (WorkspaceId, DocumentId, i64),
    learned: &mut Vec<Tag>,
) -> QueryResult<Option<View>> {
    if Document::find(db, workspace, document).await?.is_none() {
        return Ok(None);
    }
    let row = DocumentVersion::find(db, document, version).await?;
    let Some((row, editor)) = row else { return Ok(None) };
    learned.push(tags::user(editor.id));
    let view = DocumentVersionView::new(row, editor, true);
    Ok(Some(View::object(view.version, &view)))
}

/// A page of a document's versions, newest first, without their contents.
#[derive(Debug)]
pub struct VersionsOfDocument {
    pub workspace: WorkspaceId,
    pub document: DocumentId,
    pub before: Option<i64>,
    pub limit: u16,
    pub cursors: CursorKey,
}

impl VersionsOfDocument {
    /// What its cursors are for.
    #[must_use]
    pub fn scope(document: DocumentId) -> Scope {
        Scope::new("document_versions", document.as_uuid())
    }
}

impl CachedQuery for VersionsOfDocument {
    type Value = View;
    const KIND: Kind = Kind::Document;

    fn key(&self) -> Key {
        let key = Key::new("document", self.document.as_uuid(), 1).suffix("versions");
        key.sub_id(self.workspace.as_uuid()).arguments(ArgumentsHash::of(&(self.limit, self.before)))
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::document(self.document)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        if Document::find(db, self.workspace, self.document).await?.is_none() {
            return Ok(None);
        }
        let rows = DocumentVersion::list(db, self.document, self.before, i64::from(self.limit) + 1).await?;
        let sign = |(last, _): &(DocumentVersion, User)| {
            self.cursors.sign(Self::scope(self.document), &last.version)
        };
        let page = Page::new(rows, self.limit, sign);
        learned.extend(page.data.iter().map(|(_, editor)| tags::user(editor.id)));
        Ok(Some(View::page(page.map(|(row, editor)| DocumentVersionView::new(row, editor, false)))))
    }
}
