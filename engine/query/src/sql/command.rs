//! Statements that are no queries: tables, streaming tables, and what a prompt needs.
//!
//! The parser knows some of the words (`CREATE TABLE .. USING`), but neither `STREAMING` nor `OPTIONS (path 'in')`, and
//! would take much that means nothing here, so these are read from the tokens. What is left to the parser are queries
//! and `CREATE VIEW .. AS`.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::words::Words;
use crate::error::QueryError;
use crate::plan::{NamedKind, Plan, Show, Statement};
use crate::types::parse_schema;

type Result<T> = std::result::Result<T, QueryError>;

/// What a statement may begin with, for messages.
pub(super) const ACCEPTED: &str = "SELECT, WITH, VALUES, CREATE [OR REPLACE] TABLE, CREATE [OR REPLACE] [TEMP] VIEW, \
     CREATE STREAMING TABLE, DROP TABLE, DROP VIEW, DROP STREAMING TABLE, EXPLAIN, DESCRIBE, SHOW QUERIES, SHOW TABLES, \
     STOP QUERY or SET";

/// The statement, if `tokens` begin like one of this file.
pub(super) fn command(tokens: &[TokenWithSpan]) -> Option<Result<Statement>> {
    let mut words = Words::new(tokens);
    let Some(Token::Word(first)) = words.peek() else {
        return None;
    };
    if first.quote_style.is_some() {
        return None;
    }
    match first.value.to_uppercase().as_str() {
        "CREATE" => create(words).transpose(),
        "DROP" => Some(drop_named(words)),
        "EXPLAIN" => {
            words.keyword("EXPLAIN");
            let inner = super::statement_of(words.rest());
            Some(inner.map(|inner| Statement::Explain(Box::new(inner))))
        }
        "DESCRIBE" | "DESC" => Some(describe(words)),
        "SHOW" => Some(show(words)),
        "STOP" => Some(stop(words)),
        "SET" => Some(set(words)),
        _ => None,
    }
}

fn create(mut words: Words<'_>) -> Result<Option<Statement>> {
    words.keyword("CREATE");
    let replace = words.keywords(&["OR", "REPLACE"]);
    let streaming = words.keyword("STREAMING");
    let kind_place = words.place();
    let temporary = words.keyword("TEMP") || words.keyword("TEMPORARY");
    if words.keyword("VIEW") {
        return view(words, replace, streaming, temporary);
    }
    if !words.keyword("TABLE") {
        return Err(words.unexpected("TABLE, VIEW or STREAMING TABLE after CREATE"));
    }
    if temporary {
        return Err(QueryError::unsupported("a temporary table").at(kind_place));
    }
    if streaming && replace {
        let what = "CREATE OR REPLACE STREAMING TABLE (drop the table first)";
        return Err(QueryError::unsupported(what).at(kind_place));
    }
    let if_not_exists = words.keywords(&["IF", "NOT", "EXISTS"]);
    let name = words.table_name()?;
    let description = Description::read(&mut words)?;
    if streaming {
        return streaming_table(words, name, if_not_exists, description).map(Some);
    }
    let as_place = words.place();
    if words.keyword("AS") {
        let what = "CREATE TABLE .. AS; CREATE VIEW names a query, CREATE STREAMING TABLE writes one, and so it";
        return Err(QueryError::unsupported(what).at(as_place));
    }
    words.end()?;
    if !description.partition_by.is_empty() {
        let what = "PARTITIONED BY for a table that is read (directories named column=value are found by themselves)";
        return Err(QueryError::unsupported(what).at(kind_place));
    }
    Ok(Some(Statement::CreateTable {
        name,
        replace,
        if_not_exists,
        schema: description.schema,
        format: description
            .format
            .ok_or_else(|| words.unexpected("USING and a format"))?,
        options: description.options,
    }))
}

/// `CREATE [STREAMING] TEMP VIEW name USING`; a view over a query is left to the parser.
fn view(
    mut words: Words<'_>,
    replace: bool,
    streaming: bool,
    temporary: bool,
) -> Result<Option<Statement>> {
    let if_not_exists = words.keywords(&["IF", "NOT", "EXISTS"]);
    let name = words.table_name()?;
    let named = words.place();
    let has_columns = words.peek() == Some(&Token::LParen);
    let columns = words.in_parentheses()?;
    let using = words.place();
    if !words.keyword("USING") {
        return match streaming {
            true => Err(words.unexpected("USING and a format")),
            false => Ok(None),
        };
    }
    if !temporary || if_not_exists {
        let what = "a view USING a format that is not CREATE [OR REPLACE] [STREAMING] TEMP VIEW (CREATE TABLE names a source, too)";
        return Err(QueryError::unsupported(what).at(using));
    }
    let schema = match has_columns {
        true => columns.map(|text| schema_at(&text, named)).transpose()?,
        false => None,
    };
    let mut description = Description {
        schema,
        format: Some(words.name("a format")?),
        ..Description::default()
    };
    description.clauses(&mut words)?;
    if !description.partition_by.is_empty() {
        return Err(QueryError::unsupported("PARTITIONED BY of a view").at(using));
    }
    words.end()?;
    Ok(Some(Statement::CreateSource {
        name,
        replace,
        streaming,
        schema: description.schema,
        format: description.format.unwrap_or_default(),
        options: description.options,
    }))
}

fn streaming_table(
    mut words: Words<'_>,
    name: String,
    if_not_exists: bool,
    description: Description,
) -> Result<Statement> {
    let format = description
        .format
        .ok_or_else(|| words.unexpected("USING and a format"))?;
    if description.schema.is_some() {
        let what = "a schema for a streaming table (its query tells it)";
        return Err(QueryError::unsupported(what).at(words.place()));
    }
    words.expect_keyword("AS")?;
    let place = words.place();
    let Statement::Query(plan) = super::statement_of(words.rest())? else {
        let message = "a streaming table is written by a query: expected SELECT after AS";
        return Err(QueryError::new("PARSE_SYNTAX_ERROR", message).at(place));
    };
    Ok(Statement::CreateStreamingTable {
        name,
        if_not_exists,
        format,
        options: description.options,
        partition_by: description.partition_by,
        plan,
    })
}

/// What stands between a table's name and the end or `AS`.
#[derive(Default)]
struct Description {
    schema: Option<arrow::datatypes::SchemaRef>,
    format: Option<String>,
    options: Vec<(String, String)>,
    partition_by: Vec<String>,
}

impl Description {
    fn read(words: &mut Words<'_>) -> Result<Self> {
        let place = words.place();
        let mut description = Description::default();
        if let Some(text) = words.in_parentheses()? {
            description.schema = Some(schema_at(&text, place)?);
        }
        description.clauses(words)?;
        Ok(description)
    }

    /// In any order, each once.
    fn clauses(&mut self, words: &mut Words<'_>) -> Result<()> {
        let mut said: Vec<&str> = Vec::new();
        loop {
            let place = words.place();
            let clause = if words.keyword("USING") {
                self.format = Some(words.name("a format")?);
                "USING"
            } else if words.keyword("OPTIONS") {
                self.options(words)?;
                "OPTIONS"
            } else if words.keywords(&["PARTITIONED", "BY"]) {
                words.expect_symbol(&Token::LParen)?;
                loop {
                    self.partition_by.push(words.name("a column")?);
                    if !words.symbol(&Token::Comma) {
                        break;
                    }
                }
                words.expect_symbol(&Token::RParen)?;
                "PARTITIONED BY"
            } else if words.keyword("LOCATION") {
                let path = words.value("a path")?;
                self.option(words, "path".into(), path)?;
                "LOCATION"
            } else if words.keyword("COMMENT") {
                words.value("a text")?; // says nothing about the rows
                "COMMENT"
            } else {
                return Ok(());
            };
            if said.contains(&clause) {
                let message = format!("{clause} is said twice");
                return Err(QueryError::new("PARSE_SYNTAX_ERROR", message).at(place));
            }
            said.push(clause);
        }
    }

    fn options(&mut self, words: &mut Words<'_>) -> Result<()> {
        words.expect_symbol(&Token::LParen)?;
        if words.symbol(&Token::RParen) {
            return Ok(());
        }
        loop {
            let key = words.dotted("an option")?;
            words.symbol(&Token::Eq);
            let minus = words.symbol(&Token::Minus);
            let value = words.value("a value")?;
            let value = if minus { format!("-{value}") } else { value };
            self.option(words, key, value)?;
            if words.symbol(&Token::RParen) {
                return Ok(());
            }
            if !words.symbol(&Token::Comma) {
                return Err(words.unexpected("',' or ')'"));
            }
        }
    }

    fn option(&mut self, words: &Words<'_>, key: String, value: String) -> Result<()> {
        let twice = |(known, _): &(String, String)| known.eq_ignore_ascii_case(&key);
        if self.options.iter().any(twice) {
            let message = format!("option \"{key}\" is given twice");
            return Err(QueryError::new("PARSE_SYNTAX_ERROR", message).at(words.place()));
        }
        self.options.push((key, value));
        Ok(())
    }
}

/// The columns that `text` says, which stands at `place`.
fn schema_at(
    text: &str,
    place: Option<crate::error::Place>,
) -> Result<arrow::datatypes::SchemaRef> {
    parse_schema(text).map_err(|error| error.inside("the columns").at(place))
}

fn drop_named(mut words: Words<'_>) -> Result<Statement> {
    words.keyword("DROP");
    let kind = if words.keyword("VIEW") {
        NamedKind::View
    } else if words.keyword("TABLE") {
        NamedKind::Table
    } else if words.keywords(&["STREAMING", "TABLE"]) {
        NamedKind::StreamingTable
    } else {
        return Err(words.unexpected("VIEW, TABLE or STREAMING TABLE"));
    };
    let if_exists = words.keywords(&["IF", "EXISTS"]);
    let name = words.table_name()?;
    words.end()?;
    Ok(Statement::Drop {
        kind,
        name,
        if_exists,
    })
}

fn describe(mut words: Words<'_>) -> Result<Statement> {
    let _ = words.keyword("DESCRIBE") || words.keyword("DESC");
    words.keyword("TABLE");
    let place = words.place();
    let name = words.table_name()?;
    words.end()?;
    Ok(Statement::Describe(Plan::Table {
        name: vec![name],
        place,
        stream: false,
    }))
}

fn show(mut words: Words<'_>) -> Result<Statement> {
    words.keyword("SHOW");
    let show = if words.keyword("QUERIES") || words.keyword("STREAMS") {
        Show::Queries
    } else if words.keyword("TABLES") || words.keyword("VIEWS") {
        Show::Tables
    } else {
        return Err(words.unexpected("QUERIES or TABLES"));
    };
    words.end()?;
    Ok(Statement::Show(show))
}

fn stop(mut words: Words<'_>) -> Result<Statement> {
    words.keyword("STOP");
    words.expect_keyword("QUERY")?;
    let name = words.value("the name of a query")?;
    words.end()?;
    Ok(Statement::StopQuery { name })
}

fn set(mut words: Words<'_>) -> Result<Statement> {
    words.keyword("SET");
    if words.peek().is_none_or(|token| *token == Token::SemiColon) {
        words.end()?;
        return Ok(Statement::Set {
            key: None,
            value: None,
        });
    }
    let key = Some(words.dotted("a setting")?);
    let value = match words.symbol(&Token::Eq) {
        true => Some(words.text_to_end()),
        false => None,
    };
    words.end()?;
    Ok(Statement::Set { key, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_statement;

    fn options(options: &[(&str, &str)]) -> Vec<(String, String)> {
        let options = options.iter();
        options
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    fn refused(text: &str, part: &str) {
        let error = parse_statement(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }

    #[test]
    fn a_source_has_a_name_a_format_columns_and_options() {
        let text = "create or replace streaming temp view ev (d string, m map<string,int>) using json \
                    options (path '/in', \"maxFilesPerTrigger\" = 4, a.b c, n -1);";
        let expected = Statement::CreateSource {
            name: "ev".into(),
            replace: true,
            streaming: true,
            schema: Some(parse_schema("d string, m map<string,int>").expect("a schema")),
            format: "json".into(),
            options: options(&[
                ("path", "/in"),
                ("maxFilesPerTrigger", "4"),
                ("a.b", "c"),
                ("n", "-1"),
            ]),
        };
        assert_eq!(parse_statement(text).expect("parses"), expected);
    }

    #[test]
    fn a_table_is_a_source_by_name() {
        let text = "CREATE TABLE IF NOT EXISTS t (`a b` INT) OPTIONS (header 'true') USING csv LOCATION 'x'";
        let expected = Statement::CreateTable {
            name: "t".into(),
            replace: false,
            if_not_exists: true,
            schema: Some(parse_schema("`a b` INT").expect("a schema")),
            format: "csv".into(),
            options: options(&[("header", "true"), ("path", "x")]),
        };
        assert_eq!(parse_statement(text).expect("parses"), expected);
        refused("CREATE TABLE t (a INT)", "expected USING");
        refused("CREATE TABLE t USING json AS SELECT 1", "CREATE VIEW names");
        refused("CREATE TABLE t USING json USING csv", "USING is said twice");
        refused(
            "CREATE TABLE t USING json OPTIONS (path 'a') LOCATION 'b'",
            "\"path\" is given twice",
        );
        refused("CREATE TABLE t (a INTT) USING json", "in the columns");
        refused("CREATE TABLE t (a INT USING json", "expected ')'");
        refused("CREATE TABLE a.b USING json", "several parts");
    }

    #[test]
    fn a_streaming_table_is_written_by_a_query() {
        let text =
            "CREATE STREAMING TABLE o USING parquet OPTIONS (path 'out', trigger '10 seconds')
                    PARTITIONED BY (k, l) AS SELECT k, l FROM STREAM t";
        let Ok(Statement::CreateStreamingTable {
            name,
            partition_by,
            plan: Plan::Project { input, .. },
            ..
        }) = parse_statement(text)
        else {
            panic!("a streaming table");
        };
        assert_eq!((name.as_str(), partition_by.len()), ("o", 2));
        assert!(
            matches!(*input, Plan::Table { stream: true, place: Some(place), .. } if place.line == 2)
        );
        refused(
            "CREATE STREAMING TABLE o USING parquet AS DROP VIEW v",
            "expected SELECT",
        );
        refused("CREATE STREAMING TABLE o AS SELECT 1", "expected USING");
        refused(
            "CREATE STREAMING TABLE o USING parquet SELECT 1",
            "expected AS",
        );
    }

    #[test]
    fn what_is_no_source_is_left_to_the_parser() {
        for view in [
            "create temp view v as select 1",
            "create view v as select 1",
            "create or replace view v (a) as select 1",
            "create view if not exists v as select 1",
        ] {
            assert!(
                matches!(parse_statement(view), Ok(Statement::CreateView { .. })),
                "{view}: {:?}",
                parse_statement(view)
            );
        }
        refused(
            "create temp view v using text options (path)",
            "expected a value",
        );
    }

    #[test]
    fn settings_are_text_to_the_end() {
        for (text, value) in [
            (
                "SET spark.sql.session.timeZone = America/New_York",
                "America/New_York",
            ),
            ("SET a.b = 10 seconds;", "10 seconds"),
            ("SET a = 'x y'", "x y"),
        ] {
            let Ok(Statement::Set {
                value: Some(found), ..
            }) = parse_statement(text)
            else {
                panic!("{text}");
            };
            assert_eq!(found, value);
        }
    }

    #[test]
    fn an_unknown_statement_is_told_what_there_is() {
        refused("SELEC 1", "expected SELECT, WITH");
        refused("INSERT INTO t VALUES (1)", "expected SELECT, WITH");
        refused("CREATE FUNCTION f AS 'x'", "expected TABLE, VIEW");
        refused("DROP FUNCTION f", "expected VIEW, TABLE");
        refused("SHOW x", "expected QUERIES");
        refused("STOP x", "expected QUERY");
        refused("DROP VIEW v w", "the end of the statement");
        refused("", "expected SELECT");
    }
}
