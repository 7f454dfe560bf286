//! Where the parts of a statement stand that its plan says nothing about: names, formats and options.

use sqlparser::tokenizer::Token;

use super::tokens::tokenize;
use super::words::Words;
use crate::error::Place;

/// Part of a statement that is no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'n> {
    /// What it makes, drops, stops or sets.
    Name,
    /// The format after `USING`.
    Format,
    /// The option of this name, or the clause that says it.
    Option(&'n str),
    /// The column of this name in `PARTITIONED BY`.
    PartitionColumn(&'n str),
}

/// Where `part` stands in the statement `text`.
pub fn part_place(text: &str, part: Part<'_>) -> Option<Place> {
    let tokens = tokenize(text).ok()?;
    let mut words = Words::new(&tokens);
    match part {
        Part::Name => {
            while BEFORE_NAME.iter().any(|keyword| words.keyword(keyword)) {}
            words.place()
        }
        Part::Format => {
            words.skip_to("USING")?;
            words.place()
        }
        Part::PartitionColumn(name) => {
            words.skip_to("PARTITIONED")?;
            words.keyword("BY");
            listed(&mut words, name)
        }
        Part::Option(name) => {
            let mut clauses = Words::new(&tokens);
            if name.eq_ignore_ascii_case("path") && clauses.skip_to("LOCATION").is_some() {
                return clauses.place();
            }
            words.skip_to("OPTIONS")?;
            listed(&mut words, name)
        }
    }
}

/// What may stand before the name of what a statement is about.
const BEFORE_NAME: [&str; 16] = [
    "CREATE",
    "OR",
    "REPLACE",
    "STREAMING",
    "TEMP",
    "TEMPORARY",
    "TABLE",
    "VIEW",
    "IF",
    "NOT",
    "EXISTS",
    "DROP",
    "STOP",
    "QUERY",
    "SET",
    "EXPLAIN",
];

/// The first of a list in parentheses that begins with `name`.
fn listed(words: &mut Words<'_>, name: &str) -> Option<Place> {
    if !words.symbol(&Token::LParen) {
        return None;
    }
    loop {
        let place = words.place();
        if words.dotted("a name").ok()?.eq_ignore_ascii_case(name) {
            return place;
        }
        while !words.symbol(&Token::Comma) {
            if *words.peek()? == Token::RParen {
                return None;
            }
            words.skip();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(text: &str, part: Part<'_>) -> Option<u64> {
        part_place(text, part).map(|place| place.column)
    }

    #[test]
    fn each_part_of_a_table_has_its_place() {
        let text = "CREATE OR REPLACE TABLE t (path INT) USING json OPTIONS (a.b 'path', n = -1, path 'x')";
        assert_eq!(column(text, Part::Name), Some(25));
        assert_eq!(column(text, Part::Format), Some(44));
        assert_eq!(column(text, Part::Option("A.B")), Some(58));
        assert_eq!(column(text, Part::Option("N")), Some(70));
        assert_eq!(column(text, Part::Option("path")), Some(78));
        assert_eq!(column(text, Part::Option("b")), None);
        let text = "CREATE TABLE t USING json LOCATION 'x' PARTITIONED BY (a, b)";
        assert_eq!(column(text, Part::Option("path")), Some(36));
        assert_eq!(column(text, Part::PartitionColumn("b")), Some(59));
        assert_eq!(column("DROP TABLE IF EXISTS t", Part::Name), Some(22));
        assert_eq!(column("SET a.b = 1", Part::Name), Some(5));
        assert_eq!(column("SELECT 1", Part::Option("a")), None);
    }
}
