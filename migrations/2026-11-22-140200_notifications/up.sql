-- Never cached, hence not tracked.
CREATE TABLE notifications (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('mention', 'reply', 'workspace_added', 'channel_added')),
    actor_id uuid NOT NULL REFERENCES users,
    channel_id uuid REFERENCES channels ON DELETE CASCADE,
    message_id uuid REFERENCES messages ON DELETE CASCADE,
    document_id uuid REFERENCES documents ON DELETE CASCADE,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz,
    -- Whoever leaves a workspace hears no more of it.
    FOREIGN KEY (workspace_id, user_id) REFERENCES members ON DELETE CASCADE
);
CREATE INDEX notifications_user ON notifications (user_id, id);
CREATE INDEX notifications_unread ON notifications (user_id, id) WHERE read_at IS NULL;
CREATE INDEX notifications_member ON notifications (workspace_id, user_id);
CREATE INDEX notifications_actor ON notifications (actor_id);
CREATE INDEX notifications_channel ON notifications (channel_id) WHERE channel_id IS NOT NULL;
CREATE INDEX notifications_message ON notifications (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX notifications_document ON notifications (document_id) WHERE document_id IS NOT NULL;
