SELECT cache_journal_untrack('documents');
DROP VIEW document_details;
DROP TABLE document_versions;
DROP TABLE documents;
