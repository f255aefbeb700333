CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL UNIQUE CHECK (email = lower(email)),
    name text NOT NULL,
    display_name text,
    avatar_url text,
    timezone text NOT NULL DEFAULT 'UTC',
    status_text text,
    password_hash text NOT NULL,
    token_epoch integer NOT NULL DEFAULT 0,
    is_active boolean NOT NULL DEFAULT true,
    is_staff boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN users.display_name IS 'NULL: the name is shown.';
COMMENT ON COLUMN users.token_epoch IS 'Access tokens of a lower epoch are refused; raised to end every session.';

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    ended_at timestamptz
);
COMMENT ON TABLE sessions IS 'One for each log-in: a family of refresh tokens.';
CREATE INDEX sessions_user ON sessions (user_id, ended_at);

CREATE TABLE refresh_tokens (
    digest bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    replaced_at timestamptz
);
COMMENT ON COLUMN refresh_tokens.digest IS 'SHA-256 of the token, which is itself not kept.';
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

CREATE TABLE workspaces (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    slug text NOT NULL UNIQUE,
    description text NOT NULL DEFAULT '',
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE members (
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'guest')),
    version bigint NOT NULL DEFAULT 1,
    joined_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, user_id)
);
CREATE INDEX members_user ON members (user_id, workspace_id);
CREATE INDEX members_joined ON members (workspace_id, joined_at, user_id);

CREATE VIEW workspace_details AS
SELECT
    workspace.*,
    owner.id AS owner_id,
    owner.name AS owner_name,
    coalesce(owner.display_name, owner.name) AS owner_display_name,
    owner.avatar_url AS owner_avatar_url,
    (SELECT count(*) FROM members WHERE workspace_id = workspace.id) AS member_count
FROM workspaces AS workspace
LEFT JOIN LATERAL (
    SELECT person.*
    FROM members AS member
    JOIN users AS person ON person.id = member.user_id
    WHERE member.workspace_id = workspace.id AND member.role = 'owner'
    ORDER BY member.joined_at, member.user_id
    LIMIT 1
) AS owner ON true;
COMMENT ON VIEW workspace_details IS 'A workspace as it is shown: with its owner of longest standing and its size.';
