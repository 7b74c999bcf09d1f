//! The states of a scope.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Importer;
use super::condition::jsonata;
use super::expression::{Data, Expr, Faults, Lost, View, escaped, literal_y};
use super::flow::{Chain, Computed, Flow, Unfit, duration, names};
use super::recover::OWN_ERRORS;
use super::shape;
use super::yaml::{After, Cdl, Y};
use crate::asl::jsonata::Query;
use crate::asl::names::RESULT_PATH_MATCH;
use crate::asl::path::Path;
use crate::asl::payload::Payload;
use crate::asl::program::{
    self as asl, Amount, AmountSource, Bound, Envelope, Kind, Part, ResultPath, State, Task, Until,
    Words,
};
use crate::expression::key_text;
use crate::program::{Next, Program, ScopeId, StateId, StateKind};

/// Longest name of a state, in characters.
pub(super) const MAX_NAME_CHARS: usize = 80;

/// What may come of the states of a scope, for those who catch it.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing that may come, by itself"
)]
pub(super) struct Sees {
    pub(super) faults: Faults,
    /// An activity that takes too long; by its state's own limit; without a heartbeat.
    pub(super) timeout: bool,
    pub(super) limit: bool,
    pub(super) heartbeat: bool,
    /// A Choice without a way.
    pub(super) no_choice: bool,
    /// A Fail state without an error's name.
    pub(super) no_name: bool,
}

impl Sees {
    pub(super) fn and(self, more: Self) -> Self {
        Self {
            faults: self.faults.and(more.faults),
            timeout: self.timeout || more.timeout,
            limit: self.limit || more.limit,
            heartbeat: self.heartbeat || more.heartbeat,
            no_choice: self.no_choice || more.no_choice,
            no_name: self.no_name || more.no_name,
        }
    }

    pub(super) fn faults(faults: Faults) -> Self {
        Self {
            faults,
            ..Self::default()
        }
    }
}

/// A scope that is being translated.
pub(super) struct Scope {
    id: ScopeId,
    /// The key of its data in the context; none for the workflow.
    key: Option<String>,
    /// Where its document is.
    pub(super) document: String,
    pub(super) in_map: bool,
    /// Whether somebody around it catches that a result does not fit the data.
    guarded: bool,
    /// Where each variable is that its states see; none of those in two places.
    variables: BTreeMap<String, Option<String>>,
    /// Which states' data is an object for sure.
    pub(super) objects: BTreeMap<StateId, bool>,
    /// The state that ends it with its document as the output.
    done: Option<String>,
    /// The state that raises again what is not caught.
    pub(super) rethrow: Option<String>,
    /// States that handle errors, behind all others.
    pub(super) handlers: Vec<Cdl>,
    pub(super) sees: Sees,
}

impl Scope {
    /// Whether somebody catches that the result of a state in it does not fit.
    pub(super) fn is_guarded(&self, state: &State) -> bool {
        self.guarded || catches_unfit(state)
    }

    /// What becomes of a result that does not fit and that its state does not catch.
    pub(super) fn unfit(&self) -> Unfit {
        if self.guarded {
            Unfit::Raised
        } else {
            Unfit::Unseen
        }
    }

    /// A place in the context that no other scope writes to.
    pub(super) fn own(&self, what: &str) -> String {
        match &self.key {
            None => format!("$.{what}"),
            Some(key) => format!("$.{key}_{what}"),
        }
    }

    pub(super) fn view<'v>(&'v self, data: Data, state: &'v str) -> View<'v> {
        View {
            data,
            state,
            in_map: self.in_map,
            variables: &self.variables,
        }
    }

    /// Where `ResultPath` leads, if it surely can be written there.
    pub(super) fn place(&self, id: StateId, result: &ResultPath) -> Option<String> {
        let names = names(result)?;
        match names[..] {
            [name] if self.objects.get(&id) == Some(&true) => {
                Some(format!("{}{}", self.document, key_text(name)))
            }
            _ => None,
        }
    }
}

/// What a scope starts with.
pub(super) struct Begin {
    /// The key of its data in the context; none for the workflow.
    pub(super) key: Option<String>,
    /// Whether there is an iteration around its states.
    pub(super) in_map: bool,
    /// Whether somebody around it catches that a result does not fit the data.
    pub(super) guarded: bool,
    /// What becomes its document, and whether that is an object for sure.
    pub(super) input: Y,
    pub(super) is_object: bool,
}

/// The variables that each scope assigns.
pub(super) fn assigned(program: &Program) -> Vec<BTreeSet<String>> {
    let mut assigned = vec![BTreeSet::new(); program.scopes.len()];
    for state in &program.states {
        let StateKind::Asl(asl) = &state.kind else {
            continue;
        };
        let mut templates: Vec<_> = asl.assign.iter().collect();
        templates.extend(
            asl.catch
                .iter()
                .filter_map(|catcher| catcher.assign.as_ref()),
        );
        if let Kind::Choice { rules, .. } = &asl.kind {
            templates.extend(rules.iter().filter_map(|rule| rule.assign.as_ref()));
        }
        let names = &mut assigned[state.scope.0 as usize];
        for template in templates {
            match template {
                asl::Template::Payload(Payload::Object(fields)) => {
                    names.extend(fields.iter().map(|(name, _)| name.to_string()));
                }
                asl::Template::Payload(Payload::Literal(Value::Object(map)))
                | asl::Template::Query(Query::Literal(Value::Object(map))) => {
                    names.extend(map.keys().cloned());
                }
                asl::Template::Query(Query::Object(fields)) => {
                    names.extend(fields.iter().map(|(name, _)| name.to_string()));
                }
                _ => {}
            }
        }
    }
    assigned
}

impl<'p> Importer<'p> {
    /// The states of the workflow.
    pub(super) fn root(&mut self) -> Vec<Cdl> {
        let input = Expr::tight("workflow.input", Faults::NONE).in_braces();
        let begin = Begin {
            key: None,
            in_map: false,
            guarded: false,
            input,
            is_object: false,
        };
        self.scope(ScopeId::ROOT, None, begin).0
    }

    /// The states of a scope, the first of which makes its input the document, and what
    /// may come of them.
    pub(super) fn scope(
        &mut self,
        id: ScopeId,
        outer: Option<&Scope>,
        begin: Begin,
    ) -> (Vec<Cdl>, Sees) {
        let document = begin.key.as_deref();
        let mut scope = Scope {
            id,
            document: document.map_or("$.data".to_owned(), |key| format!("$.{key}")),
            in_map: begin.in_map,
            guarded: begin.guarded,
            variables: outer
                .map(|outer| outer.variables.clone())
                .unwrap_or_default(),
            objects: shape::objects(self.program, id, begin.is_object),
            done: None,
            rethrow: None,
            handlers: Vec::new(),
            sees: Sees::default(),
            key: begin.key,
        };
        let at = scope.own("vars");
        for name in self.assigned[id.0 as usize].clone() {
            let place = format!("{at}{}", key_text(&name));
            let place = (!scope.variables.contains_key(&name)).then_some(place);
            scope.variables.insert(name, place);
        }
        let start = self.program.scope(id).start;
        let order = self.order(id);
        let mut out = self.beginning(&scope, start, begin.input);
        for state in order {
            let states = self.state(&mut scope, state);
            out.extend(states);
        }
        out.append(&mut scope.handlers);
        if let Some(name) = scope.done.take() {
            let output = Expr::tight(&*scope.document, Faults::NONE).in_braces();
            out.push(last(name, "Succeed", vec![("output", output)]));
        }
        if let Some(name) = scope.rethrow.take() {
            let caught = scope.own("caught");
            let fields = vec![
                ("error", Y::text(format!("{{{{ {caught}.error }}}}"))),
                ("message", Y::text(format!("{{{{ {caught}.message }}}}"))),
            ];
            out.push(last(name, "Fail", fields));
        }
        (out, scope.sees)
    }

    /// The states before the first: they set what the others look at.
    fn beginning(&mut self, scope: &Scope, start: StateId, input: Y) -> Vec<Cdl> {
        let name = if scope.key.is_none() {
            "Input".to_owned()
        } else {
            format!("{} - input", self.name(start))
        };
        let name = self.fresh_name(&name);
        let mut begin = Chain::new(start, name);
        let fields = vec![("parameters", input), ("result", Y::text(&*scope.document))];
        self.push(&mut begin, "input", "Pass", fields);
        if scope.key.is_some() && !self.assigned[scope.id.0 as usize].is_empty() {
            // Entered again, the scope starts without variables.
            let at = Y::text(scope.own("vars"));
            let fields = vec![("parameters", Y::Map(Vec::new())), ("result", at)];
            self.push(&mut begin, "variables", "Pass", fields);
        }
        linked(begin, After::Target(start))
    }

    /// The states of a scope in the order of the flow: each way as far as it goes, those
    /// of errors last.
    fn order(&self, scope: ScopeId) -> Vec<StateId> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        let (mut open, mut later) = (vec![self.program.scope(scope).start], Vec::new());
        loop {
            let Some(id) = open.pop() else {
                if later.is_empty() {
                    return order;
                }
                open.append(&mut later);
                open.reverse();
                continue;
            };
            let Some(state) = self.asl(id).filter(|_| seen.insert(id)) else {
                continue;
            };
            order.push(id);
            later.extend(state.catch.iter().map(|catcher| catcher.next));
            // On top of the stack is what comes first.
            if let Kind::Choice { rules, default } = &state.kind {
                open.extend(default);
                open.extend(rules.iter().rev().map(|rule| rule.next));
            }
            if let Some(Next::State(next)) = state.next {
                open.push(next);
            }
        }
    }

    /// The CDL states of a state.
    fn state(&mut self, scope: &mut Scope, id: StateId) -> Vec<Cdl> {
        let Some(state) = self.asl(id) else {
            return Vec::new();
        };
        let name = self.name(id);
        let fits = name.trim() == name && !name.chars().any(char::is_control);
        let own = if fits {
            name.to_owned()
        } else {
            self.fresh_name(name)
        };
        let mut chain = Chain::new(id, own);
        chain
            .comments
            .extend(self.notes.comments.get(name).cloned());
        for field in self.notes.idle.get(name).into_iter().flatten() {
            let lost = Lost::new("it has no effect here", "leave it out");
            self.lose_here(&mut chain, field, lost);
        }
        chain.unfit = if catches_unfit(state) {
            Unfit::Caught
        } else {
            scope.unfit()
        };
        match Flow::of(state) {
            Ok(flow) => self.kind(&mut chain, scope, state, &flow),
            Err(lost) => self.unexpressed(&mut chain, "QueryLanguage", lost),
        }
        let after = match state.next {
            Some(Next::State(next)) => After::Target(next),
            Some(Next::End) if scope.key.is_none() || chain.gives_document => After::End,
            Some(Next::End) => After::Name(self.done(scope)),
            None => After::Unsaid,
        };
        if let Some(first) = chain.steps.first() {
            self.entries.insert(id, first.name.clone());
        }
        linked(chain, after)
    }

    fn done(&mut self, scope: &mut Scope) -> String {
        if let Some(name) = &scope.done {
            return name.clone();
        }
        let start = self.name(self.program.scope(scope.id).start);
        let name = self.fresh_name(&format!("{start} - output"));
        scope.done = Some(name.clone());
        name
    }

    fn kind(&mut self, chain: &mut Chain, scope: &mut Scope, state: &'p State, flow: &Flow<'p>) {
        match &state.kind {
            Kind::Pass { result } => self.pass(chain, scope, state, flow, result.as_ref()),
            Kind::Task(task) => self.task(chain, scope, state, flow, task),
            Kind::Choice { rules, default } => {
                self.choice(chain, scope, state, flow, rules, *default);
            }
            Kind::Wait(until) => self.wait(chain, scope, state, flow, until),
            Kind::Succeed => self.succeed(chain, scope, flow),
            Kind::Fail { error, cause } => {
                self.fail(chain, scope, error.as_ref(), cause.as_ref());
            }
            Kind::Parallel { branches } => self.parallel(chain, scope, state, flow, branches),
            Kind::Map(map) => self.map(chain, scope, state, flow, map),
        }
    }

    /// A state that cannot be said at all: it fails, so that nobody runs past it.
    pub(super) fn unexpressed(&mut self, chain: &mut Chain, field: &str, lost: Lost) {
        let text = format!("this state is not translated: {}", lost.what);
        self.lose_here(chain, field, lost);
        let fields = vec![
            ("error", Y::text("NotTranslated")),
            ("message", Y::Text(escaped(&text))),
        ];
        self.push(chain, "", "Fail", fields);
    }

    fn pass(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        flow: &Flow<'_>,
        result: Option<&Value>,
    ) {
        let value = match (result, &flow.selector) {
            (Some(value), _) => literal_value(value),
            (None, Some(output)) => {
                let view = scope.view(Data::Empty, self.name(chain.id));
                self.template(chain, &view, output, "Output")
            }
            (None, None) => self.arguments(chain, scope, flow),
        };
        let faults = self.deliver(chain, scope, value, flow, state.assign.as_ref());
        scope.sees.faults = scope.sees.faults.and(faults);
    }

    fn task(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        flow: &Flow<'_>,
        task: &Task,
    ) {
        if task.waits_for_callback() {
            let lost = Lost::new(
                "there are no callbacks with tokens",
                "wait for a signal in an EventTask, or for a person in a HumanTask",
            );
            return self.unexpressed(chain, "Resource", lost);
        }
        let bound = task.bound.as_ref();
        let envelope = bound.map_or(Envelope::None, |bound| bound.envelope);
        let resource = self.resource(chain, &task.resource, bound);
        let input = match envelope {
            Envelope::None => self.arguments(chain, scope, flow),
            Envelope::LambdaInvoke => self.payload(chain, scope, flow),
        };
        let mut sees = Sees {
            timeout: true,
            ..Sees::faults(input.faults)
        };
        let mut fields = vec![("resource", Y::Text(resource)), ("parameters", input.y)];
        if let Some(timeout) = self.limit(chain, task.timeout.as_ref()) {
            sees.limit = true;
            fields.push(("timeout", timeout));
        }
        if let Some(heartbeat) = self.limit(chain, task.heartbeat.as_ref()) {
            sees.heartbeat = true;
            fields.push(("heartbeat", heartbeat));
        }
        fields.push(("retries", self.retries(chain, &state.retry)));
        self.push(chain, "", "Task", fields);
        let task_at = chain.steps.len() - 1;
        let data = |at: String| match envelope {
            Envelope::None => Data::At(at),
            Envelope::LambdaInvoke => Data::Envelope(at),
        };
        let late = self.outcome(chain, scope, state, flow, task_at, data);
        self.caught(chain, scope, state, task_at, sees, late);
    }

    /// What comes behind a state whose result is there when it ends: puts it where it
    /// belongs. `at` is the CDL state that gives it.
    pub(super) fn outcome(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        flow: &Flow<'_>,
        at: usize,
        data: impl Fn(String) -> Data,
    ) -> Faults {
        let plain = matches!(data(String::new()), Data::At(_));
        if plain && flow.selector.is_none() && state.assign.is_none() {
            let place = match flow.result {
                ResultPath::Replace => Some(scope.document.clone()),
                ResultPath::Discard => None,
                ResultPath::At(_) => scope.place(chain.id, flow.result),
            };
            if let Some(place) = place {
                chain.gives_document = place == scope.document;
                chain.steps[at].fields.push(("result", Y::Text(place)));
                return self.output(chain, scope, flow.output);
            }
            if *flow.result == ResultPath::Discard {
                return self.output(chain, scope, flow.output);
            }
        }
        let place = scope.own("result");
        chain.steps[at].fields.push(("result", Y::text(&*place)));
        let view = scope.view(data(place), self.name(chain.id));
        let value = match &flow.selector {
            Some(selector) => self.template(chain, &view, selector, "ResultSelector"),
            None => view.all().into(),
        };
        self.deliver(chain, scope, value, flow, state.assign.as_ref())
    }

    /// Gives `catch` to a CDL state, and notes what may come of it all.
    pub(super) fn caught(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        at: usize,
        sees: Sees,
        late: Faults,
    ) {
        if let Some(catch) = self.catches(chain, scope, state, sees, late) {
            chain.steps[at].fields.push(("catch", catch));
        }
        scope.sees = scope.sees.and(sees).and(Sees::faults(late));
    }

    /// What a Lambda is given: `Payload` of the parameters.
    fn payload(&mut self, chain: &mut Chain, scope: &mut Scope, flow: &Flow<'_>) -> Computed {
        // The input has to be there, whether its `Payload` is or not.
        let data = match self.input(chain, scope, flow.input) {
            Data::At(text) if text != scope.document => {
                let at = scope.own("input");
                let input = Expr::tight(text, Faults::RUNTIME).in_braces();
                let fields = vec![("parameters", input), ("result", Y::text(&*at))];
                self.push_before(chain, "input", "Pass", fields);
                scope.sees.faults = scope.sees.faults.and(Faults::RUNTIME);
                Data::At(at)
            }
            data => data,
        };
        let view = scope.view(data, self.name(chain.id));
        let null = || literal_value(&Value::Null);
        match flow.parameters.as_deref() {
            None => {
                let all = view.all().operand();
                Expr::filters(format!("{all}.Payload | default: null"), Faults::NONE).into()
            }
            Some(Payload::Object(fields)) => {
                let mut payload = null();
                for (name, field) in fields {
                    if **name == *"Payload" {
                        payload = match field {
                            Payload::Computed { source, .. } => match view.source(source) {
                                Ok(expr) => expr.into(),
                                Err(lost) => {
                                    self.lose_here(chain, "Parameters.Payload", lost);
                                    null()
                                }
                            },
                            field => self.template(chain, &view, field, "Parameters.Payload"),
                        };
                    } else if is_computed(field) {
                        let lost = Lost::new(
                            "the activity is given `Payload` only",
                            "bind the resource without an envelope, or name the function outright",
                        );
                        self.lose_here(chain, &format!("Parameters.{name}"), lost);
                    }
                }
                payload
            }
            Some(Payload::Literal(value)) => value.get("Payload").map_or_else(null, literal_value),
            Some(Payload::List(_) | Payload::Computed { .. }) => null(),
        }
    }

    fn resource(&mut self, chain: &mut Chain, written: &str, bound: Option<&Bound>) -> String {
        if let Some(bound) = bound {
            return bound.activity.to_string();
        }
        let end = written.rsplit([':', '/']).next().unwrap_or_default();
        let word: String = end
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '_'
                }
            })
            .take(60)
            .collect();
        let lost = Lost::new(
            format!("no activity is bound to {written}"),
            "name the activity that runs, or bind one with --bind",
        );
        self.lose_here(chain, "Resource", lost);
        let name = word.trim_start_matches('_');
        format!(
            "urn:cascade:activity:{}",
            if name.is_empty() { "unbound" } else { name }
        )
    }

    /// `TimeoutSeconds` and its like.
    fn limit(&mut self, chain: &mut Chain, amount: Option<&Amount>) -> Option<Y> {
        let amount = amount?;
        match amount.source {
            AmountSource::Fixed(seconds) => Some(Y::Text(whole_seconds(seconds))),
            AmountSource::Path(_) | AmountSource::Query(_) => {
                let lost = Lost::new("a limit is fixed", "write a duration that fits all");
                self.lose_here(chain, amount.field, lost);
                None
            }
        }
    }

    fn wait(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        flow: &Flow<'_>,
        until: &Until,
    ) {
        let mut faults = self.input_as_document(chain, scope, flow.input);
        let view = scope.view(Data::At(scope.document.clone()), self.name(chain.id));
        let looked_up = |path: &Path| view.path(path);
        let field = match until {
            Until::Seconds(amount) => match &amount.source {
                AmountSource::Fixed(seconds) => Ok(("duration", Y::Text(whole_seconds(*seconds)))),
                AmountSource::Path(path) => looked_up(path).map(|path| {
                    // A whole number, not the text of one.
                    let x = path.operand();
                    let text = format!("'.' in ({x} | json) ? '' : {x} + 0");
                    (
                        "duration",
                        Expr::operators(text, Faults::RUNTIME).in_braces(),
                    )
                }),
                AmountSource::Query(_) => Err(jsonata()),
            },
            Until::At(at) => Ok(("until", Y::Text(at.to_string()))),
            Until::AtPath(path) => looked_up(path).map(|path| {
                let text = strict_timestamp(&path.operand());
                ("until", Expr::operators(text, Faults::RUNTIME).in_braces())
            }),
            Until::AtQuery(_) => Err(jsonata()),
        };
        match field {
            Ok(field) => self.push(chain, "", "Wait", vec![field]),
            Err(lost) => return self.unexpressed(chain, "Wait", lost),
        }
        if !matches!(until, Until::At(_)) {
            faults = faults.and(Faults::RUNTIME);
        }
        let mut seen = Data::At(scope.document.clone());
        if state.assign.is_some() && (flow.selector.is_some() || *flow.output != Part::All) {
            let document = Expr::tight(&*scope.document, Faults::NONE).into();
            seen = Data::At(self.store(chain, scope, document).text);
        }
        if let Some(output) = &flow.selector {
            let view = scope.view(Data::Empty, self.name(chain.id));
            let value = self.template(chain, &view, output, "Output");
            self.combine(chain, scope, value, &ResultPath::Replace);
        }
        faults = faults.and(self.output(chain, scope, flow.output));
        if let Some(assign) = &state.assign {
            faults = faults.and(self.assign(chain, scope, seen, assign));
        }
        scope.sees.faults = scope.sees.faults.and(faults);
    }

    fn succeed(&mut self, chain: &mut Chain, scope: &mut Scope, flow: &Flow<'_>) {
        let mut faults = self.input_as_document(chain, scope, flow.input);
        if let Some(output) = &flow.selector {
            let view = scope.view(Data::Empty, self.name(chain.id));
            let value = self.template(chain, &view, output, "Output");
            self.push(chain, "", "Succeed", vec![("output", value.y)]);
            return;
        }
        let document = Expr::tight(&*scope.document, Faults::NONE);
        let output = match flow.output {
            Part::All if scope.key.is_none() => None,
            Part::All => Some(document.in_braces()),
            Part::Nothing => Some(Y::Map(Vec::new())),
            Part::At(path) => {
                let data = Data::At(scope.document.clone());
                match scope.view(data, self.name(chain.id)).path(path) {
                    Ok(expr) => {
                        faults = faults.and(expr.faults);
                        Some(expr.in_braces())
                    }
                    Err(lost) => {
                        self.lose_here(chain, "OutputPath", lost);
                        Some(document.in_braces())
                    }
                }
            }
        };
        let fields = output.map(|output| ("output", output));
        self.push(chain, "", "Succeed", fields.into_iter().collect());
        scope.sees.faults = scope.sees.faults.and(faults);
    }

    fn fail(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        error: Option<&Words>,
        cause: Option<&Words>,
    ) {
        let name = match error {
            Some(Words::Fixed(name) | Words::Query(Query::Literal(Value::String(name)))) => {
                Some(name.as_str())
            }
            _ => None,
        };
        if let Some(name) = name {
            if OWN_ERRORS.contains(&name) {
                let lost = Lost::new(
                    format!("`{name}` is an error of the machine itself in CDL"),
                    "give the error another name",
                );
                self.lose_here(chain, "Error", lost);
            }
            if name == crate::asl::names::RUNTIME {
                scope.sees.faults.runtime = true;
            }
            if name == crate::asl::names::NO_CHOICE_MATCHED {
                scope.sees.no_choice = true;
            }
        }
        scope.sees.no_name |= name.is_none_or(str::is_empty);
        let error = self.words(chain, scope, "Error", error);
        let cause = self.words(chain, scope, "Cause", cause);
        // CDL wants an error, which may be computed to nothing.
        let error = error.filter(|error| *error != Y::text(""));
        let mut fields = vec![("error", error.unwrap_or_else(|| Y::text("{{ '' }}")))];
        fields.extend(cause.map(|cause| ("message", cause)));
        self.push(chain, "", "Fail", fields);
    }

    fn words(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        field: &str,
        words: Option<&Words>,
    ) -> Option<Y> {
        let lost = match words? {
            Words::Fixed(text) => return Some(Y::Text(escaped(text))),
            Words::Query(Query::Literal(Value::String(text))) => {
                return Some(Y::Text(escaped(text)));
            }
            Words::Query(_) => jsonata(),
            Words::Source { source, .. } => {
                let data = Data::At(scope.document.clone());
                match scope.view(data, self.name(chain.id)).source(source) {
                    Ok(expr) => {
                        scope.sees.faults = scope.sees.faults.and(expr.faults).and(Faults::RUNTIME);
                        // A text, and nothing else, can be added to a text.
                        let text = format!("{} + ''", expr.operand());
                        return Some(Expr::operators(text, Faults::RUNTIME).in_braces());
                    }
                    Err(lost) => lost,
                }
            }
        };
        self.lose_here(chain, field, lost);
        Some(Y::text("NotTranslated"))
    }
}

pub(super) fn literal_value(value: &Value) -> Computed {
    let y = match value {
        // As a template of its own it would mean that there is none.
        Value::Null => Y::text("{{ null }}"),
        value => literal_y(value),
    };
    Computed {
        y,
        expr: Some(Expr::tight(super::expression::literal(value), Faults::NONE)),
        faults: Faults::NONE,
    }
}

/// The CDL states of a chain, each leading to the next one, the last as told.
pub(super) fn linked(chain: Chain, after: After) -> Vec<Cdl> {
    let Chain {
        mut steps,
        comments,
        ..
    } = chain;
    if let Some(first) = steps.first_mut() {
        first.comments.extend(comments);
    }
    let names: Vec<_> = steps.iter().map(|step| step.name.clone()).collect();
    let rest = names.into_iter().skip(1).map(After::Name);
    for (step, next) in steps.iter_mut().zip(rest.chain([after])) {
        if step.after == After::Unsaid && !matches!(step.kind, "Choice" | "Fail" | "Succeed") {
            step.after = next;
        }
    }
    steps
}

/// Whether a state catches that its result does not fit the data.
pub(super) fn catches_unfit(state: &State) -> bool {
    let mut catchers = state.catch.iter();
    catchers.any(|catcher| asl::matches_error(&catcher.errors, RESULT_PATH_MATCH))
}

fn last(name: String, kind: &'static str, fields: Vec<(&'static str, Y)>) -> Cdl {
    Cdl {
        name,
        kind,
        comments: Vec::new(),
        fields,
        after: After::Unsaid,
    }
}

fn is_computed(payload: &Payload) -> bool {
    match payload {
        Payload::Literal(_) => false,
        Payload::List(items) => items.iter().any(is_computed),
        Payload::Object(fields) => fields.iter().any(|(_, field)| is_computed(field)),
        Payload::Computed { .. } => true,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
// the front end takes 0 to 100,000,000
fn whole_seconds(seconds: f64) -> String {
    duration(seconds as u64 * 1_000)
}

/// A timestamp if it is one by the States Language's rules, which are stricter than
/// CDL's: a capital T, seconds, and Z or an offset of hours and minutes.
fn strict_timestamp(x: &str) -> String {
    format!(
        "({x} | slice: 10, 11) == 'T' && ({x} | slice: 16, 17) == ':' && !(',' in {x}) && \
         (({x} | slice: -1) == 'Z' || (({x} | slice: -6, -5) in ['+', '-'] && ({x} | slice: -3, -2) == ':')) ? {x} : ''"
    )
}
