CREATE TABLE channels (
    id uuid PRIMARY KEY,
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    name text NOT NULL,
    topic text NOT NULL DEFAULT '',
    is_private boolean NOT NULL DEFAULT false,
    created_by uuid NOT NULL REFERENCES users,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (workspace_id, id)
);
COMMENT ON COLUMN channels.is_private IS 'Seen by its own members only; the others by all members of the workspace.';
CREATE UNIQUE INDEX channels_name ON channels (workspace_id, lower(name));
CREATE INDEX channels_created_by ON channels (created_by);

CREATE TABLE channel_members (
    workspace_id uuid NOT NULL,
    channel_id uuid NOT NULL,
    user_id uuid NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    joined_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_id, user_id),
    FOREIGN KEY (workspace_id, channel_id) REFERENCES channels (workspace_id, id) ON DELETE CASCADE,
    -- Whoever leaves the workspace leaves its channels.
    FOREIGN KEY (workspace_id, user_id) REFERENCES members ON DELETE CASCADE
);
CREATE INDEX channel_members_channel ON channel_members (workspace_id, channel_id);
CREATE INDEX channel_members_user ON channel_members (workspace_id, user_id);
CREATE INDEX channel_members_joined ON channel_members (channel_id, joined_at, user_id);

CREATE VIEW channel_details AS
SELECT
    channel.*,
    creator.name AS creator_name,
    coalesce(creator.display_name, creator.name) AS creator_display_name,
    creator.avatar_url AS creator_avatar_url
FROM channels AS channel
JOIN users AS creator ON creator.id = channel.created_by;
COMMENT ON VIEW channel_details IS 'A channel as it is shown: with the person who made it.';

-- The rule of who reads what, in one place: all members of the workspace, but of a private channel its own members only.
CREATE VIEW channel_readers AS
SELECT channel.id AS channel_id, channel.workspace_id, member.user_id, member.role, channel.is_private
FROM channels AS channel
JOIN members AS member ON member.workspace_id = channel.workspace_id
WHERE NOT channel.is_private OR EXISTS (
    SELECT FROM channel_members AS seat WHERE seat.channel_id = channel.id AND seat.user_id = member.user_id
);

SELECT cache_journal_track(
    'channels',
    $$jsonb_build_object('table', 'channels', 'id', changed.id, 'workspace_id', changed.workspace_id)$$
);
SELECT cache_journal_track(
    'channel_members',
    $$jsonb_build_object('table', 'channel_members', 'channel_id', changed.channel_id, 'user_id', changed.user_id)$$
);
