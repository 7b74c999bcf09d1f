//! Clients: each starts one execution after the other, and lets no broken
//! connection discourage it.

use serde_json::{Value, json};

use super::APPLICATION;
use super::arena::Arena;
use super::order::{Kind, Order, end_of};
use crate::Answer;
use crate::http::Ask;

/// One start in so many is sent again later, as by a client that forgot.
const REPEAT: usize = 8;

/// One start in so many waits for the end: half of those that end soon, few of
/// the others, or most clients would be waiting whenever the server dies.
const WAITS_SOON: u32 = 2;
const WAITS_LONG: u32 = 16;

/// Clients wait for ends no longer than this, so that they soon have more to start.
const WAIT: &str = "2s";

/// An execution that the server acknowledged.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) order: Order,
    pub(super) id: String,
    /// How the server said that it had ended, if it has, while it was being killed.
    pub(super) end: Option<Value>,
}

/// Starts executions until the killing is over; gives all that were acknowledged.
pub(super) fn client(arena: &Arena, seed: u64, index: usize) -> Vec<Taken> {
    // Far apart, so that neither clients nor neighbouring seeds do the same.
    let mut random = fastrand::Rng::with_seed(seed.rotate_left(32) ^ (index as u64 + 1));
    let mut taken: Vec<Taken> = Vec::new();
    while !arena.is_over() {
        let key = format!("{seed}-{index}-{}", taken.len());
        let order = Order::random(&mut random, key);
        let waits = match order.kind {
            Kind::Chain | Kind::Effect | Kind::Declined | Kind::Drawn => {
                random.u32(..WAITS_SOON) == 0
            }
            Kind::Timed | Kind::Parallel | Kind::Flaky | Kind::Parent | Kind::Long => {
                random.u32(..WAITS_LONG) == 0
            }
            // They end by what their client does next.
            Kind::Cancelled | Kind::Signalled => false,
        };
        let Some(new) = start(arena, &order, waits) else {
            return taken;
        };
        let new = match order.kind {
            Kind::Cancelled => cancel(arena, new),
            Kind::Signalled => signal(arena, new),
            _ => Some(new),
        };
        taken.extend(new);
        if random.usize(..REPEAT) == 0 {
            let index = random.usize(..taken.len().max(1));
            if let Some(old) = taken.get_mut(index) {
                let ends = !matches!(old.order.kind, Kind::Cancelled | Kind::Signalled);
                let waits = ends && waits;
                repeat(arena, old, waits);
            }
        }
    }
    taken
}

/// Number of executions of each workflow.
pub(super) fn count(taken: &[Taken]) -> Vec<(&'static str, usize)> {
    let of = |kind| {
        taken
            .iter()
            .filter(|taken| taken.order.kind == kind)
            .count()
    };
    Kind::ALL.map(|kind| (kind.workflow(), of(kind))).to_vec()
}

fn start(arena: &Arena, order: &Order, waits: bool) -> Option<Taken> {
    let view = send(arena, order, waits)?;
    let Some(id) = view["id"].as_str() else {
        arena.violation(format!("{}: an answer without id: {view}", order.key));
        return None;
    };
    Some(Taken {
        order: order.clone(),
        id: id.to_owned(),
        end: end(&view),
    })
}

/// The same key again must be the same execution, with the same end.
fn repeat(arena: &Arena, taken: &mut Taken, waits: bool) {
    let Some(view) = send(arena, &taken.order, waits) else {
        return;
    };
    let key = &taken.order.key;
    if view["id"] != taken.id {
        arena.violation(format!(
            "{key} was execution {}, now it is {}",
            taken.id, view["id"]
        ));
    }
    match (&taken.end, end(&view)) {
        (Some(before), None) if view["status"] == "running" => {
            arena.violation(format!("{key} had ended with {before}, now it runs"));
        }
        (None, Some(now)) => taken.end = Some(now),
        // Ends are compared with what was expected later, one by one.
        (Some(before), Some(now)) if *before != now => {
            arena.violation(format!("{key} had ended with {before}, now with {now}"));
        }
        _ => {}
    }
}

fn send(arena: &Arena, order: &Order, waits: bool) -> Option<Value> {
    let path = if waits {
        format!("/v1/executions?wait={WAIT}")
    } else {
        "/v1/executions".to_owned()
    };
    let body = json!({
        "application": APPLICATION,
        "workflow": order.kind.workflow(),
        "input": order.input(),
    });
    let answer = arena.ask(Ask {
        method: "POST",
        path: &path,
        headers: &[("Idempotency-Key", &order.key)],
        body: body.to_string().as_bytes(),
    })?;
    if matches!(answer.status, 200 | 202) {
        return Some(answer.body);
    }
    let (key, status) = (&order.key, answer.status);
    arena.violation(format!("{key} is answered with {status}: {}", answer.body));
    None
}

/// Cancels an execution that would sleep for long.
fn cancel(arena: &Arena, mut taken: Taken) -> Option<Taken> {
    let path = format!("/v1/executions/{}/cancel", taken.id);
    let answer = arena.ask(Ask {
        method: "POST",
        path: &path,
        headers: &[],
        body: json!({ "reason": taken.order.reason() })
            .to_string()
            .as_bytes(),
    })?;
    match answer.status {
        200 => taken.end = end(&answer.body),
        // Sent again after an answer that never arrived.
        409 if answer.body["code"] == "already_closed" => {}
        status => {
            let body = answer.body;
            arena.violation(format!(
                "cancelling {} is answered with {status}: {body}",
                taken.id
            ));
        }
    }
    Some(taken)
}

/// Tells an execution what it waits for, or soon does.
fn signal(arena: &Arena, taken: Taken) -> Option<Taken> {
    let path = format!("/v1/executions/{}/signals", taken.id);
    let body = json!({ "name": "paid", "payload": taken.order.payment() }).to_string();
    let answer = arena.ask(Ask {
        method: "POST",
        path: &path,
        headers: &[("Idempotency-Key", &taken.order.key)],
        body: body.as_bytes(),
    })?;
    if answer.status != 200 {
        let Answer { status, body, .. } = answer;
        arena.violation(format!(
            "a signal to {} is answered with {status}: {body}",
            taken.id
        ));
    }
    Some(taken)
}

/// What a view says of the end, if it shows it whole. A repeated start may
/// answer from the list, where outputs are not.
fn end(view: &Value) -> Option<Value> {
    let whole = match view["status"].as_str() {
        Some("completed") => !view["output"].is_null(),
        Some("failed" | "cancelled") => {
            let message = view["error"]["message"].as_str();
            message.is_some_and(|message| !message.is_empty())
        }
        _ => false,
    };
    whole.then(|| end_of(view))
}
