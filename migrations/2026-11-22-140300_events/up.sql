-- What listeners are told, written in the transaction that caused it and kept for a while, so that a listener can go on
-- where it stopped, at any instance. Read by what has become visible, never by number: a row with a lower number may
-- become visible after one with a higher number.
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    audience text NOT NULL CHECK (audience IN ('user', 'workspace', 'channel')),
    user_id uuid,
    workspace_id uuid,
    channel_id uuid,
    data text NOT NULL,
    CHECK (audience <> 'user' OR user_id IS NOT NULL),
    CHECK (audience <> 'workspace' OR workspace_id IS NOT NULL),
    CHECK (audience <> 'channel' OR channel_id IS NOT NULL)
);
COMMENT ON COLUMN events.audience IS 'The user; or the members of the workspace, and the user too; or the readers of the channel.';
COMMENT ON COLUMN events.data IS 'JSON, as it is sent.';
CREATE INDEX events_xid ON events (xid);
CREATE INDEX events_written ON events USING brin (written_at);

CREATE TABLE event_tickets (
    digest bytea PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    session_id uuid NOT NULL,
    token_epoch integer NOT NULL,
    token_expires_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE event_tickets IS 'Good once: a browser''s EventSource cannot send an access token.';
COMMENT ON COLUMN event_tickets.digest IS 'SHA-256 of the ticket, which is itself not kept.';
CREATE INDEX event_tickets_user ON event_tickets (user_id);
CREATE INDEX event_tickets_expires ON event_tickets (expires_at);
