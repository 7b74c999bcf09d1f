//! Data into a state and out of it: `InputPath`, `Parameters`, `ResultSelector`,
//! `ResultPath`, `OutputPath` and `Assign` as the `parameters` and `result` of one or
//! several CDL states.

use std::borrow::Cow;

use super::Importer;
use super::condition::jsonata;
use super::expression::{Data, Expr, Faults, Lost, Template, View, escaped};
use super::states::Scope;
use super::yaml::{After, Cdl, Y};
use crate::asl::jsonata::Query;
use crate::asl::names::RESULT_PATH_MATCH;
use crate::asl::path::Place;
use crate::asl::payload::Payload;
use crate::asl::program::{self as asl, Part, ResultPath, State};
use crate::expression::key_text;
use crate::program::StateId;

/// The filters of a state, in either language.
pub(super) struct Flow<'p> {
    pub(super) input: &'p Part,
    pub(super) parameters: Option<Cow<'p, Payload>>,
    pub(super) selector: Option<Cow<'p, Payload>>,
    pub(super) result: &'p ResultPath,
    pub(super) output: &'p Part,
}

impl<'p> Flow<'p> {
    /// Those of a state. JSONata is fine where it is values only: then `Output` takes
    /// the place of the result.
    pub(super) fn of(state: &'p State) -> Result<Self, Lost> {
        match &state.flow {
            asl::Flow::Path(flow) => Ok(Self {
                input: &flow.input,
                parameters: flow.parameters.as_ref().map(Cow::Borrowed),
                selector: flow.selector.as_ref().map(Cow::Borrowed),
                result: &flow.result,
                output: &flow.output,
            }),
            asl::Flow::Query { arguments, output } => Ok(Self {
                input: &Part::All,
                parameters: values(arguments.as_ref())?,
                selector: values(output.as_ref())?,
                result: &ResultPath::Replace,
                output: &Part::All,
            }),
        }
    }
}

fn values<'p>(query: Option<&Query>) -> Result<Option<Cow<'p, Payload>>, Lost> {
    query.map(|query| value(query).map(Cow::Owned)).transpose()
}

/// The value of a query without expressions.
pub(super) fn value(query: &Query) -> Result<Payload, Lost> {
    match query {
        Query::Literal(value) => Ok(Payload::Literal(value.clone())),
        Query::List(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(value).collect();
            items.map(Payload::List)
        }
        Query::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, field)| Ok((name.clone(), value(field)?)));
            fields.collect::<Result<Vec<_>, _>>().map(Payload::Object)
        }
        Query::Expression(_) => Err(jsonata()),
    }
}

/// What becomes of it if a result does not fit the data that it is put into. CDL has
/// one name for this and for paths that lead nowhere, which nothing catches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Nobody tells the difference.
    Unseen,
    /// Somebody around catches it, by the name that it has in the States Language.
    Raised,
    /// The state catches it itself.
    Caught,
    /// As before, by way of the CDL state with this index, which is told where to go.
    By(usize),
}

/// The CDL states that a state becomes, in their order.
pub(super) struct Chain {
    pub(super) id: StateId,
    own: String,
    /// Whether one of them has the state's own name.
    named: bool,
    pub(super) steps: Vec<Cdl>,
    /// Whether the last one gives the document as its own output, too.
    pub(super) gives_document: bool,
    pub(super) unfit: Unfit,
    /// What is lost, as comments.
    pub(super) comments: Vec<String>,
}

/// A value that a CDL state computes.
#[derive(Clone)]
pub(super) struct Computed {
    pub(super) y: Y,
    /// The same as one expression, if it is one.
    pub(super) expr: Option<Expr>,
    pub(super) faults: Faults,
}

impl From<Expr> for Computed {
    fn from(expr: Expr) -> Self {
        Self {
            y: expr.in_braces(),
            faults: expr.faults,
            expr: Some(expr),
        }
    }
}

impl From<Template> for Computed {
    fn from(Template { y, faults }: Template) -> Self {
        Self {
            y,
            faults,
            expr: None,
        }
    }
}

impl Chain {
    pub(super) fn new(id: StateId, own: String) -> Self {
        Self {
            id,
            own,
            named: false,
            steps: Vec::new(),
            gives_document: false,
            unfit: Unfit::Unseen,
            comments: Vec::new(),
        }
    }
}

/// A duration as CDL writes it, in the largest unit that it is whole in.
pub(super) fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let unit = UNITS
        .iter()
        .find(|(size, _)| ms > 0 && ms.is_multiple_of(*size));
    match unit {
        Some((size, unit)) => format!("{}{unit}", ms / size),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

impl Importer<'_> {
    /// Adds the CDL state that has the state's own name; if there is one already, one
    /// that is called by `role`.
    pub(super) fn push(
        &mut self,
        chain: &mut Chain,
        role: &str,
        kind: &'static str,
        fields: Vec<(&'static str, Y)>,
    ) {
        if chain.named {
            self.push_before(chain, role, kind, fields);
            return;
        }
        chain.named = true;
        let name = chain.own.clone();
        chain.steps.push(cdl(name, kind, fields));
        chain.gives_document = false;
    }

    /// Adds a CDL state that is called by what it does for the state.
    pub(super) fn push_before(
        &mut self,
        chain: &mut Chain,
        role: &str,
        kind: &'static str,
        fields: Vec<(&'static str, Y)>,
    ) {
        let name = self.fresh_name(&format!("{} - {role}", chain.own));
        chain.steps.push(cdl(name, kind, fields));
        chain.gives_document = false;
    }

    /// Tells of something that a state loses.
    pub(super) fn lose_here(&mut self, chain: &mut Chain, field: &str, lost: Lost) {
        let comment = self.lose(chain.id, field, lost);
        chain.comments.push(comment);
    }

    /// A payload template; what is lost of it is told.
    pub(super) fn template(
        &mut self,
        chain: &mut Chain,
        view: &View<'_>,
        payload: &Payload,
        field: &str,
    ) -> Computed {
        let mut all = Vec::new();
        let template = view.template(payload, field, &mut |field, lost| {
            all.push((field.to_owned(), lost));
        });
        for (field, lost) in all {
            self.lose_here(chain, &field, lost);
        }
        template.into()
    }

    /// What `$` means in a state, by way of `InputPath`.
    pub(super) fn input(&mut self, chain: &mut Chain, scope: &Scope, part: &Part) -> Data {
        let document = || Data::At(scope.document.clone());
        match part {
            Part::All => document(),
            Part::Nothing => Data::Empty,
            Part::At(path) if path.is_root() && path.as_reference().is_some() => document(),
            Part::At(path) => {
                let view = scope.view(document(), self.name(chain.id));
                match view.path(path).and_then(Expr::only_path) {
                    Ok(text) => Data::At(text),
                    Err(lost) => {
                        self.lose_here(chain, "InputPath", lost);
                        document()
                    }
                }
            }
        }
    }

    /// For states that look at their input in their own way: makes it the document
    /// first, which it is behind them anyway.
    pub(super) fn input_as_document(
        &mut self,
        chain: &mut Chain,
        scope: &Scope,
        part: &Part,
    ) -> Faults {
        let data = self.input(chain, scope, part);
        let input = scope.view(data, "").all();
        if input.text == scope.document {
            return Faults::NONE;
        }
        let fields = vec![
            ("parameters", input.in_braces()),
            ("result", Y::text(&*scope.document)),
        ];
        self.push_before(chain, "input", "Pass", fields);
        chain.gives_document = true;
        Faults::RUNTIME
    }

    /// What a state works on: `Parameters`, or else its input.
    pub(super) fn arguments(
        &mut self,
        chain: &mut Chain,
        scope: &Scope,
        flow: &Flow<'_>,
    ) -> Computed {
        let data = self.input(chain, scope, flow.input);
        let name = self.name(chain.id);
        let Some(parameters) = &flow.parameters else {
            let all = scope.view(data, name).all();
            let faults = match flow.input {
                Part::At(_) if all.text != scope.document => Faults::RUNTIME,
                _ => Faults::NONE,
            };
            return Computed {
                faults,
                ..all.into()
            };
        };
        let computed = self.template(
            chain,
            &scope.view(data.clone(), name),
            parameters,
            "Parameters",
        );
        match data {
            // The input has to be there, whether it is used or not.
            Data::At(text) if text != scope.document && !mentions(&computed.y, &text) => {
                let at = scope.own("input");
                let fields = vec![
                    ("parameters", Y::text(format!("{{{{ {text} }}}}"))),
                    ("result", Y::text(&*at)),
                ];
                self.push_before(chain, "input", "Pass", fields);
                let faults = computed.faults.and(Faults::RUNTIME);
                Computed { faults, ..computed }
            }
            _ => computed,
        }
    }

    /// Makes a value the result of a state: assigns variables, puts it into the
    /// document, and takes the output from there. What can fail on the way.
    pub(super) fn deliver(
        &mut self,
        chain: &mut Chain,
        scope: &Scope,
        value: Computed,
        flow: &Flow<'_>,
        assign: Option<&asl::Template>,
    ) -> Faults {
        let mut faults = value.faults;
        let mut value = value;
        if assign.is_some() {
            value = self.store(chain, scope, value).into();
        }
        faults = faults.and(self.combine(chain, scope, value, flow.result));
        faults = faults.and(self.output(chain, scope, flow.output));
        // Last: `OutputPath` sees the variables as they were.
        if let Some(assign) = assign {
            let data = Data::At(scope.own("result"));
            faults = faults.and(self.assign(chain, scope, data, assign));
        }
        faults
    }

    /// Puts a value where the scope keeps results, and gives its place.
    pub(super) fn store(&mut self, chain: &mut Chain, scope: &Scope, value: Computed) -> Expr {
        let at = scope.own("result");
        if value.y != Expr::tight(&*at, Faults::NONE).in_braces() {
            let fields = vec![("parameters", value.y), ("result", Y::text(&*at))];
            self.push(chain, "result", "Pass", fields);
        }
        Expr::tight(at, Faults::NONE)
    }

    /// `Assign`, `data` being what `$` means in it.
    pub(super) fn assign(
        &mut self,
        chain: &mut Chain,
        scope: &Scope,
        data: Data,
        assign: &asl::Template,
    ) -> Faults {
        let view = scope.view(data, self.name(chain.id));
        let payload = match assign {
            asl::Template::Payload(payload) => Ok(Cow::Borrowed(payload)),
            asl::Template::Query(query) => value(query).map(Cow::Owned),
        };
        match payload.and_then(|payload| view.expression(&payload)) {
            Ok(values) => {
                let at = scope.own("vars");
                let merged = format!("{at} | default: {{}} | merge: {}", values.argument());
                let merged = Expr::filters(merged, values.faults);
                let fields = vec![("parameters", merged.in_braces()), ("result", Y::text(at))];
                self.push(chain, "assign", "Pass", fields);
                values.faults
            }
            Err(lost) => {
                self.lose_here(chain, "Assign", lost);
                Faults::NONE
            }
        }
    }

    /// `ResultPath`: puts a value into the document.
    pub(super) fn combine(
        &mut self,
        chain: &mut Chain,
        scope: &Scope,
        value: Computed,
        result: &ResultPath,
    ) -> Faults {
        let document = &scope.document;
        match result {
            ResultPath::Replace => {
                if value.y == Expr::tight(&**document, Faults::NONE).in_braces() {
                    self.pass_on(chain);
                    return Faults::NONE;
                }
                let fields = vec![("parameters", value.y), ("result", Y::text(&**document))];
                self.push(chain, "result", "Pass", fields);
                chain.gives_document = true;
                Faults::NONE
            }
            ResultPath::Discard if value.faults.any() => {
                self.push(chain, "result", "Pass", vec![("parameters", value.y)]);
                Faults::NONE
            }
            ResultPath::Discard => {
                self.pass_on(chain);
                Faults::NONE
            }
            ResultPath::At(_) => {
                if let Some(at) = scope.place(chain.id, result) {
                    let fields = vec![("parameters", value.y), ("result", Y::text(at))];
                    self.push(chain, "result", "Pass", fields);
                    return Faults::NONE;
                }
                self.merge(chain, scope, value, result)
            }
        }
    }

    /// Puts a value into a document that may not have room for it.
    fn merge(
        &mut self,
        chain: &mut Chain,
        scope: &Scope,
        value: Computed,
        result: &ResultPath,
    ) -> Faults {
        let Some(names) = names(result) else {
            let lost = Lost::new(
                "a result cannot go to an element of a list",
                "rebuild the list in a Pass state",
            );
            self.lose_here(chain, "ResultPath", lost);
            return Faults::NONE;
        };
        let expr = match value.expr {
            Some(expr) => expr,
            None => self.store(chain, scope, value),
        };
        let merged = merged(&scope.document, &names, &expr.argument());
        let is_checked = names.len() == 1 && chain.unfit != Unfit::Unseen;
        let check = is_checked.then(|| self.check_fit(chain, scope, names[0]));
        let fields = vec![
            (
                "parameters",
                Expr::filters(merged, Faults::NONE).in_braces(),
            ),
            ("result", Y::text(&*scope.document)),
        ];
        self.push(chain, "result", "Pass", fields);
        chain.gives_document = true;
        let Some(check) = check else {
            return Faults::OTHER;
        };
        let next = chain
            .steps
            .last()
            .map_or(Y::text("?"), |step| Y::text(&*step.name));
        let way = Y::map([
            ("condition", Y::text(is_fit(&scope.document))),
            ("next", next),
        ]);
        chain.steps[check]
            .fields
            .insert(0, ("choices", Y::List(vec![way])));
        Faults::NONE
    }

    /// A Choice before a value is put into the document, and what happens if there is
    /// no room. Gives the index of the Choice, which has no way to the rest yet.
    fn check_fit(&mut self, chain: &mut Chain, scope: &Scope, name: &str) -> usize {
        let check = chain.steps.len();
        self.push(chain, "fits", "Choice", Vec::new());
        let path = format!("${}", key_text(name));
        let message = format!("Unable to apply ReferencePath {path} to the state's input");
        let [error, message] = [Y::text(RESULT_PATH_MATCH), Y::Text(escaped(&message))];
        if chain.unfit == Unfit::Caught {
            let caught = Y::map([("error", error), ("message", message)]);
            let fields = vec![
                ("parameters", caught),
                ("result", Y::text(scope.own("caught"))),
            ];
            self.push_before(chain, "does not fit", "Pass", fields);
            chain.unfit = Unfit::By(check + 1);
        } else {
            let fields = vec![("error", error), ("message", message)];
            self.push_before(chain, "does not fit", "Fail", fields);
        }
        let otherwise = Y::text(&*chain.steps[check + 1].name);
        chain.steps[check].fields.push(("default", otherwise));
        check
    }

    /// `OutputPath`
    pub(super) fn output(&mut self, chain: &mut Chain, scope: &Scope, part: &Part) -> Faults {
        let (value, faults) = match part {
            Part::All => return Faults::NONE,
            Part::Nothing => (Y::Map(Vec::new()), Faults::NONE),
            Part::At(path) => {
                let data = Data::At(scope.document.clone());
                match scope.view(data, self.name(chain.id)).path(path) {
                    Ok(expr) if expr.text == scope.document => return Faults::NONE,
                    Ok(expr) => (expr.in_braces(), expr.faults),
                    Err(lost) => {
                        self.lose_here(chain, "OutputPath", lost);
                        return Faults::NONE;
                    }
                }
            }
        };
        let fields = vec![("parameters", value), ("result", Y::text(&*scope.document))];
        self.push(chain, "output", "Pass", fields);
        chain.gives_document = true;
        faults
    }

    /// A state that does nothing, if there is none with the state's own name.
    pub(super) fn pass_on(&mut self, chain: &mut Chain) {
        if !chain.named {
            self.push(chain, "", "Pass", Vec::new());
        }
    }
}

fn cdl(name: String, kind: &'static str, fields: Vec<(&'static str, Y)>) -> Cdl {
    Cdl {
        name,
        kind,
        comments: Vec::new(),
        fields,
        after: After::Unsaid,
    }
}

/// The keys that `ResultPath` names, if it names no index.
pub(super) fn names(result: &ResultPath) -> Option<Vec<&str>> {
    let ResultPath::At(path) = result else {
        return None;
    };
    let places = path.as_reference()?;
    let names = places.iter().map(|place| match place {
        Place::Name(name) => Some(*name),
        Place::Index(_) => None,
    });
    names.collect()
}

/// `base` with a value at a key in it. As in the States Language, null and what is
/// missing become objects, and anything else on the way is an error.
fn merged(base: &str, names: &[&str], value: &str) -> String {
    let (value, key) = match names {
        [] => return value.to_owned(),
        [key] => (value.to_owned(), key),
        [key, rest @ ..] => {
            let inner = merged(&format!("{base}{}", key_text(key)), rest, value);
            (format!("({inner})"), key)
        }
    };
    let key = super::expression::key(key);
    format!("{base} | default: {{}} | merge: {{{key}: {value}}}")
}

/// Whether a document is an object, or null, which becomes one.
fn is_fit(document: &str) -> String {
    format!("{{{{ ({document} | default: {{}} | json | slice: 0, 1) == '{{' }}}}")
}

/// Whether a template looks at what stands at a path.
fn mentions(y: &Y, path: &str) -> bool {
    match y {
        Y::Text(text) => text.contains(path),
        Y::List(items) => items.iter().any(|item| mentions(item, path)),
        Y::Map(entries) => entries.iter().any(|(_, item)| mentions(item, path)),
        Y::Bare(_) | Y::States(_) | Y::Target(_) => false,
    }
}
