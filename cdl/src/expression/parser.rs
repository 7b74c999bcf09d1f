//! Tokens to tree: a Pratt parser.
//!
//! Precedence from loose to tight: filters, `?:`, `||`, `&&`, comparisons and
//! `in` (which do not chain), `+ -`, `* / %`, `! -`, `.key [index]`.

use std::ops::Range;

use serde_json::Value;

use super::ast::{Access, Base, BinaryOp, Compiled, Expr, FilterCall, Step, Ternary};
use super::filters::{self, Filter};
use super::lexer::{Lexer, Token};
use super::number::Num;
use super::{MAX_EXPRESSION_HEIGHT, MAX_EXPRESSION_LEN, SyntaxError, nearest};

/// Compiles the expression that starts at byte `start` of `text`, up to its
/// `}}` or, if it is `bare`, up to the end. Also returns where it ends.
pub(super) fn parse(
    text: &str,
    start: usize,
    bare: bool,
) -> Result<(Compiled, usize), SyntaxError> {
    let mut parser = Parser {
        text,
        start,
        lexer: Lexer::new(text, start),
        token: Token::End,
        span: start..start,
        open: 0,
    };
    parser.advance()?;
    let parsed = parser.pipeline()?;
    let end = match (&parser.token, bare) {
        (Token::Close, false) | (Token::End, true) => parser.span.clone(),
        (Token::End, false) => return Err(parser.unclosed()),
        _ => return Err(parser.unexpected("an operator or the end of the expression")),
    };
    let source = text[start..end.start].trim().into();
    let expr = parsed.expr;
    Ok((Compiled { expr, source }, end.end))
}

/// A tree and its height.
struct Parsed {
    expr: Expr,
    height: usize,
}

impl Parsed {
    fn leaf(expr: Expr) -> Self {
        Self { expr, height: 1 }
    }
}

struct Parser<'t> {
    text: &'t str,
    /// Where the expression starts.
    start: usize,
    lexer: Lexer<'t>,
    /// The token ahead, and where it stands.
    token: Token,
    span: Range<usize>,
    /// Calls of [`Parser::ternary`] and [`Parser::unary`] that are open.
    open: usize,
}

#[derive(Clone, Copy)]
enum Infix {
    And,
    Or,
    Binary(BinaryOp),
}

impl Infix {
    fn of(token: &Token) -> Option<Self> {
        let op = match token {
            Token::Word(word) if word.as_ref() == "in" => BinaryOp::In,
            Token::Symbol(symbol) => match *symbol {
                "&&" => return Some(Self::And),
                "||" => return Some(Self::Or),
                "==" => BinaryOp::Equal,
                "!=" => BinaryOp::NotEqual,
                "<" => BinaryOp::Less,
                "<=" => BinaryOp::LessOrEqual,
                ">" => BinaryOp::Greater,
                ">=" => BinaryOp::GreaterOrEqual,
                "+" => BinaryOp::Add,
                "-" => BinaryOp::Subtract,
                "*" => BinaryOp::Multiply,
                "/" => BinaryOp::Divide,
                "%" => BinaryOp::Remainder,
                _ => return None,
            },
            _ => return None,
        };
        Some(Self::Binary(op))
    }

    /// How tight it binds.
    fn power(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Binary(BinaryOp::Add | BinaryOp::Subtract) => COMPARISON + 1,
            Self::Binary(BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Remainder) => {
                COMPARISON + 2
            }
            Self::Binary(_) => COMPARISON,
        }
    }
}

/// Power of the comparisons, which do not chain.
const COMPARISON: u8 = 3;

impl Parser<'_> {
    fn advance(&mut self) -> Result<Token, SyntaxError> {
        let (token, span) = self.lexer.next()?;
        if span.end - self.start > MAX_EXPRESSION_LEN {
            return Err(SyntaxError::new(
                self.start..span.end,
                format!("an expression has at most {MAX_EXPRESSION_LEN} bytes"),
            )
            .help("compute parts of it in Pass states, or in an activity"));
        }
        self.span = span;
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn at(&self, symbol: &str) -> bool {
        matches!(self.token, Token::Symbol(ahead) if ahead == symbol)
    }

    fn eat(&mut self, symbol: &str) -> Result<bool, SyntaxError> {
        let found = self.at(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, symbol: &str) -> Result<(), SyntaxError> {
        if self.eat(symbol)? {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{symbol}`")))
        }
    }

    fn unclosed(&self) -> SyntaxError {
        let open = self.start.saturating_sub(2)..self.start;
        SyntaxError::new(open, "`{{` is not closed")
            .help("close it with `}}`; for the characters themselves write `{{ '{{' }}`")
    }

    fn unexpected(&self, expected: &str) -> SyntaxError {
        if self.token == Token::End && self.start >= 2 {
            return self.unclosed();
        }
        let found = self.token.describe(&self.text[self.span.clone()]);
        let error = SyntaxError::new(
            self.span.clone(),
            format!("expected {expected}, found {found}"),
        );
        match &self.token {
            Token::Word(word) => match word.as_ref() {
                "and" => error.help("logical and is `&&`"),
                "or" => error.help("logical or is `||`"),
                "not" => error.help("negation is `!`, as in `!($.a in $.b)`"),
                _ => error,
            },
            Token::Symbol("|") => error.help("put a filtered value in parentheses: `(a | b)`"),
            _ => error,
        }
    }

    /// A node over children of which the highest has `height`.
    fn node(&self, expr: Expr, height: usize) -> Result<Parsed, SyntaxError> {
        if height >= MAX_EXPRESSION_HEIGHT {
            return Err(self.too_deep());
        }
        let height = height + 1;
        Ok(Parsed { expr, height })
    }

    fn too_deep(&self) -> SyntaxError {
        SyntaxError::new(
            self.start..self.span.end,
            "the expression is nested too deep",
        )
        .help(format!(
            "at most {MAX_EXPRESSION_HEIGHT} levels; compute parts of it in Pass states"
        ))
    }

    /// Runs `parse` one level deeper. The tree's height would come too late: the
    /// parser itself must not exhaust the stack.
    fn nested(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<Parsed, SyntaxError>,
    ) -> Result<Parsed, SyntaxError> {
        if self.open >= MAX_EXPRESSION_HEIGHT {
            return Err(self.too_deep());
        }
        self.open += 1;
        let parsed = parse(self);
        self.open -= 1;
        parsed
    }

    /// `ternary | filter: arg, arg | ...`
    fn pipeline(&mut self) -> Result<Parsed, SyntaxError> {
        let input = self.ternary()?;
        if !self.at("|") {
            return Ok(input);
        }
        let (mut calls, mut height) = (Vec::new(), input.height);
        while self.eat("|")? {
            let (filter, span) = self.filter()?;
            let mut args = Vec::new();
            if self.eat(":")? {
                loop {
                    let arg = self.ternary()?;
                    height = height.max(arg.height);
                    args.push(arg.expr);
                    if !self.eat(",")? {
                        break;
                    }
                }
            }
            check_args(filter, args.len(), span)?;
            calls.push(FilterCall { filter, args });
        }
        self.node(Expr::Filtered(Box::new(input.expr), calls), height)
    }

    fn filter(&mut self) -> Result<(&'static Filter, Range<usize>), SyntaxError> {
        let span = self.span.clone();
        let Token::Word(name) = &self.token else {
            return Err(self.unexpected("the name of a filter"));
        };
        let Some(filter) = filters::find(name) else {
            let error = SyntaxError::new(span, format!("there is no filter `{name}`"));
            return Err(match nearest(name, super::filter_names()) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help("docs/expressions.md lists the filters"),
            });
        };
        self.advance()?;
        Ok((filter, span))
    }

    /// `a ? b : c`, or what binds tighter.
    fn ternary(&mut self) -> Result<Parsed, SyntaxError> {
        self.nested(|parser| {
            let condition = parser.infix(0)?;
            if !parser.eat("?")? {
                return Ok(condition);
            }
            let then = parser.ternary()?;
            parser.expect(":")?;
            let otherwise = parser.ternary()?;
            let height = condition.height.max(then.height).max(otherwise.height);
            let ternary = Ternary {
                condition: condition.expr,
                then: then.expr,
                otherwise: otherwise.expr,
            };
            parser.node(Expr::Ternary(Box::new(ternary)), height)
        })
    }

    /// Operators that bind at least as tight as `power`. Recurses by the number
    /// of powers only.
    fn infix(&mut self, power: u8) -> Result<Parsed, SyntaxError> {
        let mut left = self.unary()?;
        while let Some(infix) = Infix::of(&self.token).filter(|infix| infix.power() >= power) {
            self.advance()?;
            let right = self.infix(infix.power() + 1)?;
            let height = left.height.max(right.height);
            let pair = Box::new((left.expr, right.expr));
            let expr = match infix {
                Infix::And => Expr::And(pair),
                Infix::Or => Expr::Or(pair),
                Infix::Binary(op) => Expr::Binary(op, pair),
            };
            left = self.node(expr, height)?;
            if infix.power() == COMPARISON
                && Infix::of(&self.token).is_some_and(|next| next.power() == COMPARISON)
            {
                return Err(
                    SyntaxError::new(self.span.clone(), "comparisons do not chain")
                        .help("write `a < b && b < c`, or use parentheses"),
                );
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Parsed, SyntaxError> {
        if self.eat("!")? {
            let operand = self.nested(Self::unary)?;
            return self.node(Expr::Not(Box::new(operand.expr)), operand.height);
        }
        if self.eat("-")? {
            let operand = self.nested(Self::unary)?;
            if let Expr::Literal(Value::Number(number)) = &operand.expr
                && let Ok(negated) = Num::of(number).negated().into_value()
            {
                return Ok(Parsed::leaf(Expr::Literal(negated)));
            }
            return self.node(Expr::Negate(Box::new(operand.expr)), operand.height);
        }
        self.postfix()
    }

    /// A value and the steps into it.
    fn postfix(&mut self) -> Result<Parsed, SyntaxError> {
        let start = self.span.start;
        let (base, mut steps, mut height) = match self.primary()? {
            Primary::Context => (Base::Context, Vec::new(), 1),
            Primary::Workflow => (Base::Context, vec![Step::Key("workflow".into())], 1),
            Primary::Local(name) => (Base::Local(name), Vec::new(), 1),
            Primary::Value(parsed) if self.at(".") || self.at("[") => (
                Base::Value(Box::new(parsed.expr)),
                Vec::new(),
                parsed.height,
            ),
            Primary::Value(parsed) => return Ok(parsed),
        };
        let mut end = start + self.text[start..self.span.start].trim_end().len();
        loop {
            if self.eat(".")? {
                steps.push(self.key()?);
            } else if self.eat("[")? {
                let index = self.pipeline()?;
                height = height.max(index.height);
                steps.push(step(index.expr));
                self.expect("]")?;
            } else {
                break;
            }
            end = start + self.text[start..self.span.start].trim_end().len();
        }
        let span = (start, end - start);
        self.node(Expr::Access(Access { base, steps, span }), height)
    }

    fn key(&mut self) -> Result<Step, SyntaxError> {
        let error = match &self.token {
            Token::Word(key) => {
                let step = Step::Key(key.clone());
                self.advance()?;
                return Ok(step);
            }
            Token::End => return Err(self.unexpected("a key")),
            Token::Integer(index) => self
                .unexpected("a key")
                .help(format!("an index is `[{index}]`")),
            _ => self.unexpected("a key"),
        };
        Err(match error.help {
            Some(_) => error,
            None => error.help("quote a key that is not a plain word: `$['a-b']`"),
        })
    }

    fn primary(&mut self) -> Result<Primary, SyntaxError> {
        let literal = match &mut self.token {
            Token::Dollar => {
                self.advance()?;
                return Ok(Primary::Context);
            }
            Token::Word(_) => return self.word(),
            Token::Text(text) => Value::String(std::mem::take(text)),
            Token::Integer(int) => Value::from(*int),
            Token::Float(float) => Value::from(*float),
            Token::Symbol("(") => {
                self.advance()?;
                let inner = self.pipeline()?;
                self.expect(")")?;
                return Ok(Primary::Value(inner));
            }
            Token::Symbol("[") => return self.array().map(Primary::Value),
            Token::Symbol("{") => return self.object().map(Primary::Value),
            _ => return Err(self.unexpected("a value")),
        };
        self.advance()?;
        Ok(Primary::Value(Parsed::leaf(Expr::Literal(literal))))
    }

    fn word(&mut self) -> Result<Primary, SyntaxError> {
        let Token::Word(word) = &self.token else {
            return Err(self.unexpected("a word"));
        };
        let word = word.clone();
        let expr = match word.as_ref() {
            "true" => Expr::Literal(true.into()),
            "false" => Expr::Literal(false.into()),
            "null" => Expr::Literal(Value::Null),
            "now" => Expr::Now,
            "uuid" => Expr::Uuid,
            "in" | "and" | "or" | "not" => return Err(self.unexpected("a value")),
            _ => {
                self.advance()?;
                return Ok(match word.as_ref() {
                    "workflow" => Primary::Workflow,
                    _ => Primary::Local(word),
                });
            }
        };
        self.advance()?;
        Ok(Primary::Value(Parsed::leaf(expr)))
    }

    fn array(&mut self) -> Result<Parsed, SyntaxError> {
        self.advance()?;
        let (mut items, mut height) = (Vec::new(), 0);
        while !self.at("]") {
            let item = self.ternary()?;
            height = height.max(item.height);
            items.push(item.expr);
            if !self.eat(",")? {
                break;
            }
        }
        self.expect("]")?;
        self.node(Expr::Array(items), height)
    }

    fn object(&mut self) -> Result<Parsed, SyntaxError> {
        self.advance()?;
        let (mut items, mut height) = (Vec::<(Box<str>, Expr)>::new(), 0);
        while !self.at("}") {
            let span = self.span.clone();
            let key: Box<str> = match &self.token {
                Token::Word(key) => key.clone(),
                Token::Text(key) => key.as_str().into(),
                _ => return Err(self.unexpected("a key")),
            };
            if items.iter().any(|(earlier, _)| *earlier == key) {
                return Err(SyntaxError::new(
                    span,
                    format!("key `{key}` is there twice"),
                ));
            }
            self.advance()?;
            self.expect(":")?;
            let item = self.ternary()?;
            height = height.max(item.height);
            items.push((key, item.expr));
            if !self.eat(",")? {
                break;
            }
        }
        self.expect("}")?;
        self.node(Expr::Object(items), height)
    }
}

enum Primary {
    Context,
    /// The word for `$.workflow`.
    Workflow,
    Local(Box<str>),
    Value(Parsed),
}

fn step(index: Expr) -> Step {
    match index {
        Expr::Literal(Value::String(key)) => Step::Key(key.into()),
        Expr::Literal(Value::Number(ref number)) => match number.as_i64() {
            Some(int) => Step::Index(int),
            None => Step::Computed(index),
        },
        _ => Step::Computed(index),
    }
}

fn check_args(filter: &Filter, given: usize, span: Range<usize>) -> Result<(), SyntaxError> {
    let (min, max) = filter.args;
    if (min..=max).contains(&given) {
        return Ok(());
    }
    let wanted = match (min, max) {
        (0, 0) => "no arguments".to_owned(),
        (1, 1) => "1 argument".to_owned(),
        (min, max) if min == max => format!("{min} arguments"),
        (min, max) => format!("{min} to {max} arguments"),
    };
    let message = format!("filter `{}` takes {wanted}, not {given}", filter.name);
    Err(SyntaxError::new(span, message).help(format!("as in `{}`", filter.example)))
}
