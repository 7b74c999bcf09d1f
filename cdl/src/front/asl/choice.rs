//! Rules of Choice states.

use serde_json::Value;

use super::{Builder, Language, Place};
use crate::asl::choice::{Compared, Comparison, Condition, Operand, Test, Type};
use crate::asl::program::Rule;
use crate::asl::time::parse_timestamp;
use crate::diagnostic::Code;
use crate::front::fields::Fields;
use crate::front::report::{Finding, quote, similar};
use crate::front::yaml::{Key, Node};

/// Deepest nesting of `And`, `Or` and `Not`: the tree of the file is bounded, too.
const COMBINERS: [&str; 3] = ["And", "Or", "Not"];

/// Fields of a rule beside its condition.
const RULE: [&str; 5] = ["Next", "Comment", "Assign", "Output", "Condition"];

/// What the name of an operator says.
enum Operator {
    Compare { how: Comparison, path: bool },
    Is(Type),
}

fn operator(name: &str) -> Option<Operator> {
    let is = match name {
        "IsPresent" => Some(Type::Present),
        "IsNull" => Some(Type::Null),
        "IsString" => Some(Type::String),
        "IsNumeric" => Some(Type::Number),
        "IsBoolean" => Some(Type::Boolean),
        "IsTimestamp" => Some(Type::Timestamp),
        _ => None,
    };
    if let Some(what) = is {
        return Some(Operator::Is(what));
    }
    let (name, path) = match name.strip_suffix("Path") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let kinds = [
        ("String", Compared::String),
        ("Numeric", Compared::Number),
        ("Boolean", Compared::Boolean),
        ("Timestamp", Compared::Timestamp),
    ];
    let (kind, test) = kinds
        .iter()
        .find_map(|(prefix, kind)| Some((*kind, name.strip_prefix(prefix)?)))?;
    let test = match (kind, test) {
        (_, "Equals") => Test::Equals,
        (Compared::String, "Matches") if !path => Test::Matches,
        (Compared::Boolean, _) => return None,
        (_, "LessThan") => Test::Less,
        (_, "GreaterThan") => Test::Greater,
        (_, "LessThanEquals") => Test::LessOrEqual,
        (_, "GreaterThanEquals") => Test::GreaterOrEqual,
        _ => return None,
    };
    Some(Operator::Compare {
        how: Comparison { kind, test },
        path,
    })
}

impl Builder<'_, '_, '_> {
    /// One entry of `Choices`.
    pub(super) fn rule(
        &mut self,
        place: &Place<'_>,
        node: &Node,
        language: Language,
    ) -> Option<Rule> {
        let fields = self.context.any_fields(node, "a choice rule")?;
        let next = self.context.required(&fields, "Next");
        let next = next.and_then(|node| self.target(place.scope, node, "Next"));
        let assign = self.assign(&fields, language);
        let (condition, output) = match language {
            Language::Query => {
                for key in fields.keys() {
                    if !RULE.contains(&&*key.text) {
                        self.unknown(key, "a choice rule with JSONata");
                    }
                }
                let output = fields.get("Output").map(|node| self.query(node, "Output"));
                let node = self.context.required(&fields, "Condition")?;
                let query = self.query_or(node, "Condition", "a boolean", Value::is_boolean)?;
                (Condition::Query(query), output)
            }
            Language::Path => {
                for key in ["Condition", "Output"] {
                    if let Some(key) = fields.key(key) {
                        self.other_language(key, language);
                    }
                }
                (self.condition(&fields, true)?, None)
            }
        };
        Some(Rule {
            condition,
            next: next?,
            assign,
            output: output.flatten(),
        })
    }

    fn condition(&mut self, fields: &Fields<'_>, is_rule: bool) -> Option<Condition> {
        let own = |key: &Key| match &*key.text {
            "Comment" | "Variable" => false,
            "Next" | "Assign" | "Condition" | "Output" if is_rule => false,
            _ => true,
        };
        let tests: Vec<&Key> = fields.keys().filter(|key| own(key)).collect();
        let [test] = tests[..] else {
            let message = match tests.len() {
                0 => "a choice rule needs a comparison",
                _ => "a choice rule has one comparison",
            };
            let span = tests.get(1).map_or(fields.head(), |key| key.span);
            self.report(
                Finding::new(Code::Conflict, span, message)
                    .help("combine several with `And` or `Or`"),
            );
            return None;
        };
        let node = fields.get(&test.text)?;
        match &*test.text {
            "And" => self.conditions(node, "And").map(Condition::All),
            "Or" => self.conditions(node, "Or").map(Condition::Any),
            "Not" => {
                let fields = self.context.any_fields(node, "`Not`")?;
                let inner = self.condition(&fields, false)?;
                Some(Condition::Not(Box::new(inner)))
            }
            name => self.comparison(fields, test, name, node),
        }
    }

    fn conditions(&mut self, node: &Node, what: &str) -> Option<Vec<Condition>> {
        let items = self.context.sequence(node, &format!("`{what}`"))?;
        if items.is_empty() {
            let message = format!("`{what}` combines at least one comparison");
            self.report(Finding::new(Code::InvalidValue, node.span, message));
            return None;
        }
        let conditions: Vec<_> = items
            .iter()
            .map(|item| {
                let fields = self.context.any_fields(item, "a comparison")?;
                self.condition(&fields, false)
            })
            .collect();
        conditions.into_iter().collect()
    }

    fn comparison(
        &mut self,
        fields: &Fields<'_>,
        key: &Key,
        name: &str,
        node: &Node,
    ) -> Option<Condition> {
        let Some(operator) = operator(name) else {
            self.unknown(key, "a choice rule");
            return None;
        };
        let variable = self.context.required(fields, "Variable")?;
        let variable = self.path(variable, "Variable");
        match operator {
            Operator::Is(what) => {
                let expected = self.context.boolean(node, &format!("`{name}`"))?;
                Some(Condition::Is {
                    variable: variable?,
                    what,
                    expected,
                })
            }
            Operator::Compare { how, path } => {
                let with = if path {
                    Operand::Path(self.path(node, name)?)
                } else {
                    Operand::Value(self.compared(how.kind, node, name)?)
                };
                Some(Condition::Compare {
                    variable: variable?,
                    how,
                    with,
                })
            }
        }
    }

    /// A value of the type that an operator compares.
    fn compared(&mut self, kind: Compared, node: &Node, name: &str) -> Option<Value> {
        let value = self.literal(node)?;
        let (fits, expected) = match kind {
            Compared::String => (value.is_string(), "text"),
            Compared::Number => (value.is_number(), "a number"),
            Compared::Boolean => (value.is_boolean(), "`true` or `false`"),
            Compared::Timestamp => {
                let text = value.as_str();
                if let Some(text) = text.filter(|text| parse_timestamp(text).is_none()) {
                    self.report(timestamp_finding(node, text));
                    return None;
                }
                (text.is_some(), "a timestamp")
            }
        };
        if !fits {
            return self
                .context
                .wrong_type(node, &format!("`{name}` compares with {expected}"));
        }
        Some(value)
    }

    fn unknown(&mut self, key: &Key, what: &str) {
        let operators = [
            "StringEquals",
            "StringLessThan",
            "StringGreaterThan",
            "StringLessThanEquals",
            "StringGreaterThanEquals",
            "StringMatches",
            "NumericEquals",
            "NumericLessThan",
            "NumericGreaterThan",
            "NumericLessThanEquals",
            "NumericGreaterThanEquals",
            "BooleanEquals",
            "TimestampEquals",
            "TimestampLessThan",
            "TimestampGreaterThan",
            "IsPresent",
            "IsNull",
            "IsString",
            "IsNumeric",
            "IsBoolean",
            "IsTimestamp",
            "Condition",
            "Variable",
        ];
        let known = operators.into_iter().chain(COMBINERS).chain(RULE);
        let help = similar(&key.text, known).map(|meant| format!("did you mean `{meant}`?"));
        self.report(
            Finding::new(
                Code::UnknownKey,
                key.span,
                format!("{what} has no field {}", quote(&key.text)),
            )
            .maybe_help(help),
        );
    }
}

/// A timestamp that is none.
pub(super) fn timestamp_finding(node: &Node, text: &str) -> Finding {
    Finding::new(
        Code::InvalidTimestamp,
        node.span,
        format!("{} is not a timestamp", quote(text)),
    )
    .help("it looks like `2026-01-31T09:30:00Z`, with `T`, and `Z` or an offset")
}
