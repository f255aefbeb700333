ALTER TABLE sessions ADD COLUMN address_digest bytea;
COMMENT ON COLUMN sessions.address_digest IS 'From where the session was begun, in a form that only serves to recognise it.';
