SELECT cache_journal_untrack('messages');
DROP VIEW message_details;
DROP TABLE messages;
