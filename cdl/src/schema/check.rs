//! Applies a schema to a value.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Number, Value};

use super::{Misfit, Unfit, keywords, push};

/// Most steps of a check: each schema applied to each part of the value is one,
/// and so is each part that is compared. Some ten milliseconds.
const MAX_STEPS: u64 = 200_000;

/// Characters of a text that take as long as a step, for a regular expression.
const PATTERN_CHARS: u64 = 4;

/// Bytes of a text that take as long as a step, to count its characters.
const COUNTED_BYTES: u64 = 1024;

/// Deepest recursion: schemas and values nest less, but references can go on for ever.
const MAX_DEPTH: usize = 200;

/// Most misfits that are told: a person corrects some at a time.
const MAX_MISFITS: usize = 10;

/// Stands for [`Unfit::TooMuch`].
struct TooMuch;

type Fits = Result<bool, TooMuch>;

/// Whether `value` is as `schema` says.
pub(super) fn check(schema: &Value, value: &Value) -> Result<(), Unfit> {
    let mut check = Check {
        root: schema,
        steps: 0,
        depth: 0,
        silent: 0,
        at: String::new(),
        misfits: Vec::new(),
        patterns: HashMap::new(),
    };
    match check.schema(schema, value) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unfit::Misfits(check.misfits)),
        Err(TooMuch) => Err(Unfit::TooMuch),
    }
}

struct Check<'a> {
    root: &'a Value,
    steps: u64,
    depth: usize,
    /// How many schemas are being tried whose misfits nobody asks for.
    silent: u32,
    /// JSON Pointer to the part of the value that is looked at.
    at: String,
    misfits: Vec<Misfit>,
    /// Compiled when they are first needed.
    patterns: HashMap<&'a str, Option<Regex>>,
}

impl<'a> Check<'a> {
    fn spend(&mut self, steps: u64) -> Result<(), TooMuch> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return Err(TooMuch);
        }
        Ok(())
    }

    /// Notes a misfit, if `fits` is false; gives `fits` back.
    fn told(&mut self, fits: bool, message: impl FnOnce() -> String) -> bool {
        if !fits && self.silent == 0 && self.misfits.len() < MAX_MISFITS {
            self.misfits.push(Misfit {
                at: self.at.clone(),
                message: message(),
            });
        }
        fits
    }

    fn schema(&mut self, schema: &'a Value, value: &Value) -> Fits {
        self.spend(1)?;
        let keywords = match schema {
            Value::Object(keywords) => keywords,
            // All else was refused when the schema was read.
            other => {
                let fits = *other != Value::Bool(false);
                return Ok(self.told(fits, || "nothing is allowed here".to_owned()));
            }
        };
        if self.depth >= MAX_DEPTH {
            return Err(TooMuch);
        }
        self.depth += 1;
        let mut fits = true;
        for (key, rule) in keywords {
            fits &= self.keyword(keywords, key, rule, value)?;
        }
        self.depth -= 1;
        Ok(fits)
    }

    /// The same without telling what does not fit.
    fn quietly(&mut self, schema: &'a Value, value: &Value) -> Fits {
        self.silent += 1;
        let fits = self.schema(schema, value)?;
        self.silent -= 1;
        Ok(fits)
    }

    fn keyword(
        &mut self,
        keywords: &'a Map<String, Value>,
        key: &str,
        rule: &'a Value,
        value: &Value,
    ) -> Fits {
        match (key, rule) {
            ("$ref", Value::String(text)) => match keywords::target(self.root, text) {
                Some(target) => self.schema(target, value),
                None => Ok(true),
            },
            ("type", _) => {
                let fits = match rule {
                    Value::Array(names) => names.iter().any(|name| is_a(value, name)),
                    name => is_a(value, name),
                };
                Ok(self.told(fits, || format!("it must be of type {}", listed(rule))))
            }
            ("const", _) => {
                let fits = self.same(rule, value)?;
                Ok(self.told(fits, || format!("it must be {}", short(rule))))
            }
            ("enum", Value::Array(options)) => {
                let mut fits = false;
                for option in options {
                    fits = fits || self.same(option, value)?;
                }
                Ok(self.told(fits, || format!("it must be one of {}", short(rule))))
            }
            ("allOf", Value::Array(all)) => self.all(all, value),
            ("anyOf" | "oneOf", Value::Array(some)) => self.some(key, some, value),
            ("not", _) => {
                let fits = !self.quietly(rule, value)?;
                Ok(self.told(fits, || "it must not be as this".to_owned()))
            }
            ("if", _) => {
                let branch = if self.quietly(rule, value)? {
                    "then"
                } else {
                    "else"
                };
                match keywords.get(branch) {
                    Some(schema) => self.schema(schema, value),
                    None => Ok(true),
                }
            }
            _ => match value {
                Value::Number(number) => Ok(self.number(key, rule, number)),
                Value::String(text) => self.text(key, rule, text),
                Value::Array(items) => self.array(keywords, key, rule, items),
                Value::Object(entries) => self.object(keywords, key, rule, entries),
                Value::Null | Value::Bool(_) => Ok(true),
            },
        }
    }

    fn all(&mut self, schemas: &'a [Value], value: &Value) -> Fits {
        let mut fits = true;
        for schema in schemas {
            fits &= self.schema(schema, value)?;
        }
        Ok(fits)
    }

    fn some(&mut self, key: &str, schemas: &'a [Value], value: &Value) -> Fits {
        let mut count = 0;
        for schema in schemas {
            count += u32::from(self.quietly(schema, value)?);
        }
        let exactly = key == "oneOf";
        let fits = count == 1 || (count > 1 && !exactly);
        Ok(self.told(fits, || {
            let exactly = if exactly { "exactly" } else { "at least" };
            format!(
                "it must fit {exactly} one of {}, not {count}",
                schemas.len()
            )
        }))
    }

    fn number(&mut self, key: &str, rule: &Value, number: &Number) -> bool {
        let Value::Number(limit) = rule else {
            return true;
        };
        let order = order(number, limit);
        let (fits, what) = match key {
            "minimum" => (order.is_ge(), "at least"),
            "maximum" => (order.is_le(), "at most"),
            "exclusiveMinimum" => (order.is_gt(), "above"),
            "exclusiveMaximum" => (order.is_lt(), "below"),
            "multipleOf" => (is_multiple(number, limit), "a multiple of"),
            _ => return true,
        };
        self.told(fits, || format!("it must be {what} {limit}"))
    }

    fn text(&mut self, key: &str, rule: &'a Value, text: &str) -> Fits {
        match (key, rule) {
            ("minLength" | "maxLength", Value::Number(limit)) => {
                self.spend(text.len() as u64 / COUNTED_BYTES)?;
                let length = text.chars().count();
                Ok(self.bounded(key.starts_with("min"), length, limit, "characters"))
            }
            ("pattern", Value::String(pattern)) => {
                let fits = self.matches(pattern, text)?;
                Ok(self.told(fits, || format!("it must match `{pattern}`")))
            }
            _ => Ok(true),
        }
    }

    fn array(
        &mut self,
        keywords: &'a Map<String, Value>,
        key: &str,
        rule: &'a Value,
        items: &[Value],
    ) -> Fits {
        match (key, rule) {
            ("minItems" | "maxItems", Value::Number(limit)) => {
                Ok(self.bounded(key.starts_with("min"), items.len(), limit, "items"))
            }
            ("prefixItems", Value::Array(schemas)) => {
                let mut fits = true;
                for (index, (schema, item)) in schemas.iter().zip(items).enumerate() {
                    fits &= self.part(&index.to_string(), schema, item)?;
                }
                Ok(fits)
            }
            ("items", _) => {
                let prefix = keywords.get("prefixItems").and_then(Value::as_array);
                let mut fits = true;
                for (index, item) in items.iter().enumerate().skip(prefix.map_or(0, Vec::len)) {
                    fits &= self.part(&index.to_string(), rule, item)?;
                }
                Ok(fits)
            }
            ("contains", _) => self.contains(keywords, rule, items),
            ("uniqueItems", Value::Bool(true)) => {
                let mut fits = true;
                for (index, item) in items.iter().enumerate() {
                    for other in &items[..index] {
                        fits = fits && !self.same(item, other)?;
                    }
                }
                Ok(self.told(fits, || "no two items may be the same".to_owned()))
            }
            _ => Ok(true),
        }
    }

    fn contains(
        &mut self,
        keywords: &'a Map<String, Value>,
        schema: &'a Value,
        items: &[Value],
    ) -> Fits {
        let mut found = 0;
        for item in items {
            found += u64::from(self.quietly(schema, item)?);
        }
        let limit = |key: &str| match keywords.get(key) {
            Some(Value::Number(number)) => keywords::count(number),
            _ => None,
        };
        let (least, most) = (limit("minContains").unwrap_or(1), limit("maxContains"));
        let fits = found >= least && most.is_none_or(|most| found <= most);
        Ok(self.told(fits, || {
            let most = most.map_or_else(|| "any number".to_owned(), |most| most.to_string());
            format!("{least} to {most} of its items must be as `contains` says, not {found}")
        }))
    }

    fn object(
        &mut self,
        keywords: &'a Map<String, Value>,
        key: &str,
        rule: &'a Value,
        entries: &Map<String, Value>,
    ) -> Fits {
        let mut fits = true;
        match (key, rule) {
            ("properties", Value::Object(schemas)) => {
                for (name, schema) in schemas {
                    if let Some(value) = entries.get(name) {
                        fits &= self.part(name, schema, value)?;
                    }
                }
            }
            ("patternProperties", Value::Object(schemas)) => {
                for (pattern, schema) in schemas {
                    for (name, value) in entries {
                        if self.matches(pattern, name)? {
                            fits &= self.part(name, schema, value)?;
                        }
                    }
                }
            }
            ("additionalProperties", _) => {
                for (name, value) in entries {
                    if !self.is_declared(keywords, name)? {
                        fits &= self.part(name, rule, value)?;
                    }
                }
            }
            ("propertyNames", _) => {
                for name in entries.keys() {
                    fits &= self.part(name, rule, &Value::String(name.clone()))?;
                }
            }
            ("required", Value::Array(names)) => fits = self.required(names, entries)?,
            ("dependentRequired", Value::Object(rules)) => {
                for (name, names) in rules {
                    if let (true, Value::Array(names)) = (entries.contains_key(name), names) {
                        fits &= self.required(names, entries)?;
                    }
                }
            }
            ("dependentSchemas", Value::Object(schemas)) => {
                for (name, schema) in schemas {
                    if entries.contains_key(name) {
                        // The whole is looked at once more.
                        fits &= self.schema(schema, &Value::Object(entries.clone()))?;
                    }
                }
            }
            ("minProperties" | "maxProperties", Value::Number(limit)) => {
                fits = self.bounded(key.starts_with("min"), entries.len(), limit, "entries");
            }
            _ => {}
        }
        Ok(fits)
    }

    /// Whether another keyword speaks of a property with this name.
    fn is_declared(&mut self, keywords: &'a Map<String, Value>, name: &str) -> Fits {
        self.spend(1)?;
        if let Some(Value::Object(named)) = keywords.get("properties")
            && named.contains_key(name)
        {
            return Ok(true);
        }
        if let Some(Value::Object(matching)) = keywords.get("patternProperties") {
            for pattern in matching.keys() {
                if self.matches(pattern, name)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn required(&mut self, names: &[Value], entries: &Map<String, Value>) -> Fits {
        let mut fits = true;
        for name in names.iter().filter_map(Value::as_str) {
            self.spend(1)?;
            let is_there = entries.contains_key(name);
            fits &= self.told(is_there, || format!("`{name}` is missing"));
        }
        Ok(fits)
    }

    /// A part of the value, against the schema for it.
    fn part(&mut self, name: &str, schema: &'a Value, value: &Value) -> Fits {
        let length = self.at.len();
        push(&mut self.at, name);
        let fits = self.schema(schema, value)?;
        self.at.truncate(length);
        Ok(fits)
    }

    fn bounded(&mut self, is_least: bool, length: usize, limit: &Number, what: &str) -> bool {
        let bound = keywords::count(limit).unwrap_or(0);
        let (fits, word) = if is_least {
            (length as u64 >= bound, "at least")
        } else {
            (length as u64 <= bound, "at most")
        };
        self.told(fits, || format!("it must have {word} {bound} {what}"))
    }

    fn matches(&mut self, pattern: &'a str, text: &str) -> Fits {
        self.spend(1 + text.len() as u64 / PATTERN_CHARS)?;
        let regex = self
            .patterns
            .entry(pattern)
            .or_insert_with(|| keywords::pattern(pattern).ok());
        Ok(regex.as_ref().is_none_or(|regex| regex.is_match(text)))
    }

    /// Equality as JSON Schema has it: `1` and `1.0` are the same.
    fn same(&mut self, one: &Value, other: &Value) -> Fits {
        self.spend(1)?;
        match (one, other) {
            (Value::Number(one), Value::Number(other)) => Ok(order(one, other).is_eq()),
            (Value::Array(ones), Value::Array(others)) if ones.len() == others.len() => {
                for (one, other) in ones.iter().zip(others) {
                    if !self.same(one, other)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Object(ones), Value::Object(others)) if ones.len() == others.len() => {
                for (name, one) in ones {
                    let other = others.get(name);
                    let Some(other) = other else { return Ok(false) };
                    if !self.same(one, other)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Array(_) | Value::Object(_), _) => Ok(false),
            (one, other) => Ok(one == other),
        }
    }
}

fn is_a(value: &Value, name: &Value) -> bool {
    match (name.as_str().unwrap_or_default(), value) {
        ("null", Value::Null)
        | ("boolean", Value::Bool(_))
        | ("object", Value::Object(_))
        | ("array", Value::Array(_))
        | ("number", Value::Number(_))
        | ("string", Value::String(_)) => true,
        ("integer", Value::Number(number)) => {
            number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        _ => false,
    }
}

/// Whole numbers exactly, all else as doubles.
fn order(one: &Number, other: &Number) -> std::cmp::Ordering {
    if let (Some(one), Some(other)) = (one.as_i128(), other.as_i128()) {
        return one.cmp(&other);
    }
    let double = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
    let order = double(one).partial_cmp(&double(other));
    order.unwrap_or(std::cmp::Ordering::Less) // no number of JSON is none
}

fn is_multiple(number: &Number, step: &Number) -> bool {
    if let (Some(number), Some(step)) = (number.as_i128(), step.as_i128()) {
        return step != 0 && number % step == 0;
    }
    let (number, step) = (number.as_f64(), step.as_f64());
    let (Some(number), Some(step)) = (number, step) else {
        return false;
    };
    // `0.3` is a multiple of `0.1`, though not as doubles.
    let ratio = number / step;
    let off = (ratio - ratio.round()).abs();
    off <= f64::EPSILON * ratio.abs().max(1.0)
}

fn listed(types: &Value) -> String {
    match types {
        Value::Array(names) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            names.join(" or ")
        }
        name => name.as_str().unwrap_or_default().to_owned(),
    }
}

/// As much of a value as a message should repeat.
fn short(value: &Value) -> String {
    const MOST: usize = 200;
    let text = value.to_string();
    if text.len() <= MOST {
        return text;
    }
    let text: String = text.chars().take(MOST).collect();
    format!("{text}…")
}
