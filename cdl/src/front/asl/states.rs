//! The types of states and their fields.

use serde_json::Value;

use super::choice::timestamp_finding;
use super::{Builder, COMMENT, Language, MAX_SECONDS, Place, language};
use crate::asl::State;
use crate::asl::program::{Amount, AmountSource, Flow, Kind, PathFlow, Task, Until, Words};
use crate::asl::time::parse_timestamp;
use crate::diagnostic::Code;
use crate::front::fields::Fields;
use crate::front::report::{Finding, quote, suggest};
use crate::front::yaml::{Key, Node};

/// A type of states: its fields in either language.
struct Type {
    name: &'static str,
    path: &'static [&'static str],
    query: &'static [&'static str],
}

const TYPES: [Type; 8] = [
    Type {
        name: "Task",
        path: &[
            "Type",
            "QueryLanguage",
            "Resource",
            "Next",
            "End",
            "Retry",
            "Catch",
            "Assign",
            "TimeoutSeconds",
            "HeartbeatSeconds",
            "Credentials",
            "InputPath",
            "OutputPath",
            "ResultPath",
            "Parameters",
            "ResultSelector",
            "TimeoutSecondsPath",
            "HeartbeatSecondsPath",
        ],
        query: &[
            "Type",
            "QueryLanguage",
            "Resource",
            "Next",
            "End",
            "Retry",
            "Catch",
            "Assign",
            "TimeoutSeconds",
            "HeartbeatSeconds",
            "Credentials",
            "Arguments",
            "Output",
        ],
    },
    Type {
        name: "Pass",
        path: &[
            "Type",
            "QueryLanguage",
            "Next",
            "End",
            "Assign",
            "InputPath",
            "OutputPath",
            "ResultPath",
            "Parameters",
            "Result",
        ],
        query: &["Type", "QueryLanguage", "Next", "End", "Assign", "Output"],
    },
    Type {
        name: "Choice",
        path: &[
            "Type",
            "QueryLanguage",
            "Choices",
            "Default",
            "Assign",
            "InputPath",
            "OutputPath",
        ],
        query: &[
            "Type",
            "QueryLanguage",
            "Choices",
            "Default",
            "Assign",
            "Output",
        ],
    },
    Type {
        name: "Wait",
        path: &[
            "Type",
            "QueryLanguage",
            "Next",
            "End",
            "Assign",
            "Seconds",
            "Timestamp",
            "InputPath",
            "OutputPath",
            "SecondsPath",
            "TimestampPath",
        ],
        query: &[
            "Type",
            "QueryLanguage",
            "Next",
            "End",
            "Assign",
            "Seconds",
            "Timestamp",
            "Output",
        ],
    },
    Type {
        name: "Succeed",
        path: &["Type", "QueryLanguage", "InputPath", "OutputPath"],
        query: &["Type", "QueryLanguage", "Output"],
    },
    Type {
        name: "Fail",
        path: &[
            "Type",
            "QueryLanguage",
            "Error",
            "Cause",
            "ErrorPath",
            "CausePath",
        ],
        query: &["Type", "QueryLanguage", "Error", "Cause"],
    },
    Type {
        name: "Parallel",
        path: &[
            "Type",
            "QueryLanguage",
            "Branches",
            "Next",
            "End",
            "Retry",
            "Catch",
            "Assign",
            "InputPath",
            "OutputPath",
            "ResultPath",
            "Parameters",
            "ResultSelector",
        ],
        query: &[
            "Type",
            "QueryLanguage",
            "Branches",
            "Next",
            "End",
            "Retry",
            "Catch",
            "Assign",
            "Arguments",
            "Output",
        ],
    },
    Type {
        name: "Map",
        path: &[
            "Type",
            "QueryLanguage",
            "ItemProcessor",
            "Iterator",
            "Next",
            "End",
            "Retry",
            "Catch",
            "Assign",
            "MaxConcurrency",
            "ItemSelector",
            "ItemBatcher",
            "ItemReader",
            "ResultWriter",
            "ToleratedFailureCount",
            "ToleratedFailurePercentage",
            "Label",
            "InputPath",
            "OutputPath",
            "ResultPath",
            "ResultSelector",
            "ItemsPath",
            "Parameters",
            "MaxConcurrencyPath",
            "ToleratedFailureCountPath",
            "ToleratedFailurePercentagePath",
        ],
        query: &[
            "Type",
            "QueryLanguage",
            "ItemProcessor",
            "Next",
            "End",
            "Retry",
            "Catch",
            "Assign",
            "MaxConcurrency",
            "ItemSelector",
            "ItemBatcher",
            "ItemReader",
            "ResultWriter",
            "ToleratedFailureCount",
            "ToleratedFailurePercentage",
            "Label",
            "Items",
            "Output",
        ],
    },
];

/// Compiles a state. `outer` is the language of the scope that it is in.
pub(super) fn compile(
    b: &mut Builder<'_, '_, '_>,
    place: &Place<'_>,
    node: &Node,
    outer: Language,
) -> Option<State> {
    let fields = b.context.any_fields(node, "a state")?;
    let kind = state_type(b, &fields)?;
    let own = match fields.get("QueryLanguage") {
        Some(node) => {
            let own = language(b.context, node)?;
            if own == Language::Path && b.machine == Language::Query {
                b.report(
                    Finding::new(
                        Code::WrongLanguage,
                        node.span,
                        "a state cannot use JSONPath if the state machine uses JSONata",
                    )
                    .help("leave the machine's `QueryLanguage` out, and give it to the states that use JSONata"),
                );
            }
            own
        }
        None => outer,
    };
    let (known, other) = match own {
        Language::Path => (kind.path, kind.query),
        Language::Query => (kind.query, kind.path),
    };
    let fields = b.language_fields(node, "a state of this type", known, other, own)?;
    let flow = b.flow(&fields, own);
    let assign = b.assign(&fields, own);
    let retry = b.retries(&fields);
    let catch = b.catches(place, &fields, own);
    let next = match kind.name {
        "Choice" | "Fail" => Some(None),
        "Succeed" => Some(Some(crate::program::Next::End)),
        _ => b.next(place, &fields).map(Some),
    };
    let compiled = match kind.name {
        "Task" => b.task(&fields, own).map(Kind::Task),
        "Pass" => match fields.get("Result") {
            Some(node) => b.literal(node).map(|value| Kind::Pass {
                result: Some(value),
            }),
            None => Some(Kind::Pass { result: None }),
        },
        "Choice" => b.choice(place, &fields, own),
        "Wait" => b.wait(&fields, own).map(Kind::Wait),
        "Succeed" => Some(Kind::Succeed),
        "Fail" => b.fail(&fields, own),
        "Parallel" => b.parallel(place, &fields, own),
        _ => b
            .map(place, &fields, own)
            .map(|map| Kind::Map(Box::new(map))),
    };
    Some(State {
        kind: compiled?,
        flow: flow?,
        assign,
        retry: retry?,
        catch: catch?,
        next: next?,
        uses_context: b.uses_context,
    })
}

fn state_type(b: &mut Builder<'_, '_, '_>, fields: &Fields<'_>) -> Option<&'static Type> {
    let node = b.context.required(fields, "Type")?;
    let text = b.context.text(node, "`Type`")?;
    let found = TYPES.iter().find(|known| known.name == text);
    if found.is_none() {
        let names = TYPES.map(|known| known.name);
        b.report(
            Finding::new(
                Code::UnknownStateType,
                node.span,
                format!("there is no state type {}", quote(text)),
            )
            .maybe_help(suggest(text, "the types are", &names)),
        );
    }
    found
}

impl Builder<'_, '_, '_> {
    /// A mapping with the fields `own`; those of the other language are told apart.
    pub(super) fn language_fields<'t>(
        &mut self,
        node: &'t Node,
        what: &'static str,
        own: &[&str],
        other: &[&str],
        language: Language,
    ) -> Option<Fields<'t>> {
        let fields = self.context.any_fields(node, what)?;
        for key in fields.keys() {
            if own.contains(&&*key.text) || &*key.text == COMMENT {
                continue;
            }
            if other.contains(&&*key.text) {
                self.other_language(key, language);
                continue;
            }
            self.report(
                Finding::new(
                    Code::UnknownKey,
                    key.span,
                    format!("{what} has no field {}", quote(&key.text)),
                )
                .maybe_help(suggest(&key.text, "its fields are", own)),
            );
        }
        Some(fields)
    }

    pub(super) fn other_language(&mut self, key: &Key, language: Language) {
        let name = language.name();
        self.report(
            Finding::new(
                Code::WrongLanguage,
                key.span,
                format!("{} does not go with {name}", quote(&key.text)),
            )
            .help("the `QueryLanguage` of a state decides which fields it has"),
        );
    }

    fn flow(&mut self, fields: &Fields<'_>, language: Language) -> Option<Flow> {
        if language == Language::Query {
            let mut query = |key: &str| match fields.get(key) {
                Some(node) => self.query(node, key).map(Some),
                None => Some(None),
            };
            let (arguments, output) = (query("Arguments"), query("Output"));
            return Some(Flow::Query {
                arguments: arguments?,
                output: output?,
            });
        }
        let mut payload = |key: &str| match fields.get(key) {
            Some(node) => self.payload(node).map(Some),
            None => Some(None),
        };
        // Of a Map they are the old name of `ItemSelector`.
        let has_items = fields
            .get("ItemProcessor")
            .or(fields.get("Iterator"))
            .is_some();
        let parameters = if has_items {
            Some(None)
        } else {
            payload("Parameters")
        };
        let selector = payload("ResultSelector");
        let input = self.part(fields, "InputPath");
        let output = self.part(fields, "OutputPath");
        let result = self.result_path(fields);
        Some(Flow::Path(Box::new(PathFlow {
            input: input?,
            parameters: parameters?,
            selector: selector?,
            result: result?,
            output: output?,
        })))
    }

    fn task(&mut self, fields: &Fields<'_>, language: Language) -> Option<Task> {
        let range = (1.0, f64::from(MAX_SECONDS));
        let timeout = self.amount(
            fields,
            "TimeoutSeconds",
            "TimeoutSecondsPath",
            language,
            range,
        );
        let heartbeat = self.amount(
            fields,
            "HeartbeatSeconds",
            "HeartbeatSecondsPath",
            language,
            range,
        );
        if let (Some(limit), Some(silence)) = (fixed(timeout.as_ref()), fixed(heartbeat.as_ref()))
            && silence >= limit
            && let Some(node) = fields.get("HeartbeatSeconds")
        {
            let message = "`HeartbeatSeconds` has to be smaller than `TimeoutSeconds`";
            self.report(Finding::new(Code::InvalidValue, node.span, message));
        }
        if let Some(node) = fields.get("Credentials") {
            self.credentials(node, language);
        }
        let node = self.context.required(fields, "Resource")?;
        let function = fields.get("Parameters").or(fields.get("Arguments"));
        let (resource, bound) = self.resource(node, function)?;
        Some(Task {
            resource,
            bound,
            timeout,
            heartbeat,
        })
    }

    /// Cascade has no use for roles, but AWS refuses credentials without one.
    fn credentials(&mut self, node: &Node, language: Language) {
        let Some(fields) = self.context.any_fields(node, "`Credentials`") else {
            return;
        };
        let computed = language == Language::Path && fields.get("RoleArn.$").is_some();
        if !computed {
            self.context.required(&fields, "RoleArn");
        }
        self.template(node, "Credentials", language);
    }

    fn choice(
        &mut self,
        place: &Place<'_>,
        fields: &Fields<'_>,
        language: Language,
    ) -> Option<Kind> {
        let default = match fields.get("Default") {
            Some(node) => Some(self.target(place.scope, node, "Default")?),
            None => None,
        };
        let node = self.context.required(fields, "Choices")?;
        let items = self.context.sequence(node, "`Choices`")?;
        if items.is_empty() {
            self.report(Finding::new(
                Code::InvalidValue,
                node.span,
                "`Choices` has at least one rule",
            ));
        }
        let rules: Vec<_> = items
            .iter()
            .map(|item| self.rule(place, item, language))
            .collect();
        let rules = rules.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Kind::Choice { rules, default })
    }

    fn wait(&mut self, fields: &Fields<'_>, language: Language) -> Option<Until> {
        const WAYS: [&str; 4] = ["Seconds", "SecondsPath", "Timestamp", "TimestampPath"];
        let given: Vec<_> = WAYS
            .iter()
            .filter(|way| fields.get(way).is_some())
            .collect();
        let [way] = given[..] else {
            let message =
                "a Wait state has one of `Seconds`, `SecondsPath`, `Timestamp` and `TimestampPath`";
            let span = given
                .get(1)
                .and_then(|way| fields.key(way))
                .map_or(fields.head(), |key| key.span);
            self.report(Finding::new(Code::Conflict, span, message));
            return None;
        };
        let node = fields.get(way)?;
        match *way {
            "Seconds" | "SecondsPath" => {
                let range = (0.0, f64::from(MAX_SECONDS));
                self.amount(fields, "Seconds", "SecondsPath", language, range)
                    .map(Until::Seconds)
            }
            "TimestampPath" => self.path(node, way).map(Until::AtPath),
            _ => {
                let text = self.context.text(node, "`Timestamp`")?;
                let is_query = crate::asl::jsonata::Expression::body(text).is_some();
                if language == Language::Query && is_query {
                    return self.query(node, "Timestamp").map(Until::AtQuery);
                }
                let at = parse_timestamp(text);
                if at.is_none() {
                    self.report(timestamp_finding(node, text));
                }
                at.map(Until::At)
            }
        }
    }

    fn fail(&mut self, fields: &Fields<'_>, language: Language) -> Option<Kind> {
        let error = self.words(fields, "Error", "ErrorPath", language);
        let cause = self.words(fields, "Cause", "CausePath", language);
        Some(Kind::Fail {
            error: error?,
            cause: cause?,
        })
    }

    #[expect(clippy::option_option)] // wrong, not given, given
    fn words(
        &mut self,
        fields: &Fields<'_>,
        key: &'static str,
        path_key: &'static str,
        language: Language,
    ) -> Option<Option<Words>> {
        let why = format!("`{path_key}` takes the place of `{key}`");
        self.context.exclusive(fields, key, path_key, &why);
        if let Some(node) = fields.get(path_key) {
            let source = self.source(node, path_key)?;
            let field = path_key;
            return Some(Some(Words::Source { field, source }));
        }
        let Some(node) = fields.get(key) else {
            return Some(None);
        };
        let words = match language {
            Language::Path => match self.literal(node)? {
                Value::String(text) => Words::Fixed(text),
                _ => return self.context.wrong_type(node, &format!("`{key}` is text")),
            },
            Language::Query => Words::Query(self.query_or(node, key, "text", Value::is_string)?),
        };
        Some(Some(words))
    }

    fn parallel(
        &mut self,
        place: &Place<'_>,
        fields: &Fields<'_>,
        language: Language,
    ) -> Option<Kind> {
        let node = self.context.required(fields, "Branches")?;
        let items = self.context.sequence(node, "`Branches`")?;
        let branches: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(at, item)| {
                let fields = super::known(self.context, item, "a branch", super::BRANCH)?;
                self.scope(&fields, &at.to_string(), Some(place.id), language)
            })
            .collect();
        let branches = branches.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Kind::Parallel { branches })
    }
}

fn fixed(amount: Option<&Amount>) -> Option<f64> {
    match amount?.source {
        AmountSource::Fixed(number) => Some(number),
        _ => None,
    }
}
