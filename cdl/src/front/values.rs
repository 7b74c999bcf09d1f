//! Values of the file that the machine computes with: templates, conditions, paths.

use serde_json::Value;

use super::fields::Context;
use super::report::Finding;
use super::scalar::Scalar;
use super::yaml::{Node, Yaml};
use crate::diagnostic::Code;
use crate::expression::{Path, SyntaxError, Template};

impl Context<'_> {
    /// Any value, with expressions in it.
    pub(super) fn template(&mut self, node: &Node) -> Option<Template> {
        match &node.yaml {
            Yaml::Invalid => None,
            Yaml::Scalar(scalar) => self.scalar_template(node, scalar),
            Yaml::Sequence(items) => {
                let items: Vec<_> = items.iter().map(|item| self.template(item)).collect();
                let items: Option<Vec<_>> = items.into_iter().collect();
                items.map(Template::array)
            }
            Yaml::Mapping(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|entry| {
                        let value = self.template(&entry.value)?;
                        Some((entry.key.text.to_string(), value))
                    })
                    .collect();
                let entries: Option<Vec<_>> = entries.into_iter().collect();
                entries.map(Template::object)
            }
        }
    }

    fn scalar_template(&mut self, node: &Node, scalar: &Scalar) -> Option<Template> {
        match self.value(node, scalar)? {
            Value::String(text) => match Template::parse(&text) {
                Ok(template) => Some(template),
                Err(error) => {
                    self.syntax(Code::InvalidExpression, node, scalar, &error);
                    None
                }
            },
            value => Some(Template::literal(value)),
        }
    }

    /// Text with expressions in it.
    pub(super) fn text_template(&mut self, node: &Node, what: &str) -> Option<Template> {
        self.text(node, what)?;
        self.template(node)
    }

    /// What a Choice looks at.
    pub(super) fn condition(&mut self, node: &Node) -> Option<Template> {
        let scalar = self.scalar(node, "`condition` is an expression")?;
        let template = self.scalar_template(node, scalar)?;
        let plain = match template.as_literal() {
            None | Some(Value::Bool(_)) => false,
            Some(_) => true,
        };
        if plain {
            self.report(
                Finding::new(
                    Code::NotACondition,
                    node.span,
                    "`condition` is not an expression",
                )
                .label("this is never `true`")
                .help("put it between braces: \"{{ $.total > 100 }}\""),
            );
            return None;
        }
        Some(template)
    }

    /// Where a result goes.
    pub(super) fn path(&mut self, node: &Node, what: &str) -> Option<Path> {
        self.text(node, what)?;
        let scalar = self.scalar(node, what)?;
        match Path::parse(scalar.text()) {
            Ok(path) => Some(path),
            Err(error) => {
                let code = if is_reserved(scalar.text(), &error) {
                    Code::ReservedPath
                } else {
                    Code::InvalidPath
                };
                self.syntax(code, node, scalar, &error);
                None
            }
        }
    }
}

/// Whether the path is well-formed, and only where it leads is not allowed: the
/// root, or what the execution keeps about itself. Then the whole text is at fault.
fn is_reserved(text: &str, error: &SyntaxError) -> bool {
    text.starts_with('$') && error.offset == 0 && error.len == text.len()
}
