-- The answers to requests that made something under an Idempotency-Key, written in the transaction that made it: a
-- request that failed has left no row and may be repeated.
CREATE TABLE idempotency_keys (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    path text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    location text NOT NULL,
    etag text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, path, key)
);
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'SHA-256 of the request''s body.';
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
