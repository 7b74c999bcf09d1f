//! Choice states, and what happens on the ways out of them.

use super::Importer;
use super::expression::{Data, Expr, Faults};
use super::flow::{Chain, Flow, value};
use super::states::{Scope, linked};
use super::yaml::{After, Cdl, Y};
use crate::asl::jsonata::Query;
use crate::asl::program::{self as asl, Part, ResultPath, Rule, State};
use crate::program::StateId;

/// Comments, the states on a way, and what they lead to.
type Bridge = (Vec<String>, Vec<Cdl>, StateId);

impl Importer<'_> {
    pub(super) fn choice(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        flow: &Flow<'_>,
        rules: &[Rule],
        default: Option<StateId>,
    ) {
        let mut faults = self.input_as_document(chain, scope, flow.input);
        let mut ways = Vec::new();
        let mut bridges = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            let view = scope.view(Data::At(scope.document.clone()), self.name(chain.id));
            let text = match view.condition(&rule.condition) {
                Ok(condition) => {
                    faults = faults.and(condition.faults);
                    condition.text()
                }
                Err(lost) => {
                    self.lose_here(chain, &format!("Choices[{at}]"), lost);
                    "false".to_owned()
                }
            };
            let output = rule.output.as_ref();
            let bridge = self.bridge(
                scope,
                chain.id,
                flow,
                rule.assign.as_ref(),
                output,
                rule.next,
            );
            ways.push(Y::map([
                ("condition", Y::text(format!("{{{{ {text} }}}}"))),
                ("next", bridged(bridge.as_ref(), rule.next)),
            ]));
            bridges.extend(bridge);
        }
        let mut fields = vec![("choices", Y::List(ways))];
        if let Some(default) = default {
            let assign = state.assign.as_ref();
            let output = match &state.flow {
                asl::Flow::Query { output, .. } => output.as_ref(),
                asl::Flow::Path(_) => None,
            };
            let bridge = self.bridge(scope, chain.id, flow, assign, output, default);
            fields.push(("default", bridged(bridge.as_ref(), default)));
            bridges.extend(bridge);
        } else {
            scope.sees.no_choice = true;
        }
        self.push(chain, "", "Choice", fields);
        for bridge in bridges {
            let (comments, steps, after) = bridge;
            chain.comments.extend(comments);
            let mut own = Chain::new(chain.id, String::new());
            own.steps = steps;
            chain.steps.extend(linked(own, After::Target(after)));
        }
        scope.sees.faults = scope.sees.faults.and(faults);
    }

    /// The states on a way out of a Choice, if something happens there.
    fn bridge(
        &mut self,
        scope: &mut Scope,
        id: StateId,
        flow: &Flow<'_>,
        assign: Option<&asl::Template>,
        output: Option<&Query>,
        next: StateId,
    ) -> Option<Bridge> {
        if assign.is_none() && output.is_none() && *flow.output == Part::All {
            return None;
        }
        let name = format!("{} - to {}", self.name(id), self.name(next));
        let mut own = Chain::new(id, self.fresh_name(&name));
        let mut seen = Data::At(scope.document.clone());
        if assign.is_some() && (output.is_some() || *flow.output != Part::All) {
            let document = Expr::tight(&*scope.document, Faults::NONE).into();
            seen = Data::At(self.store(&mut own, scope, document).text);
        }
        if let Some(output) = output {
            match value(output) {
                Ok(payload) => {
                    let view = scope.view(Data::Empty, "");
                    let value = self.template(&mut own, &view, &payload, "Output");
                    self.combine(&mut own, scope, value, &ResultPath::Replace);
                }
                Err(lost) => self.lose_here(&mut own, "Output", lost),
            }
        }
        let mut faults = self.output(&mut own, scope, flow.output);
        if let Some(assign) = assign {
            faults = faults.and(self.assign(&mut own, scope, seen, assign));
        }
        self.pass_on(&mut own);
        scope.sees.faults = scope.sees.faults.and(faults);
        Some((own.comments, own.steps, next))
    }
}

/// Where a way leads first.
fn bridged(bridge: Option<&Bridge>, next: StateId) -> Y {
    let first = bridge.and_then(|(_, steps, _)| steps.first());
    first.map_or(Y::Target(next), |first| Y::text(&*first.name))
}
