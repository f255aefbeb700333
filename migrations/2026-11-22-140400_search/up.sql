-- How texts are broken into words: English, and every word counts. Words that mean little are left out of what is sought
-- rather than of what is searched, so that phrases are found as they stand.
CREATE TEXT SEARCH DICTIONARY search_stem (TEMPLATE = snowball, LANGUAGE = english);
CREATE TEXT SEARCH CONFIGURATION search_words (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION search_words
    ALTER MAPPING FOR asciiword, asciihword, hword_asciipart, word, hword, hword_part WITH search_stem;

ALTER TABLE documents ADD COLUMN words tsvector NOT NULL GENERATED ALWAYS AS (
    setweight(to_tsvector('search_words', title), 'A') || setweight(to_tsvector('search_words', content), 'B')
) STORED;
CREATE INDEX documents_words ON documents USING gin (words);

ALTER TABLE messages ADD COLUMN words tsvector NOT NULL GENERATED ALWAYS AS (
    setweight(to_tsvector('search_words', content), 'B')
) STORED;
CREATE INDEX messages_words ON messages USING gin (words);

-- How well something matches, in millionths: whole numbers, so that a page can begin after one.
CREATE FUNCTION search_score(words tsvector, sought tsquery) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT round(ts_rank_cd(words, sought, 1) * 1000000)::bigint $$;

-- The passages that match. What matches stands between the characters 2 and 3, which no text of ours contains.
CREATE FUNCTION search_highlight(body text, sought tsquery) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
    SELECT ts_headline(
        'search_words', body, sought,
        format('StartSel=%s, StopSel=%s, MaxFragments=2, MinWords=5, MaxWords=20, ShortWord=0, FragmentDelimiter=" … "', chr(2), chr(3))
    )
$$;
