//! Compiles the text of a path. Bounded by its length and the nesting of its
//! filters; never panics.

use serde_json::Value;

use super::filter::{Filter, Operand, Operator, Pattern};
use super::{Function, MAX_PATH_LEN, Path, PathError, Root, Step};

/// Deepest nesting of parentheses in a filter.
const MAX_NESTING: usize = 32;

/// Largest compiled regular expression, in bytes.
const MAX_PATTERN_BYTES: usize = 64 * 1024;

pub(super) fn parse(text: &str) -> Result<Path, PathError> {
    if text.len() > MAX_PATH_LEN {
        return Err(PathError {
            at: MAX_PATH_LEN,
            message: format!("a path has at most {MAX_PATH_LEN} bytes"),
        });
    }
    let mut parser = Parser {
        text,
        at: 0,
        nesting: 0,
    };
    if !parser.eat("$") {
        return parser.fail("a path starts with `$`");
    }
    let root = if parser.eat("$") {
        Root::Context
    } else {
        match parser.word() {
            "" => Root::Input,
            name => Root::Variable(name.into()),
        }
    };
    let steps = parser.steps()?;
    if !parser.rest().is_empty() {
        return parser.fail("a path does not go on like this");
    }
    Ok(Path {
        text: text.into(),
        root,
        steps,
    })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, PathError> {
        Err(PathError {
            at: self.at,
            message: message.into(),
        })
    }

    fn expect(&mut self, token: &str) -> Result<(), PathError> {
        self.spaces();
        if self.eat(token) {
            Ok(())
        } else {
            self.fail(format!("expected `{token}`"))
        }
    }

    /// Letters, digits and underscores, not starting with a digit.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return "";
        }
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn steps(&mut self) -> Result<Vec<Step>, PathError> {
        let mut steps = Vec::new();
        loop {
            if self.eat("..") {
                steps.push(Step::Descend);
                if self.rest().starts_with('[') {
                    continue;
                }
                steps.push(self.dotted()?);
            } else if self.eat(".") {
                let step = self.dotted()?;
                let ends = matches!(step, Step::Function(_));
                steps.push(step);
                if ends {
                    return Ok(steps);
                }
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else {
                if steps.last() == Some(&Step::Descend) {
                    return self.fail("`..` needs something to look for");
                }
                return Ok(steps);
            }
        }
    }

    /// What follows a dot.
    fn dotted(&mut self) -> Result<Step, PathError> {
        if self.eat("*") {
            return Ok(Step::Wildcard);
        }
        let rest = self.rest();
        // Jayway takes whatever does not end a name.
        let end = rest
            .find(|c: char| c.is_whitespace() || ".[]()'\"*,&|=<>!~?@".contains(c))
            .unwrap_or(rest.len());
        if end == 0 {
            return self.fail("expected a name");
        }
        let name = &rest[..end];
        self.at += end;
        if !self.rest().starts_with('(') {
            return Ok(Step::Name(name.into()));
        }
        let function = match name {
            "length" | "size" => Function::Length,
            "min" => Function::Min,
            "max" => Function::Max,
            "avg" => Function::Avg,
            "sum" => Function::Sum,
            "keys" => Function::Keys,
            _ => return self.fail(format!("there is no function `{name}()` in a path")),
        };
        self.expect("(")?;
        self.expect(")")?;
        Ok(Step::Function(function))
    }

    /// What follows `[`, up to and with `]`.
    fn bracket(&mut self) -> Result<Step, PathError> {
        self.spaces();
        let step = match self.peek() {
            Some('*') => {
                self.at += 1;
                Step::Wildcard
            }
            Some('?') => {
                self.at += 1;
                self.expect("(")?;
                let filter = self.any()?;
                self.expect(")")?;
                Step::Filter(filter)
            }
            Some('\'' | '"') => {
                let mut names = vec![self.quoted()?.into_boxed_str()];
                while self.comma() {
                    names.push(self.quoted()?.into_boxed_str());
                }
                match <[_; 1]>::try_from(names) {
                    Ok([name]) => Step::Name(name),
                    Err(names) => Step::Names(names),
                }
            }
            _ => self.indexes()?,
        };
        self.expect("]")?;
        Ok(step)
    }

    fn comma(&mut self) -> bool {
        self.spaces();
        let found = self.eat(",");
        self.spaces();
        found
    }

    fn indexes(&mut self) -> Result<Step, PathError> {
        let first = self.integer()?;
        self.spaces();
        if self.eat(":") {
            self.spaces();
            let last = self.integer()?;
            return Ok(Step::Slice(first, last));
        }
        let Some(first) = first else {
            return self.fail("expected an index, a name in quotes, `*` or a filter");
        };
        let mut indexes = vec![first];
        while self.comma() {
            match self.integer()? {
                Some(index) => indexes.push(index),
                None => return self.fail("expected an index"),
            }
        }
        Ok(match indexes[..] {
            [index] => Step::Index(index),
            _ => Step::Indexes(indexes),
        })
    }

    fn integer(&mut self) -> Result<Option<i64>, PathError> {
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let len = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        let end = rest.len() - digits.len() + len;
        if end == 0 {
            return Ok(None);
        }
        match rest[..end].parse() {
            Ok(index) => {
                self.at += end;
                Ok(Some(index))
            }
            Err(_) => self.fail("an index is a whole number"),
        }
    }

    /// Text in quotes of either kind.
    fn quoted(&mut self) -> Result<String, PathError> {
        let Some(quote @ ('\'' | '"')) = self.peek() else {
            return self.fail("expected a text in quotes");
        };
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, escaped)) => text.push(escaped),
                    None => break,
                },
                c if c == quote => {
                    self.at += at + 1;
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        self.at = start;
        self.fail("this quote is not closed")
    }

    fn any(&mut self) -> Result<Filter, PathError> {
        let mut parts = vec![self.all()?];
        loop {
            self.spaces();
            if !self.eat("||") {
                break;
            }
            parts.push(self.all()?);
        }
        Ok(match <[_; 1]>::try_from(parts) {
            Ok([part]) => part,
            Err(parts) => Filter::Any(parts),
        })
    }

    fn all(&mut self) -> Result<Filter, PathError> {
        let mut parts = vec![self.condition()?];
        loop {
            self.spaces();
            if !self.eat("&&") {
                break;
            }
            parts.push(self.condition()?);
        }
        Ok(match <[_; 1]>::try_from(parts) {
            Ok([part]) => part,
            Err(parts) => Filter::All(parts),
        })
    }

    fn condition(&mut self) -> Result<Filter, PathError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return self.fail(format!("a filter nests at most {MAX_NESTING} deep"));
        }
        self.spaces();
        let condition = if self.eat("!") {
            Filter::Not(Box::new(self.condition()?))
        } else if self.eat("(") {
            let inner = self.any()?;
            self.expect(")")?;
            inner
        } else {
            self.comparison()?
        };
        self.nesting -= 1;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Filter, PathError> {
        const OPERATORS: [(&str, Operator); 16] = [
            ("===", Operator::Equal),
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<>", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            ("<", Operator::Less),
            (">=", Operator::GreaterOrEqual),
            (">", Operator::Greater),
            ("in ", Operator::In),
            ("nin ", Operator::NotIn),
            ("contains ", Operator::Contains),
            ("size ", Operator::Size),
            ("empty ", Operator::Empty),
            ("subsetof ", Operator::SubsetOf),
            ("anyof ", Operator::AnyOf),
            ("noneof ", Operator::NoneOf),
        ];
        let left = self.operand()?;
        self.spaces();
        if self.eat("=~") {
            return Ok(Filter::Matches(left, self.pattern()?));
        }
        let operator = OPERATORS.iter().find(|(token, _)| self.eat(token));
        match operator {
            Some((_, operator)) => Ok(Filter::Compare(left, *operator, self.operand()?)),
            None => Ok(Filter::Exists(left)),
        }
    }

    fn operand(&mut self) -> Result<Operand, PathError> {
        self.spaces();
        if self.eat("@") {
            return self.steps().map(Operand::Item);
        }
        if self.eat("$") {
            return self.steps().map(Operand::Root);
        }
        if matches!(self.peek(), Some('\'' | '"')) {
            return self.quoted().map(|text| Operand::Literal(text.into()));
        }
        if self.rest().starts_with('[') {
            return self.list();
        }
        let rest = self.rest();
        let end = rest
            .find(|c: char| c.is_whitespace() || ")&|,]=<>!".contains(c))
            .unwrap_or(rest.len());
        match serde_json::from_str::<Value>(&rest[..end]) {
            Ok(value) => {
                self.at += end;
                Ok(Operand::Literal(value))
            }
            Err(_) => self.fail("expected a path, a text in quotes, a number, a list or a boolean"),
        }
    }

    fn list(&mut self) -> Result<Operand, PathError> {
        self.expect("[")?;
        let mut items = Vec::new();
        self.spaces();
        while !self.eat("]") {
            match self.operand()? {
                Operand::Literal(item @ (Value::Array(_) | Value::Object(_))) => {
                    return self.fail(format!("{item} cannot stand in a list"));
                }
                Operand::Literal(item) => items.push(item),
                _ => return self.fail("a list holds texts, numbers and booleans"),
            }
            if !self.comma() {
                self.expect("]")?;
                break;
            }
        }
        Ok(Operand::Literal(Value::Array(items)))
    }

    /// `/pattern/flags`
    fn pattern(&mut self) -> Result<Pattern, PathError> {
        self.expect("/")?;
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.find(|c: char| {
            let ends = c == '/' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            return self.fail("this pattern is not closed");
        };
        let body = rest[..end].replace("\\/", "/");
        self.at += end + 1;
        let flags = self.word();
        let pattern = regex::RegexBuilder::new(&format!("^(?:{body})$"))
            .case_insensitive(flags.contains('i'))
            .multi_line(flags.contains('m'))
            .dot_matches_new_line(flags.contains('s'))
            .size_limit(MAX_PATTERN_BYTES)
            .build();
        match pattern {
            Ok(pattern) => Ok(Pattern(pattern)),
            Err(_) => self.fail("this is not a regular expression"),
        }
    }
}
