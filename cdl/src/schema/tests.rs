//! Expected verdicts are those of the specification of JSON Schema, draft
//! 2020-12, by hand or from its examples.

use serde_json::{Value, json};

use super::*;

fn schema(source: &Value) -> Schema {
    Schema::new(source.clone()).unwrap_or_else(|error| panic!("{source}: {error}"))
}

/// Each value must fit, or not.
fn check(source: &Value, fit: &[Value], unfit: &[Value]) {
    let schema = schema(source);
    for value in fit {
        assert_eq!(schema.check(value), Ok(()), "{source} takes {value}");
    }
    for value in unfit {
        let refused = schema.check(value);
        assert!(
            matches!(&refused, Err(Unfit::Misfits(misfits)) if !misfits.is_empty()),
            "{source} refuses {value}: {refused:?}"
        );
    }
}

#[test]
fn types_and_constants() {
    check(
        &json!({"type": "integer"}),
        &[json!(1), json!(1.0), json!(-3)],
        &[json!(1.5), json!("1")],
    );
    check(
        &json!({"type": ["string", "null"]}),
        &[json!(null), json!("")],
        &[json!(0), json!([]), json!(false)],
    );
    check(
        &json!({"const": 1}),
        &[json!(1), json!(1.0)],
        &[json!(true), json!("1")],
    );
    check(
        &json!({"enum": ["a", {"b": [0]}]}),
        &[json!("a"), json!({"b": [0.0]})],
        &[json!("b"), json!({"b": [0], "c": 1}), json!({"b": [0, 0]})],
    );
    check(&json!({"const": 0}), &[json!(-0.0)], &[]);
}

#[test]
fn numbers() {
    check(
        &json!({"minimum": 0, "exclusiveMaximum": 10}),
        &[json!(0), json!(9.99), json!("100")],
        &[json!(-1), json!(10)],
    );
    check(
        &json!({"exclusiveMinimum": 0, "maximum": 10}),
        &[json!(0.1), json!(10)],
        &[json!(0), json!(10.5)],
    );
    check(
        &json!({"multipleOf": 0.1}),
        &[json!(0.3), json!(7)],
        &[json!(0.35)],
    );
    // As doubles these are the same number.
    check(
        &json!({"maximum": u64::MAX - 1}),
        &[json!(u64::MAX - 1)],
        &[json!(u64::MAX)],
    );
}

#[test]
fn texts() {
    check(
        &json!({"minLength": 2, "maxLength": 3}),
        &[json!("äö"), json!("abc")],
        &[json!("ä"), json!("abcd")],
    );
    // Found anywhere; `\d` and `\w` are of ASCII.
    check(
        &json!({"pattern": r"\d-\w"}),
        &[json!("x1-ay")],
        &[json!("1-"), json!("١-a"), json!("1-ä")],
    );
    check(
        &json!({"pattern": r"^[\w.]+@[^@]+$"}),
        &[json!("a.b@c")],
        &[json!("ä@c"), json!("a@b@c")],
    );
    check(
        &json!({"pattern": r"^\\d$"}),
        &[json!("\\d")],
        &[json!("1")],
    );
}

#[test]
fn arrays() {
    check(
        &json!({"prefixItems": [{"type": "string"}], "items": {"type": "number"}, "maxItems": 3}),
        &[json!([]), json!(["a", 1, 2])],
        &[json!([1]), json!(["a", "b"]), json!(["a", 1, 2, 3])],
    );
    check(
        &json!({"uniqueItems": true, "minItems": 1}),
        &[json!([1, "1", [1], null])],
        &[json!([]), json!([1, 2, 1.0]), json!([{"a": 1}, {"a": 1}])],
    );
    check(
        &json!({"contains": {"const": 1}}),
        &[json!([0, 1])],
        &[json!([0])],
    );
    check(
        &json!({"contains": {"const": 1}, "minContains": 0, "maxContains": 1}),
        &[json!([]), json!([1])],
        &[json!([1, 1])],
    );
}

#[test]
fn objects() {
    check(
        &json!({
            "properties": {"a": {"type": "number"}},
            "patternProperties": {"^x-": {"type": "string"}},
            "additionalProperties": false,
            "required": ["a"],
        }),
        &[json!({"a": 1}), json!({"a": 1, "x-b": "c"})],
        &[
            json!({}),
            json!({"a": "1"}),
            json!({"a": 1, "b": 2}),
            json!({"a": 1, "x-b": 2}),
        ],
    );
    check(
        &json!({"propertyNames": {"maxLength": 1}, "minProperties": 1, "maxProperties": 2}),
        &[json!({"a": 1})],
        &[json!({}), json!({"ab": 1}), json!({"a": 1, "b": 1, "c": 1})],
    );
    check(
        &json!({
            "dependentRequired": {"card": ["address"]},
            "dependentSchemas": {"gift": {"properties": {"price": {"const": 0}}}},
        }),
        &[
            json!({"address": 1}),
            json!({"card": 1, "address": 2}),
            json!({"gift": 1, "price": 0}),
        ],
        &[json!({"card": 1}), json!({"gift": 1, "price": 5})],
    );
}

#[test]
fn combinations() {
    check(
        &json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}),
        &[json!(1)],
        &[json!(0), json!(3)],
    );
    check(
        &json!({"anyOf": [{"type": "string"}, {"minimum": 5}]}),
        &[json!("a"), json!(5)],
        &[json!(1)],
    );
    check(
        &json!({"oneOf": [{"minimum": 1}, {"minimum": 5}]}),
        &[json!(1)],
        &[json!(0), json!(5)],
    );
    check(
        &json!({"not": {"type": "null"}}),
        &[json!(0)],
        &[json!(null)],
    );
    check(
        &json!({
            "if": {"properties": {"approved": {"const": false}}},
            "then": {"required": ["reason"]},
            "else": {"required": ["amount"]},
        }),
        &[
            json!({"approved": false, "reason": "no"}),
            json!({"approved": true, "amount": 1}),
        ],
        &[json!({"approved": false}), json!({"approved": true})],
    );
    check(
        &json!({"properties": {"a": false}}),
        &[json!({})],
        &[json!({"a": 1})],
    );
}

#[test]
fn references_lead_into_the_schema_also_in_circles() {
    let tree = json!({
        "$defs": {"node/~": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node~1~0"}}}},
        "$ref": "#/$defs/node~1~0",
    });
    check(
        &tree,
        &[json!({}), json!({"next": {"next": {}}})],
        &[json!(1), json!({"next": {"next": 1}})],
    );
}

#[test]
fn a_misfit_tells_where_and_what() {
    let schema = schema(&json!({
        "type": "object",
        "required": ["approved"],
        "properties": {"approved": {"type": "boolean"}, "lines": {"items": {"minimum": 1}}},
    }));
    let refused = schema.check(&json!({"lines": [1, 0]}));
    let Err(Unfit::Misfits(misfits)) = refused else {
        panic!("{refused:?}");
    };
    let mut told: Vec<_> = misfits
        .iter()
        .map(|m| (m.at.as_str(), m.message.as_str()))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("", "`approved` is missing"),
            ("/lines/1", "it must be at least 1")
        ]
    );
    // What is only tried tells nothing of its own.
    let either = Schema::new(json!({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}));
    let refused = either.expect("a schema").check(&json!({}));
    assert!(
        matches!(&refused, Err(Unfit::Misfits(misfits)) if misfits.len() == 1),
        "{refused:?}"
    );
}

#[test]
fn what_is_not_understood_is_refused_at_its_place() {
    for (source, at) in [
        (json!(1), ""),
        (json!({"typ": "string"}), ""),
        (json!({"unevaluatedProperties": false}), ""),
        (json!({"type": "text"}), "/type"),
        (json!({"type": []}), "/type"),
        (
            json!({"properties": {"a/b": {"minimum": "1"}}}),
            "/properties/a~1b/minimum",
        ),
        (json!({"items": [{}]}), "/items"),
        (json!({"anyOf": []}), "/anyOf"),
        (
            json!({"anyOf": [{}, {"minLength": -1}]}),
            "/anyOf/1/minLength",
        ),
        (json!({"maxItems": 1.5}), "/maxItems"),
        (json!({"multipleOf": 0}), "/multipleOf"),
        (json!({"required": [1]}), "/required"),
        (
            json!({"dependentRequired": {"a": "b"}}),
            "/dependentRequired",
        ),
        (json!({"pattern": "("}), "/pattern"),
        (json!({"pattern": r"(a)\1"}), "/pattern"),
        (json!({"pattern": "(((a{99}){99}){99})"}), "/pattern"),
        (
            json!({"patternProperties": {"[": {}}}),
            "/patternProperties",
        ),
        (json!({"$ref": "https://example.com/schema"}), "/$ref"),
        (json!({"$ref": "#/$defs/none"}), "/$ref"),
        // A place that is no schema as such, but is made one by a reference.
        (
            json!({"$ref": "#/const", "const": {"type": 1}}),
            "/const/type",
        ),
        (json!({"description": "x".repeat(MAX_SCHEMA_BYTES)}), ""),
        (
            json!({"allOf": vec![json!({"pattern": "a"}); MAX_PATTERNS + 1]}),
            "",
        ),
    ] {
        let refused = Schema::new(source.clone());
        let refused = refused.expect_err("is refused");
        assert_eq!(refused.at, at, "{source}: {refused}");
    }
}

/// Each would take for ever, or the stack, without its bound.
#[test]
fn a_check_that_would_not_end_soon_is_given_up() {
    let double = |name: &str| json!({"anyOf": [{"$ref": name}, {"$ref": name}]});
    let mut defs = serde_json::Map::new();
    for level in 0..40 {
        defs.insert(
            format!("d{level}"),
            double(&format!("#/$defs/d{}", level + 1)),
        );
    }
    defs.insert("d40".to_owned(), json!({"type": "null"}));
    for (source, value) in [
        (json!({"$ref": "#"}), json!(1)),
        (json!({"allOf": [{"$ref": "#"}]}), json!(1)),
        (json!({"$defs": defs, "$ref": "#/$defs/d0"}), json!(1)),
        (
            json!({"uniqueItems": true}),
            json!((0..2_000).collect::<Vec<_>>()),
        ),
        (json!({"pattern": "(x+x+)+y"}), json!("x".repeat(1 << 20))),
        (
            json!({"items": {"enum": vec![json!([0, 1]); 1_000]}}),
            json!(vec![json!([0, 2]); 1_000]),
        ),
    ] {
        assert_eq!(
            schema(&source).check(&value),
            Err(Unfit::TooMuch),
            "{source}"
        );
    }
}

#[test]
fn a_large_form_is_well_within_the_bounds() {
    let fields: serde_json::Map<String, Value> = (0..300)
        .map(|n| {
            (
                format!("field{n}"),
                json!({"type": "string", "pattern": "^[a-z]+$", "maxLength": 100}),
            )
        })
        .collect();
    let form = json!({"type": "object", "additionalProperties": {"$ref": "#/$defs/field"},
        "$defs": {"field": fields["field0"]}});
    let answer: serde_json::Map<String, Value> = fields
        .keys()
        .map(|name| (name.clone(), json!("abcdefghij")))
        .collect();
    assert_eq!(schema(&form).check(&Value::Object(answer)), Ok(()));
}
