//! Rates: `10/s`, `300/m`, `1000/h`.

use super::fields::{Context, Shape};
use super::report::{Finding, quote};
use super::yaml::{Node, Yaml};
use crate::diagnostic::Code;
use crate::program::Rate;

/// Greatest count of a rate. More than that in a second no server begins.
pub(super) const MAX_COUNT: u32 = 1_000_000;

/// The units, in milliseconds.
const UNITS: [(&str, u32); 3] = [("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

pub(super) const RATE: Shape = Shape {
    what: "a rate limit",
    known: &["rate", "burst"],
    later: &["key"],
};

/// How often attempts begin: evenly spaced, unless the file says how many may at once.
/// They wait, so that nothing is gained by letting several go.
pub(super) fn of_attempts(context: &mut Context<'_>, node: &Node) -> Option<Rate> {
    limit(context, node, "`rate_limit`", |_| 1)
}

/// How often executions start: as many at once as the rate counts, unless the file
/// says otherwise. Beyond it they are refused, and clients do not come evenly spaced.
pub(super) fn of_starts(context: &mut Context<'_>, node: &Node) -> Option<Rate> {
    limit(context, node, "`start_rate_limit`", |count| count)
}

fn limit(
    context: &mut Context<'_>,
    node: &Node,
    what: &str,
    burst: fn(u32) -> u32,
) -> Option<Rate> {
    if !matches!(node.yaml, Yaml::Mapping(_)) {
        let (count, per_ms) = rate(context, node, what)?;
        let burst = burst(count);
        return Some(Rate {
            count,
            per_ms,
            burst,
        });
    }
    let fields = context.fields(node, &RATE)?;
    let given = match fields.get("burst") {
        Some(node) => Some(context.integer(node, "`burst`", 1, MAX_COUNT)?),
        None => None,
    };
    let node = context.required(&fields, "rate")?;
    let (count, per_ms) = rate(context, node, "`rate`")?;
    Some(Rate {
        count,
        per_ms,
        burst: given.unwrap_or_else(|| burst(count)),
    })
}

/// How often, and in how many milliseconds.
fn rate(context: &mut Context<'_>, node: &Node, what: &str) -> Option<(u32, u32)> {
    let scalar = context.scalar(node, &format!("{what} is a rate, as in `10/s`"))?;
    let text = scalar.text();
    let parsed = text.split_once('/').and_then(|(count, unit)| {
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let count = digits.then(|| count.parse::<u32>().ok())??;
        let (_, per_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
        (1..=MAX_COUNT).contains(&count).then_some((count, *per_ms))
    });
    if parsed.is_none() {
        let message = format!("{what} cannot be {}", quote(text));
        let help = format!(
            "write how often, 1 to {MAX_COUNT}, in a second, a minute or an hour: `10/s`, `300/m`, `1000/h`"
        );
        context.report(Finding::new(Code::InvalidValue, node.span, message).help(help));
    }
    parsed
}
