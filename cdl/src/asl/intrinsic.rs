//! Intrinsic functions of JSONPath states: `States.Format('Hi {}', $.name)`.
//!
//! Source: the Amazon States Language, appendix B, and "Intrinsics for JSONPath
//! states" of the Step Functions guide.

use serde_json::Value;

use super::path::{Path, PathError};

mod functions;

pub(crate) use functions::{array_partition, array_range, hash};

/// Deepest nesting of calls: AWS allows ten.
const MAX_NESTING: usize = 10;

/// Longest call, in bytes; as for paths, and some more for literals.
const MAX_CALL_LEN: usize = 16 * 1024;

/// A compiled call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    text: Box<str>,
    pub(crate) function: Function,
    pub(crate) arguments: Vec<Argument>,
}

/// An argument of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Argument {
    /// A text in single quotes; `raw` still has its escapes.
    Text {
        raw: Box<str>,
        value: Value,
    },
    Literal(Value),
    Path(Path),
    Call(Call),
}

macro_rules! functions {
    ($($name:ident $text:literal $arguments:expr;)*) => {
        /// An intrinsic function.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Function {
            $($name,)*
        }

        impl Function {
            fn named(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// How many arguments it takes.
            fn arity(self) -> std::ops::RangeInclusive<usize> {
                match self {
                    $(Self::$name => $arguments,)*
                }
            }
        }
    };
}

functions! {
    Format "Format" 1..=usize::MAX;
    StringToJson "StringToJson" 1..=1;
    JsonToString "JsonToString" 1..=1;
    Array "Array" 0..=usize::MAX;
    ArrayPartition "ArrayPartition" 2..=2;
    ArrayContains "ArrayContains" 2..=2;
    ArrayRange "ArrayRange" 3..=3;
    ArrayGetItem "ArrayGetItem" 2..=2;
    ArrayLength "ArrayLength" 1..=1;
    ArrayUnique "ArrayUnique" 1..=1;
    Base64Encode "Base64Encode" 1..=1;
    Base64Decode "Base64Decode" 1..=1;
    Hash "Hash" 2..=2;
    JsonMerge "JsonMerge" 3..=3;
    MathRandom "MathRandom" 2..=3;
    MathAdd "MathAdd" 2..=2;
    StringSplit "StringSplit" 2..=2;
    Uuid "UUID" 0..=0;
}

impl Call {
    /// Whether `text` is meant to be a call rather than a path.
    pub(crate) fn is_call(text: &str) -> bool {
        text.trim_start().starts_with("States.")
    }

    /// Compiles a call.
    pub(crate) fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_CALL_LEN {
            return Err(PathError {
                at: MAX_CALL_LEN,
                message: format!("a call has at most {MAX_CALL_LEN} bytes"),
            });
        }
        let mut parser = Parser { text, at: 0 };
        parser.spaces();
        let call = parser.call(1)?;
        parser.spaces();
        if parser.rest().is_empty() {
            Ok(call)
        } else {
            parser.fail("a call ends with its `)`")
        }
    }

    /// The call's text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The paths in it, those of inner calls too.
    pub(crate) fn paths<'p>(&'p self, found: &mut Vec<&'p Path>) {
        for argument in &self.arguments {
            match argument {
                Argument::Path(path) => found.push(path),
                Argument::Call(call) => call.paths(found),
                Argument::Text { .. } | Argument::Literal(_) => {}
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, PathError> {
        Err(PathError {
            at: self.at,
            message: message.into(),
        })
    }

    fn call(&mut self, nesting: usize) -> Result<Call, PathError> {
        if nesting > MAX_NESTING {
            return self.fail(format!("calls nest at most {MAX_NESTING} deep"));
        }
        let start = self.at;
        if !self.eat("States.") {
            return self.fail("expected a call as in `States.Array(1, 2)`");
        }
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let Some(function) = Function::named(&rest[..end]) else {
            return self.fail(format!("there is no function `States.{}`", &rest[..end]));
        };
        self.at += end;
        self.spaces();
        if !self.eat("(") {
            return self.fail("expected `(`");
        }
        let arguments = self.arguments(nesting)?;
        let given = arguments.len();
        if !function.arity().contains(&given) {
            let name = function.name();
            return self.fail(format!("`States.{name}` does not take {given} arguments"));
        }
        Ok(Call {
            text: self.text[start..self.at].into(),
            function,
            arguments,
        })
    }

    /// Up to and with `)`.
    fn arguments(&mut self, nesting: usize) -> Result<Vec<Argument>, PathError> {
        let mut arguments = Vec::new();
        self.spaces();
        if self.eat(")") {
            return Ok(arguments);
        }
        loop {
            self.spaces();
            arguments.push(self.argument(nesting)?);
            self.spaces();
            if self.eat(")") {
                return Ok(arguments);
            }
            if !self.eat(",") {
                return self.fail("expected `,` or `)`");
            }
        }
    }

    fn argument(&mut self, nesting: usize) -> Result<Argument, PathError> {
        let rest = self.rest();
        if rest.starts_with('\'') {
            return self.quoted();
        }
        if rest.starts_with("States.") {
            return self.call(nesting + 1).map(Argument::Call);
        }
        if rest.starts_with('$') {
            return self.path();
        }
        let end = rest
            .find(|c: char| c.is_whitespace() || c == ',' || c == ')')
            .unwrap_or(rest.len());
        match serde_json::from_str::<Value>(&rest[..end]) {
            Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => {
                self.at += end;
                Ok(Argument::Literal(value))
            }
            _ => self.fail("expected a path, a number, a text in single quotes or a call"),
        }
    }

    /// A text in single quotes. Only `'`, `{`, `}` and `\` can be escaped.
    fn quoted(&mut self) -> Result<Argument, PathError> {
        let start = self.at + 1;
        let mut value = String::new();
        let mut chars = self.text[start..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\'' => {
                    self.at = start + at + 1;
                    return Ok(Argument::Text {
                        raw: self.text[start..start + at].into(),
                        value: Value::String(value),
                    });
                }
                '\\' => {
                    if let Some((_, escaped @ ('\'' | '{' | '}' | '\\'))) = chars.next() {
                        value.push(escaped);
                    } else {
                        self.at = start + at;
                        return self.fail("only `'`, `{`, `}` and `\\` can be escaped");
                    }
                }
                c => value.push(c),
            }
        }
        self.fail("this quote is not closed")
    }

    /// A path up to the `,` or `)` that ends the argument.
    fn path(&mut self) -> Result<Argument, PathError> {
        let rest = self.rest();
        let (mut depth, mut quote) = (0_usize, None);
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, '(' | '[') => depth += 1,
                (None, ',' | ')') if depth == 0 => {
                    end = at;
                    break;
                }
                (None, ')' | ']') => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        let text = rest[..end].trim_end();
        match Path::parse(text) {
            Ok(path) => {
                self.at += end;
                Ok(Argument::Path(path))
            }
            Err(error) => Err(PathError {
                at: self.at + error.at,
                message: error.message,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
