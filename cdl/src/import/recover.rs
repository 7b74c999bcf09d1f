//! `Retry` and `Catch`.

use std::collections::BTreeMap;

use super::Importer;
use super::expression::{Data, Expr, Faults, Lost};
use super::flow::{Chain, Computed, Unfit, duration};
use super::states::{Scope, Sees, catches_unfit, linked};
use super::yaml::{After, Y};
use crate::asl::names;
use crate::asl::program::{Catcher, Part, ResultPath, Retrier, State, matches_error};
use crate::errors;
use crate::program::Jitter;

/// Most attempts that CDL makes, and its greatest factor and longest pause.
const MAX_ATTEMPTS: u32 = 1_000;
const MAX_MULTIPLIER: f64 = 1_000.0;
const MAX_PAUSE_MS: u64 = 3_650 * 24 * 60 * 60 * 1_000;

/// Longest pause of a Task that does not say, in milliseconds.
const DEFAULT_MAX_PAUSE_MS: u64 = 60_000;

/// Names that the machine gives to errors of its own in CDL. An error that somebody
/// else calls so would be taken for one of them.
pub(super) const OWN_ERRORS: [&str; 4] = [
    errors::TIMEOUT,
    errors::EXPRESSION,
    errors::NO_CHOICE_MATCHED,
    errors::TOLERANCE_EXCEEDED,
];

/// Names that are one to CDL.
const ALIKE: [&str; 2] = ["AuthorizedError", "AuthorizationError"];

/// Names of errors of the machine that CDL does not tell apart.
const NOT_TOLD_APART: [&str; 5] = [
    names::INTRINSIC_FAILURE,
    names::RESULT_PATH_MATCH,
    names::QUERY_EVALUATION,
    names::DATA_LIMIT,
    names::ITEM_READER,
];

/// Longest name of an error that CDL catches, in bytes.
const MAX_ERROR_NAME: usize = 128;

const TIMEOUTS: [&str; 3] = [errors::TIMEOUT, names::TIMEOUT, names::HEARTBEAT_TIMEOUT];

/// A state that handles what a catcher catches.
type Handlers = BTreeMap<usize, Y>;

impl Importer<'_> {
    /// `retries` of a Task. CDL tries again by its own rules, so this is exact only
    /// where nothing is tried again.
    pub(super) fn retries(&mut self, chain: &mut Chain, retry: &[Retrier]) -> Y {
        let Some(first) = retry.iter().find(|retrier| retrier.max_attempts > 0) else {
            return Y::map([("max_attempts", Y::Bare("1".to_owned()))]);
        };
        let only = if retry.len() == 1 && first.errors == [names::ALL] {
            String::new()
        } else {
            format!(", here it was {} first", first.errors.join(", "))
        };
        let lost = Lost::new(
            format!(
                "CDL tries again after every error but ValidationError, AuthorizationError, \
                 NotFoundError, InvalidInput and what the activity marks as final{only}"
            ),
            "let the activity say which of its errors are final",
        );
        self.lose_here(chain, "Retry", lost);
        policy(first)
    }

    /// That a state cannot be tried again as a whole.
    pub(super) fn no_retries(&mut self, chain: &mut Chain, retry: &[Retrier]) {
        if retry.iter().any(|retrier| retrier.max_attempts > 0) {
            let lost = Lost::new(
                "a Parallel or Map state is not tried again",
                "give `retries` to the Tasks in it, or catch the error and come back here",
            );
            self.lose_here(chain, "Retry", lost);
        }
    }

    /// `catch` of a state. `sees` is what may come: from the state itself, `late` from
    /// what CDL does in states behind it, where its `catch` does not see it.
    pub(super) fn catches(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        sees: Sees,
        late: Faults,
    ) -> Option<Y> {
        if (sees.faults.other || late.other) && catches_unfit(state) {
            let lost = Lost::new(
                "failures of functions and of `ResultPath` are not told from paths that lead nowhere, \
                 which nothing catches; here none is caught",
                "see that the data fits, or catch ExpressionError",
            );
            self.lose_here(chain, "Catch", lost);
        }
        let mut entries = Vec::new();
        let mut handlers = Handlers::new();
        for (at, catcher) in state.catch.iter().enumerate() {
            let has = |name: &str| catcher.errors.iter().any(|error| error == name);
            if !has(names::ALL) && !has(names::TASK_FAILED) {
                let names = self.caught_names(chain, &catcher.errors, sees);
                if !names.is_empty() {
                    let next = self.handler(chain, scope, state, at, sees, &mut handlers);
                    entries.push(entry(scope, &names, catcher, next));
                }
                continue;
            }
            if has(names::TASK_FAILED) && !has(names::TIMEOUT) && sees.timeout {
                // It catches all but these, which are for a later one.
                let mut rest = state.catch.iter().enumerate().skip(at + 1);
                let later = rest.find(|(_, later)| matches_error(&later.errors, names::TIMEOUT));
                let entry = match later {
                    Some((at, later)) => {
                        let next = self.handler(chain, scope, state, at, sees, &mut handlers);
                        entry(scope, &texts(&TIMEOUTS), later, next)
                    }
                    None => self.not_caught(scope, &TIMEOUTS),
                };
                entries.push(entry);
            }
            if sees.faults.runtime || sees.faults.other || late.any() {
                entries.push(self.not_caught(scope, &[errors::EXPRESSION, names::RUNTIME]));
            }
            let next = self.handler(chain, scope, state, at, sees, &mut handlers);
            entries.push(entry(scope, &texts(&["*"]), catcher, next));
            break;
        }
        let unfit = |catcher: &Catcher| matches_error(&catcher.errors, names::RESULT_PATH_MATCH);
        if let (Unfit::By(step), Some(at)) = (chain.unfit, state.catch.iter().position(unfit)) {
            let next = self.handler(chain, scope, state, at, sees, &mut handlers);
            chain.steps[step].after = match next {
                Y::Target(id) => After::Target(id),
                Y::Text(name) => After::Name(name),
                _ => After::Unsaid,
            };
        }
        (!entries.is_empty()).then_some(Y::List(entries))
    }

    /// The names that CDL has for those that a catcher lists.
    fn caught_names(&mut self, chain: &mut Chain, listed: &[String], sees: Sees) -> Vec<String> {
        let mut caught = Vec::new();
        for name in listed {
            let fits = name.len() <= MAX_ERROR_NAME
                && name != "*"
                && !name.is_empty()
                && !name.contains("{{")
                && !name.chars().any(|c| c.is_control() || c.is_whitespace());
            let lost = match name.as_str() {
                // As in the States Language, nothing catches it.
                names::RUNTIME => continue,
                names::TIMEOUT => {
                    caught.extend(texts(&TIMEOUTS));
                    continue;
                }
                names::NO_CHOICE_MATCHED => {
                    caught.extend(texts(&[errors::NO_CHOICE_MATCHED, name]));
                    continue;
                }
                names::HEARTBEAT_TIMEOUT if sees.heartbeat => {
                    let what = "a heartbeat that is missed is a TimeoutError like any other";
                    caught.push(errors::TIMEOUT.to_owned());
                    Lost::new(what, "look at the message in a Choice behind the `catch`")
                }
                other if OWN_ERRORS.contains(&other) => Lost::new(
                    format!("`{other}` is an error of the machine itself in CDL"),
                    "give the error another name",
                ),
                other if ALIKE.contains(&other) => Lost::new(
                    "CDL takes AuthorizedError and AuthorizationError for one error",
                    "leave it, if nothing raises the other one",
                ),
                other if NOT_TOLD_APART.contains(&other) => Lost::new(
                    format!("the machine raises no `{other}` in CDL"),
                    "leave it out, or catch ExpressionError",
                ),
                _ if !fits => {
                    let lost = Lost::new(
                        format!("`{name}` is no name of an error in CDL"),
                        "let the activity give it a name that is one word",
                    );
                    self.lose_here(chain, "Catch", lost);
                    continue;
                }
                other => {
                    caught.push(other.to_owned());
                    continue;
                }
            };
            caught.push(name.clone());
            self.lose_here(chain, "Catch", lost);
        }
        caught.dedup();
        caught
    }

    /// An entry for errors that are not caught: they are raised again.
    fn not_caught(&mut self, scope: &mut Scope, names: &[&str]) -> Y {
        let name = if let Some(name) = &scope.rethrow {
            name.clone()
        } else {
            let name = self.fresh_name("Not caught");
            scope.rethrow = Some(name.clone());
            name
        };
        Y::map([
            ("error", names_y(&texts(names))),
            ("result", Y::text(scope.own("caught"))),
            ("next", Y::Text(name)),
        ])
    }

    /// Where a catcher leads: to a state that makes its output the data, or at once to
    /// its target if it keeps the data as it is.
    fn handler(
        &mut self,
        chain: &mut Chain,
        scope: &mut Scope,
        state: &State,
        at: usize,
        sees: Sees,
        handlers: &mut Handlers,
    ) -> Y {
        if let Some(known) = handlers.get(&at) {
            return known.clone();
        }
        let catcher = &state.catch[at];
        if catcher.result == ResultPath::Discard && catcher.assign.is_none() {
            return Y::Target(catcher.next);
        }
        let sees = seen_by(catcher, sees);
        let name = self.fresh_name(&format!("{} - caught", self.name(chain.id)));
        let mut own = Chain::new(chain.id, name.clone());
        own.unfit = scope.unfit();
        let value = match &catcher.output {
            Some(output) => match super::flow::value(output) {
                Ok(payload) => {
                    let view = scope.view(Data::Empty, "");
                    view.template(&payload, "Catch", &mut |_, _| {}).into()
                }
                Err(lost) => {
                    self.lose_here(&mut own, "Catch", lost);
                    Computed::from(error_output(scope, sees))
                }
            },
            None => Computed::from(error_output(scope, sees)),
        };
        let mut faults = value.faults;
        let mut value = value;
        if let Some(assign) = &catcher.assign {
            value = self.store(&mut own, scope, value).into();
            let data = Data::At(scope.own("result"));
            faults = faults.and(self.assign(&mut own, scope, data, assign));
        }
        faults = faults.and(self.combine(&mut own, scope, value, &catcher.result));
        faults = faults.and(self.output(&mut own, scope, &Part::All));
        scope.sees.faults = scope.sees.faults.and(faults);
        let handler = Y::Text(name);
        handlers.insert(at, handler.clone());
        scope
            .handlers
            .extend(linked(own, After::Target(catcher.next)));
        handler
    }
}

/// What a catcher gets to see of what may come.
fn seen_by(catcher: &Catcher, sees: Sees) -> Sees {
    let timeout = sees.timeout && matches_error(&catcher.errors, names::TIMEOUT);
    let no_choice = matches_error(&catcher.errors, names::NO_CHOICE_MATCHED);
    Sees {
        timeout,
        limit: sees.limit && timeout,
        heartbeat: sees.heartbeat && timeout,
        no_choice: sees.no_choice && no_choice,
        ..sees
    }
}

/// `{Error, Cause}`, without what there is not: a timeout has no cause.
fn error_output(scope: &Scope, sees: Sees) -> Expr {
    let caught = scope.own("caught");
    let (error, message) = (format!("{caught}.error"), format!("{caught}.message"));
    let mut renamed = Vec::new();
    if sees.timeout {
        let timeout = format!("'{}'", names::TIMEOUT);
        let name = if sees.heartbeat {
            let silent = names::HEARTBEAT_TIMEOUT;
            format!("'heartbeat' in {message} ? '{silent}' : {timeout}")
        } else {
            timeout
        };
        renamed.push(format!("{}: {name}", errors::TIMEOUT));
    }
    if sees.no_choice {
        let name = names::NO_CHOICE_MATCHED;
        renamed.push(format!("{}: '{name}'", errors::NO_CHOICE_MATCHED));
    }
    let name = if renamed.is_empty() {
        error.clone()
    } else {
        format!("({{{}}}[{error}] | default: {error})", renamed.join(", "))
    };
    let mut silent = vec![format!("{message} == ''")];
    if sees.limit {
        silent.push(format!(
            "{error} == '{}' && 'no outcome' in {message}",
            errors::TIMEOUT
        ));
    }
    let silent = silent.join(" || ");
    let text = if sees.no_name {
        format!(
            "({name} == '' ? {{}} : {{Error: {name}}}) | merge: ({silent} ? {{}} : {{Cause: {message}}})"
        )
    } else {
        format!("{silent} ? {{Error: {name}}} : {{Error: {name}, Cause: {message}}}")
    };
    if sees.no_name {
        Expr::filters(text, Faults::NONE)
    } else {
        Expr::operators(text, Faults::NONE)
    }
}

fn entry(scope: &Scope, names: &[String], catcher: &Catcher, next: Y) -> Y {
    let keeps = catcher.result == ResultPath::Discard && catcher.assign.is_none();
    let mut entry = vec![("error".to_owned(), names_y(names))];
    if !keeps {
        entry.push(("result".to_owned(), Y::text(scope.own("caught"))));
    }
    entry.push(("next".to_owned(), next));
    Y::Map(entry)
}

fn names_y(names: &[String]) -> Y {
    match names {
        [name] => Y::text(&**name),
        names => Y::List(names.iter().map(|name| Y::text(&**name)).collect()),
    }
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// `retries` with the numbers of a retrier.
fn policy(retrier: &Retrier) -> Y {
    let attempts = retrier.max_attempts.saturating_add(1).min(MAX_ATTEMPTS);
    let multiplier = retrier.backoff.min(MAX_MULTIPLIER);
    let mut backoff = vec![
        (
            "initial_interval".to_owned(),
            Y::text(duration(retrier.interval_ms)),
        ),
        ("multiplier".to_owned(), Y::Bare(multiplier.to_string())),
    ];
    let longest = longest_pause_ms(retrier);
    if longest > DEFAULT_MAX_PAUSE_MS || retrier.max_delay_ms == longest {
        backoff.push(("max_interval".to_owned(), Y::text(duration(longest))));
    }
    if retrier.jitter == Jitter::Full {
        backoff.push(("jitter".to_owned(), Y::text("full")));
    }
    Y::map([
        ("max_attempts", Y::Bare(attempts.to_string())),
        ("backoff", Y::Map(backoff)),
    ])
}

/// The longest pause that a retrier comes to, in whole seconds.
fn longest_pause_ms(retrier: &Retrier) -> u64 {
    let most = retrier.max_delay_ms.min(MAX_PAUSE_MS);
    let last = retrier.max_attempts.saturating_sub(1).min(MAX_ATTEMPTS);
    let mut pause = retrier.interval_ms;
    for _ in 0..last {
        if pause >= most {
            break;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        // below ten years; what is beyond saturates
        let next = (pause as f64 * retrier.backoff / 1_000.0).ceil() as u64;
        pause = next.saturating_mul(1_000);
    }
    pause.min(most)
}
