//! Makes expressions count what they do.
//!
//! `jsonata-core` bounds the depth of an evaluation and the length of a list,
//! but not its steps, unless by the clock, which a replay must not depend on.
//! All that an expression repeats it repeats by calling functions, by filtering
//! and by mapping a path's step; whatever grows grows through operators,
//! constructors and arguments. So before an expression is used, calls of two
//! functions of ours are written into it: `$__tick(n)` at the start of each
//! function body, block step and filter counts `n` steps, and `$__pass(x)`
//! around what is put together counts the size of `x` and gives it back.
//! Both fail once [`MAX_STEPS`] are spent.

use std::cell::Cell;
use std::rc::Rc;

use jsonata_core::ast::{AstNode, BinaryOp, PathStep, Stage, StepId};
use jsonata_core::evaluator::{Evaluator, EvaluatorError};
use jsonata_core::value::{JValue, with_stack};

use super::{MAX_STEPS, failure};

/// Names that no expression of an author can have: they are refused.
const TICK: &str = "__tick";
const PASS: &str = "__pass";

/// Bytes of text that count as one step.
pub(super) const STEP_BYTES: u64 = 64;

/// Most values, and pieces of text, that a result may have: what fits into the
/// 256 KiB that a state may pass on, and some more.
pub(super) const MAX_OUTPUT_NODES: u64 = 300_000;

/// Steps of a tick: calling a function of the language takes some microseconds.
const TICK_STEPS: u64 = 50;

/// Steps of a path that multiplies, or looks into everything: it may make a list
/// of the greatest length, only to throw it away.
const PRODUCT_STEPS: u64 = 2_000;

/// Deepest value that an expression may put together.
const MAX_DEPTH: usize = 256;

/// Functions whose first argument is read through at most once, or mapped with
/// a function that counts for itself: only its length is counted.
const READERS: [&str; 22] = [
    "count",
    "sum",
    "max",
    "min",
    "average",
    "lookup",
    "exists",
    "type",
    "length",
    "map",
    "filter",
    "reduce",
    "single",
    "each",
    "sift",
    "keys",
    "not",
    "boolean",
    "number",
    "contains",
    "join",
    "substring",
];

/// Writes the counting into an expression.
pub(super) fn guard(ast: &mut AstNode) -> Result<(), String> {
    let mut guard = Guard { refused: None };
    guard.node(ast);
    match guard.refused {
        None => Ok(()),
        Some(name) => Err(format!("`${name}` is reserved")),
    }
}

/// Makes the two functions known to an evaluator.
pub(super) fn install(evaluator: &mut Evaluator, spent: &Rc<Cell<u64>>) {
    let charge = |spent: &Cell<u64>, steps: u64| {
        let total = spent.get().saturating_add(steps);
        spent.set(total);
        if total > MAX_STEPS {
            Err(failure(format!(
                "the expression takes more than {MAX_STEPS} steps: endless recursion, or too much data?"
            )))
        } else {
            Ok(())
        }
    };
    let ticks = Rc::clone(spent);
    let tick = move |args: &[JValue]| {
        charge(&ticks, number(args.first()))?;
        Ok(JValue::Undefined)
    };
    let passes = Rc::clone(spent);
    let pass = move |args: &[JValue]| -> Result<JValue, EvaluatorError> {
        let value = args.first().cloned().unwrap_or(JValue::Undefined);
        let shallow = args.len() > 1;
        let left = MAX_STEPS.saturating_sub(passes.get());
        let mut room = left + 1;
        let fits = shallow || weigh(&value, MAX_DEPTH, &mut room);
        if !fits && room > 0 {
            return Err(failure(format!(
                "a value is nested deeper than {MAX_DEPTH} levels"
            )));
        }
        let steps = if shallow {
            1 + len(&value)
        } else {
            left + 2 - room
        };
        charge(&passes, steps)?;
        Ok(value)
    };
    let registered = [
        evaluator.register_fn(TICK, tick),
        evaluator.register_fn(PASS, pass),
    ];
    debug_assert!(registered.iter().all(Result::is_ok), "the names are free");
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // written by us: small and whole
fn number(value: Option<&JValue>) -> u64 {
    value.and_then(JValue::as_f64).unwrap_or(0.0) as u64
}

fn len(value: &JValue) -> u64 {
    match value {
        JValue::Array(items) => items.len() as u64,
        JValue::Object(map) => map.len() as u64,
        JValue::String(text) => text.len() as u64 / STEP_BYTES,
        _ => 0,
    }
}

/// Counts a value and all within it. `false` if it is deeper than `levels`, or
/// larger than `room`, of which then nothing is left.
fn weigh(value: &JValue, levels: usize, room: &mut u64) -> bool {
    let size = 1 + match value {
        JValue::String(text) => text.len() as u64 / STEP_BYTES,
        _ => 0,
    };
    if let Some(left @ 1..) = room.checked_sub(size) {
        *room = left;
    } else {
        *room = 0;
        return false;
    }
    match value {
        JValue::Array(items) => {
            levels > 0 && items.iter().all(|item| weigh(item, levels - 1, room))
        }
        JValue::Object(map) => levels > 0 && map.values().all(|item| weigh(item, levels - 1, room)),
        _ => true,
    }
}

struct Guard {
    /// A name of ours that the author used.
    refused: Option<String>,
}

impl Guard {
    /// Walks and rewrites. The parser bounds the depth of the tree.
    fn node(&mut self, node: &mut AstNode) {
        with_stack(|| self.rewrite(node));
    }

    fn nodes(&mut self, nodes: &mut [AstNode]) {
        for node in nodes {
            self.node(node);
        }
    }

    fn rewrite(&mut self, node: &mut AstNode) {
        match node {
            AstNode::Path { steps } => self.path(steps),
            AstNode::Binary { op, lhs, rhs } => {
                self.node(lhs);
                self.node(rhs);
                match op {
                    BinaryOp::Concatenate | BinaryOp::Equal | BinaryOp::NotEqual | BinaryOp::In => {
                        pass(lhs, false);
                        pass(rhs, false);
                    }
                    _ => {}
                }
            }
            AstNode::Unary { operand, .. } => self.node(operand),
            AstNode::Function { name, args, .. } => {
                self.refuse(name);
                self.nodes(args);
                call(name, args);
            }
            AstNode::Call { procedure, args } => {
                self.node(procedure);
                for arg in args {
                    self.node(arg);
                    pass(arg, false);
                }
            }
            AstNode::Lambda { body, params, .. } => {
                for name in params.iter() {
                    self.refuse(name);
                }
                self.node(body);
                tick(body);
            }
            AstNode::Array(items) | AstNode::ArrayGroup(items) => {
                for item in items {
                    self.node(item);
                    element(item);
                }
            }
            AstNode::Object(pairs) => self.pairs(pairs),
            AstNode::ObjectTransform { input, pattern } => {
                self.node(input);
                self.pairs(pattern);
            }
            AstNode::Block(parts) => self.nodes(parts),
            other => self.rewrite_plain(other),
        }
    }

    /// Nodes that grow and repeat nothing themselves.
    fn rewrite_plain(&mut self, node: &mut AstNode) {
        match node {
            AstNode::Conditional {
                condition,
                then_branch,
                else_branch,
            } => {
                self.node(condition);
                self.node(then_branch);
                if let Some(branch) = else_branch {
                    self.node(branch);
                }
            }
            AstNode::FunctionApplication(inner) => self.node(inner),
            AstNode::Sort { input, terms } => {
                self.node(input);
                for (term, _) in terms {
                    self.node(term);
                }
            }
            AstNode::Transform {
                location,
                update,
                delete,
            } => {
                self.node(location);
                self.node(update);
                if let Some(delete) = delete {
                    self.node(delete);
                }
            }
            AstNode::Variable(name) => self.refuse(name),
            // Literals, names and the like; the others were dealt with above.
            _ => {}
        }
    }

    fn refuse(&mut self, name: &str) {
        if name == TICK || name == PASS {
            self.refused = Some(name.to_owned());
        }
    }

    fn path(&mut self, steps: &mut [PathStep]) {
        for step in steps {
            self.node(&mut step.node);
            for stage in &mut step.stages {
                if let Stage::Filter(filter) = stage {
                    self.node(filter);
                    if !matches!(**filter, AstNode::Number(_) | AstNode::String(_)) {
                        tick(filter);
                    }
                }
            }
            if let AstNode::Block(parts) = &mut step.node {
                let cost = TICK_STEPS + parts.iter().map(products).sum::<u64>();
                parts.insert(0, ticking(cost));
            }
            // The evaluator caches what it compiles of a step by this.
            step.id = StepId::default();
        }
    }

    fn pairs(&mut self, pairs: &mut [(AstNode, AstNode)]) {
        for (key, value) in pairs {
            self.node(key);
            self.node(value);
            pass(value, false);
        }
    }
}

/// What is counted of a call of the function `name`.
fn call(name: &mut String, args: &mut Vec<AstNode>) {
    // `$now(picture, zone)` is the time of the event, in the words of `$fromMillis`.
    if name == "now" {
        "fromMillis".clone_into(name);
        args.insert(0, function("millis", Vec::new()));
        return;
    }
    let reads = READERS.contains(&name.as_str());
    for (at, arg) in args.iter_mut().enumerate() {
        pass(arg, reads && at == 0);
    }
}

/// An item of a list: a range counts before it is made.
fn element(item: &mut AstNode) {
    if let AstNode::Binary {
        op: BinaryOp::Range,
        ..
    } = item
    {
        *item = AstNode::Block(vec![
            ticking(PRODUCT_STEPS),
            std::mem::replace(item, AstNode::Null),
        ]);
        return;
    }
    // A list in a list is told from a value that is a list by its syntax.
    if !matches!(item, AstNode::Array(_)) {
        pass(item, false);
    }
}

/// `$__pass(node)`, where a value is meant.
fn pass(node: &mut AstNode, shallow: bool) {
    let plain = matches!(
        node,
        AstNode::Placeholder
            | AstNode::Lambda { .. }
            | AstNode::Number(_)
            | AstNode::Boolean(_)
            | AstNode::Null
            | AstNode::Regex { .. }
            | AstNode::Transform { .. }
    );
    if plain {
        return;
    }
    let mut args = vec![std::mem::replace(node, AstNode::Null)];
    if shallow {
        args.push(AstNode::Boolean(true));
    }
    *node = function(PASS, args);
}

/// `($__tick(n); node)`
fn tick(node: &mut Box<AstNode>) {
    let cost = TICK_STEPS + products(node);
    let inner = std::mem::replace(&mut **node, AstNode::Null);
    **node = AstNode::Block(vec![ticking(cost), inner]);
}

fn ticking(cost: u64) -> AstNode {
    // Costs are far below 2^53.
    #[expect(clippy::cast_precision_loss)]
    function(TICK, vec![AstNode::Number(cost as f64)])
}

fn function(name: &str, args: Vec<AstNode>) -> AstNode {
    AstNode::Function {
        name: name.to_owned(),
        args,
        is_builtin: true,
    }
}

/// Steps for the paths and ranges in `node` that may make long lists each time
/// that it is evaluated; those in functions are counted when these are called.
fn products(node: &AstNode) -> u64 {
    with_stack(|| match node {
        AstNode::Path { steps } => {
            let multiplies = |step: &PathStep| !matches!(step.node, AstNode::Name(_));
            let own = u64::from(steps.iter().skip(1).any(multiplies)) * PRODUCT_STEPS;
            own + steps.iter().map(|step| products(&step.node)).sum::<u64>()
        }
        AstNode::Descendant | AstNode::Wildcard => PRODUCT_STEPS,
        AstNode::Binary { lhs, rhs, .. } => products(lhs) + products(rhs),
        AstNode::Unary { operand, .. } => products(operand),
        AstNode::Function { args, .. } => args.iter().map(products).sum(),
        AstNode::Call { procedure, args } => {
            products(procedure) + args.iter().map(products).sum::<u64>()
        }
        AstNode::Array(items) | AstNode::ArrayGroup(items) | AstNode::Block(items) => {
            items.iter().map(products).sum()
        }
        AstNode::Object(pairs) => pairs.iter().map(|(k, v)| products(k) + products(v)).sum(),
        AstNode::ObjectTransform { input, pattern } => {
            products(input)
                + pattern
                    .iter()
                    .map(|(k, v)| products(k) + products(v))
                    .sum::<u64>()
        }
        AstNode::Conditional {
            condition,
            then_branch,
            else_branch,
        } => {
            let other = else_branch.as_deref().map_or(0, products);
            products(condition) + products(then_branch) + other
        }
        AstNode::FunctionApplication(inner) => products(inner),
        AstNode::Sort { input, .. } => PRODUCT_STEPS + products(input),
        _ => 0,
    })
}
