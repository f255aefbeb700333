//! The `documents` and `document_versions` tables, and the view `document_details`.

use chrono::{DateTime, Utc};
use diesel::{QueryResult, dsl::now, prelude::*};

use crate::{
    db::{
        Hooks, Reader, Tx,
        schema::{document_details, document_versions, documents, users},
    },
    domain::{
        Change,
        id::{DocumentId, UserId, WorkspaceId},
    },
};

use super::users::User;

/// A row of the `documents` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = documents, check_for_backend(diesel::pg::Pg))]
pub struct Document {
    pub id: DocumentId,
    pub workspace_id: WorkspaceId,
    pub parent_id: Option<DocumentId>,
    pub title: String,
    pub content: String,
    pub version: i64,
}

impl Hooks for Document {
    fn on_save(&self) -> Option<Change> {
        Some(Change::Documents { id: self.id, workspace_id: self.workspace_id })
    }

    fn on_delete(&self) -> Option<Change> {
        self.on_save()
    }
}

/// A row of the view without the content: with its author and its last editor.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = document_details, check_for_backend(diesel::pg::Pg))]
pub struct DocumentDetails {
    pub id: DocumentId,
    pub workspace_id: WorkspaceId,
    pub parent_id: Option<DocumentId>,
    pub title: String,
    pub author_id: UserId,
    pub last_edited_by: UserId,
    pub version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub author_name: String,
    pub author_display_name: String,
    pub author_avatar_url: Option<String>,
    pub editor_name: String,
    pub editor_display_name: String,
    pub editor_avatar_url: Option<String>,
}

/// A row of the `document_versions` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = document_versions, check_for_backend(diesel::pg::Pg))]
pub struct DocumentVersion {
    pub document_id: DocumentId,
    pub version: i64,
    pub title: String,
    pub content: String,
    pub edited_by: UserId,
    pub created_at: DateTime<Utc>,
}

impl Hooks for DocumentVersion {
    /// It comes with a change of its document.
    fn on_save(&self) -> Option<Change> {
        None
    }

    fn on_delete(&self) -> Option<Change> {
        None
    }
}

/// A row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = documents, treat_none_as_default_value = false)]
pub struct NewDocument<'a> {
    pub id: DocumentId,
    pub workspace_id: WorkspaceId,
    pub parent_id: Option<DocumentId>,
    pub title: &'a str,
    pub content: &'a str,
    pub author_id: UserId,
    pub last_edited_by: UserId,
}

/// What can be changed; `None` keeps.
#[derive(Debug, Default, PartialEq, Eq, AsChangeset)]
#[diesel(table_name = documents)]
pub struct DocumentChanges<'a> {
    pub title: Option<&'a str>,
    pub content: Option<&'a str>,
    pub parent_id: Option<Option<DocumentId>>,
}

impl DocumentChanges<'_> {
    /// Nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Document {
    /// One document of a workspace. Under another workspace there is no such document.
    pub async fn find(db: &mut Reader, workspace: WorkspaceId, id: DocumentId) -> QueryResult<Option<Self>> {
        let document = documents::table.find(id).filter(documents::workspace_id.eq(workspace));
        db.first(document.select(Self::as_select())).await
    }

    /// Keeps others from changing the document until the transaction ends.
    pub async fn lock(tx: &mut Tx, workspace: WorkspaceId, id: DocumentId) -> QueryResult<Option<Self>> {
        let document = documents::table.find(id).filter(documents::workspace_id.eq(workspace));
        tx.first(document.select(Self::as_select()).for_update()).await
    }

    /// Inserts a document with its first version.
    pub async fn insert(tx: &mut Tx, new: NewDocument<'_>) -> QueryResult<Option<Self>> {
        let editor = new.last_edited_by;
        let statement = diesel::insert_into(documents::table).values(new).returning(Self::as_returning());
        let document: Option<Self> = tx.save(statement).await?;
        if let Some(document) = &document {
            document.keep_version(tx, editor).await?;
        }
        Ok(document)
    }

    /// Changes a document if it still has this version, and keeps what it has become. `None`: it has another one.
    pub async fn update(
        tx: &mut Tx,
        present: &Self,
        editor: UserId,
        changes: &DocumentChanges<'_>,
    ) -> QueryResult<Option<Self>> {
        let unchanged = documents::table.find(present.id).filter(documents::version.eq(present.version));
        let bookkeeping = (
            documents::version.eq(documents::version + 1),
            documents::updated_at.eq(now),
            documents::last_edited_by.eq(editor),
        );
        let statement = diesel::update(unchanged).set((changes, bookkeeping)).returning(Self::as_returning());
        let document: Option<Self> = tx.save(statement).await?;
        if let Some(document) = &document {
            document.keep_version(tx, editor).await?;
        }
        Ok(document)
    }

    /// Deletes a document with all its versions, if it still has this version. Those below it move to the top.
    pub async fn delete(tx: &mut Tx, present: &Self) -> QueryResult<Option<Self>> {
        let unchanged = documents::table.find(present.id).filter(documents::version.eq(present.version));
        tx.delete(diesel::delete(unchanged).returning(Self::as_returning())).await
    }

    async fn keep_version(&self, tx: &mut Tx, editor: UserId) -> QueryResult<()> {
        let values = (
            document_versions::document_id.eq(self.id),
            document_versions::version.eq(self.version),
            document_versions::title.eq(&self.title),
            document_versions::content.eq(&self.content),
            document_versions::edited_by.eq(editor),
        );
        let statement = diesel::insert_into(document_versions::table).values(values);
        tx.save(statement.returning(DocumentVersion::as_returning())).await.map(drop)
    }
}

impl DocumentDetails {
    /// One document of a workspace, with its content.
    pub async fn find(
        db: &mut Reader,
        workspace: WorkspaceId,
        id: DocumentId,
    ) -> QueryResult<Option<(Self, String)>> {
        let document = document_details::table.find(id).filter(document_details::workspace_id.eq(workspace));
        db.first(document.select((Self::as_select(), document_details::content))).await
    }

    /// The documents of a workspace, newest first, at most `limit`, after `after`.
    pub async fn list(
        db: &mut Reader,
        workspace: WorkspaceId,
        after: Option<DocumentId>,
        limit: i64,
    ) -> QueryResult<Vec<Self>> {
        let mut page = document_details::table
            .filter(document_details::workspace_id.eq(workspace))
            .select(Self::as_select())
            .order(document_details::id.desc())
            .limit(limit)
            .into_boxed();
        if let Some(after) = after {
            page = page.filter(document_details::id.lt(after));
        }
        db.list(page).await
    }
}

impl DocumentVersion {
    /// One version of a document, and who made it.
    pub async fn find(
        db: &mut Reader,
        document: DocumentId,
        version: i64,
    ) -> QueryResult<Option<(Self, User)>> {
        let row = document_versions::table
            .inner_join(users::table)
            .filter(document_versions::document_id.eq(document));
        let row = row.filter(document_versions::version.eq(version));
        db.first(row.select((Self::as_select(), User::as_select()))).await
    }

    /// The versions of a document and who made each, newest first, at most `limit`, before `before`.
    pub async fn list(
        db: &mut Reader,
        document: DocumentId,
        before: Option<i64>,
        limit: i64,
    ) -> QueryResult<Vec<(Self, User)>> {
        let mut page = document_versions::table
            .inner_join(users::table)
            .filter(document_versions::document_id.eq(document))
            .select((Self::as_select(), User::as_select()))
            .order(document_versions::version.desc())
            .limit(limit)
            .into_boxed();
        if let Some(before) = before {
            page = page.filter(document_versions::version.lt(before));
        }
        db.list(page).await
    }
}
