-- Counts the words of a directory of text files: highwater run examples/word_count.sql
CREATE TABLE lines USING text OPTIONS (path 'examples/data/words');

CREATE STREAMING TABLE counts USING console OPTIONS (outputMode 'complete', trigger 'availableNow') AS
SELECT word, count(*) AS count
FROM (SELECT explode(split(value, ' ')) AS word FROM STREAM lines)
GROUP BY word;
