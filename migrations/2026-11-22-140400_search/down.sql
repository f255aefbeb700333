DROP FUNCTION search_highlight(text, tsquery);
DROP FUNCTION search_score(tsvector, tsquery);
ALTER TABLE messages DROP COLUMN words;
ALTER TABLE documents DROP COLUMN words;
DROP TEXT SEARCH CONFIGURATION search_words;
DROP TEXT SEARCH DICTIONARY search_stem;
