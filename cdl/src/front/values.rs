//! Values of the file that the machine computes with: templates, conditions, paths.

use serde_json::Value;

use super::fields::Context;
use super::report::{Finding, quote, similar};
use super::scalar::Scalar;
use super::text::Span;
use super::yaml::{Node, Yaml};
use crate::diagnostic::Code;
use crate::expression::{Path, Root, SyntaxError, Template};
use crate::placing;

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
                Ok(template) => {
                    let known = self.words(node, scalar, &template);
                    let template = match template.with_secrets(&text) {
                        Some(secret) if self.may_name_secrets => secret,
                        _ => template,
                    };
                    known.then_some(template)
                }
                Err(error) => {
                    self.syntax(Code::InvalidExpression, node, scalar, &error);
                    None
                }
            },
            value => Some(Template::literal(value)),
        }
    }

    /// Whether an expression uses only words that have a meaning here.
    fn words(&mut self, node: &Node, scalar: &Scalar, template: &Template) -> bool {
        let errors = self.reporter.errors();
        for reference in template.references() {
            let (offset, len) = (reference.offset, reference.len);
            let word = match &reference.root {
                Root::Local(word) => word,
                Root::Context if self.in_schedule => {
                    let span = scalar.locate(self.text, node.span, offset, len);
                    self.report(without_context(span));
                    continue;
                }
                Root::Context => continue,
            };
            if word == "schedule" && self.in_schedule {
                if let Some(key) = reference.segments.first()
                    && !SCHEDULE.contains(&key.as_str())
                {
                    let span = scalar.locate(self.text, node.span, offset, len);
                    let problem = format!("`schedule` has `name` and `at`, not {}", quote(key));
                    self.report(Finding::new(Code::InvalidExpression, span, problem));
                }
                continue;
            }
            if word == "map" && self.iterators > 0 {
                if let Some(problem) = misused_map(&reference.segments, self.iterators) {
                    let span = scalar.locate(self.text, node.span, offset, len);
                    self.report(Finding::new(Code::InvalidExpression, span, problem));
                }
                continue;
            }
            if word == "secrets" && self.may_name_secrets {
                if template.with_secrets(scalar.text()).is_none() {
                    let span = scalar.locate(self.text, node.span, offset, len);
                    self.report(mixed_secret(span));
                }
                continue;
            }
            let span = scalar.locate(self.text, node.span, offset, word.len());
            self.report(unknown_word(word, span));
        }
        self.reporter.errors() == errors
    }

    /// One value that is computed before an execution begins, when no more is known of
    /// it than its input, its id and its tenant.
    pub(super) fn start_template(&mut self, node: &Node, what: &str) -> Option<Template> {
        let scalar = self.scalar(node, &format!("{what} is text or a number"))?;
        let template = self.scalar_template(node, scalar)?;
        let errors = self.reporter.errors();
        for reference in template.references() {
            if !placing::is_known(&reference.root, &reference.segments) {
                let (offset, len) = (reference.offset, reference.len);
                let span = scalar.locate(self.text, node.span, offset, len);
                let message = format!("{what} is evaluated before the execution begins");
                self.report(
                    Finding::new(Code::InvalidExpression, span, message)
                        .label("this is not known then")
                        .help(
                            "it can read `$.workflow.input`, `$.workflow.execution_id` and \
                             `$.workflow.tenant`",
                        ),
                );
            }
        }
        (self.reporter.errors() == errors).then_some(template)
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
        if !is_condition(scalar.text(), &template) {
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

/// Whether the template is one expression, not text with expressions in it.
fn is_condition(text: &str, template: &Template) -> bool {
    if let Some(value) = template.as_literal() {
        return value.is_boolean();
    }
    let text = text.trim_end();
    let inner = text
        .strip_prefix("{{")
        .and_then(|text| text.strip_suffix("}}"));
    inner.is_some_and(|inner| Template::parse_expression(inner).is_ok())
}

/// What is wrong with the keys behind the word `map`, inside of so many iterators.
fn misused_map(keys: &[String], iterators: usize) -> Option<String> {
    let outwards = keys.iter().take_while(|key| *key == "parent").count();
    if outwards >= iterators {
        return Some(match iterators {
            1 => "there is no Map state around this one, so no `map.parent`".to_owned(),
            _ => format!("there are only {iterators} Map states around this"),
        });
    }
    let key = keys.get(outwards)?;
    (key != "item" && key != "index")
        .then(|| format!("`map` has `item`, `index` and `parent`, not {}", quote(key)))
}

fn mixed_secret(span: Span) -> Finding {
    Finding::new(
        Code::InvalidExpression,
        span,
        "a secret is put into a text as it is, by the worker that runs the attempt",
    )
    .label("nothing can be computed from it, and nothing else beside it")
    .help("write \"{{ secrets.NAME }}\" or \"Bearer {{ secrets.NAME }}\"")
}

/// What the word `schedule` has.
const SCHEDULE: [&str; 2] = ["name", "at"];

fn without_context(span: Span) -> Finding {
    Finding::new(
        Code::InvalidExpression,
        span,
        "a schedule has no context: nothing runs yet",
    )
    .help("it knows `schedule.name` and `schedule.at`, the time that it is about")
}

fn unknown_word(word: &str, span: Span) -> Finding {
    match word {
        "schedule" => Finding::new(
            Code::InvalidExpression,
            span,
            "`schedule` is known in the `input` of a schedule only",
        )
        .help("in an execution that a schedule started it is `workflow.schedule`"),
        "map" => Finding::new(
            Code::InvalidExpression,
            span,
            "`map` is known inside of an `iterator` only",
        )
        .help("it has the item and its position: `map.item`, `map.index`"),
        "secrets" => Finding::new(
            Code::InvalidExpression,
            span,
            "`secrets` are known in the `parameters` of what runs an activity only",
        )
        .help("what they are is in no history, so nothing can be computed from them"),
        _ => Finding::new(
            Code::InvalidExpression,
            span,
            format!("{} is not known here", quote(word)),
        )
        .help(match similar(word, ["workflow", "now", "uuid"]) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("write `$.{word}` for a path, `'{word}'` for a text"),
        }),
    }
}

/// Whether the path is well-formed, and only where it leads is not allowed: the
/// root, or what the execution keeps about itself. Then the whole text is at fault.
fn is_reserved(text: &str, error: &SyntaxError) -> bool {
    text.starts_with('$') && error.offset == 0 && error.len == text.len()
}
