//! Reads JSON into the tree that YAML is read into.
//!
//! Flow style YAML is nearly JSON, but not quite: it knows no surrogate pairs
//! and keeps a whole value in brackets in view. Definitions in JSON are machine
//! made and large, so they have a reader of their own.

use std::collections::HashMap;

use saphyr_parser::ScalarStyle;

use super::report::{Finding, Reporter, quote};
use super::scalar::Scalar;
use super::text::{Span, Text};
use super::yaml::{Entry, Key, MAX_DEPTH, MAX_NODES, Node, Yaml};
use crate::diagnostic::Code;

/// Why reading ended.
enum Stop {
    /// The text is not JSON; it may be YAML.
    NotJson,
    /// It is, but cannot be used, for a reason that was reported.
    Refused,
}

/// What a text is.
pub(super) enum Json {
    /// JSON.
    Root(Node),
    /// JSON that cannot be used; the reason was reported.
    Refused,
    /// Something else.
    Other,
}

/// Reads `text`, if it is an object in JSON.
pub(super) fn read(text: &Text, reporter: &mut Reporter) -> Json {
    if !text.as_str().trim_start().starts_with('{') {
        return Json::Other;
    }
    let mut reader = Reader {
        text,
        reporter,
        at: 0,
        depth: 0,
        nodes: 0,
    };
    reader.spaces();
    let root = reader.value().and_then(|root| {
        reader.spaces();
        if reader.at == text.as_str().len() {
            Ok(root)
        } else {
            Err(Stop::NotJson)
        }
    });
    match root {
        Ok(root) => Json::Root(root),
        Err(Stop::Refused) => Json::Refused,
        Err(Stop::NotJson) => Json::Other,
    }
}

struct Reader<'a, 't, 'r> {
    text: &'a Text<'t>,
    reporter: &'r mut Reporter,
    at: usize,
    depth: usize,
    nodes: usize,
}

impl<'t> Reader<'_, 't, '_> {
    fn rest(&self) -> &'t str {
        &self.text.as_str()[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_str().as_bytes().get(self.at).copied()
    }

    fn spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.spaces();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Result<Node, Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.refuse("the file has too many values");
        }
        let start = self.at;
        let yaml = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Yaml::Scalar(Scalar::new(&self.string()?, ScalarStyle::DoubleQuoted)),
            _ => self.literal()?,
        };
        let span = Span::new(start, self.at);
        Ok(Node { span, yaml })
    }

    fn refuse<T>(&mut self, message: &str) -> Result<T, Stop> {
        let span = Span::new(self.at, self.at + 1);
        let code = if self.depth > MAX_DEPTH {
            Code::TooDeep
        } else {
            Code::TooBig
        };
        self.reporter.report(Finding::new(code, span, message));
        Err(Stop::Refused)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Yaml, Stop>) -> Result<Yaml, Stop> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.refuse("the file is nested too deeply");
        }
        self.at += 1;
        let yaml = read(self);
        self.depth -= 1;
        yaml
    }

    fn object(&mut self) -> Result<Yaml, Stop> {
        let mut entries = Vec::new();
        let mut seen: HashMap<Box<str>, usize> = HashMap::new();
        if self.eat(b'}') {
            return Ok(Yaml::Mapping(entries));
        }
        loop {
            self.spaces();
            let start = self.at;
            let text: Box<str> = self.string()?.into();
            let span = Span::new(start, self.at);
            if let Some(first) = seen.insert(text.clone(), start) {
                let line = self.text.position(first).line;
                self.reporter.report(
                    Finding::new(
                        Code::DuplicateKey,
                        span,
                        format!("{} is given twice", quote(&text)),
                    )
                    .label(format!("first given in line {line}"))
                    .related(Span::new(first, first))
                    .help("remove one of the two"),
                );
            }
            if !self.eat(b':') {
                return Err(Stop::NotJson);
            }
            self.spaces();
            let value = self.value()?;
            entries.push(Entry {
                key: Key { span, text },
                value,
            });
            if self.eat(b'}') {
                return Ok(Yaml::Mapping(entries));
            }
            if !self.eat(b',') {
                return Err(Stop::NotJson);
            }
        }
    }

    fn array(&mut self) -> Result<Yaml, Stop> {
        let mut items = Vec::new();
        if self.eat(b']') {
            return Ok(Yaml::Sequence(items));
        }
        loop {
            self.spaces();
            items.push(self.value()?);
            if self.eat(b']') {
                return Ok(Yaml::Sequence(items));
            }
            if !self.eat(b',') {
                return Err(Stop::NotJson);
            }
        }
    }

    /// A string; `serde_json` resolves its escapes.
    fn string(&mut self) -> Result<String, Stop> {
        let rest = self.rest();
        let mut bytes = rest.bytes().enumerate();
        if bytes.next().map(|(_, byte)| byte) != Some(b'"') {
            return Err(Stop::NotJson);
        }
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'\\' => {
                    bytes.next();
                }
                b'"' => {
                    self.at += at + 1;
                    return serde_json::from_str(&rest[..=at]).map_err(|_| Stop::NotJson);
                }
                _ => {}
            }
        }
        Err(Stop::NotJson)
    }

    /// A number, `true`, `false` or `null`.
    fn literal(&mut self) -> Result<Yaml, Stop> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
            .unwrap_or(rest.len());
        let text = &rest[..end];
        if serde_json::from_str::<serde_json::Value>(text).is_err() {
            return Err(Stop::NotJson);
        }
        self.at += end;
        Ok(Yaml::Scalar(Scalar::new(text, ScalarStyle::Plain)))
    }
}
