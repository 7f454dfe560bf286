//! Structs side by side: their fields are compared in order, whatever their names.

use super::{check, parse_query, resolve};

#[test]
fn names_of_fields_do_not_matter_to_comparisons() {
    for condition in [
        "named_struct('a', id, 'b', g) = named_struct('x', 1, 'y', 'a')",
        "named_struct('a', id, 'b', g) <=> named_struct('b', 1, 'a', 'a')",
        "named_struct('a', id) < named_struct('x', 2)",
        "named_struct('a', id, 'b', g) IN (named_struct('x', 9, 'y', 'a'), named_struct('z', 1, 'w', 'a'))",
        "named_struct('a', id) BETWEEN named_struct('b', 0) AND named_struct('c', 1)",
        "array(named_struct('a', id)) = array(named_struct('b', 1))",
        "(id, g) = (1, 'a')",
        "named_struct('a', id, 'b', g) IN (SELECT named_struct('x', 1, 'y', 'a'))",
        "(id, g) IN (SELECT 1, 'a')",
    ] {
        check(
            &format!("SELECT id FROM t WHERE {condition}"),
            "id INT",
            "1",
        );
    }
}

#[test]
fn names_of_fields_matter_where_one_type_is_chosen() {
    for comparison in [
        "struct(id) <=> struct(NULL)",
        "(id, v) = (1, 10)",
        "named_struct('a', id) < named_struct('b', 2L)",
        "array(named_struct('a', id)) = array(named_struct('b', 1L))",
    ] {
        let refused =
            parse_query(&format!("SELECT {comparison} FROM t")).and_then(|plan| resolve(&plan));
        let class = "DATATYPE_MISMATCH.BINARY_OP_DIFF_TYPES";
        assert_eq!(refused.unwrap_err().class(), Some(class), "{comparison}");
    }
    check(
        "SELECT named_struct('a', id) = named_struct('A', 1L) AS e, named_struct('q', named_struct('a', 1)) IN (named_struct('q', named_struct('a', 1L))) AS i FROM t WHERE id = 1",
        "e BOOLEAN, i BOOLEAN",
        "true true",
    );
    let told = parse_query("SELECT array(struct('a', id), struct('b', 2)) FROM t");
    let told = told
        .and_then(|plan| resolve(&plan))
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("\"STRUCT<col1: STRING NOT NULL, id: INT>\" or \"STRUCT<col1: STRING NOT NULL, col2: INT NOT NULL>\""),
        "{told}"
    );
    for value in [
        "struct(id, g) IN (struct(1L, 'p'), struct(2, 'q'))",
        "coalesce(named_struct('a', 1), named_struct('b', 2))",
        "array(named_struct('a', 1), named_struct('b', 2))",
        "CASE WHEN true THEN named_struct('a', 1) ELSE named_struct('b', 2) END",
    ] {
        let refused =
            parse_query(&format!("SELECT {value} FROM t")).and_then(|plan| resolve(&plan));
        let error = refused.unwrap_err();
        assert_eq!(
            error.class(),
            Some("DATATYPE_MISMATCH.DATA_DIFF_TYPES"),
            "{value}"
        );
    }
}

#[test]
fn a_tuple_has_the_names_of_its_columns() {
    check(
        "SELECT (id, v, id + 1) FROM t WHERE id = 1",
        "`named_struct(id, id, v, v, col3, (id + 1))` STRUCT<id: INT, v: BIGINT, col3: INT>",
        "{id: 1, v: 10, col3: 2}",
    );
}
