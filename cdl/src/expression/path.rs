//! Where a result goes.

use std::fmt;

use serde_json::{Map, Value};

use super::lexer::{Lexer, Token};
use super::{EvalError, MAX_VALUE_DEPTH, SyntaxError, fits_depth, type_name, write_key};

/// Where a result goes: keys from the context's root, `$.payment.receipt` or
/// `$['payment info']`. Never the root itself nor the reserved `$.workflow`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Box<str>>);

/// Most keys of a path; leaves most of [`MAX_VALUE_DEPTH`] to the value.
const MAX_SEGMENTS: usize = 32;

impl Path {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut lexer = Lexer::new(text, 0);
        let mut segments: Vec<Box<str>> = Vec::new();
        let (first, span) = lexer.next()?;
        if first != Token::Dollar {
            let error = SyntaxError::new(span, "a result path starts with `$`");
            return Err(match first {
                Token::Word(_) => error.help(format!("write `$.{text}`")),
                _ => error.help("as in `$.payment`"),
            });
        }
        loop {
            let (token, span) = lexer.next()?;
            match token {
                Token::End => break,
                Token::Symbol(".") => segments.push(key_after_dot(&mut lexer)?),
                Token::Symbol("[") => segments.push(key_in_brackets(&mut lexer)?),
                _ => {
                    return Err(SyntaxError::new(
                        span.clone(),
                        format!("{} in a result path", token.describe(&text[span])),
                    )
                    .help("only keys can follow: `$.a.b`, or `$['a-b']` for other names"));
                }
            }
            if segments.len() > MAX_SEGMENTS {
                return Err(SyntaxError::new(
                    span,
                    format!("a result path has at most {MAX_SEGMENTS} keys"),
                ));
            }
        }
        let whole = 0..text.len();
        match segments.first().map(AsRef::as_ref) {
            None => Err(
                SyntaxError::new(whole, "a result cannot replace the whole context")
                    .help("name a key, as in `$.payment`"),
            ),
            Some("workflow") => Err(SyntaxError::new(whole, "`$.workflow` is reserved")
                .help("choose another key for the result")),
            Some(_) => Ok(Self(segments)),
        }
    }

    /// The keys, from the root on; at least one.
    pub fn segments(&self) -> &[Box<str>] {
        &self.0
    }

    /// Whether one path is, or leads into, the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// Puts `value` here, making objects on the way.
    ///
    /// # Errors
    ///
    /// If something other than an object stands on the way, or the value would
    /// be nested too deep. Then `root` is as before.
    pub fn set(&self, root: &mut Value, value: Value) -> Result<(), EvalError> {
        if !fits_depth(&value, MAX_VALUE_DEPTH - self.0.len()) {
            return Err(EvalError::new(format!(
                "the result for `{self}` is nested deeper than {MAX_VALUE_DEPTH} levels"
            )));
        }
        self.check_way(root)?;
        let mut place = root;
        for key in &self.0 {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[key.as_ref()];
        }
        *place = value;
        Ok(())
    }

    /// That only objects stand on the way.
    fn check_way(&self, root: &Value) -> Result<(), EvalError> {
        let mut place = root;
        for (at, key) in self.0.iter().enumerate() {
            let Value::Object(map) = place else {
                let way = Self(self.0[..at].to_vec());
                return Err(EvalError::new(format!(
                    "cannot set `{self}`: `{way}` is {}",
                    type_name(place)
                )));
            };
            match map.get(key.as_ref()) {
                Some(next) if at + 1 < self.0.len() => place = next,
                _ => break,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.0.iter().try_for_each(|key| write_key(f, key))
    }
}

fn key_after_dot(lexer: &mut Lexer<'_>) -> Result<Box<str>, SyntaxError> {
    match lexer.next()? {
        (Token::Word(key), _) => Ok(key),
        (_, span) => Err(SyntaxError::new(span, "expected a key behind the dot")
            .help("quote a key that is not a plain word: `$['a-b']`")),
    }
}

fn key_in_brackets(lexer: &mut Lexer<'_>) -> Result<Box<str>, SyntaxError> {
    let key = match lexer.next()? {
        (Token::Text(key), _) => key.into(),
        (Token::Integer(_), span) => {
            return Err(SyntaxError::new(span, "a result path has no indexes")
                .help("a result goes to a key of an object; use a Pass state to rebuild a list"));
        }
        (_, span) => {
            return Err(SyntaxError::new(
                span,
                "expected a quoted key in the brackets",
            ));
        }
    };
    match lexer.next()? {
        (Token::Symbol("]"), _) => Ok(key),
        (_, span) => Err(SyntaxError::new(span, "expected `]`")),
    }
}
