//! Event time over rows that are all there: windows are rows like others, nothing is late.

use super::{check, fails};

const EVENTS: &str = "(SELECT id, timestamp_seconds(at) AS at FROM \
                      (VALUES (1, 0), (2, 59), (3, 60), (4, NULL), (5, -1)) AS v(id, at))";

#[test]
fn rows_get_the_window_they_are_in() {
    check(
        &format!("SELECT id, window(at, '1 minute') FROM {EVENTS}"),
        "id INT, window STRUCT<start: TIMESTAMP, end: TIMESTAMP>",
        "1 {start: 1970-01-01T00:00:00Z, end: 1970-01-01T00:01:00Z}\n\
         2 {start: 1970-01-01T00:00:00Z, end: 1970-01-01T00:01:00Z}\n\
         3 {start: 1970-01-01T00:01:00Z, end: 1970-01-01T00:02:00Z}\n\
         5 {start: 1969-12-31T23:59:00Z, end: 1970-01-01T00:00:00Z}",
    );
}

#[test]
fn rows_are_found_by_their_windows() {
    check(
        &format!(
            "SELECT id FROM {EVENTS} WHERE window(at, '1 minute').start >= timestamp_seconds(0) AND id <> 2"
        ),
        "id INT",
        "1\n3",
    );
    check(
        &format!(
            "SELECT id, count(*) AS n FROM {EVENTS} WHERE window(at, '1 minute', '30 seconds').start >= timestamp_seconds(0) GROUP BY id ORDER BY id"
        ),
        "id INT, n BIGINT",
        "1 1\n2 2\n3 2",
    );
}

#[test]
fn sliding_windows_make_a_row_for_each() {
    check(
        &format!(
            "SELECT window(at, '1 minute', '30 seconds').start AS s, count(*) AS c FROM {EVENTS} \
             GROUP BY window(at, '1 minute', '30 seconds') ORDER BY s"
        ),
        "s TIMESTAMP, c BIGINT",
        "1969-12-31T23:59:00Z 1\n1969-12-31T23:59:30Z 2\n1970-01-01T00:00:00Z 2\n\
         1970-01-01T00:00:30Z 2\n1970-01-01T00:01:00Z 1",
    );
}

#[test]
fn a_window_has_a_name_a_time_and_windows_of_its_own() {
    check(
        &format!(
            "SELECT window.end AS e, window_time(window) AS t, n FROM \
             (SELECT window(at, '1 minute'), count(*) AS n FROM {EVENTS} GROUP BY 1) ORDER BY e"
        ),
        "e TIMESTAMP, t TIMESTAMP, n BIGINT",
        "1970-01-01T00:00:00Z 1969-12-31T23:59:59.999999Z 1\n\
         1970-01-01T00:01:00Z 1970-01-01T00:00:59.999999Z 2\n\
         1970-01-01T00:02:00Z 1970-01-01T00:01:59.999999Z 1",
    );
    check(
        &format!(
            "SELECT window(w, '1 hour').end AS e, sum(n) AS n FROM (SELECT window(at, '1 minute') AS w, \
             count(*) AS n FROM {EVENTS} GROUP BY 1) GROUP BY window(w, '1 hour') ORDER BY e"
        ),
        "e TIMESTAMP, n BIGINT",
        "1970-01-01T00:00:00Z 1\n1970-01-01T01:00:00Z 3",
    );
}

#[test]
fn a_watermark_changes_no_row() {
    check(
        &format!(
            "SELECT id FROM {EVENTS} WATERMARK at DELAY OF INTERVAL 1 SECOND AS e WHERE e.id > 4"
        ),
        "id INT",
        "5",
    );
    check(
        &format!(
            "SELECT t FROM {EVENTS} WATERMARK at + INTERVAL 1 DAY AS t DELAY OF INTERVAL 1 SECOND \
             WHERE id = 1"
        ),
        "t TIMESTAMP",
        "1970-01-02T00:00:00Z",
    );
}

#[test]
fn what_is_no_window_is_refused() {
    fails(
        &format!("SELECT window(at, '1 month') FROM {EVENTS}"),
        "[_LEGACY_ERROR_TEMP_3231] Intervals greater than a month is not supported (1 month). (line 1, column 8)",
    );
    fails(
        &format!("SELECT window(at, '1 day'), window(at, '2 days') FROM {EVENTS}"),
        "[_LEGACY_ERROR_TEMP_1039] Multiple time/session window expressions would result in a cartesian product of \
         rows, therefore they are currently not supported. (line 1, column 29)",
    );
}

#[test]
fn what_is_no_event_time_is_refused() {
    fails(
        "SELECT id FROM t WATERMARK nope DELAY OF INTERVAL 1 SECOND",
        "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column, variable, or function parameter with name `nope` cannot be \
         resolved. Did you mean one of the following? [`d`, `g`, `id`, `v`]. (line 1, column 28)",
    );
    fails(
        "SELECT id FROM t WATERMARK id DELAY OF INTERVAL 1 SECOND",
        "[EVENT_TIME_IS_NOT_ON_TIMESTAMP_TYPE] The event time `id` has the invalid type \"INT\", but expected \"TIMESTAMP\".",
    );
    fails(
        "SELECT st FROM nested WATERMARK st.col1 DELAY OF INTERVAL 1 SECOND",
        "[EVENT_TIME_MUST_BE_TOP_LEVEL_COLUMN] The event time col1 must be a top-level column in your query. Give the \
         field a name: WATERMARK expression AS name.",
    );
}
