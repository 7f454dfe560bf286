//! Where our answer may be another than the recorded one: rules, each with its reason. They speak of the query, never
//! of a scenario, so that any other query of the kind falls under them too.

use serde_json::Value;

/// What the model refuses with this class and these words, and we may answer: an incremental engine knows the answer.
/// The last is why. Whatever is answered, `oracle` judges.
pub(crate) const ANSWERED: &[(&str, &str, &str)] = &[
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Distinct aggregations are not supported",
        "the values of a group are its state, so each counts once",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Detected pattern of possible 'correctness' issue",
        "between two operators rows are taken back too, so the second one sees what changed in the first",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Intersect of streaming",
        "both sides are state, with how often each row is there",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Except on a streaming DataFrame/Dataset on the right",
        "both sides are state, and a row that comes on the right takes its own back",
    ),
    (
        "UNSUPPORTED_STREAMING_OPERATOR_WITHOUT_WATERMARK",
        "Append output mode not supported for aggregations",
        "a row that no static row excludes is final when it comes",
    ),
    (
        "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
        "not supported for streaming aggregations without watermark",
        "a distinct row is final when it first comes: nothing of it can change",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Union between streaming and batch",
        "static rows are rows of the first epoch",
    ),
    (
        "INVALID_SUBQUERY_EXPRESSION.STREAMING_QUERY",
        "Streaming query is not allowed in subquery expressions",
        "a subquery is a join",
    ),
    (
        "_LEGACY_ERROR_TEMP_1181",
        "join without equality predicate",
        "a join without equality meets all rows of the other side",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "LeftSemi join",
        "a row is final with its first partner, watermark or not",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "LeftAnti joins with a streaming DataFrame/Dataset on the right",
        "a row is final when the watermark has passed its last possible partner",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "is not supported without a watermark in the join keys",
        "where WHERE leaves out the rows without a partner, the join is an inner one",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "is not supported in Update output mode, only in Append",
        "where WHERE leaves out the rows without a partner, the join is an inner one",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "FullOuter joins with streaming DataFrames/Datasets on the",
        "where WHERE leaves out the static rows without a partner, no static row waits for one",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Outer join with a streaming DataFrame/Dataset on the",
        "where WHERE leaves out the static rows without a partner, no static row waits for one",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "is not supported in Complete output mode, only in Append",
        "the pairs of all rows so far are known, and so are the rows without a partner",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Limits are not supported on streaming DataFrames/Datasets in Update output mode",
        "the first rows of a stream that only grows stay the first",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Sorting is not supported on streaming DataFrames/Datasets, unless",
        "in complete mode the rows so far are known, and so is their order",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Offset is not supported",
        "in complete and changes mode the rows before the others are known, and known again when they change",
    ),
    (
        "MISSING_AGGREGATION",
        "\"window_time(",
        "the time of a window that rows are grouped by is the same for all rows of a group",
    ),
    (
        "_LEGACY_ERROR_TEMP_3068",
        "Global aggregation with session window",
        "one group is a group",
    ),
    (
        "NON_TIME_WINDOW_NOT_SUPPORTED_IN_STREAMING",
        "Window function is not supported",
        "in complete mode the rows so far are known, and so is the place of each among the others",
    ),
    (
        "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
        "not supported for no streaming aggregations",
        "the rows so far are the state, and come whole with every epoch",
    ),
    (
        "MULTIPLE_EVENT_TIME_COLUMNS",
        "More than one event time columns are available",
        "a join below has dropped the late rows: what it gives is not late, whichever of its times is asked",
    ),
    (
        "_LEGACY_ERROR_TEMP_1040",
        "Gap duration expression used in session window must be",
        "an interval says how long a gap is as a text does",
    ),
    (
        "_LEGACY_ERROR_TEMP_1207",
        "The duration and time inputs to window must be",
        "an interval says how long it is as a text does",
    ),
];

pub(crate) fn may_answer(error: &Value) -> bool {
    let says = error["message_contains"].as_str().unwrap_or_default();
    ANSWERED
        .iter()
        .any(|(class, part, _)| error["class"] == *class && says.contains(part))
}

/// What the model refuses whatever the output mode, and we in some: it is told when the mode is, by the start.
pub(crate) const LATER: &[(&str, &str)] = &[(
    "INVALID_SUBQUERY_EXPRESSION.STREAMING_QUERY",
    "which modes can take the join that a subquery is depends on the join",
)];

pub(crate) fn later(error: &Value) -> bool {
    LATER.iter().any(|(class, _)| error["class"] == *class)
}

/// What may be told in other words than the model's, of the same class: which words both say.
pub(crate) const REWORDED: &[(&str, &str, &str)] = &[
    (
        "PARSE_SYNTAX_ERROR",
        "Syntax error at or near",
        "at which word a text stops making sense depends on the parser",
    ),
    (
        "REQUIRES_EXPLICIT_NAME_IN_WATERMARK_CLAUSE",
        "The watermark clause requires an explicit name if expression is specified",
        "the expression is told as it is written, not as the plan has it",
    ),
];

pub(crate) fn reworded(wanted: &Value, message: &str) -> bool {
    let says = wanted["message_contains"].as_str().unwrap_or_default();
    REWORDED.iter().any(|(class, part, _)| {
        wanted["class"] == *class && says.contains(part) && message.contains(part)
    })
}

/// Each stream's own mark survives a restart, where the model keeps only their minimum and waits until every stream has
/// spoken again: a crash must not change answers. It holds from the first restart on, in a query of several watermarks.
pub(crate) fn marks_survive(scenario: &Value, step: usize) -> bool {
    let steps = scenario["steps"].as_array().expect("steps");
    let restarted = steps.iter().take(step + 1).any(|s| s["restart"] == true);
    let drains = step > 0 && scenario["trigger"] == "availableNow";
    let text = text_of(scenario);
    let marks = text.matches("delay of").count() + text.matches("withwatermark").count();
    (restarted || drains) && marks > 1
}

/// Why the rows in state may be others than the model's, if they may.
pub(crate) fn other_state(scenario: &Value) -> Option<&'static str> {
    let text = text_of(scenario);
    let slides = text
        .split("window(")
        .skip(1)
        .any(|call| arguments(call) > 2);
    let limits = text.split("limit").count() - 1;
    let asks = |mode: &str| scenario["mode"] == mode;
    let near = ranges(scenario);
    let kept = [Range::OfDifference, Range::InColumn, Range::OfNumbers];
    match () {
        () if slides && asks("append") => {
            Some("what overlapping windows share is stored once, in panes")
        }
        () if limits > 0 && asks("complete") && (text.contains("order") || any_first(scenario)) => {
            Some("the rows within a limit are stored, not only how many there are")
        }
        () if kept.iter().any(|range| near.contains(range)) => {
            Some("rows leave when they can meet no other, also where the model cannot tell when")
        }
        () if calls_in_conditions(scenario) => {
            Some("a row whose key is null is not kept, also where a function makes the key")
        }
        () if limits > 1 => Some("each limit knows how many of its rows have come out"),
        () => None,
    }
}

/// How a join says how far apart times may be, other than by comparing them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    /// `b.at - a.at <= INTERVAL 1 HOUR`
    OfDifference,
    /// `CAST(b.at AS BIGINT) <= CAST(a.at AS BIGINT) + 3600`
    OfNumbers,
    /// `b.at <= a.until`, where a column was made of an event time and an interval.
    InColumn,
    /// `b.at - INTERVAL 1 HOUR BETWEEN ..`, of what is no column.
    BetweenComputed,
}

/// What the model makes of such ranges is not what it makes of others, and not what they say: what stands before BETWEEN
/// becomes a column of its own, and a computed column takes the place of its event time. So rows without a partner come
/// out before the last one could have come, or never, and late rows of a side whose event time nobody selects are not
/// late. We go by the event times that are declared and pad a row when it is final; `oracle` judges.
pub(crate) fn by_computed_times(scenario: &Value) -> bool {
    let near = ranges(scenario);
    let text = text_of(scenario);
    let outer = ["left join", "right join", "full join", "outer", "anti"];
    let pads = outer.iter().any(|word| text.contains(word));
    near.contains(&Range::BetweenComputed) || pads && !near.is_empty()
}

/// In the model a session that is in state is one piece, at its start, and rows that come are pieces at their own times:
/// what goes by the order of rows takes all of a piece at once, so that it depends on which rows came together. Ours
/// goes by the times of the rows, as the model's own batch does; `oracle` judges.
pub(crate) fn by_pieces(scenario: &Value) -> bool {
    let text = text_of(scenario);
    let ordered = [
        "collect_list(",
        "array_agg(",
        "first(",
        "last(",
        "first_value(",
        "last_value(",
        "any_value(",
        "listagg(",
        "string_agg(",
    ];
    text.contains("session_window(") && ordered.iter().any(|call| text.contains(call))
}

fn ranges(scenario: &Value) -> Vec<Range> {
    let made = made_of_spans(scenario);
    let mut found = Vec::new();
    for condition in conditions(scenario) {
        let words: Vec<&str> = condition.split_whitespace().collect();
        for (at, word) in words.iter().enumerate() {
            let after = words.get(at + 1).copied().unwrap_or_default();
            let calls = words.get(at + 2) == Some(&"(");
            let before = words[..at].iter().rev().take_while(|w| **w != "and");
            let operand = before.filter(|word| !["not", "("].contains(word));
            let operand: Vec<&str> = operand.copied().collect();
            match *word {
                "-" if is_column(after) && after != "interval" && !calls => {
                    found.push(Range::OfDifference);
                }
                "between" if operand.len() != 1 => found.push(Range::BetweenComputed),
                "cast" => found.push(Range::OfNumbers),
                _ if made
                    .iter()
                    .any(|name| word.rsplit('.').next() == Some(name)) =>
                {
                    found.push(Range::InColumn);
                }
                _ => {}
            }
        }
    }
    found
}

/// True if what a join says has a call in it, as in `date_trunc('MINUTE', a.at) = b.at`.
fn calls_in_conditions(scenario: &Value) -> bool {
    let no_calls = ["and", "or", "not", "between", "in", "cast"];
    conditions(scenario).iter().any(|condition| {
        let words: Vec<&str> = condition.split(' ').collect();
        let mut pairs = words.windows(2);
        pairs.any(|pair| pair[1] == "(" && is_column(pair[0]) && !no_calls.contains(&pair[0]))
    })
}

/// What columns are called that are a time and a span.
fn made_of_spans(scenario: &Value) -> Vec<String> {
    let text = text_of(scenario);
    let mut made = Vec::new();
    let pieces: Vec<&str> = text.split("interval ").collect();
    for pair in pieces.windows(2).filter(|p| !p[0].ends_with("delay of ")) {
        // `10 minutes as until`
        if let Some((span, name)) = pair[1].split_once(" as ")
            && span.split(' ').count() == 2
            && span.chars().all(|c| c == ' ' || is_of_name(c))
        {
            made.extend(name.split(|c| !is_of_name(c)).next().map(String::from));
        }
    }
    for pair in text.split("[\"withcolumn\",\"").skip(1) {
        let mut parts = pair.split('"');
        if let (Some(name), Some(value)) = (parts.next(), parts.nth(1))
            && value.contains("interval")
        {
            made.push(name.to_string());
        }
    }
    made
}

/// What the joins of a scenario say, brackets and commas apart from words.
pub(crate) fn conditions(scenario: &Value) -> Vec<String> {
    let ends = [
        " where ",
        " group by ",
        " join ",
        " left ",
        " right ",
        " full ",
        " inner ",
        " union ",
        " order by ",
    ];
    let mut found = Vec::new();
    let mut parts: Vec<&Value> = ["views", "sql", "ops"].map(|part| &scenario[part]).into();
    while let Some(part) = parts.pop() {
        if let Value::Array(list) = part {
            parts.extend(list);
            let condition = list.get(2).filter(|_| list[0] == "join");
            found.extend(condition.and_then(Value::as_str).map(words_of));
        }
        let text = part.as_str().map(words_of).unwrap_or_default();
        for rest in text.split(" on ").skip(1) {
            let mut depth = 0;
            let closes = rest.char_indices().find(|(_, c)| {
                depth += i32::from(*c == '(') - i32::from(*c == ')');
                depth < 0
            });
            let rest = closes.map_or(rest, |(at, _)| &rest[..at]);
            let end = ends.iter().filter_map(|end| rest.find(end)).min();
            found.push(end.map_or(rest, |end| &rest[..end]).to_string());
        }
    }
    found
}

/// The words of a text in small letters, one space between them, brackets and commas being words.
pub(crate) fn words_of(text: &str) -> String {
    let mut apart = text.to_lowercase();
    for sign in ["(", ")", ","] {
        apart = apart.replace(sign, &format!(" {sign} "));
    }
    apart.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn is_column(word: &str) -> bool {
    let begins = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
    begins && word.chars().all(is_of_name)
}

/// How many arguments a call has; `text` begins after its bracket.
fn arguments(text: &str) -> usize {
    let (mut depth, mut count) = (0, 1);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => break,
            ')' => depth -= 1,
            ',' if depth == 0 => count += 1,
            _ => {}
        }
    }
    count
}

/// Any of some rows may be the first where nothing says in which order they come: LIMIT without ORDER BY over what an
/// operator with state has made. As many come out as in the model; `oracle` judges which.
pub(crate) fn any_first(scenario: &Value) -> bool {
    let limits = match (scenario["sql"].as_str(), scenario["ops"].as_array()) {
        (Some(sql), _) => {
            let mut words = sql.split_whitespace().rev().skip(1);
            words
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("limit"))
        }
        (_, Some(ops)) => ops.last().is_some_and(|last| last[0] == "limit"),
        _ => false,
    };
    let text = text_of(scenario);
    let made = ["group by", "groupby", "distinct", "join", "dropduplicates"];
    limits && scenario["ordered"] != true && made.iter().any(|word| text.contains(word))
}

/// The scenario as the model answers it, where that is not what it asks: a full join finds pairs among the rows in
/// state by the bytes of their keys, so that two nulls are equal. (Other joins leave rows without a key out before, on
/// one side at least, unless a function makes the key: there the same goes for any join.) In SQL two nulls are not
/// equal, as a batch says; whatever else there is in a scenario must be as it would be if it had asked for `<=>`.
pub(crate) fn null_keys_pair(scenario: &Value) -> Option<Value> {
    let text = text_of(scenario);
    let full = ["full join", "full outer join", "full_outer"];
    let is_full = full.iter().any(|word| text.contains(word));
    if !is_full && !calls_in_conditions(scenario) {
        return None;
    }
    let mut asked = scenario.clone();
    for part in ["sql", "ops", "views"] {
        for_each_text(&mut asked[part], &|text| *text = null_safe(text, is_full));
    }
    (asked != *scenario).then_some(asked)
}

/// What a scenario asks: its texts in small letters, with one space where there is any, and none before a bracket.
fn text_of(scenario: &Value) -> String {
    let texts = ["views", "sql", "ops"].map(|part| scenario[part].to_string().to_lowercase());
    let words: Vec<&str> = texts
        .iter()
        .flat_map(|text| text.split_whitespace())
        .collect();
    words.join(" ").replace(" (", "(")
}

pub(crate) fn for_each_text(value: &mut Value, change: &dyn Fn(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| for_each_text(value, change)),
        _ => {}
    }
}

/// The text with `<=>` for each `=` that stands for itself, outside of quotes, and has a call on one side, if it is not
/// for `all`.
fn null_safe(text: &str, all: bool) -> String {
    let mut quoted = None;
    let mut made = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (quoted, c) {
            (Some(quote), _) => quoted = Some(quote).filter(|quote| *quote != c),
            (None, '\'' | '"' | '`') => quoted = Some(c),
            (None, '<' | '>' | '!') => {
                // The rest of an operator of several signs.
                made.push(c);
                while let Some(next) = rest.next_if(|next| "<>=".contains(*next)) {
                    made.push(next);
                }
                continue;
            }
            (None, '=') if rest.peek() != Some(&'>') => {
                let _ = rest.next_if_eq(&'=');
                let after: String = rest.clone().collect();
                let after = after.trim_start().trim_start_matches(is_of_name);
                let calls = made.trim_end().ends_with(')') || after.starts_with('(');
                made.push_str(if all || calls { "<=>" } else { "=" });
                continue;
            }
            (None, _) => {}
        }
        made.push(c);
    }
    made
}

#[test]
fn equality_is_found_however_it_is_written() {
    let text = "a.k=b.k AND a.v >= 1 AND a.s == ' = ' AND a.n <=> b.n AND a.t = b.t AND a.x != b.x";
    let safe =
        "a.k<=>b.k AND a.v >= 1 AND a.s <=> ' = ' AND a.n <=> b.n AND a.t <=> b.t AND a.x != b.x";
    assert_eq!(null_safe(text, true), safe);
    let text = "a.k=b.k AND f(a.t) = b.t AND a.x = f( b.x ) AND a.s = 'f('";
    let safe = "a.k=b.k AND f(a.t) <=> b.t AND a.x <=> f( b.x ) AND a.s = 'f('";
    assert_eq!(null_safe(text, false), safe);
}

#[test]
fn arguments_are_those_of_the_call() {
    assert_eq!(arguments("ts, '1 minute') AS w, k"), 2);
    assert_eq!(
        arguments("window_time(w), concat('3', ' minutes'), '1 minute')"),
        3
    );
}

#[test]
fn ranges_are_found_in_sql_and_in_operations() {
    let sql = |on: &str| {
        let view = "SELECT k, lt + INTERVAL 10 MINUTES AS until FROM l WATERMARK lt DELAY OF INTERVAL 0 SECONDS AS a";
        let sql = format!(
            "SELECT a.k FROM v AS a JOIN r AS b ON (a.k = b.k AND {on}) WHERE a.v - b.v > 0"
        );
        ranges(&serde_json::json!({"views": [["v", view]], "sql": sql}))
    };
    assert_eq!(sql("b.rt BETWEEN a.lt AND a.lt - INTERVAL 1 HOUR"), []);
    assert_eq!(sql("b.rt - a.lt < INTERVAL 1 HOUR"), [Range::OfDifference]);
    assert_eq!(sql("b.rt < a.until"), [Range::InColumn]);
    assert_eq!(
        sql("b.rt + INTERVAL 1 HOUR NOT BETWEEN a.lt AND a.rt"),
        [Range::BetweenComputed]
    );
    let ops = serde_json::json!({"ops": [
        ["table", "l"],
        ["withColumn", "until", "lt + INTERVAL 1 HOUR"],
        ["join", [["table", "r"]], "CAST(rt AS BIGINT) < 7 AND rt < until", "inner"],
    ]});
    assert_eq!(ranges(&ops), [Range::OfNumbers, Range::InColumn]);
}
