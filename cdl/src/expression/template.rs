//! JSON trees with expressions in them.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::ast::{Access, Base, Compiled, Expr, Step};
use super::eval::{Evaluator, Val};
use super::fault::{Fault, too_deep};
use super::secrets::{Part, Secrets, step};
use super::{Env, EvalError, MAX_VALUE_DEPTH, SyntaxError, fits_depth, parser};

/// A JSON tree with expressions in it, compiled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Template(Arc<Node>);

#[derive(Debug)]
enum Node {
    Literal(Value),
    /// The whole text is one expression: its value, with its type.
    Whole(Compiled),
    /// Text with expressions in it.
    Mixed(Vec<Piece>),
    /// Text with secrets in it, which stays as it is: the text twice, as a value and
    /// shared, and what it consists of.
    Secret(Value, Arc<str>, Arc<[Part]>),
    Array(Vec<Template>),
    Object(Vec<(String, Template)>),
}

#[derive(Debug)]
enum Piece {
    Text(Box<str>),
    Expr(Compiled),
}

/// A path that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where the path starts.
    pub root: Root,
    /// Its leading constant keys; it ends at the first index or computed step.
    /// `workflow.input` is `$` and `workflow`, `input`.
    pub segments: Vec<String>,
    /// Whether a `default` stands in for what is missing.
    pub optional: bool,
    /// Where it stands in the text that [`Template::parse`] was given, in bytes.
    pub offset: usize,
    /// Its length there, in bytes.
    pub len: usize,
}

/// Where a path starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// `$`
    Context,
    /// A word: `map`, `secrets`, or one that nobody knows.
    Local(String),
}

impl Template {
    /// Reads one text. Without `{{` it is a literal. If the whole text is one
    /// `{{ }}` (a line break may follow, as block scalars of YAML have it), the
    /// value keeps its JSON type; otherwise values are put into the text.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut pieces = Vec::new();
        let mut position = 0;
        while let Some(found) = text[position..].find("{{") {
            let open = position + found;
            if open > position {
                pieces.push(Piece::Text(text[position..open].into()));
            }
            let (compiled, end) = parser::parse(text, open + 2, false)?;
            position = end;
            pieces.push(Piece::Expr(compiled));
        }
        if pieces.is_empty() {
            return Ok(Self::literal(text.into()));
        }
        let rest = &text[position..];
        if pieces.len() == 1
            && rest.trim_end_matches(['\n', '\r']).is_empty()
            && let Some(Piece::Expr(compiled)) = pieces.pop_if(|p| matches!(p, Piece::Expr(_)))
        {
            return Ok(Self::whole(compiled));
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self(Arc::new(Node::Mixed(pieces))))
    }

    /// Reads one expression that stands without `{{ }}`.
    pub fn parse_expression(text: &str) -> Result<Self, SyntaxError> {
        parser::parse(text, 0, true).map(|(compiled, _)| Self::whole(compiled))
    }

    /// A value in which nothing is evaluated.
    pub fn literal(value: Value) -> Self {
        Self(Arc::new(Node::Literal(value)))
    }

    /// A list of templates.
    pub fn array(items: Vec<Self>) -> Self {
        if items.iter().all(|item| item.as_literal().is_some()) {
            let values = items.into_iter().filter_map(Self::into_literal);
            return Self::literal(values.collect());
        }
        Self(Arc::new(Node::Array(items)))
    }

    /// An object of templates. Of two equal keys the last counts.
    pub fn object(items: Vec<(String, Self)>) -> Self {
        if items.iter().all(|(_, item)| item.as_literal().is_some()) {
            let entries = items.into_iter();
            let entries = entries.filter_map(|(key, item)| Some((key, item.into_literal()?)));
            return Self::literal(Value::Object(entries.collect()));
        }
        Self(Arc::new(Node::Object(items)))
    }

    /// Reads every text in `value`. Offsets of an error count within the text
    /// that it is in.
    pub fn from_value(value: &Value) -> Result<Self, SyntaxError> {
        Self::from_level(value, MAX_VALUE_DEPTH)
    }

    fn from_level(value: &Value, levels: usize) -> Result<Self, SyntaxError> {
        if matches!(value, Value::Array(_) | Value::Object(_)) && levels == 0 {
            return Err(SyntaxError::new(0..0, too_deep().message()));
        }
        match value {
            Value::String(text) => Self::parse(text),
            Value::Array(items) => items
                .iter()
                .map(|item| Self::from_level(item, levels - 1))
                .collect::<Result<_, _>>()
                .map(Self::array),
            Value::Object(map) => map
                .iter()
                .map(|(key, item)| Ok((key.clone(), Self::from_level(item, levels - 1)?)))
                .collect::<Result<_, _>>()
                .map(Self::object),
            scalar => Ok(Self::literal(scalar.clone())),
        }
    }

    /// The template of this text as one with secrets, if it has nothing else in it
    /// that would be evaluated.
    pub(crate) fn with_secrets(&self, text: &str) -> Option<Self> {
        let parts: Option<Vec<Part>> = match self.0.as_ref() {
            Node::Whole(compiled) => Part::of(compiled).map(|part| vec![part]),
            Node::Mixed(pieces) => {
                let part = |piece: &Piece| match piece {
                    Piece::Text(text) => Some(Part::Text(text.clone())),
                    Piece::Expr(compiled) => Part::of(compiled),
                };
                pieces.iter().map(part).collect()
            }
            _ => None,
        };
        let node = Node::Secret(text.into(), text.into(), parts?.into());
        Some(Self(Arc::new(node)))
    }

    /// Where it names secrets.
    pub(crate) fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        self.find_secrets("", &mut secrets);
        secrets
    }

    fn find_secrets(&self, at: &str, found: &mut Secrets) {
        match self.0.as_ref() {
            Node::Literal(_) | Node::Whole(_) | Node::Mixed(_) => {}
            Node::Secret(_, text, parts) => found.add(at, text, parts),
            Node::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.find_secrets(&format!("{at}/{index}"), found);
                }
            }
            Node::Object(items) => {
                for (key, item) in items {
                    item.find_secrets(&format!("{at}{}", step(key)), found);
                }
            }
        }
    }

    fn whole(compiled: Compiled) -> Self {
        Self(Arc::new(match compiled.expr {
            Expr::Literal(value) => Node::Literal(value),
            _ => Node::Whole(compiled),
        }))
    }

    /// The value, if nothing in it is evaluated.
    pub fn as_literal(&self) -> Option<&Value> {
        match self.0.as_ref() {
            Node::Literal(value) => Some(value),
            _ => None,
        }
    }

    /// The literal, moved out if nobody else holds it.
    fn into_literal(self) -> Option<Value> {
        match Arc::try_unwrap(self.0) {
            Ok(Node::Literal(value)) => Some(value),
            Ok(_) => None,
            Err(shared) => Self(shared).as_literal().cloned(),
        }
    }

    /// The value over `env`.
    pub fn eval(&self, env: &Env<'_>) -> Result<Value, EvalError> {
        self.eval_owned(&mut Evaluator::new(env), MAX_VALUE_DEPTH)
    }

    /// The value over `env`, borrowed where it stands there as it is. A
    /// condition or the length of a list needs no copy.
    pub fn eval_ref<'x>(&'x self, env: &'x Env<'_>) -> Result<Cow<'x, Value>, EvalError> {
        self.eval_counted(env).0
    }

    /// As [`Self::eval_ref`], and how many of [`super::MAX_STEPS`] it took. Whoever
    /// evaluates many expressions in a row bounds them together by this.
    pub fn eval_counted<'x>(
        &'x self,
        env: &'x Env<'_>,
    ) -> (Result<Cow<'x, Value>, EvalError>, usize) {
        self.eval_by(Evaluator::new(env))
    }

    /// As [`Self::eval_counted`], in at most `steps`, counting also the keys that are
    /// looked up and the texts of the template.
    pub fn eval_within<'x>(
        &'x self,
        env: &'x Env<'_>,
        steps: usize,
    ) -> (Result<Cow<'x, Value>, EvalError>, usize) {
        self.eval_by(Evaluator::within(env, steps))
    }

    fn eval_by<'x>(
        &'x self,
        mut evaluator: Evaluator<'x>,
    ) -> (Result<Cow<'x, Value>, EvalError>, usize) {
        let value = self.eval_level(&mut evaluator, MAX_VALUE_DEPTH);
        (value, evaluator.taken())
    }

    fn eval_level<'x>(
        &'x self,
        evaluator: &mut Evaluator<'x>,
        levels: usize,
    ) -> Result<Val<'x>, EvalError> {
        if levels == 0 && matches!(self.0.as_ref(), Node::Array(_) | Node::Object(_)) {
            return Err(EvalError::new(too_deep().message()));
        }
        match self.0.as_ref() {
            Node::Literal(value) | Node::Secret(value, ..) => Ok(Cow::Borrowed(value)),
            Node::Whole(compiled) => match evaluator.eval(&compiled.expr) {
                // What is borrowed is measured when it is copied.
                Ok(Cow::Owned(value)) if !fits_depth(&value, levels) => {
                    Err(located(&too_deep(), compiled))
                }
                value => value.map_err(|fault| located(&fault, compiled)),
            },
            Node::Mixed(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(piece) => {
                            evaluator.look(piece.len()).map_err(|fault| plain(&fault))?;
                            text.push_str(piece);
                        }
                        Piece::Expr(compiled) => evaluator
                            .eval(&compiled.expr)
                            .and_then(|value| evaluator.push_text(&mut text, &value))
                            .map_err(|fault| located(&fault, compiled))?,
                    }
                }
                Ok(Cow::Owned(Value::String(text)))
            }
            Node::Array(items) => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    values.push(item.eval_owned(evaluator, levels - 1)?);
                }
                Ok(Cow::Owned(Value::Array(values)))
            }
            Node::Object(items) => {
                let mut map = Map::new();
                for (key, item) in items {
                    evaluator.look(key.len()).map_err(|fault| plain(&fault))?;
                    map.insert(key.clone(), item.eval_owned(evaluator, levels - 1)?);
                }
                Ok(Cow::Owned(Value::Object(map)))
            }
        }
    }

    fn eval_owned<'x>(
        &'x self,
        evaluator: &mut Evaluator<'x>,
        levels: usize,
    ) -> Result<Value, EvalError> {
        let value = self.eval_level(evaluator, levels)?;
        evaluator
            .own_within(value, levels)
            .map_err(|fault| match self.0.as_ref() {
                Node::Whole(compiled) => located(&fault, compiled),
                _ => plain(&fault),
            })
    }

    /// The paths that the expressions read, in the order of the text.
    pub fn references(&self) -> Vec<Reference> {
        let mut references = Vec::new();
        self.collect(&mut references);
        references
    }

    fn collect(&self, references: &mut Vec<Reference>) {
        let mut visit = |compiled: &Compiled| {
            compiled.expr.visit(false, &mut |access, optional| {
                references.extend(Reference::of(access, optional));
            });
        };
        match self.0.as_ref() {
            Node::Literal(_) | Node::Secret(..) => {}
            Node::Whole(compiled) => visit(compiled),
            Node::Mixed(pieces) => {
                for piece in pieces {
                    if let Piece::Expr(compiled) = piece {
                        visit(compiled);
                    }
                }
            }
            Node::Array(items) => items.iter().for_each(|item| item.collect(references)),
            Node::Object(items) => items.iter().for_each(|(_, item)| item.collect(references)),
        }
    }
}

impl Reference {
    fn of(access: &Access, optional: bool) -> Option<Self> {
        let root = match &access.base {
            Base::Context => Root::Context,
            Base::Local(name) => Root::Local(name.to_string()),
            Base::Value(_) => return None,
        };
        let segments = access.steps.iter().map_while(|step| match step {
            Step::Key(key) => Some(key.to_string()),
            Step::Index(_) | Step::Computed(_) => None,
        });
        Some(Self {
            root,
            segments: segments.collect(),
            optional,
            offset: access.span.0,
            len: access.span.1,
        })
    }
}

/// Characters of an expression that a message shows.
const SHOWN: usize = 80;

/// An error outside of expressions.
fn plain(fault: &Fault<'_>) -> EvalError {
    EvalError::new(fault.message())
}

/// The error of an expression; says which unless the message names its path.
fn located(fault: &Fault<'_>, compiled: &Compiled) -> EvalError {
    let mut message = fault.message();
    if !matches!(compiled.expr, Expr::Access(_)) {
        let source: String = compiled.source.chars().take(SHOWN).collect();
        let dots = if source.len() < compiled.source.len() {
            "..."
        } else {
            ""
        };
        message = format!("{message}, in `{{{{ {source}{dots} }}}}`");
    }
    EvalError::new(message)
}
