ALTER TABLE cache_journal ADD COLUMN relayed_in bigint;
COMMENT ON COLUMN cache_journal.relayed_in IS
    'The life of Redis in which every instance was told. Instances that are connected to another one tell it again.';
