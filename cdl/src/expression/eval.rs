//! Evaluation over JSON in place: values are borrowed from the context until
//! something new is made of them.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::ast::{Access, Base, BinaryOp, Expr, FilterCall, Step};
use super::fault::{Fault, Result, operands, other, too_deep};
use super::number::Num;
use super::{Env, MAX_BYTES, MAX_STEPS, MAX_VALUE_DEPTH, nearest, type_name};

/// A value that is borrowed while it can be.
pub(super) type Val<'x> = Cow<'x, Value>;

/// Deepest value that equality and text look into. Values of the context are
/// shallower, and so is whatever an expression can build of them.
pub(super) const MAX_WALK: usize = 256;

/// Bytes of text that count as one step: about what a node costs.
const BYTES_PER_STEP: usize = 64;

/// Bytes that a value counts, besides its text.
const BYTES_PER_VALUE: usize = 16;

/// One evaluation of a template: its environment and what is left of its bounds.
pub(super) struct Evaluator<'x> {
    pub(super) env: &'x Env<'x>,
    /// Steps that it may take, and how many of them are left.
    limit: usize,
    steps: usize,
    /// Whether it counts what the first version did not.
    thorough: bool,
    bytes: usize,
    /// Number of UUIDs made.
    pub(super) uuids: u64,
}

impl<'x> Evaluator<'x> {
    pub(super) fn new(env: &'x Env<'_>) -> Self {
        Self {
            env,
            limit: MAX_STEPS,
            steps: MAX_STEPS,
            thorough: false,
            bytes: MAX_BYTES,
            uuids: 0,
        }
    }

    /// An evaluation that ends after `steps`, and counts all that it does.
    pub(super) fn within(env: &'x Env<'_>, steps: usize) -> Self {
        let steps = steps.min(MAX_STEPS);
        Self {
            limit: steps,
            steps,
            thorough: true,
            ..Self::new(env)
        }
    }

    /// Pays for `n` steps.
    pub(super) fn step(&mut self, n: usize) -> Result<'x, ()> {
        let left = self.steps.checked_sub(n);
        self.steps = left.unwrap_or(0);
        let limit = self.limit;
        left.map(|_| ())
            .ok_or_else(|| other(format!("evaluation takes more than {limit} steps")))
    }

    /// Steps paid for so far.
    pub(super) fn taken(&self) -> usize {
        self.limit - self.steps
    }

    /// Pays for reading `bytes` of text.
    pub(super) fn read(&mut self, bytes: usize) -> Result<'x, ()> {
        self.step(bytes / BYTES_PER_STEP)
    }

    /// Pays for looking at `bytes` of a key, or for copying them from the
    /// program: nothing in the first version, whose histories must not run into
    /// a bound that they did not run into.
    pub(super) fn look(&mut self, bytes: usize) -> Result<'x, ()> {
        if self.thorough {
            self.read(bytes)
        } else {
            Ok(())
        }
    }

    /// Pays for making `bytes` of text or values, before they are made.
    pub(super) fn make(&mut self, bytes: usize) -> Result<'x, ()> {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(0);
        if left.is_none() {
            return Err(other(format!(
                "evaluation makes more than {MAX_BYTES} bytes"
            )));
        }
        self.read(bytes)
    }

    /// The value of `expr`.
    pub(super) fn eval(&mut self, expr: &'x Expr) -> Result<'x, Val<'x>> {
        self.step(1)?;
        match expr {
            Expr::Literal(value) => Ok(Cow::Borrowed(value)),
            Expr::Access(access) => self.access(access),
            Expr::Now => Ok(owned(self.env.now.to_string())),
            Expr::Uuid => Ok(super::filters::uuid(self, "")),
            Expr::Array(items) => self.array(items),
            Expr::Object(items) => self.object(items),
            Expr::Not(operand) => {
                let holds = self.boolean(operand, "!")?;
                Ok(owned(!holds))
            }
            Expr::Negate(operand) => {
                let operand = self.eval(operand)?;
                let number = number(&operand, "-")?;
                number.negated().into_value().map(Cow::Owned).map_err(other)
            }
            Expr::And(pair) => {
                let holds = self.boolean(&pair.0, "&&")? && self.boolean(&pair.1, "&&")?;
                Ok(owned(holds))
            }
            Expr::Or(pair) => {
                let holds = self.boolean(&pair.0, "||")? || self.boolean(&pair.1, "||")?;
                Ok(owned(holds))
            }
            Expr::Binary(op, pair) => {
                let left = self.eval(&pair.0)?;
                let right = self.eval(&pair.1)?;
                self.binary(*op, &left, &right)
            }
            Expr::Ternary(ternary) => {
                let holds = self.boolean(&ternary.condition, "?")?;
                self.eval(if holds {
                    &ternary.then
                } else {
                    &ternary.otherwise
                })
            }
            Expr::Filtered(input, calls) => self.filtered(input, calls),
        }
    }

    /// `value` as one that can be kept. Pays for the copy before making it.
    pub(super) fn own(&mut self, value: Val<'x>) -> Result<'x, Value> {
        self.own_within(value, MAX_VALUE_DEPTH)
    }

    /// As [`Self::own`], for a place that leaves room for `levels` more.
    pub(super) fn own_within(&mut self, value: Val<'x>, levels: usize) -> Result<'x, Value> {
        match value {
            Cow::Owned(value) => Ok(value),
            Cow::Borrowed(value) => self.copy_within(value, levels),
        }
    }

    /// A copy of `value`, paid for.
    pub(super) fn copy(&mut self, value: &Value) -> Result<'x, Value> {
        self.copy_within(value, MAX_VALUE_DEPTH)
    }

    fn copy_within(&mut self, value: &Value, levels: usize) -> Result<'x, Value> {
        self.measure(value, levels)?;
        Ok(value.clone())
    }

    /// Pays for what a copy of `value` takes, and refuses one that is deeper
    /// than `levels`.
    pub(super) fn measure(&mut self, value: &Value, levels: usize) -> Result<'x, ()> {
        self.step(1)?;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.make(BYTES_PER_VALUE),
            Value::String(text) => self.make(BYTES_PER_VALUE + text.len()),
            Value::Array(items) => {
                let levels = inner(levels)?;
                self.make(BYTES_PER_VALUE)?;
                items.iter().try_for_each(|item| self.measure(item, levels))
            }
            Value::Object(map) => {
                let levels = inner(levels)?;
                self.make(BYTES_PER_VALUE)?;
                map.iter().try_for_each(|(key, item)| {
                    self.make(key.len())?;
                    self.measure(item, levels)
                })
            }
        }
    }

    /// `value` as text: a string as it is, anything else as JSON.
    pub(super) fn text<'v>(&mut self, value: &'v Value) -> Result<'x, Cow<'v, str>> {
        match value {
            Value::String(text) => Ok(Cow::Borrowed(text)),
            value => self.json(value).map(Cow::Owned),
        }
    }

    /// Appends `value` as text.
    pub(super) fn push_text(&mut self, to: &mut String, value: &Value) -> Result<'x, ()> {
        let text = self.text(value)?;
        self.make(text.len())?;
        to.push_str(&text);
        Ok(())
    }

    /// `value` as compact JSON.
    pub(super) fn json(&mut self, value: &Value) -> Result<'x, String> {
        self.measure(value, MAX_WALK)?;
        let text = value.to_string();
        // Escapes make it longer than it was measured, at most six times.
        self.make(text.len())?;
        Ok(text)
    }

    /// Whether the values are equal: numbers by value, objects in any order.
    pub(super) fn equal(&mut self, a: &Value, b: &Value) -> Result<'x, bool> {
        self.equal_within(a, b, MAX_WALK)
    }

    fn equal_within(&mut self, a: &Value, b: &Value, levels: usize) -> Result<'x, bool> {
        self.step(1)?;
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => {
                Ok(Num::of(a).compare(Num::of(b)) == Ordering::Equal)
            }
            (Value::String(a), Value::String(b)) => {
                self.read(a.len().min(b.len()))?;
                Ok(a == b)
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                let levels = inner(levels)?;
                for (a, b) in a.iter().zip(b) {
                    if !self.equal_within(a, b, levels)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
                let levels = inner(levels)?;
                for ((key, a), (other, at_other)) in a.iter().zip(b) {
                    self.look(key.len())?;
                    // Equal objects have their keys in the same order, most often.
                    let found = if key == other {
                        Some(at_other)
                    } else {
                        b.get(key)
                    };
                    let equal = match found {
                        Some(b) => self.equal_within(a, b, levels)?,
                        None => false,
                    };
                    if !equal {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Null, Value::Null) => Ok(true),
            (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
            _ => Ok(false),
        }
    }

    /// `needle in haystack`.
    pub(super) fn contains(&mut self, haystack: &Value, needle: &Value) -> Result<'x, bool> {
        match (haystack, needle) {
            (Value::Array(items), _) => {
                for item in items {
                    if self.equal(item, needle)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Object(map), Value::String(key)) => {
                self.look(key.len())?;
                Ok(map.contains_key(key))
            }
            (Value::String(text), Value::String(part)) => {
                self.read(text.len() + part.len())?;
                Ok(text.contains(part.as_str()))
            }
            _ => Err(other(format!(
                "`in` finds an element in a list, a key in an object or a string in a string, not {} in {}",
                type_name(needle),
                type_name(haystack)
            ))),
        }
    }

    fn array(&mut self, items: &'x [Expr]) -> Result<'x, Val<'x>> {
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            self.make(BYTES_PER_VALUE)?;
            let value = self.eval(item)?;
            values.push(self.own(value)?);
        }
        Ok(Cow::Owned(Value::Array(values)))
    }

    fn object(&mut self, items: &'x [(Box<str>, Expr)]) -> Result<'x, Val<'x>> {
        let mut map = Map::new();
        for (key, item) in items {
            self.make(BYTES_PER_VALUE + key.len())?;
            let value = self.eval(item)?;
            map.insert(key.to_string(), self.own(value)?);
        }
        Ok(Cow::Owned(Value::Object(map)))
    }

    /// The value of an operand that must be `true` or `false`.
    fn boolean(&mut self, expr: &'x Expr, operator: &str) -> Result<'x, bool> {
        let value = self.eval(expr)?;
        value.as_bool().ok_or_else(|| {
            other(format!(
                "`{operator}` needs a boolean, not {}",
                type_name(&value)
            ))
        })
    }

    fn binary(&mut self, op: BinaryOp, left: &Value, right: &Value) -> Result<'x, Val<'x>> {
        match op {
            BinaryOp::Equal => self.equal(left, right).map(owned),
            BinaryOp::NotEqual => self.equal(left, right).map(|equal| owned(!equal)),
            BinaryOp::In => self.contains(right, left).map(owned),
            BinaryOp::Less
            | BinaryOp::LessOrEqual
            | BinaryOp::Greater
            | BinaryOp::GreaterOrEqual => {
                let order = self.order(op, left, right)?;
                Ok(owned(match op {
                    BinaryOp::Less => order.is_lt(),
                    BinaryOp::LessOrEqual => order.is_le(),
                    BinaryOp::Greater => order.is_gt(),
                    _ => order.is_ge(),
                }))
            }
            _ => match (left, right) {
                (Value::Number(a), Value::Number(b)) => Num::of(a)
                    .arithmetic(op, Num::of(b))
                    .and_then(Num::into_value)
                    .map(Cow::Owned)
                    .map_err(|problem| other(format!("`{}`: {problem}", op.symbol()))),
                (Value::String(a), Value::String(b)) if op == BinaryOp::Add => {
                    self.make(a.len() + b.len())?;
                    Ok(owned([a.as_str(), b].concat()))
                }
                _ => Err(operands(op, left, right)),
            },
        }
    }

    fn order(&mut self, op: BinaryOp, left: &Value, right: &Value) -> Result<'x, Ordering> {
        match (left, right) {
            (Value::Number(a), Value::Number(b)) => Ok(Num::of(a).compare(Num::of(b))),
            (Value::String(a), Value::String(b)) => {
                self.read(a.len().min(b.len()))?;
                Ok(a.cmp(b))
            }
            _ => Err(operands(op, left, right)),
        }
    }

    fn filtered(&mut self, input: &'x Expr, calls: &'x [FilterCall]) -> Result<'x, Val<'x>> {
        let mut value = self.eval(input);
        for call in calls {
            self.step(1)?;
            value = match value {
                Ok(value) if call.filter.keeps(&value) => Ok(value),
                Ok(_) | Err(Fault::Missing { .. } | Fault::Empty(_))
                    if call.filter.is_default() =>
                {
                    self.eval(&call.args[0])
                }
                Ok(value) => self.call(call, &value),
                fault => fault,
            };
        }
        value
    }

    fn call(&mut self, call: &'x FilterCall, input: &Val<'x>) -> Result<'x, Val<'x>> {
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.eval(arg)?);
        }
        call.filter.apply(self, input, &args)
    }

    fn access(&mut self, access: &'x Access) -> Result<'x, Val<'x>> {
        let (base, done) = match &access.base {
            Base::Context if self.env.overlays.is_empty() => (self.env.context, 0),
            Base::Context => match access.steps.first() {
                Some(step) => (self.layered(access, step)?, 1),
                None => return self.merged().map(Cow::Owned),
            },
            Base::Local(name) => self.local(name, access)?,
            Base::Value(base) => match self.eval(base)? {
                Cow::Borrowed(base) => (base, 0),
                Cow::Owned(base) => return self.walk_owned(access, &base),
            },
        };
        let mut place = base;
        for (at, step) in access.steps.iter().enumerate().skip(done) {
            place = self.child(place, step)?.ok_or(Fault::Missing {
                access,
                at,
                parent: Some(place),
            })?;
        }
        Ok(Cow::Borrowed(place))
    }

    /// The first step into a context with overlays: from the innermost that has
    /// the key.
    fn layered(&mut self, access: &'x Access, step: &'x Step) -> Result<'x, &'x Value> {
        let found = match step {
            Step::Key(key) => self.layer(key)?.get(key.as_ref()),
            Step::Index(_) => None,
            Step::Computed(expr) => {
                let at = self.eval(expr)?;
                let layer = match at.as_ref() {
                    Value::String(key) => self.layer(key)?,
                    _ => self.env.context,
                };
                self.at(layer, &at)?
            }
        };
        found.ok_or(Fault::Missing {
            access,
            at: 0,
            parent: Some(self.env.context),
        })
    }

    /// The innermost overlay that has `key`, or the context.
    fn layer(&mut self, key: &str) -> Result<'x, &'x Value> {
        let env = self.env;
        for overlay in env.overlays {
            self.step(1)?;
            self.look(key.len())?;
            if overlay.get(key).is_some() {
                return Ok(overlay);
            }
        }
        Ok(env.context)
    }

    /// The context and its overlays in one.
    fn merged(&mut self) -> Result<'x, Value> {
        let env = self.env;
        let mut merged = Map::new();
        for layer in env.overlays.iter().chain([&env.context]) {
            for (key, value) in layer.as_object().into_iter().flatten() {
                self.step(1)?;
                self.look(key.len())?;
                if !merged.contains_key(key) {
                    self.make(BYTES_PER_VALUE + key.len())?;
                    // The object itself is a level more.
                    let value = self.own_within(Cow::Borrowed(value), MAX_VALUE_DEPTH - 1)?;
                    merged.insert(key.clone(), value);
                }
            }
        }
        Ok(Value::Object(merged))
    }

    /// The steps into a value that the expression made.
    fn walk_owned(&mut self, access: &'x Access, base: &Value) -> Result<'x, Val<'x>> {
        let mut place = base;
        for (at, step) in access.steps.iter().enumerate() {
            place = self.child(place, step)?.ok_or(Fault::Missing {
                access,
                at,
                parent: None,
            })?;
        }
        self.copy(place).map(Cow::Owned)
    }

    fn child<'v>(&mut self, place: &'v Value, step: &'x Step) -> Result<'x, Option<&'v Value>> {
        match step {
            Step::Key(key) => Ok(place.get(key.as_ref())),
            Step::Index(index) => Ok(element(place, *index)),
            Step::Computed(expr) => {
                let at = self.eval(expr)?;
                self.at(place, &at)
            }
        }
    }

    /// What `place` has at a key or index that was computed.
    fn at<'v>(&mut self, place: &'v Value, at: &Value) -> Result<'x, Option<&'v Value>> {
        match at {
            Value::String(key) => {
                self.look(key.len())?;
                Ok(place.get(key))
            }
            Value::Number(number) if number.as_i64().is_some() => {
                Ok(number.as_i64().and_then(|index| element(place, index)))
            }
            wrong => Err(other(format!(
                "an index is an integer or a string, not {}",
                if wrong.is_number() {
                    "another number"
                } else {
                    type_name(wrong)
                }
            ))),
        }
    }

    /// The value of a word, and how many steps led to it: `map.parent` is the
    /// `map` further out.
    fn local(&mut self, name: &str, access: &'x Access) -> Result<'x, (&'x Value, usize)> {
        let env = self.env;
        let mut known = env.locals.iter().filter(|(local, _)| *local == name);
        if let Some((_, innermost)) = known.next() {
            let is_parent = |step: &&Step| matches!(step, Step::Key(key) if **key == *"parent");
            let outwards = match name {
                "map" => access.steps.iter().take_while(is_parent).count(),
                _ => 0,
            };
            self.step(outwards)?;
            return match outwards.checked_sub(1) {
                None => Ok((innermost, 0)),
                Some(skipped) => known
                    .nth(skipped)
                    .map(|(_, value)| (*value, outwards))
                    .ok_or_else(|| other("`map.parent`: there is no Map state around this one")),
            };
        }
        let near = if self.env.context.get(name).is_some() {
            Some(format!("$.{name}"))
        } else {
            let locals = self.env.locals.iter().map(|(local, _)| *local);
            nearest(name, locals).map(ToOwned::to_owned)
        };
        Err(other(match near {
            Some(near) => format!("`{name}` is not known here, did you mean `{near}`?"),
            None => format!("`{name}` is not known here"),
        }))
    }
}

/// A value that the evaluation made.
pub(super) fn owned<'x>(value: impl Into<Value>) -> Val<'x> {
    Cow::Owned(value.into())
}

/// The number that `operator` needs.
fn number<'x>(value: &Value, operator: &str) -> Result<'x, Num> {
    match value {
        Value::Number(number) => Ok(Num::of(number)),
        _ => Err(other(format!(
            "`{operator}` needs a number, not {}",
            type_name(value)
        ))),
    }
}

/// The levels that are left inside a list or object.
fn inner<'x>(levels: usize) -> Result<'x, usize> {
    levels.checked_sub(1).ok_or_else(too_deep)
}

/// The element at `index`; a negative one counts from the end.
fn element(list: &Value, index: i64) -> Option<&Value> {
    list.as_array()?
        .get(position(index, list.as_array()?.len())?)
}

/// `index` into something of `len` elements; may be at or behind its end.
pub(super) fn position(index: i64, len: usize) -> Option<usize> {
    let back = usize::try_from(index.unsigned_abs()).ok()?;
    if index < 0 {
        len.checked_sub(back)
    } else {
        Some(back)
    }
}
