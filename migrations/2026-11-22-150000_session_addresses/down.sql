ALTER TABLE sessions DROP COLUMN address_digest;
