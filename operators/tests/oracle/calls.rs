//! Aggregate calls as people write them: `sum(x) FILTER (WHERE b)`. DataFusion is built without its SQL front end.

use std::sync::Arc;

use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort};
use datafusion::logical_expr::{AggregateUDF, Expr, lit};
use datafusion::prelude::ident;

/// Parses a list of calls.
pub(crate) fn parse(text: &str, functions: &[Arc<AggregateUDF>]) -> Vec<Expr> {
    let mut parser = Parser {
        rest: text,
        functions,
    };
    let mut calls = vec![parser.call()];
    while parser.accept(",") {
        calls.push(parser.call());
    }
    assert!(parser.rest.is_empty(), "cannot read {:?}", parser.rest);
    calls
}

struct Parser<'a> {
    rest: &'a str,
    functions: &'a [Arc<AggregateUDF>],
}

impl Parser<'_> {
    fn accept(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else {
            return false;
        };
        self.rest = rest.trim_start();
        true
    }

    fn expect(&mut self, token: &str) {
        assert!(self.accept(token), "no {token:?} before {:?}", self.rest);
    }

    fn word(&mut self, part: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word.to_string()
    }

    fn call(&mut self) -> Expr {
        let name = self.word(|c| c.is_alphanumeric() || c == '_');
        let named = |f: &&Arc<AggregateUDF>| f.name() == name || f.aliases().contains(&name);
        let function = self.functions.iter().find(named);
        let function = Arc::clone(function.unwrap_or_else(|| panic!("no function {name}")));
        self.expect("(");
        let distinct = self.accept("DISTINCT ");
        let mut arguments = vec![self.operand()];
        while self.accept(",") {
            arguments.push(self.operand());
        }
        let mut order_by = self.order_by();
        self.expect(")");
        if self.accept("WITHIN GROUP (") {
            order_by = self.order_by();
            self.expect(")");
            arguments.insert(0, order_by[0].expr.clone());
        }
        let nulls = self
            .accept("IGNORE NULLS")
            .then_some(NullTreatment::IgnoreNulls);
        let filter = self.accept("FILTER (WHERE ").then(|| {
            let condition = self.operand();
            self.expect(")");
            Box::new(condition)
        });
        Expr::AggregateFunction(AggregateFunction::new_udf(
            function, arguments, distinct, filter, order_by, nulls,
        ))
    }

    fn order_by(&mut self) -> Vec<Sort> {
        let mut sorts = Vec::new();
        if self.accept("ORDER BY ") {
            loop {
                let expr = self.operand();
                let descending = self.accept("DESC");
                sorts.push(expr.sort(!descending, descending));
                if !self.accept(",") {
                    break;
                }
            }
        }
        sorts
    }

    fn operand(&mut self) -> Expr {
        let left = self.atom();
        if self.accept("> ") {
            return left.gt(self.atom());
        }
        left
    }

    fn atom(&mut self) -> Expr {
        if self.accept("*") {
            return lit(1_i64);
        }
        if let Some(rest) = self.rest.strip_prefix('\'') {
            let (text, rest) = rest.split_once('\'').unwrap();
            self.rest = rest.trim_start();
            return lit(text);
        }
        let word = self.word(|c| c.is_alphanumeric() || "_.-".contains(c));
        if let Ok(number) = word.parse::<i64>() {
            return lit(number);
        }
        if let Ok(number) = word.parse::<f64>() {
            return lit(number);
        }
        ident(word)
    }
}
