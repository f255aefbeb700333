ALTER TABLE cache_journal DROP COLUMN relayed_in;
