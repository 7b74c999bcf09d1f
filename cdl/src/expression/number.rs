//! JSON numbers as an author expects them: integers exact, never NaN.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::ast::BinaryOp;

/// Every integer of JSON fits an `i128`, and so do sums and most products;
/// only the result must fit an `i64` or `u64` again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Num {
    Int(i128),
    Float(f64),
}

/// Floats below this are cast to `i128` without loss of their integer part.
const EXACT: f64 = 1e30;

impl Num {
    pub(super) fn of(number: &Number) -> Self {
        if let Some(int) = number.as_i64() {
            Self::Int(int.into())
        } else if let Some(int) = number.as_u64() {
            Self::Int(int.into())
        } else {
            // Without `arbitrary_precision` a number is one of the three.
            Self::Float(number.as_f64().unwrap_or_default())
        }
    }

    /// As JSON, unless it is too large.
    pub(super) fn into_value(self) -> Result<Value, &'static str> {
        match self {
            Self::Int(int) => i64::try_from(int)
                .map(Value::from)
                .or_else(|_| u64::try_from(int).map(Value::from))
                .map_err(|_| "the result does not fit 64 bits"),
            Self::Float(float) => Number::from_f64(float)
                .map(Value::Number)
                .ok_or("the result is too large"),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "mixing integers and floats is arithmetic in f64, as documented"
    )]
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }

    /// The integer that this float is, if it has no fraction and is not huge.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the bound and the missing fraction make the cast exact"
    )]
    pub(super) fn whole(float: f64) -> Option<i128> {
        (float.abs() < EXACT && float.fract() == 0.0).then_some(float as i128)
    }

    /// Applies `round` to a float; the result is an integer where one fits.
    pub(super) fn rounded(self, round: fn(f64) -> f64) -> Self {
        match self {
            Self::Int(_) => self,
            Self::Float(float) => {
                let float = round(float);
                match Self::whole(float) {
                    Some(int) if i64::try_from(int).is_ok() => Self::Int(int),
                    _ => Self::Float(float),
                }
            }
        }
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Self::Int(int) => Self::Int(-int),
            Self::Float(float) => Self::Float(-float),
        }
    }

    /// Exact, also between integers and floats, so that sorting is sound.
    pub(super) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Self::Int(a), Self::Float(b)) => compare_mixed(a, b),
            (Self::Float(a), Self::Int(b)) => compare_mixed(b, a).reverse(),
        }
    }

    /// `self op other` for an arithmetic operator.
    pub(super) fn arithmetic(self, op: BinaryOp, other: Self) -> Result<Self, &'static str> {
        if matches!(op, BinaryOp::Divide | BinaryOp::Remainder)
            && other.compare(Self::Int(0)) == Ordering::Equal
        {
            return Err("division by zero");
        }
        if let (Self::Int(a), Self::Int(b)) = (self, other) {
            let exact = match op {
                BinaryOp::Add => a.checked_add(b),
                BinaryOp::Subtract => a.checked_sub(b),
                BinaryOp::Multiply => a.checked_mul(b),
                BinaryOp::Remainder => a.checked_rem(b),
                // A quotient with a fraction becomes a float, as in JSON's
                // own language; nobody wants 7 / 2 to be 3.
                _ if a % b == 0 => a.checked_div(b),
                _ => return Ok(Self::Float(self.as_f64() / other.as_f64())),
            };
            return exact
                .map(Self::Int)
                .ok_or("the result does not fit 64 bits");
        }
        let (a, b) = (self.as_f64(), other.as_f64());
        Ok(Self::Float(match op {
            BinaryOp::Add => a + b,
            BinaryOp::Subtract => a - b,
            BinaryOp::Multiply => a * b,
            BinaryOp::Remainder => a % b,
            _ => a / b,
        }))
    }
}

fn compare_mixed(int: i128, float: f64) -> Ordering {
    match Num::whole(float.trunc()) {
        Some(whole) => int
            .cmp(&whole)
            .then_with(|| 0.0.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal)),
        // Larger than any integer of JSON, so the sign decides.
        None if float > 0.0 => Ordering::Less,
        None => Ordering::Greater,
    }
}
