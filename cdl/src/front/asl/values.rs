//! Values that the machine computes with: payload templates, JSONata, paths.

use serde_json::{Map, Value};

use super::{Builder, Language};
use crate::asl::intrinsic::Call;
use crate::asl::jsonata::{Expression, Query};
use crate::asl::path::{Path, PathError, Root};
use crate::asl::payload::{Payload, Source};
use crate::asl::program::{Amount, AmountSource, Part, ResultPath, Template};
use crate::diagnostic::Code;
use crate::expression::SyntaxError;
use crate::front::fields::Fields;
use crate::front::report::{Finding, quote};
use crate::front::scalar::Scalar;
use crate::front::yaml::{Node, Yaml};

/// Longest name of a variable, in characters (AWS's limit).
const MAX_VARIABLE_CHARS: usize = 80;

impl Builder<'_, '_, '_> {
    /// A value as it stands.
    pub(super) fn literal(&mut self, node: &Node) -> Option<Value> {
        match &node.yaml {
            Yaml::Invalid => None,
            Yaml::Scalar(scalar) => self.context.value(node, scalar),
            Yaml::Sequence(items) => {
                let items: Vec<_> = items.iter().map(|item| self.literal(item)).collect();
                items
                    .into_iter()
                    .collect::<Option<Vec<_>>>()
                    .map(Value::Array)
            }
            Yaml::Mapping(entries) => {
                let mut map = Map::new();
                let mut complete = true;
                for entry in entries {
                    match self.literal(&entry.value) {
                        Some(value) => {
                            map.insert(entry.key.text.to_string(), value);
                        }
                        None => complete = false,
                    }
                }
                complete.then_some(Value::Object(map))
            }
        }
    }

    /// A template in the state's language. `field` names it in errors.
    pub(super) fn template(
        &mut self,
        node: &Node,
        field: &str,
        language: Language,
    ) -> Option<Template> {
        match language {
            Language::Path => self.payload(node).map(Template::Payload),
            Language::Query => self.query(node, field).map(Template::Query),
        }
    }

    /// A payload template.
    pub(super) fn payload(&mut self, node: &Node) -> Option<Payload> {
        match &node.yaml {
            Yaml::Invalid => None,
            Yaml::Scalar(scalar) => self.context.value(node, scalar).map(Payload::Literal),
            Yaml::Sequence(items) => {
                let items: Vec<_> = items.iter().map(|item| self.payload(item)).collect();
                items
                    .into_iter()
                    .collect::<Option<Vec<_>>>()
                    .map(Payload::List)
            }
            Yaml::Mapping(entries) => {
                let mut fields: Vec<(Box<str>, Payload)> = Vec::new();
                let mut complete = true;
                for entry in entries {
                    let key = &*entry.key.text;
                    let (name, value) = match key.strip_suffix(".$") {
                        Some(name) => {
                            let source = self.source(&entry.value, key);
                            let field = key.into();
                            (
                                name,
                                source.map(|source| Payload::Computed { field, source }),
                            )
                        }
                        None => (key, self.payload(&entry.value)),
                    };
                    if fields.iter().any(|(other, _)| **other == *name) {
                        let message =
                            format!("{} is given twice, with and without `.$`", quote(name));
                        self.report(Finding::new(Code::Conflict, entry.key.span, message));
                    }
                    match value {
                        Some(value) => fields.push((name.into(), value)),
                        None => complete = false,
                    }
                }
                complete.then_some(Payload::Object(fields))
            }
        }
    }

    /// A path or a call of an intrinsic function.
    pub(super) fn source(&mut self, node: &Node, field: &str) -> Option<Source> {
        let what = format!("the value of {}", quote(field));
        let text = self.context.text(node, &what)?;
        let parsed = if Call::is_call(text) {
            Call::parse(text).map(Source::Call)
        } else {
            Path::parse(text).map(Source::Path)
        };
        match parsed {
            Ok(source) => {
                self.uses_context |= source.uses_context();
                Some(source)
            }
            Err(error) => {
                self.query_error(node, text.len(), error);
                None
            }
        }
    }

    /// A path.
    pub(super) fn path(&mut self, node: &Node, field: &str) -> Option<Path> {
        let text = self.context.text(node, &format!("`{field}`"))?;
        match Path::parse(text) {
            Ok(path) => {
                self.uses_context |= path.root == Root::Context;
                Some(path)
            }
            Err(error) => {
                self.query_error(node, text.len(), error);
                None
            }
        }
    }

    fn query_error(&mut self, node: &Node, len: usize, error: PathError) {
        let Yaml::Scalar(scalar) = &node.yaml else {
            return;
        };
        let offset = error.at.min(len);
        let error = SyntaxError {
            offset,
            len: usize::from(offset < len),
            message: error.message,
            help: None,
        };
        self.context
            .syntax(Code::InvalidQuery, node, scalar, &error);
    }

    /// `InputPath` or `OutputPath`.
    pub(super) fn part(&mut self, fields: &Fields<'_>, field: &str) -> Option<Part> {
        match fields.get(field) {
            None => Some(Part::All),
            Some(node) if is_null(node) => Some(Part::Nothing),
            Some(node) => {
                let path = self.path(node, field)?;
                let all = path.root == Root::Input && path.is_root();
                Some(if all { Part::All } else { Part::At(path) })
            }
        }
    }

    /// `ResultPath`
    pub(super) fn result_path(&mut self, fields: &Fields<'_>) -> Option<ResultPath> {
        match fields.get("ResultPath") {
            None => Some(ResultPath::Replace),
            Some(node) if is_null(node) => Some(ResultPath::Discard),
            Some(node) => {
                let path = self.path(node, "ResultPath")?;
                match path.as_reference() {
                    Some(places) if places.is_empty() => Some(ResultPath::Replace),
                    Some(_) => Some(ResultPath::At(path)),
                    None => {
                        self.report(
                            Finding::new(
                                Code::InvalidQuery,
                                node.span,
                                "`ResultPath` has to name one place in the state's input",
                            )
                            .help("it can have names and indexes only, as in `$.order.total`"),
                        );
                        None
                    }
                }
            }
        }
    }

    /// JSON with JSONata expressions in it.
    pub(super) fn query(&mut self, node: &Node, field: &str) -> Option<Query> {
        match &node.yaml {
            Yaml::Invalid => None,
            Yaml::Scalar(scalar) => {
                let value = self.context.value(node, scalar)?;
                let body = value.as_str().and_then(Expression::body);
                match body {
                    Some(body) => self.expression(node, scalar, body, field),
                    None => Some(Query::Literal(value)),
                }
            }
            Yaml::Sequence(items) => {
                let items: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(at, item)| self.query(item, &format!("{field}/{at}")))
                    .collect();
                items
                    .into_iter()
                    .collect::<Option<Vec<_>>>()
                    .map(Query::List)
            }
            Yaml::Mapping(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|entry| {
                        let key = &entry.key.text;
                        let value = self.query(&entry.value, &format!("{field}/{key}"))?;
                        Some((key.clone(), value))
                    })
                    .collect();
                entries
                    .into_iter()
                    .collect::<Option<Vec<_>>>()
                    .map(Query::Object)
            }
        }
    }

    fn expression(
        &mut self,
        node: &Node,
        scalar: &Scalar,
        body: &str,
        field: &str,
    ) -> Option<Query> {
        match Expression::parse(body, field) {
            Ok(expression) => {
                let query = Query::Expression(expression);
                self.uses_context |= query.uses_context();
                Some(query)
            }
            Err(message) => {
                let error = SyntaxError {
                    offset: 0,
                    len: scalar.text().len(),
                    message: format!("this is not JSONata: {message}"),
                    help: None,
                };
                self.context
                    .syntax(Code::InvalidQuery, node, scalar, &error);
                None
            }
        }
    }

    /// A field that is a JSONata expression or a value that `fits`.
    pub(super) fn query_or(
        &mut self,
        node: &Node,
        field: &str,
        expected: &str,
        fits: fn(&Value) -> bool,
    ) -> Option<Query> {
        let query = self.query(node, field)?;
        if let Query::Literal(value) = &query
            && !fits(value)
        {
            return self.context.wrong_type(
                node,
                &format!("`{field}` is {expected} or a JSONata expression"),
            );
        }
        Some(query)
    }

    /// `Assign`: a template whose names are those of variables.
    pub(super) fn assign(&mut self, fields: &Fields<'_>, language: Language) -> Option<Template> {
        let node = fields.get("Assign")?;
        let entries = self.context.mapping(node, "`Assign`")?;
        for entry in entries {
            let name = match language {
                Language::Path => entry.key.text.trim_end_matches(".$"),
                Language::Query => &*entry.key.text,
            };
            let mut chars = name.chars();
            let fits = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
                && chars.all(|c| c.is_alphanumeric() || c == '_')
                && name.chars().count() <= MAX_VARIABLE_CHARS
                && name != "states";
            if !fits {
                self.report(
                    Finding::new(
                        Code::InvalidName,
                        entry.key.span,
                        format!("{} is not a valid name of a variable", quote(name)),
                    )
                    .help("letters, digits and `_`, starting with a letter; `states` is reserved"),
                );
            }
        }
        self.template(node, "Assign", language)
    }

    /// A number: `key`, or `path_key` for one from the data (JSONPath only).
    pub(super) fn amount(
        &mut self,
        fields: &Fields<'_>,
        key: &'static str,
        path_key: &'static str,
        language: Language,
        range: (f64, f64),
    ) -> Option<Amount> {
        let why = format!("`{path_key}` takes the place of `{key}`");
        self.context.exclusive(fields, key, path_key, &why);
        if let Some(node) = fields.get(path_key) {
            let source = AmountSource::Path(self.path(node, path_key)?);
            return Some(Amount {
                field: path_key,
                source,
            });
        }
        let node = fields.get(key)?;
        let is_expression = language == Language::Query
            && matches!(&node.yaml, Yaml::Scalar(scalar) if Expression::body(scalar.text()).is_some());
        let source = if is_expression {
            AmountSource::Query(self.query(node, key)?)
        } else {
            let (min, max) = range;
            AmountSource::Fixed(self.context.number(node, &format!("`{key}`"), min, max)?)
        };
        Some(Amount { field: key, source })
    }
}

/// Whether a node is `null`, and not merely empty text.
pub(super) fn is_null(node: &Node) -> bool {
    matches!(&node.yaml, Yaml::Scalar(scalar) if scalar.value() == Ok(Value::Null))
}
