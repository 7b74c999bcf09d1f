//! Expressions: the first line is the JSON that they see, the rest is the text.

use cascade_cdl::expression::{Env, MAX_STEPS, MAX_VALUE_DEPTH, Path, SyntaxError, Template};
use cascade_cdl::{Json, Source, parse};
use serde_json::{Value, json};

use crate::events::{self, START};

/// A template of CDL, and a path.
pub(crate) fn template(data: &[u8]) {
    let Some((context, text)) = split(data) else {
        return;
    };
    if let Err(error) = Path::parse(text) {
        points_into(text, &error);
    }
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => return points_into(text, &error),
    };
    template.references();
    let item = json!({"item": context, "index": 0});
    let env = Env {
        context: &context,
        overlays: &[],
        locals: &[("map", &item)],
        now: START,
        shards: 10,
        id: events::id(),
        seq: 1,
    };
    let first = template.eval(&env);
    assert_eq!(first, template.eval(&env), "two runs, two outcomes");
    if let Ok(value) = &first {
        assert!(cascade_cdl::expression::fits_depth(value, MAX_VALUE_DEPTH));
    }
    let (value, steps) = template.eval_within(&env, MAX_STEPS);
    assert!(steps <= MAX_STEPS);
    let (_, taken) = template.eval_within(&env, steps / 2);
    assert!(taken <= steps / 2);
    if let (Some(fewer), Ok(_)) = (steps.checked_sub(1), value) {
        assert!(template.eval_within(&env, fewer).0.is_err());
    }
}

/// A path or a call of an intrinsic function, in a Pass state's `Parameters`.
pub(crate) fn jsonpath(data: &[u8]) {
    if let Some((input, text)) = split(data) {
        let pass = json!({"Type": "Pass", "Parameters": {"x.$": text}, "End": true});
        run(&json!({"StartAt": "A", "States": {"A": pass}}), &input);
    }
}

/// A JSONata expression, in a Pass state's `Output`.
pub(crate) fn jsonata(data: &[u8]) {
    if let Some((input, text)) = split(data) {
        let pass = json!({"Type": "Pass", "Output": format!("{{% {text} %}}"), "End": true});
        let definition = json!({"StartAt": "A", "QueryLanguage": "JSONata", "States": {"A": pass}});
        run(&definition, &input);
    }
}

/// Runs a definition, if it is one, twice.
fn run(definition: &Value, input: &Value) {
    let parsed = parse(&Source {
        name: "fuzz.asl.json",
        bytes: definition.to_string().as_bytes(),
    });
    let Some(application) = parsed.application else {
        return;
    };
    for program in application.workflows.values() {
        let once = events::start(program, Json::from_value(input));
        assert!(once.is_closed(), "a Pass state waits");
        let again = events::start(program, Json::from_value(input));
        assert_eq!(once, again, "two runs, two outcomes");
    }
}

fn split(data: &[u8]) -> Option<(Value, &str)> {
    let (context, text) = std::str::from_utf8(data).ok()?.split_once('\n')?;
    Some((serde_json::from_str(context).ok()?, text))
}

/// That an error points into the text, at whole characters.
fn points_into(text: &str, error: &SyntaxError) {
    let end = error.offset + error.len;
    assert!(text.get(error.offset..end).is_some(), "{error:?}");
}
