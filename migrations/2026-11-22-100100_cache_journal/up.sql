-- What every write changed, recorded in the write's own transaction: nothing is lost when the writer dies, nothing
-- remains of a rollback, and rows that other programs change are covered too.
CREATE TABLE cache_journal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changes jsonb NOT NULL,
    relayed boolean NOT NULL DEFAULT false
);
COMMENT ON COLUMN cache_journal.changes IS 'What one statement changed, from its old and its new rows.';
COMMENT ON COLUMN cache_journal.relayed IS 'Every instance has been told.';
-- Finding nothing to relay costs nothing.
CREATE INDEX cache_journal_unrelayed ON cache_journal (id) WHERE NOT relayed;
CREATE INDEX cache_journal_xid ON cache_journal (xid);
CREATE INDEX cache_journal_written ON cache_journal USING brin (written_at);

-- A statement that changes more than this invalidates everything instead of listing what it changed.
CREATE FUNCTION cache_journal_limit() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1000';

CREATE FUNCTION cache_journal_write(changes jsonb[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO cache_journal (changes)
    SELECT CASE
        WHEN cardinality(changes) > cache_journal_limit() THEN '[{"table": "everything"}]'
        ELSE to_jsonb(changes)
    END
    WHERE cardinality(changes) > 0
$$;

CREATE FUNCTION cache_journal_everything() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cache_journal_write(ARRAY['{"table": "everything"}'::jsonb]);
    RETURN NULL;
END $$;

-- Records every change of a table. `change` makes the entry from a row called `changed`; rows for which `relevant` does
-- not hold are left out. Writes an ordinary function for the table, so that its plans are kept.
CREATE FUNCTION cache_journal_track(tracked regclass, change text, relevant text DEFAULT 'true') RETURNS void
LANGUAGE plpgsql AS $track$
DECLARE
    old_changes text := format('SELECT %s FROM old_rows AS changed WHERE %s', change, relevant);
    new_changes text := format('SELECT %s FROM new_rows AS changed WHERE %s', change, relevant);
BEGIN
    EXECUTE format(
        $function$
            CREATE FUNCTION %I() RETURNS trigger LANGUAGE plpgsql AS $body$
            BEGIN
                IF TG_OP = 'INSERT' THEN
                    PERFORM cache_journal_write(ARRAY(%s LIMIT cache_journal_limit() + 1));
                ELSIF TG_OP = 'UPDATE' THEN
                    PERFORM cache_journal_write(ARRAY(%s UNION %s LIMIT cache_journal_limit() + 1));
                ELSE
                    PERFORM cache_journal_write(ARRAY(%s LIMIT cache_journal_limit() + 1));
                END IF;
                RETURN NULL;
            END $body$
        $function$,
        'cache_journal_of_' || tracked, new_changes, old_changes, new_changes, old_changes
    );
    EXECUTE format(
        'CREATE TRIGGER cache_journal_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows '
        'FOR EACH STATEMENT EXECUTE FUNCTION %I()', tracked, 'cache_journal_of_' || tracked
    );
    EXECUTE format(
        'CREATE TRIGGER cache_journal_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
        'FOR EACH STATEMENT EXECUTE FUNCTION %I()', tracked, 'cache_journal_of_' || tracked
    );
    EXECUTE format(
        'CREATE TRIGGER cache_journal_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows '
        'FOR EACH STATEMENT EXECUTE FUNCTION %I()', tracked, 'cache_journal_of_' || tracked
    );
    EXECUTE format(
        'CREATE TRIGGER cache_journal_truncate AFTER TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION cache_journal_everything()', tracked
    );
END $track$;

CREATE FUNCTION cache_journal_untrack(tracked regclass) RETURNS void LANGUAGE plpgsql AS $untrack$
BEGIN
    EXECUTE format('DROP TRIGGER cache_journal_truncate ON %s', tracked);
    EXECUTE format('DROP FUNCTION %I() CASCADE', 'cache_journal_of_' || tracked);
END $untrack$;

SELECT cache_journal_track('users', $$jsonb_build_object('table', 'users', 'id', changed.id)$$);
-- A session matters to the cache only once it has ended.
SELECT cache_journal_track(
    'sessions', $$jsonb_build_object('table', 'sessions', 'user_id', changed.user_id)$$, 'changed.ended_at IS NOT NULL'
);
SELECT cache_journal_track('workspaces', $$jsonb_build_object('table', 'workspaces', 'id', changed.id)$$);
SELECT cache_journal_track(
    'members',
    $$jsonb_build_object('table', 'members', 'workspace_id', changed.workspace_id, 'user_id', changed.user_id)$$
);
