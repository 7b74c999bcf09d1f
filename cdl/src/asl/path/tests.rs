use serde_json::json;

use super::*;

fn select(path: &str, value: &Value) -> Result<Value, Miss> {
    let path = Path::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    path.select(value, &mut Fuel(MAX_VISITS))
        .map(Cow::into_owned)
}

/// The store of Goessner's article, which Jayway's README answers for.
fn store() -> Value {
    json!({
        "store": {
            "book": [
                {"category": "reference", "author": "Rees", "price": 8.95},
                {"category": "fiction", "author": "Waugh", "price": 12.99},
                {"category": "fiction", "author": "Melville", "price": 8.99, "isbn": "0-553"},
            ],
            "bicycle": {"color": "red", "price": 19.95},
        },
        "limit": 10,
        "odd-name": {"a b": 1},
    })
}

/// Expected values: Jayway's README, and its rule for definite paths.
#[test]
fn paths_lead_where_jayway_says() {
    let store = store();
    for (path, expected) in [
        ("$.limit", json!(10)),
        ("$['limit']", json!(10)),
        ("$.odd-name['a b']", json!(1)),
        ("$.store.book[0].author", json!("Rees")),
        ("$.store.book[-1].author", json!("Melville")),
        (
            "$.store.book[*].author",
            json!(["Rees", "Waugh", "Melville"]),
        ),
        ("$..author", json!(["Rees", "Waugh", "Melville"])),
        ("$.store..price", json!([19.95, 8.95, 12.99, 8.99])),
        ("$..book[2].isbn", json!(["0-553"])),
        ("$.store.book[0,1].price", json!([8.95, 12.99])),
        ("$.store.book[:2].price", json!([8.95, 12.99])),
        ("$.store.book[1:2].price", json!([12.99])),
        ("$.store.book[-2:].price", json!([12.99, 8.99])),
        ("$..book[?(@.isbn)].author", json!(["Melville"])),
        (
            "$.store.book[?(@.price < $.limit)].price",
            json!([8.95, 8.99]),
        ),
        ("$..book[?(@.author =~ /.*es/i)].author", json!(["Rees"])),
        (
            "$..book[?(@.author =~ /re.*/i && @.price > 1)].author",
            json!(["Rees"]),
        ),
        (
            "$..book[?(@.author in ['Waugh', 'x'])].price",
            json!([12.99]),
        ),
        (
            "$..book[?(!(@.category == 'fiction') || @.isbn)].author",
            json!(["Rees", "Melville"]),
        ),
        ("$.store.book.length()", json!(3)),
        (
            "$.store.bicycle['color','price']",
            json!({"color": "red", "price": 19.95}),
        ),
        ("$.store.book[*].price.max()", json!(12.99)),
    ] {
        assert_eq!(select(path, &store), Ok(expected), "{path}");
    }
}

/// The rule that differs from RFC 9535 in nothing but what is missing.
#[test]
fn only_definite_paths_fail_for_what_is_missing() {
    let store = store();
    for path in [
        "$.none",
        "$.store.none.x",
        "$.store.book[3]",
        "$.limit.x",
        "$.store[0]",
    ] {
        assert_eq!(select(path, &store), Err(Miss::NotFound), "{path}");
    }
    for path in [
        "$.none[*]",
        "$.a.b[1:]",
        "$.none[:1].x",
        "$..none",
        "$.none[?(@.x)]",
    ] {
        assert_eq!(select(path, &store), Ok(json!([])), "{path}");
    }
}

#[test]
fn what_is_not_a_path_is_refused() {
    for text in [
        "",
        "a",
        "$.",
        "$..",
        "$[",
        "$[]",
        "$['a",
        "$.a b",
        "$[?(@.a ==)]",
        "$[?(@.a]",
        "$.a.b()",
        "$[1:2:3]",
        "$.a[x]",
        "$[?(@.a =~ /[/)]",
        "$1",
        "$.a..",
        "$[99999999999999999999]",
    ] {
        assert!(Path::parse(text).is_err(), "{text}");
    }
    let deep = format!("$[?({}@.a{})]", "(".repeat(40), ")".repeat(40));
    assert!(Path::parse(&deep).is_err());
}

#[test]
fn roots_are_data_context_and_variables() {
    for (text, root) in [
        ("$", Root::Input),
        ("$.a", Root::Input),
        ("$$.Execution.Id", Root::Context),
        ("$name[0]", Root::Variable("name".into())),
    ] {
        assert_eq!(Path::parse(text).map(|path| path.root), Ok(root), "{text}");
    }
}

#[test]
fn a_value_is_put_where_a_reference_path_says() {
    let put_at = |mut target: Value, path: &str| {
        let path = Path::parse(path).expect("a path");
        let places = path.as_reference().expect("a reference path");
        put(&mut target, &places, json!(1)).then_some(target)
    };
    assert_eq!(
        put_at(json!({"x": 0}), "$.a.b"),
        Some(json!({"x": 0, "a": {"b": 1}}))
    );
    assert_eq!(
        put_at(json!({"a": [0, 0]}), "$.a[1]"),
        Some(json!({"a": [0, 1]}))
    );
    assert_eq!(put_at(json!({"a": 7}), "$"), Some(json!(1)));
    assert_eq!(put_at(json!({"a": 7}), "$.a.b"), None);
    assert_eq!(put_at(json!([]), "$[0]"), None);
    for path in ["$.a[*]", "$..a", "$$.a", "$v.a", "$.a[-1]", "$.a[0:1]"] {
        assert_eq!(
            Path::parse(path).expect("a path").as_reference(),
            None,
            "{path}"
        );
    }
}

#[test]
fn chained_descents_end_with_an_error() {
    let mut value = json!(1);
    for _ in 0..60 {
        value = json!({"a": value});
    }
    assert_eq!(select("$..*..*..*..*..*", &value), Err(Miss::TooMuch));
    let mut long = json!("x".repeat(200_000));
    for _ in 0..20 {
        long = json!({"a": long});
    }
    assert_eq!(select("$..*..*..*", &long), Err(Miss::TooMuch));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_or_a_path_panic(text in r"\$[\.\[\]a-c0-9\-:,'?()@&|=!<>~/ *$]{0,24}") {
        if let Ok(path) = Path::parse(&text) {
            let value = json!({"a": [{"b": 1}, {"c": [1, 2]}], "b": {"a": null}});
            let select = |fuel| {
                let mut left = Fuel(fuel);
                let found = path.select(&value, &mut left).map(Cow::into_owned);
                (found, fuel - left.0)
            };
            let (once, visits) = select(MAX_VISITS);
            // Twice the same, and in no more visits than it says.
            proptest::prop_assert_eq!(select(visits), (once.clone(), visits));
            if visits > 0 {
                proptest::prop_assert_eq!(select(visits - 1).0, Err(Miss::TooMuch));
            }
        }
    }
}
