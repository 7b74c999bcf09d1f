//! What expressions give, as tables of text, value and reason.

use serde_json::{Value, json};

use super::*;

mod filters;
mod properties;

fn context() -> Value {
    json!({
        "workflow": {"execution_id": "e-1", "input": {"order_id": "o-1"}},
        "name": "Ada",
        "none": null,
        "total": 120,
        "big": u64::MAX,
        "empty": [],
        "nums": [3, 1, 2],
        "words": ["b", "a"],
        "odd key": {"x-y": 7},
        "lines": [
            {"sku": "A", "price": 10, "gift": true},
            {"sku": "B", "price": 2.5, "gift": false},
            {"sku": "A", "price": 4},
        ],
    })
}

/// Evaluates with an iteration's words, on the day of the example times.
fn eval(text: &str) -> Result<Value, EvalError> {
    let (context, map) = (context(), json!({"item": {"id": 9}, "index": 4}));
    let env = Env {
        context: &context,
        overlays: &[],
        locals: &[("map", &map)],
        now: Timestamp(1_769_851_800_000),
        shards: 10,
        id: ExecutionId(uuid::Uuid::from_u128(7)),
        seq: 3,
    };
    let template = Template::parse(text).unwrap_or_else(|e| panic!("{text}: {e} at {}", e.offset));
    template.eval(&env)
}

fn check(table: &[(&str, Value, &str)]) {
    for (text, expected, reason) in table {
        assert_eq!(eval(text).as_ref(), Ok(expected), "{text}: {reason}");
    }
}

fn check_errors(table: &[(&str, &str)]) {
    for (text, expected) in table {
        match eval(text) {
            Ok(value) => panic!("{text} gave {value} instead of {expected}"),
            Err(error) => assert!(error.message.contains(expected), "{text}: {error}"),
        }
    }
}

#[test]
fn a_template_keeps_types_only_if_it_is_one_expression() {
    check(&[
        ("plain", json!("plain"), "nothing to evaluate"),
        ("a }} b { c", json!("a }} b { c"), "only `{{` opens"),
        ("{{ $.total }}", json!(120), "the whole text"),
        ("{{$.total}}", json!(120), "spaces do not matter"),
        (
            "{{ $.total }}\n",
            json!(120),
            "block scalars end with a line break",
        ),
        (" {{ $.total }}", json!(" 120"), "text before it"),
        (
            "{{ $.total }}{{ $.name }}",
            json!("120Ada"),
            "two expressions are text",
        ),
        (
            "é {{ $.name }}!",
            json!("é Ada!"),
            "offsets are bytes, not characters",
        ),
        ("{{ $.none }}.", json!("null."), "not strings: as JSON"),
        ("{{ $.nums }}.", json!("[3,1,2]."), "not strings: as JSON"),
        ("{{ '{{' }}", json!("{{"), "how to write the braces"),
        (
            "{{ {a: {b: 1}}}}",
            json!({"a": {"b": 1}}),
            "braces of objects close first",
        ),
        ("{{ '}}' }}", json!("}}"), "braces in strings do not close"),
    ]);
}

#[test]
fn paths_walk_keys_and_indexes() {
    check(&[
        (
            "{{ workflow.input.order_id }}",
            json!("o-1"),
            "the word for $.workflow",
        ),
        (
            "{{ $.workflow.execution_id }}",
            json!("e-1"),
            "the same by path",
        ),
        (
            "{{ $['odd key']['x-y'] }}",
            json!(7),
            "keys that are no words",
        ),
        ("{{ $.nums[0] }}", json!(3), "indexes count from 0"),
        ("{{ $.nums[-1] }}", json!(2), "negative ones from the end"),
        ("{{ $.nums[$.nums[1]] }}", json!(1), "index 1, computed"),
        ("{{ $['na' + 'me'] }}", json!("Ada"), "key, computed"),
        (
            "{{ map.item.id + map.index }}",
            json!(13),
            "9 + 4, words of an iteration",
        ),
        ("{{ [1, [2, 3]][1][0] }}", json!(2), "into a literal"),
        (
            "{{ {in: 1}.in }}",
            json!(1),
            "keywords are keys behind a dot",
        ),
        (
            "{{ ($.nums | sort)[0] }}",
            json!(1),
            "into a filtered value",
        ),
        ("{{ $.none }}", json!(null), "null is there"),
    ]);
    check_errors(&[
        ("{{ $.nme }}", "`$.nme` is missing, did you mean `name`?"),
        ("{{ $.zzz }}", "`$.zzz` is missing"),
        (
            "{{ $.name.first }}",
            "`$.name.first` is missing: `$.name` is a string",
        ),
        ("{{ $.none.x }}", "`$.none.x` is missing: `$.none` is null"),
        (
            "{{ $.nums[3] }}",
            "`$.nums[3]` is missing: `$.nums` has 3 elements",
        ),
        ("{{ $.nums[-4] }}", "`$.nums[-4]` is missing"),
        ("{{ $['odd key'].z }}", "`$['odd key'].z` is missing"),
        (
            "{{ $.nums['0'] }}",
            "`$.nums['0']` is missing: `$.nums` is a list",
        ),
        ("{{ $.nums[1.5] }}", "an index is an integer or a string"),
        (
            "{{ name }}",
            "`name` is not known here, did you mean `$.name`?",
        ),
        ("{{ mapp.item }}", "did you mean `map`?"),
        ("{{ nobody | default: 1 }}", "`nobody` is not known here"),
        ("{{ $.zzz + 1 }}", "in `{{ $.zzz + 1 }}`"),
    ]);
}

#[test]
fn arithmetic_is_exact_on_integers_and_never_nan() {
    check(&[
        ("{{ 1 + 2 * 3 - 4 }}", json!(3), "products bind tighter"),
        ("{{ (1 + 2) * 3 }}", json!(9), "parentheses"),
        ("{{ 10 - 2 - 3 }}", json!(5), "from the left"),
        (
            "{{ 6 / 3 }}",
            json!(2),
            "an exact quotient stays an integer",
        ),
        ("{{ 7 / 2 }}", json!(3.5), "any other is a float"),
        (
            "{{ -7 % 3 }}",
            json!(-1),
            "the sign of the dividend, as in Rust and JavaScript",
        ),
        ("{{ 1 + 0.5 }}", json!(1.5), "mixed is a float"),
        ("{{ $.big - 1 }}", json!(u64::MAX - 1), "beyond i64, exact"),
        (
            "{{ 9007199254740993 + 0 }}",
            json!(9_007_199_254_740_993_i64),
            "2^53 + 1 is no f64",
        ),
        (
            "{{ -9223372036854775808 }}",
            json!(i64::MIN),
            "the least integer",
        ),
        ("{{ - -3 }}", json!(3), "twice negated"),
        ("{{ 'a' + \"b\" }}", json!("ab"), "strings join"),
        ("{{ 1e3 }}", json!(1000.0), "an exponent makes a float"),
    ]);
    check_errors(&[
        ("{{ $.big + 1 }}", "does not fit 64 bits"),
        ("{{ $.big * $.big }}", "does not fit 64 bits"),
        ("{{ -1 * $.big }}", "does not fit 64 bits"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 1.5 % 0.0 }}", "division by zero"),
        ("{{ 1e308 * 10 }}", "too large"),
        (
            "{{ 1 + '1' }}",
            "`+` needs two numbers or two strings, not a number and a string",
        ),
        ("{{ 'a' - 'b' }}", "`-` needs two numbers"),
        ("{{ -$.name }}", "`-` needs a number, not a string"),
    ]);
}

#[test]
fn comparison_is_by_value_and_order_needs_one_type() {
    check(&[
        ("{{ 1 == 1.0 }}", json!(true), "numbers by value"),
        (
            "{{ [1, {a: 2.0}] == [1.0, {a: 2}] }}",
            json!(true),
            "inside too",
        ),
        (
            "{{ 9007199254740993 == 9007199254740992.0 }}",
            json!(false),
            "not rounded first",
        ),
        (
            "{{ 9007199254740993 > 9007199254740992.0 }}",
            json!(true),
            "not rounded first",
        ),
        (
            "{{ -1 < -0.5 && -0.5 < 0 }}",
            json!(true),
            "fractions below zero",
        ),
        (
            "{{ 1 == '1' }}",
            json!(false),
            "different types are unequal",
        ),
        (
            "{{ null != false }}",
            json!(true),
            "different types are unequal",
        ),
        ("{{ 'Z' < 'a' }}", json!(true), "strings by code point"),
        ("{{ 2 <= 2 && 2 >= 2 }}", json!(true), "equal is both"),
        (
            "{{ {a: 1, b: 2} == {b: 2, a: 1} }}",
            json!(true),
            "keys have no order",
        ),
        ("{{ [1] == [1, 2] }}", json!(false), "length counts"),
    ]);
    check_errors(&[
        ("{{ 1 < '2' }}", "`<` needs two numbers or two strings"),
        ("{{ true > false }}", "not a boolean and a boolean"),
        ("{{ $.none >= 1 }}", "not null and a number"),
    ]);
}

#[test]
fn logic_is_lazy_and_takes_booleans_only() {
    check(&[
        (
            "{{ false && $.missing }}",
            json!(false),
            "the right side is not asked",
        ),
        (
            "{{ true || $.missing }}",
            json!(true),
            "the right side is not asked",
        ),
        (
            "{{ true || false && false }}",
            json!(true),
            "&& binds tighter",
        ),
        ("{{ !(1 == 2) }}", json!(true), "negation"),
        (
            "{{ $.total > 100 ? 'big' : $.missing }}",
            json!("big"),
            "one branch only",
        ),
        (
            "{{ false ? 1 : false ? 2 : 3 }}",
            json!(3),
            "nests to the right",
        ),
        ("{{ 'a' in $.words }}", json!(true), "element"),
        ("{{ 'name' in $ }}", json!(true), "key"),
        ("{{ 'd' in $.name }}", json!(true), "part of a string"),
        ("{{ 1.0 in $.nums }}", json!(true), "elements by value"),
    ]);
    check_errors(&[
        (
            "{{ $.total && true }}",
            "`&&` needs a boolean, not a number",
        ),
        ("{{ !$.none }}", "`!` needs a boolean, not null"),
        ("{{ $.name ? 1 : 2 }}", "`?` needs a boolean, not a string"),
        ("{{ 1 in 2 }}", "not a number in a number"),
    ]);
}

#[test]
fn trees_are_evaluated_leaf_by_leaf() {
    let value = json!({"a": ["{{ $.total }}", 1], "b": {"c": "x{{ $.name }}"}, "d": true});
    let template = Template::from_value(&value).expect("compiles");
    let context = context();
    let env = Env {
        context: &context,
        overlays: &[],
        locals: &[],
        now: Timestamp(0),
        shards: 1,
        id: ExecutionId(uuid::Uuid::nil()),
        seq: 0,
    };
    let expected = json!({"a": [120, 1], "b": {"c": "xAda"}, "d": true});
    assert_eq!(template.eval(&env), Ok(expected));
    assert_eq!(template.as_literal(), None);

    let literal = Template::from_value(&json!({"a": [1, "x"]})).expect("compiles");
    assert_eq!(
        literal.as_literal(),
        Some(&json!({"a": [1, "x"]})),
        "nothing to evaluate"
    );

    let path = Template::parse("{{ $.lines }}").expect("compiles");
    let (borrowed, steps) = path.eval_counted(&env);
    assert_eq!(steps, 1, "one node, and what it points to is not looked at");
    let borrowed = borrowed.expect("there");
    assert!(
        std::ptr::eq(borrowed.as_ref(), &raw const context["lines"]),
        "no copy"
    );
}

#[test]
fn references_name_what_is_read() {
    let text = "é {{ workflow.input.id + $.a['b c'][0].d }} {{ map.x | default: $.y[$.z] }}";
    let references = Template::parse(text).expect("compiles").references();
    let shown: Vec<_> = references
        .iter()
        .map(|r| {
            let root = match &r.root {
                Root::Context => "$",
                Root::Local(name) => name,
            };
            let source = &text[r.offset..r.offset + r.len];
            (source, root, r.segments.join("/"), r.optional)
        })
        .collect();
    let expected = [
        ("workflow.input.id", "$", "workflow/input/id", false),
        ("$.a['b c'][0].d", "$", "a/b c", false),
        ("map.x", "map", "x", true),
        ("$.y[$.z]", "$", "y", false),
        ("$.z", "$", "z", false),
    ];
    assert_eq!(shown, expected.map(|(a, b, c, d)| (a, b, c.to_owned(), d)));
}

/// Tables of text, what stands where the error points, its message and its help.
fn check_syntax(table: &[(&str, &str, &str, &str)]) {
    for (text, at, message, help) in table {
        let error = Template::parse(text).expect_err(text);
        assert!(
            text[error.offset..].starts_with(at),
            "{text}: at {}",
            error.offset
        );
        assert!(error.message.contains(message), "{text}: {error}");
        let given = error.help.unwrap_or_default();
        assert!(given.contains(help), "{text}: {given}");
    }
}

#[test]
fn syntax_errors_point_at_the_fault_and_help() {
    check_syntax(&[
        ("a {{ $.x", "{{", "`{{` is not closed", "{{ '{{' }}"),
        (
            "{{ }}",
            "}}",
            "expected a value, found the closing `}}`",
            "",
        ),
        (
            "{{ $.x | uper }}",
            "uper",
            "there is no filter `uper`",
            "did you mean `upper`?",
        ),
        (
            "{{ $.x | xyzzy }}",
            "xyzzy",
            "there is no filter `xyzzy`",
            "docs/expressions.md",
        ),
        (
            "{{ $.x | round: 1, 2 }}",
            "round",
            "takes 0 to 1 arguments, not 2",
            "round: 2",
        ),
        (
            "{{ $.x | default }}",
            "default",
            "takes 1 argument, not 0",
            "default: 'free'",
        ),
        (
            "{{ $.x | upper: 1 }}",
            "upper",
            "takes no arguments, not 1",
            "",
        ),
        (
            "{{ $.x = 1 }}",
            "=",
            "unexpected character `=`",
            "equality is `==`",
        ),
        (
            "{{ $.x and $.y }}",
            "and",
            "found `and`",
            "logical and is `&&`",
        ),
        (
            "{{ not $.x }}",
            "not",
            "expected a value",
            "negation is `!`",
        ),
        (
            "{{ 1 < 2 < 3 }}",
            "<",
            "comparisons do not chain",
            "a < b && b < c",
        ),
        ("{{ $.x.0 }}", "0", "expected a key", "an index is `[0]`"),
        ("{{ $.x.- }}", "-", "expected a key", "quote a key"),
    ]);
}

#[test]
fn syntax_errors_of_literals_and_brackets() {
    check_syntax(&[
        (
            "{{ 'abc }}",
            "'",
            "string is not closed",
            "close it with `'`",
        ),
        (r"{{ 'a\q' }}", r"\q", "unknown escape", r"\uXXXX"),
        (r"{{ '\ud800' }}", r"\u", "unknown escape", ""),
        ("{{ 1abc }}", "1", "`1` runs into a word", ""),
        (
            "{{ 18446744073709551616 }}",
            "18446744073709551616",
            "is too large",
            "",
        ),
        ("{{ 1e999 }}", "1e999", "is too large", ""),
        ("{{ {a: 1, a: 2} }}", "a: 2", "key `a` is there twice", ""),
        (
            "{{ [1 | string] }}",
            "|",
            "expected `]`",
            "put a filtered value in parentheses",
        ),
        ("{{ (1 }}", "}}", "expected `)`", ""),
        ("{{ 1 } }}", "} }}", "`}` closes nothing", ""),
        ("{{ 1 2 }}", "2", "expected an operator or the end", ""),
    ]);
}

#[test]
fn strings_know_the_escapes_of_json() {
    check(&[
        (r#"{{ 'it\'s \"' }}"#, json!("it's \""), "quotes"),
        (
            r"{{ '\n\t\r\b\f\\\/' }}",
            json!("\n\t\r\u{8}\u{c}\\/"),
            "short ones",
        ),
        (
            r"{{ '\u00e9\ud83d\ude00' }}",
            json!("é😀"),
            "a surrogate pair is one character",
        ),
    ]);
}

#[test]
fn bare_expressions_compile_too() {
    let template = Template::parse_expression(" 1 + 1 ").expect("compiles");
    assert!(template.as_literal().is_none());
    let error = Template::parse_expression("1 + 1 }}").expect_err("closed but never opened");
    assert_eq!((error.offset, error.len), (6, 2), "{error}");
    let error = Template::parse_expression("1 +").expect_err("ends early");
    assert_eq!(error.message, "expected a value, found the end of the text");
}

#[test]
fn result_paths_are_keys_below_the_root() {
    for (text, segments, shown) in [
        ("$.a", vec!["a"], "$.a"),
        ("$.a.b_1", vec!["a", "b_1"], "$.a.b_1"),
        ("$['a b'].c", vec!["a b", "c"], "$['a b'].c"),
        (r#"$["it's"]"#, vec!["it's"], r"$['it\'s']"),
        ("$.größe", vec!["größe"], "$.größe"),
        ("$.a.workflow", vec!["a", "workflow"], "$.a.workflow"),
    ] {
        let path = Path::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let found: Vec<&str> = path.segments().iter().map(AsRef::as_ref).collect();
        assert_eq!(found, segments, "{text}");
        assert_eq!(path.to_string(), shown, "{text}");
    }
    for (text, message, help) in [
        ("$", "cannot replace the whole context", "$.payment"),
        ("$.workflow", "reserved", "another key"),
        ("$['workflow'].x", "reserved", "another key"),
        ("payment", "starts with `$`", "`$.payment`"),
        ("", "starts with `$`", ""),
        ("$.a[0]", "no indexes", "Pass state"),
        ("$.a-b", "`-` in a result path", "$['a-b']"),
        ("$.a.", "expected a key", ""),
        ("$.a[b]", "expected a quoted key", ""),
        ("$.a['b'", "expected `]`", ""),
        ("{{ $.a }}", "starts with `$`", ""),
        (
            &"$.a".replace(".a", &".a".repeat(33)),
            "at most 32 keys",
            "",
        ),
    ] {
        let error = Path::parse(text).expect_err(text);
        assert!(error.message.contains(message), "{text}: {error}");
        let given = error.help.unwrap_or_default();
        assert!(given.contains(help), "{text}: {given}");
    }
}

#[test]
fn setting_makes_objects_but_replaces_nothing_on_the_way() {
    let set = |text: &str| {
        let mut root = json!({"a": {"b": 1}, "n": null});
        Path::parse(text)
            .expect("a path")
            .set(&mut root, json!(7))
            .map(|()| root)
    };
    assert_eq!(
        set("$.x.y"),
        Ok(json!({"a": {"b": 1}, "n": null, "x": {"y": 7}}))
    );
    assert_eq!(set("$.a.c"), Ok(json!({"a": {"b": 1, "c": 7}, "n": null})));
    assert_eq!(
        set("$.a"),
        Ok(json!({"a": 7, "n": null})),
        "the end itself is replaced"
    );
    for (path, message) in [
        ("$.a.b.c", "cannot set `$.a.b.c`: `$.a.b` is a number"),
        ("$.n.x", "cannot set `$.n.x`: `$.n` is null"),
    ] {
        assert_eq!(set(path).expect_err(path).message, message);
    }
}

#[test]
fn overlapping_paths_are_those_that_lead_into_each_other() {
    for (a, b, overlap) in [
        ("$.a", "$.a", true),
        ("$.a", "$.a.b", true),
        ("$.a.b", "$.a", true),
        ("$.a.b", "$.a.c", false),
        ("$.a", "$.ab", false),
    ] {
        let [a, b] = [a, b].map(|text| Path::parse(text).expect("a path"));
        assert_eq!(a.overlaps(&b), overlap, "{a} {b}");
    }
}

/// Runs on half of the stack that threads have by default.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new()
        .stack_size(1024 * 1024)
        .spawn(test);
    thread
        .expect("a thread")
        .join()
        .expect("the stack suffices");
}

#[test]
fn deep_expressions_are_refused_before_the_stack_ends() {
    on_a_small_stack(|| {
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("{a:", "}"),
            ("!", ""),
            ("-", ""),
            ("$[", "]"),
        ] {
            for depth in [30, 60, 200, 1000] {
                let text = format!("{{{{ {}1{} }}}}", open.repeat(depth), close.repeat(depth));
                let parsed = Template::parse(&text);
                assert_eq!(
                    parsed.is_ok(),
                    depth < 64,
                    "{open} {depth}: {:?}",
                    parsed.err()
                );
            }
        }
        for step in ["+ 1", "? 1 : 1", "&& true", "| default: 1"] {
            let text = format!("{{{{ 1 {} }}}}", step.repeat(300));
            let error = Template::parse(&text).map(|_| ());
            let is_flat = step.starts_with('|');
            assert_eq!(error.is_ok(), is_flat, "{step}: {error:?}");
        }
    });
}

#[test]
fn long_expressions_are_refused() {
    let text = format!("{{{{ '{}' }}}}", "a".repeat(MAX_EXPRESSION_LEN));
    let error = Template::parse(&text).expect_err("too long");
    assert!(error.message.contains("at most 4096 bytes"), "{error}");
    let literal = "a".repeat(10 * MAX_EXPRESSION_LEN);
    assert!(
        Template::parse(&literal).is_ok(),
        "text around expressions has no bound"
    );
}

/// The message of evaluating `text` over a large context, on a small stack.
fn exceed(text: &'static str, context: Value, expected: &'static str) {
    on_a_small_stack(move || {
        let template = Template::parse(text).expect("compiles");
        let env = Env {
            context: &context,
            overlays: &[],
            locals: &[],
            now: Timestamp(0),
            shards: 1,
            id: ExecutionId(uuid::Uuid::nil()),
            seq: 0,
        };
        let error = template.eval(&env).expect_err(text);
        assert!(error.message.contains(expected), "{text}: {error}");
        let steps = template.eval_counted(&env).1;
        assert!(steps <= MAX_STEPS, "{text}: {steps}");
    });
}

#[test]
fn hostile_evaluations_end_with_a_clear_error() {
    let text = "a".repeat(100_000);
    let nested = (0..120).fold(json!(1), |inner, _| json!([inner]));
    let bytes = "evaluation makes more than 16777216 bytes";
    let steps = "evaluation takes more than 1000000 steps";
    let deep = "nested deeper than 100 levels";
    for (expression, context, expected) in [
        ("{{ $.t | replace: 'a', $.t }}", json!({"t": text}), bytes),
        (
            "{{ $.t | split: 'a' | join: $.t }}",
            json!({"t": text}),
            bytes,
        ),
        (
            "{{ [[$,$,$,$,$,$],[$,$,$,$,$,$],[$,$,$,$,$,$]] }}",
            json!({"t": "a".repeat(2_000_000)}),
            bytes,
        ),
        (
            "{{ $ == $ && $ == $ && $ == $ && $ == $ }}",
            json!(vec![0; 300_000]),
            steps,
        ),
        (
            "{{ $ | sort }}",
            json!((0..100_000).rev().collect::<Vec<_>>()),
            steps,
        ),
        ("{{ $ }}", nested.clone(), deep),
        ("{{ $ | from_json }}", json!("0,".repeat(3_000_000)), bytes),
        ("{{ [$] | json }}", nested.clone(), deep),
        (
            "{{ $ | from_json }}",
            json!("[".repeat(110) + &"]".repeat(110)),
            deep,
        ),
    ] {
        exceed(expression, context, expected);
    }
    let path = Path::parse("$.a.b").expect("a path");
    let deep_value = (0..99).fold(json!(1), |inner, _| json!([inner]));
    let error = path
        .set(&mut json!({}), deep_value)
        .expect_err("99 levels below 2");
    assert!(error.message.contains(deep), "{error}");
}

#[test]
fn an_evaluation_ends_within_the_steps_that_it_is_given() {
    let context = json!({"list": vec![0; 1_000], "text": "x".repeat(6_400)});
    let env = Env {
        context: &context,
        overlays: &[],
        locals: &[],
        now: Timestamp(0),
        shards: 1,
        id: ExecutionId(uuid::Uuid::nil()),
        seq: 0,
    };
    let template = Template::parse("{{ $.list | sum }}").expect("compiles");
    let (value, steps) = template.eval_within(&env, 2_000);
    assert_eq!((value.as_deref(), steps), (Ok(&json!(0)), 1_003));
    let (value, steps) = template.eval_within(&env, 500);
    assert!(value.is_err() && steps == 500, "{value:?} after {steps}");

    // What the program itself brings counts as well, but did not at first.
    let template = Template::parse(&format!("{}{{{{ 1 }}}}", "x".repeat(6_400))).expect("compiles");
    let at_first = template.eval_counted(&env).1;
    assert_eq!(template.eval_within(&env, 2_000).1, at_first + 100);
}

#[test]
fn a_message_is_short_whatever_the_keys() {
    let key = "k".repeat(1_000_000);
    for text in ["{{ $.kk }}", "{{ kk }}", "{{ $.long }}"] {
        let context = json!({ &key: 1, "kkk": { &key: 2 } });
        let template = Template::parse(&text.replace("long", &"é".repeat(1500))).expect("compiles");
        let env = Env {
            context: &context,
            overlays: &[],
            locals: &[],
            now: Timestamp(0),
            shards: 1,
            id: ExecutionId(uuid::Uuid::nil()),
            seq: 0,
        };
        let message = template.eval(&env).expect_err(text).message;
        assert!(message.chars().count() <= MAX_MESSAGE + 3, "{message}");
    }
}

#[test]
fn iterations_further_out_are_parents_of_the_word_map() {
    let context = json!({});
    let maps = [
        json!({"item": "in", "index": 2}),
        json!({"item": {"parent": "mid"}, "index": 1}),
        json!({"item": "out", "index": 0}),
    ];
    let locals = [("map", &maps[0]), ("map", &maps[1]), ("map", &maps[2])];
    let env = Env {
        context: &context,
        overlays: &[],
        locals: &locals,
        now: Timestamp(0),
        shards: 10,
        id: ExecutionId(uuid::Uuid::from_u128(7)),
        seq: 3,
    };
    let eval = |text: &str| Template::parse(text).expect("compiles").eval(&env);
    for (text, expected) in [
        ("{{ map.item }}", json!("in")),
        ("{{ map.parent.item.parent }}", json!("mid")),
        ("{{ map.parent.parent.item }}", json!("out")),
        (
            "{{ map.parent.parent }}",
            json!({"item": "out", "index": 0}),
        ),
    ] {
        assert_eq!(eval(text).as_ref(), Ok(&expected), "{text}");
    }
    let error = eval("{{ map.parent.parent.parent }}").expect_err("there are three");
    assert!(error.message.contains("no Map state around"), "{error}");
    let missing = eval("{{ map.parent.itm }}").expect_err("no such key");
    assert_eq!(
        missing.message,
        "`map.parent.itm` is missing, did you mean `item`?"
    );
}
