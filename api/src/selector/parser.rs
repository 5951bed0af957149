//! The grammar of label selectors: requirements separated by commas.

use super::lexer::{Token, tokens};
use super::{Operator, Requirement, check_key};

/// Operators, as a complaint lists them.
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// Parses a selector; the error is Kubernetes' complaint.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let tokens = tokens(text);
    Parser { tokens: &tokens }.selector()
}

struct Parser<'a> {
    tokens: &'a [Token],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a Token {
        self.tokens.first().unwrap_or(&Token::End)
    }

    fn next(&mut self) -> &'a Token {
        let token = self.peek();
        self.tokens = self.tokens.get(1..).unwrap_or_default();
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Identifier(_) | Token::Not => {}
                Token::End => return Ok(requirements),
                other => {
                    return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.literal()));
                }
            }
            let requirement = self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
            requirements.push(requirement);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Comma => {}
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.literal())),
            }
            if !matches!(self.peek(), Token::Identifier(_) | Token::Not) {
                return Err(format!("found '{}', expected: identifier after ','", self.peek().literal()));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = *self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Identifier(key) => key.clone(),
            other => return Err(format!("found '{}', expected: identifier", other.literal())),
        };
        check_key(&key)?;
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new(), false);
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new(), false);
        }
        let (operator, exact) = self.operator()?;
        let set = matches!(operator, Operator::In | Operator::NotIn) && !exact;
        let values = if set { self.values()? } else { vec![self.exact_value()?] };
        Requirement::new(key, operator, values, exact)
    }

    /// The operator, and whether it takes one value.
    fn operator(&mut self) -> Result<(Operator, bool), String> {
        Ok(match self.next() {
            Token::Equals => (Operator::In, true),
            Token::NotEquals => (Operator::NotIn, true),
            Token::Greater => (Operator::GreaterThan, true),
            Token::Less => (Operator::LessThan, true),
            Token::Identifier(word) if word == "in" => (Operator::In, false),
            Token::Identifier(word) if word == "notin" => (Operator::NotIn, false),
            other => return Err(format!("found '{}', expected: {OPERATORS}", other.literal())),
        })
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Identifier(value) => Ok(value.clone()),
            other => Err(format!("found '{}', expected: identifier", other.literal())),
        }
    }

    /// `(a,b)`; an absent item is the empty value, `()` has none.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Open => {}
            other => return Err(format!("found '{}' expected: '('", other.literal())),
        }
        if *self.peek() == Token::Close {
            self.next();
            return Ok(Vec::new());
        }
        let mut values = Vec::new();
        loop {
            values.push(match self.peek() {
                Token::Comma | Token::Close => String::new(),
                Token::Identifier(value) => {
                    self.next();
                    value.clone()
                }
                other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.literal())),
            });
            match self.next() {
                Token::Comma => {}
                Token::Close => return Ok(values),
                other => return Err(format!("found '{}', expected: ',' or ')'", other.literal())),
            }
        }
    }
}
