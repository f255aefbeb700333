CREATE TABLE documents (
    id uuid PRIMARY KEY,
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    parent_id uuid REFERENCES documents ON DELETE SET NULL,
    title text NOT NULL,
    content text NOT NULL DEFAULT '',
    author_id uuid NOT NULL REFERENCES users,
    last_edited_by uuid NOT NULL REFERENCES users,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX documents_workspace ON documents (workspace_id, id);
CREATE INDEX documents_parent ON documents (parent_id);
CREATE INDEX documents_author ON documents (author_id);
CREATE INDEX documents_last_edited_by ON documents (last_edited_by);

CREATE TABLE document_versions (
    document_id uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    version bigint NOT NULL,
    title text NOT NULL,
    content text NOT NULL,
    edited_by uuid NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (document_id, version)
);
COMMENT ON TABLE document_versions IS 'Every version of a document, the present one included. Never changed.';
CREATE INDEX document_versions_edited_by ON document_versions (edited_by);

CREATE VIEW document_details AS
SELECT
    document.*,
    author.name AS author_name,
    coalesce(author.display_name, author.name) AS author_display_name,
    author.avatar_url AS author_avatar_url,
    editor.name AS editor_name,
    coalesce(editor.display_name, editor.name) AS editor_display_name,
    editor.avatar_url AS editor_avatar_url
FROM documents AS document
JOIN users AS author ON author.id = document.author_id
JOIN users AS editor ON editor.id = document.last_edited_by;
COMMENT ON VIEW document_details IS 'A document as it is shown: with its author and its last editor.';

SELECT cache_journal_track(
    'documents',
    $$jsonb_build_object('table', 'documents', 'id', changed.id, 'workspace_id', changed.workspace_id)$$
);
