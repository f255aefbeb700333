CREATE TABLE messages (
    id uuid PRIMARY KEY,
    workspace_id uuid NOT NULL,
    channel_id uuid NOT NULL,
    author_id uuid NOT NULL REFERENCES users,
    reply_to uuid,
    content text NOT NULL,
    client_msg_id text,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    edited_at timestamptz,
    deleted_at timestamptz,
    UNIQUE (channel_id, id),
    FOREIGN KEY (workspace_id, channel_id) REFERENCES channels (workspace_id, id) ON DELETE CASCADE,
    -- To a message of the same channel.
    FOREIGN KEY (channel_id, reply_to) REFERENCES messages (channel_id, id)
);
COMMENT ON COLUMN messages.deleted_at IS 'A tombstone: its content is empty.';
CREATE UNIQUE INDEX messages_client_msg_id ON messages (channel_id, author_id, client_msg_id)
    WHERE client_msg_id IS NOT NULL;
CREATE INDEX messages_workspace_channel ON messages (workspace_id, channel_id);
CREATE INDEX messages_reply_to ON messages (channel_id, reply_to) WHERE reply_to IS NOT NULL;
CREATE INDEX messages_author ON messages (author_id);

CREATE VIEW message_details AS
SELECT
    message.*,
    author.name AS author_name,
    coalesce(author.display_name, author.name) AS author_display_name,
    author.avatar_url AS author_avatar_url
FROM messages AS message
JOIN users AS author ON author.id = message.author_id;
COMMENT ON VIEW message_details IS 'A message as it is shown: with its author.';

-- A thousand messages of one channel are one change.
SELECT cache_journal_track(
    'messages', $$DISTINCT jsonb_build_object('table', 'messages', 'channel_id', changed.channel_id)$$
);
