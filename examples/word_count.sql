-- Counts the words of a directory of text files: highwater --available-now examples/word_count.sql
CREATE STREAMING TEMP VIEW lines USING text OPTIONS (path 'examples/data/words');

SELECT word, count(*) AS count
FROM (SELECT explode(split(value, ' ')) AS word FROM lines)
GROUP BY word;
