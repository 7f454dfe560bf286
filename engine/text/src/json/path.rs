//! Paths into JSON: `$.a[*].b`, as Hive and Spark have them.
//!
//! What a path finds is copied as the text is gone over. The rules where it finds several values are Hive's, and hard to
//! tell in fewer words than code: one array stands around them, within which arrays may be flattened, and none stands
//! around a single one.

use super::copy::{push_content, push_value};
use super::scan::{Cursor, Dialect, Malformed, Scan, Start};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Into an object.
    Key,
    Named(String),
    /// Into an array.
    Subscript,
    Index(u64),
    Wildcard,
}

/// A path taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

/// How values are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A string without quotes.
    Raw,
    Quoted,
    /// Arrays without brackets.
    Flatten,
}

/// JSON being written.
#[derive(Default)]
struct Out {
    text: String,
    /// A value was written before, within the array that is being written.
    follows: bool,
}

impl Out {
    fn begin(&mut self) {
        if self.follows {
            self.text.push(',');
        }
        self.follows = true;
    }

    fn array(&mut self, fill: impl FnOnce(&mut Out) -> Scan<bool>) -> Scan<bool> {
        self.begin();
        self.text.push('[');
        self.follows = false;
        let found = fill(self)?;
        self.text.push(']');
        self.follows = true;
        Ok(found)
    }
}

/// What JSON is to functions that take it apart: single quotes and control characters are fine.
pub(super) fn lenient() -> Dialect {
    Dialect {
        single_quotes: true,
        control_chars: true,
        many_lines: true,
        ..Dialect::default()
    }
}

impl JsonPath {
    /// Understands `$`, `.name`, `['name']`, `[0]`, `[*]` and `.*`; else there is no path.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let mut rest = blanks(text).strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = step(rest, &mut steps)?;
        }
        Some(JsonPath(steps))
    }

    /// What the path finds in `json`; none also where that is no JSON.
    pub fn find(&self, json: &str) -> Option<String> {
        let mut cursor = Cursor::new(json.as_bytes(), lenient());
        cursor.blanks();
        let mut out = Out::default();
        let found = walk(&mut cursor, &mut out, Style::Raw, &self.0, 0);
        found.ok().filter(|found| *found).map(|_| out.text)
    }
}

fn blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

/// Takes one step off the front of a path.
fn step<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    let text = blanks(text);
    for wildcard in [".*", "['*']"] {
        if let Some(rest) = text.strip_prefix(wildcard) {
            steps.push(Step::Wildcard);
            return Some(rest);
        }
    }
    if let Some(rest) = text.strip_prefix('.') {
        let rest = blanks(rest);
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        if end > 0 {
            steps.extend([Step::Key, Step::Named(rest[..end].to_string())]);
            return Some(&rest[end..]);
        }
        return None;
    }
    if let Some(rest) = text.strip_prefix("['") {
        let rest = blanks(rest);
        let end = rest.find(['\'', '?']).filter(|end| *end > 0)?;
        steps.extend([Step::Key, Step::Named(rest[..end].to_string())]);
        return blanks(&rest[end..]).strip_prefix("']");
    }
    let inside = blanks(text.strip_prefix('[')?);
    let (operand, rest) = match inside.strip_prefix('*') {
        Some(rest) => (Step::Wildcard, rest),
        None => {
            let digits = inside.bytes().take_while(u8::is_ascii_digit).count();
            (
                Step::Index(inside[..digits].parse().ok()?),
                &inside[digits..],
            )
        }
    };
    steps.extend([Step::Subscript, operand]);
    blanks(rest).strip_prefix(']')
}

/// Goes over the value at the cursor and writes what `path` finds in it. False if it finds nothing.
fn walk(
    cursor: &mut Cursor<'_>,
    out: &mut Out,
    style: Style,
    path: &[Step],
    depth: usize,
) -> Scan<bool> {
    use Step::{Index, Key, Named, Subscript, Wildcard};
    match (cursor.start()?, path) {
        (Start::String, []) if style == Style::Raw => {
            let text = cursor.string()?;
            push_content(&mut out.text, cursor, text);
            Ok(true)
        }
        (Start::Array, []) if style == Style::Flatten => {
            let mut found = false;
            items(cursor, depth, |cursor| {
                found |= walk(cursor, out, style, path, depth + 1)?;
                Ok(())
            })?;
            Ok(found)
        }
        (_, []) => {
            out.begin();
            push_value(&mut out.text, cursor, depth)?;
            Ok(true)
        }
        (Start::Object, [Key, rest @ ..]) => fields(cursor, out, style, rest, depth),
        (Start::Array, [Subscript, Wildcard, Subscript, Wildcard, rest @ ..]) => out.array(|out| {
            let mut found = false;
            items(cursor, depth, |cursor| {
                found |= walk(cursor, out, Style::Flatten, rest, depth + 1)?;
                Ok(())
            })?;
            Ok(found)
        }),
        (Start::Array, [Subscript, Wildcard, rest @ ..]) if style != Style::Quoted => {
            let within = match style {
                Style::Flatten => Style::Flatten,
                _ => Style::Quoted,
            };
            let (mut inner, mut count) = (Out::default(), 0);
            items(cursor, depth, |cursor| {
                count += usize::from(walk(cursor, &mut inner, within, rest, depth + 1)?);
                Ok(())
            })?;
            if count > 0 {
                out.begin();
                let (open, close) = if count > 1 { ("[", "]") } else { ("", "") };
                out.text.push_str(open);
                out.text.push_str(&inner.text);
                out.text.push_str(close);
            }
            Ok(count > 0)
        }
        (Start::Array, [Subscript, Wildcard, rest @ ..]) => out.array(|out| {
            let mut found = false;
            items(cursor, depth, |cursor| {
                found |= walk(cursor, out, Style::Quoted, rest, depth + 1)?;
                Ok(())
            })?;
            Ok(found)
        }),
        (Start::Array, [Subscript, Index(index), rest @ ..]) => {
            let style = match rest {
                // There will be one or more.
                [Subscript, Wildcard, ..] => Style::Quoted,
                _ => style,
            };
            let (mut at, mut found) = (0, false);
            items(cursor, depth, |cursor| {
                match at == *index {
                    true => found = walk(cursor, out, style, rest, depth + 1)?,
                    false => cursor.skip(depth + 1)?,
                }
                at += 1;
                Ok(())
            })?;
            Ok(found)
        }
        (_, [Key | Named(_) | Subscript | Index(_) | Wildcard, ..]) => {
            cursor.skip(depth)?;
            Ok(false)
        }
    }
}

/// In an object: the first field that `path` finds something in.
fn fields(
    cursor: &mut Cursor<'_>,
    out: &mut Out,
    style: Style,
    path: &[Step],
    depth: usize,
) -> Scan<bool> {
    let (first, rest) = path
        .split_first()
        .expect("a name follows the step into an object");
    cursor.deeper(depth)?;
    cursor.pos += 1;
    cursor.blanks();
    let mut found = false;
    if cursor.eat(b'}') {
        return Ok(found);
    }
    loop {
        let text = cursor.key()?;
        let mut name = String::new();
        push_content(&mut name, cursor, text);
        let wanted = match first {
            Step::Named(wanted) => *wanted == name && cursor.start()? != Start::Null,
            other => *other == Step::Wildcard,
        };
        match wanted && !found {
            true => found = walk(cursor, out, style, rest, depth + 1)?,
            false => cursor.skip(depth + 1)?,
        }
        if !cursor.more(b'}')? {
            return Ok(found);
        }
    }
}

/// Goes over the array at the cursor, item by item.
pub(super) fn items<'a>(
    cursor: &mut Cursor<'a>,
    depth: usize,
    mut item: impl FnMut(&mut Cursor<'a>) -> Scan<()>,
) -> Scan<()> {
    cursor.deeper(depth)?;
    cursor.pos += 1;
    cursor.blanks();
    if cursor.eat(b']') {
        return Ok(());
    }
    loop {
        item(cursor)?;
        if !cursor.more(b']')? {
            return Ok(());
        }
    }
}

/// The fields of the object that `json` is, by `names`; of one that is there several times, the last that is not null.
/// None where it is no object.
pub fn json_fields(json: &str, names: &[Option<&str>]) -> Vec<Option<String>> {
    let mut row = vec![None; names.len()];
    let mut cursor = Cursor::new(json.as_bytes(), lenient());
    match each_field(&mut cursor, |cursor, name| {
        let mut places = (0..names.len())
            .filter(|at| names[*at] == Some(name))
            .peekable();
        if places.peek().is_none() || cursor.start()? == Start::Null {
            return cursor.skip(1);
        }
        let mut value = String::new();
        match cursor.start()? {
            Start::String => {
                let text = cursor.string()?;
                push_content(&mut value, cursor, text);
            }
            _ => push_value(&mut value, cursor, 1)?,
        }
        places.for_each(|at| row[at] = Some(value.clone()));
        Ok(())
    }) {
        Ok(()) => row,
        Err(_) => vec![None; names.len()],
    }
}

/// The names of the fields of the object that `json` is, as they stand; none where it is no object.
pub fn json_keys(json: &str) -> Option<Vec<String>> {
    let mut cursor = Cursor::new(json.as_bytes(), lenient());
    let mut names = Vec::new();
    each_field(&mut cursor, |cursor, name| {
        names.push(name.to_string());
        cursor.skip(1)
    })
    .ok()
    .map(|()| names)
}

/// How many items the array has that `json` is; none where it is no array.
pub fn json_array_length(json: &str) -> Option<usize> {
    let mut cursor = Cursor::new(json.as_bytes(), lenient());
    cursor.blanks();
    let mut count = 0;
    if cursor.start().ok()? != Start::Array {
        return None;
    }
    items(&mut cursor, 0, |cursor| {
        count += 1;
        cursor.skip(1)
    })
    .ok()
    .map(|()| count)
}

fn each_field<'a>(
    cursor: &mut Cursor<'a>,
    mut field: impl FnMut(&mut Cursor<'a>, &str) -> Scan<()>,
) -> Scan<()> {
    cursor.blanks();
    if cursor.start()? != Start::Object {
        return Err(Malformed("it is no object"));
    }
    cursor.pos += 1;
    cursor.blanks();
    if cursor.eat(b'}') {
        return Ok(());
    }
    loop {
        let text = cursor.key()?;
        let mut name = String::new();
        push_content(&mut name, cursor, text);
        field(cursor, &name)?;
        if !cursor.more(b'}')? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, path: &str, expected: Option<&str>) {
        let found = JsonPath::parse(path).and_then(|path| path.find(json));
        assert_eq!(found.as_deref(), expected, "{path} in {json}");
    }

    #[test]
    fn paths_go_into_objects_and_arrays() {
        check(r#"{"a":{"b":1}}"#, "$.a.b", Some("1"));
        check(r#"{"a":[1,{"b":"x"}]}"#, "$.a[1].b", Some("x"));
        check(r#"{"a b":1}"#, "$['a b']", Some("1"));
        check(r#"{"a":1}"#, "$[\"a\"]", None);
        check(r#"{"a":null,"a":2}"#, "$.a", Some("2"));
        check("[1,2]", "$[5]", None);
        check("{bad", "$", None);
        check(r#"{"a":1, bad}"#, "$.a", None);
        check(r#"{"a":1} bad"#, "$.a", Some("1"));
    }

    #[test]
    fn several_values_are_an_array_and_one_is_none() {
        check(r#"[{"a":1},{"a":"x"},{}]"#, "$[*].a", Some(r#"[1,"x"]"#));
        check(r#"[{"a":"x"},{}]"#, "$[*].a", Some(r#""x""#));
        check("[[1,[2]],[3]]", "$[*][*]", Some("[1,2,3]"));
        check("[]", "$[*]", None);
    }

    #[test]
    fn what_is_found_is_written_anew() {
        check(
            r#"{"a": [ 1.50, 1e2, -0, "\u00e9\/" ] }"#,
            "$.a",
            Some("[1.5,100.0,0,\"é/\"]"),
        );
        check(r#"{"a":1e400}"#, "$.a", Some("\"Infinity\""));
        check(r#"{'a':'it'}"#, "$", Some(r#"{"a":"it"}"#));
    }

    #[test]
    fn fields_are_picked_by_name() {
        let found = json_fields(
            r#"{"a":1,"b":"x","a":null,"c":[ 2 ]}"#,
            &[Some("c"), Some("a"), None],
        );
        assert_eq!(found, [Some("[2]".into()), Some("1".into()), None]);
        assert_eq!(json_fields("[1]", &[Some("a")]), [None]);
        assert_eq!(
            json_keys(r#"{"a":1,"b":{"c":2}}"#),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(
            (json_array_length("[1,[2,3]]"), json_array_length("{}")),
            (Some(2), None)
        );
    }
}
