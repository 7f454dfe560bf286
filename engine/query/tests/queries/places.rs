//! Where errors of the resolver say that they are.

use super::{parse_query, resolve};

/// Queries that are wrong at the mark `@`.
const WRONG: &[&str] = &[
    "SELECT g,\n @v, count(*) FROM t GROUP BY g",
    "SELECT g, sum(v) + @v FROM t GROUP BY g",
    "SELECT v + 1, v + 1 + @v FROM t GROUP BY v + 1",
    "SELECT g, v FROM t GROUP BY g,\n @5",
    "SELECT *, count(*) FROM t GROUP BY @1",
    "SELECT @g, count(*) FROM t",
    "SELECT count(*) FROM t HAVING @v > 1",
    "SELECT g, count(*) FROM t GROUP BY g HAVING count(*) > 1 AND @v > 1",
    "SELECT id, g FROM t ORDER BY id, @3",
    "SELECT id FROM t ORDER BY\n  @map(id, g)",
    "SELECT id FROM t WHERE\n @v",
    "SELECT id FROM t WHERE id = 1 AND @v",
    "SELECT CASE WHEN id = 1 THEN 1 WHEN @v THEN 2 END FROM t",
    "SELECT v BETWEEN 1 AND @array(1) FROM t",
    "SELECT -@array(v) FROM t",
    "SELECT NOT @v FROM t",
    "SELECT a[@'x'] FROM nested",
    "SELECT id, g FROM t UNION SELECT @id FROM u",
    "SELECT id, g FROM t EXCEPT\n SELECT @id FROM u",
    "SELECT t.id FROM t JOIN u ON @t.v",
    "SELECT t.id FROM t JOIN\n @u USING (x)",
    "SELECT id FROM t WHERE v = (SELECT @id, name FROM u)",
    "SELECT id FROM t WHERE @v IN (SELECT id, name FROM u)",
    "WITH c AS (SELECT g FROM t ORDER BY @2) SELECT * FROM c",
    "SELECT id FROM t LIMIT @'x'",
];

#[test]
fn an_error_is_where_the_mistake_is() {
    for marked in WRONG {
        let (before, _) = marked.split_once('@').unwrap();
        let sql = marked.replace('@', "");
        let error = parse_query(&sql).and_then(|plan| resolve(&plan));
        let error = error.expect_err(&sql);
        let line = before.split('\n').count() as u64;
        let column = before.rsplit('\n').next().unwrap().chars().count() as u64 + 1;
        let place = error
            .place()
            .unwrap_or_else(|| panic!("no place: {sql}: {error}"));
        assert_eq!((place.line, place.column), (line, column), "{sql}: {error}");
    }
}
