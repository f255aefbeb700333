SELECT cache_journal_untrack('channel_members');
SELECT cache_journal_untrack('channels');
DROP VIEW channel_readers;
DROP VIEW channel_details;
DROP TABLE channel_members;
DROP TABLE channels;
