//! States with scopes of their own: Parallel and Map.

use std::borrow::Cow;

use serde_json::Value;

use super::Importer;
use super::condition::jsonata;
use super::expression::{Data, Expr, Faults, Lost, View};
use super::flow::{Chain, Computed, Flow, value};
use super::shape;
use super::states::{Begin, Scope, Sees, literal_value};
use super::yaml::Y;
use crate::asl::payload::Payload;
use crate::asl::program::{self as asl, AmountSource, Items, Map, State};
use crate::program::ScopeId;

/// Iterations at a time of a Map that does not say, as the machine runs it.
const INLINE_CONCURRENCY: u64 = 40;

/// Most iterations at a time.
const MAX_CONCURRENCY: u64 = 256;

impl Importer<'_> {
    pub(super) fn parallel(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        flow: &Flow<'_>,
        branches: &[ScopeId],
    ) {
        self.no_retries(chain, &state.retry);
        let mut input = self.arguments(chain, scope, flow);
        let mut faults = input.faults;
        let document = Expr::tight(&*scope.document, Faults::NONE);
        if input.y != document.in_braces() {
            let at = scope.own("input");
            let fields = vec![("parameters", input.y), ("result", Y::text(&*at))];
            self.push_before(chain, "input", "Pass", fields);
            scope.sees.faults = scope.sees.faults.and(faults);
            faults = Faults::NONE;
            input = Expr::tight(at, Faults::NONE).into();
        }
        if branches.is_empty() {
            let value = literal_value(&Value::Array(Vec::new()));
            let faults = self.deliver(chain, scope, value, flow, state.assign.as_ref());
            scope.sees.faults = scope.sees.faults.and(faults);
            return;
        }
        let before = scope.objects.get(&chain.id) == Some(&true);
        let is_object = shape::arguments(flow, before);
        let mut sees = Sees::faults(faults);
        let (mut all, mut outputs) = (Vec::new(), Vec::new());
        let gathered = scope.own("branches");
        for branch in branches {
            let key = self.fresh_key(*branch);
            let begin = Begin {
                key: Some(key.clone()),
                in_map: scope.in_map,
                guarded: scope.is_guarded(state),
                input: input.y.clone(),
                is_object,
            };
            let (states, own) = self.scope(*branch, Some(scope), begin);
            sees = sees.and(own);
            outputs.push(Y::text(format!("{{{{ {gathered}.{key} }}}}")));
            all.push(Y::map([
                ("name", Y::Text(key)),
                ("states", Y::States(states)),
            ]));
        }
        let fields = vec![("branches", Y::List(all)), ("result", Y::text(&*gathered))];
        self.push(chain, "", "Parallel", fields);
        let at = chain.steps.len() - 1;
        let list = Computed {
            y: Y::List(outputs),
            expr: None,
            faults: Faults::NONE,
        };
        let value = match &flow.selector {
            Some(selector) => {
                let stored = self.store(chain, scope, list);
                let view = scope.view(Data::At(stored.text), self.name(chain.id));
                self.template(chain, &view, selector, "ResultSelector")
            }
            None => list,
        };
        let late = self.deliver(chain, scope, value, flow, state.assign.as_ref());
        self.caught(chain, scope, state, at, sees, late);
    }

    pub(super) fn map(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        flow: &Flow<'_>,
        map: &Map,
    ) {
        self.no_retries(chain, &state.retry);
        self.tell_of_map(chain, map);
        let data = self.input(chain, scope, flow.input);
        let view = scope.view(data, self.name(chain.id));
        let items = match &map.items {
            Items::Input => Ok(view.all().into()),
            Items::Path(path) => view.path(path).map(Computed::from),
            Items::Query(query) => value(query).and_then(|payload| match payload {
                Payload::Literal(value) if value.is_array() => Ok(literal_value(&value)),
                _ => Err(jsonata()),
            }),
        };
        let field = match &map.items {
            Items::Query(_) => "Items",
            Items::Path(_) | Items::Input => "ItemsPath",
        };
        let items = match items {
            Ok(items) => items.y,
            Err(lost) => return self.unexpressed(chain, field, lost),
        };
        let faults = match &state.flow {
            asl::Flow::Path(_) => Faults::RUNTIME,
            asl::Flow::Query { .. } => Faults::OTHER,
        };
        let mut sees = Sees::faults(faults);
        let key = self.fresh_key(map.processor);
        let (item, is_object) = self.item(chain, &view, map);
        sees.faults = sees.faults.and(item.faults);
        let begin = Begin {
            key: Some(key),
            in_map: true,
            guarded: scope.is_guarded(state),
            input: item.y,
            is_object,
        };
        let (states, own) = self.scope(map.processor, Some(scope), begin);
        sees = sees.and(own);
        let mut fields = vec![("items", items)];
        let concurrency = self.concurrency(chain, map);
        fields.push(("max_concurrency", Y::Bare(concurrency.to_string())));
        fields.push(("iterator", Y::map([("states", Y::States(states))])));
        self.push(chain, "", "Map", fields);
        let at = chain.steps.len() - 1;
        let late = self.outcome(chain, scope, state, flow, at, Data::At);
        self.caught(chain, scope, state, at, sees, late);
    }

    /// What an iteration starts with, and whether that is an object for sure.
    fn item(&mut self, chain: &mut Chain, view: &View<'_>, map: &Map) -> (Computed, bool) {
        let plain = || (Expr::tight("map.item", Faults::NONE).into(), false);
        let selector = match &map.selector {
            None => return plain(),
            Some(asl::Template::Payload(payload)) => Ok(Cow::Borrowed(payload)),
            Some(asl::Template::Query(query)) => value(query).map(Cow::Owned),
        };
        let selector = match selector {
            Ok(selector) => selector,
            Err(lost) => {
                self.lose_here(chain, "ItemSelector", lost);
                return plain();
            }
        };
        // Its `$$.Map` is about this state's items.
        let view = View {
            in_map: true,
            ..view.clone()
        };
        let item = self.template(chain, &view, &selector, "ItemSelector");
        (item, shape::is_object(&selector))
    }

    fn concurrency(&mut self, chain: &mut Chain, map: &Map) -> u64 {
        match map.concurrency.as_ref().map(|amount| &amount.source) {
            None => INLINE_CONCURRENCY,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // the front end takes 0 to 100,000,000
            Some(AmountSource::Fixed(number)) => match *number as u64 {
                0 => INLINE_CONCURRENCY,
                asked => asked.min(MAX_CONCURRENCY),
            },
            Some(AmountSource::Path(_) | AmountSource::Query(_)) => {
                let lost = Lost::new("`max_concurrency` is fixed", "write a number that fits all");
                self.lose_here(chain, "MaxConcurrency", lost);
                INLINE_CONCURRENCY
            }
        }
    }

    /// What a Map state of CDL does not have, or has in another way.
    fn tell_of_map(&mut self, chain: &mut Chain, map: &Map) {
        let told = [
            (
                map.distributed,
                "ProcessorConfig",
                "a distributed Map takes objects as items, sees no variables, and fails with \
                 States.ExceedToleratedFailureThreshold",
                "see that the items are a list, and what catches the errors of its states",
            ),
            (
                map.reader.is_some(),
                "ItemReader",
                "items come from the context only",
                "read them in a Task before",
            ),
            (
                map.batcher.is_some(),
                "ItemBatcher",
                "`batch: { size: n }` gives lists of items, not `{Items, BatchInput}`",
                "add it, and let the iterator take a list",
            ),
            (
                map.tolerated_count.is_some() || map.tolerated_percentage.is_some(),
                "ToleratedFailureCount",
                "the list of a Map that bears failures has an entry for each",
                "add `tolerated_failure_count` or `_percentage`, and leave the failed ones out behind it",
            ),
        ];
        for (is_given, field, what, help) in told {
            if is_given {
                self.lose_here(chain, field, Lost::new(what, help));
            }
        }
    }
}
