//! The compiled form of an expression.

use serde_json::Value;

use super::filters::Filter;

/// One expression and the text that it was compiled from, for messages.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) expr: Expr,
    pub(super) source: Box<str>,
}

#[derive(Debug)]
pub(super) enum Expr {
    Literal(Value),
    /// `now`: the time of the event.
    Now,
    /// `uuid`: a fresh one.
    Uuid,
    Access(Access),
    Array(Vec<Expr>),
    Object(Vec<(Box<str>, Expr)>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    And(Box<(Expr, Expr)>),
    Or(Box<(Expr, Expr)>),
    Binary(BinaryOp, Box<(Expr, Expr)>),
    Ternary(Box<Ternary>),
    /// `input | a | b: 1`: the calls from left to right.
    Filtered(Box<Expr>, Vec<FilterCall>),
}

#[derive(Debug)]
pub(super) struct Ternary {
    pub(super) condition: Expr,
    pub(super) then: Expr,
    pub(super) otherwise: Expr,
}

/// A base and the steps into it: `$.a.b[0]`.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) base: Base,
    pub(super) steps: Vec<Step>,
    /// Where it stands in the template's text: offset and length.
    pub(super) span: (usize, usize),
}

#[derive(Debug)]
pub(super) enum Base {
    /// `$`
    Context,
    /// A word that the environment may know.
    Local(Box<str>),
    /// Anything else: `(a | b)[0]`.
    Value(Box<Expr>),
}

#[derive(Debug)]
pub(super) enum Step {
    Key(Box<str>),
    Index(i64),
    Computed(Expr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl BinaryOp {
    /// As it is written.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }
}

#[derive(Debug)]
pub(super) struct FilterCall {
    pub(super) filter: &'static Filter,
    pub(super) args: Vec<Expr>,
}

impl Expr {
    /// Calls `visit` with every access, and whether a `default` stands behind it.
    pub(super) fn visit<'e>(&'e self, optional: bool, visit: &mut impl FnMut(&'e Access, bool)) {
        match self {
            Self::Literal(_) | Self::Now | Self::Uuid => {}
            Self::Access(access) => {
                visit(access, optional);
                if let Base::Value(base) = &access.base {
                    base.visit(optional, visit);
                }
                for step in &access.steps {
                    if let Step::Computed(expr) = step {
                        expr.visit(optional, visit);
                    }
                }
            }
            Self::Array(items) => items.iter().for_each(|item| item.visit(optional, visit)),
            Self::Object(items) => items
                .iter()
                .for_each(|(_, item)| item.visit(optional, visit)),
            Self::Not(expr) | Self::Negate(expr) => expr.visit(optional, visit),
            Self::And(pair) | Self::Or(pair) | Self::Binary(_, pair) => {
                pair.0.visit(optional, visit);
                pair.1.visit(optional, visit);
            }
            Self::Ternary(ternary) => {
                ternary.condition.visit(optional, visit);
                ternary.then.visit(optional, visit);
                ternary.otherwise.visit(optional, visit);
            }
            Self::Filtered(input, calls) => {
                // A `default` catches whatever is missing to its left.
                let last_default = calls.iter().rposition(|call| call.filter.is_default());
                input.visit(optional || last_default.is_some(), visit);
                for (at, call) in calls.iter().enumerate() {
                    let caught = optional || last_default.is_some_and(|last| at < last);
                    call.args.iter().for_each(|arg| arg.visit(caught, visit));
                }
            }
        }
    }
}
