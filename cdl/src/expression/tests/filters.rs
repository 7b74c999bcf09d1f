//! What filters give, as tables of text, value and reason.

use serde_json::json;

use super::super::filter_names;
use super::{check, check_errors, eval};

#[test]
fn default_stands_in_for_missing_and_null_only() {
    check(&[
        ("{{ $.zzz | default: 'x' }}", json!("x"), "missing"),
        ("{{ $.none | default: 'x' }}", json!("x"), "null"),
        (
            "{{ $.zzz.y[2] | default: 'x' }}",
            json!("x"),
            "missing on the way",
        ),
        (
            "{{ $.name | default: $.missing }}",
            json!("Ada"),
            "the argument is not asked",
        ),
        (
            "{{ $.zzz | default: $.name | upper }}",
            json!("ADA"),
            "filters go on",
        ),
        (
            "{{ $.zzz | upper | default: 'x' }}",
            json!("x"),
            "missing anywhere to the left",
        ),
        (
            "{{ $.empty | first | default: 0 }}",
            json!(0),
            "the element is missing",
        ),
        (
            "{{ false | default: true }}",
            json!(false),
            "false is a value",
        ),
        (
            "{{ 'a' + ($.zzz | default: 'b') }}",
            json!("ab"),
            "in parentheses",
        ),
    ]);
    check_errors(&[
        ("{{ 1 / 0 | default: 1 }}", "division by zero"),
        (
            "{{ $.name | default: 1 | round }}",
            "`round` needs a number",
        ),
        ("{{ $.zzz | default: $.yyy }}", "`$.yyy` is missing"),
    ]);
}

#[test]
fn conversions() {
    check(&[
        ("{{ '' | shard }}", json!("shard-1"), "the design's figure"),
        ("{{ 'a' | shard }}", json!("shard-0"), "the design's figure"),
        (
            "{{ 'customer-123' | shard }}",
            json!("shard-8"),
            "the design's figure",
        ),
        (
            "{{ 'cust-1' | shard }}",
            json!("shard-6"),
            "the design's figure",
        ),
        (
            "{{ 12 | shard }}",
            json!(format!("shard-{}", crate::fnv1a32(b"12") % 10)),
            "by its text",
        ),
        (
            "{{ 'abc' | hash }}",
            json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            "the example of FIPS 180-2",
        ),
        (
            "{{ ([1, 'a'] | json | hash) == ([1, 'a'] | hash) }}",
            json!(true),
            "others as JSON",
        ),
        (
            "{{ {a: [1, null]} | json }}",
            json!(r#"{"a":[1,null]}"#),
            "compact",
        ),
        ("{{ '[1, 2]' | from_json }}", json!([1, 2]), "parsed"),
        ("{{ 1.50 | string }}", json!("1.5"), "as JSON writes it"),
        ("{{ 'a' | string }}", json!("a"), "already one"),
        ("{{ ' 12 ' | number }}", json!(12), "integers stay so"),
        ("{{ '1.0' | number }}", json!(1.0), "floats stay so"),
    ]);
    check_errors(&[
        (
            "{{ $.nums | shard }}",
            "`shard` needs a string, number or boolean, not a list",
        ),
        (
            "{{ 'secret' | from_json }}",
            "text is not JSON at line 1 column 1",
        ),
        ("{{ '[1' | from_json }}", "text ends early"),
        (
            "{{ 'inf' | number }}",
            "`number` needs a string that is a number",
        ),
        (
            "{{ '1_000' | number }}",
            "`number` needs a string that is a number",
        ),
        ("{{ $.none | upper }}", "`upper` needs a string, not null"),
    ]);
}

#[test]
fn number_and_date_filters() {
    check(&[
        ("{{ 2.5 | round }}", json!(3), "halves away from zero"),
        ("{{ -2.5 | round }}", json!(-3), "halves away from zero"),
        ("{{ -0.2 | round }}", json!(0), "no negative zero"),
        (
            "{{ 1.25 | round: 1 }}",
            json!(1.3),
            "1.25 is exact in binary, so a true half",
        ),
        ("{{ 7 | round: 2 }}", json!(7), "integers are round"),
        (
            "{{ 1e300 | round: 10 }}",
            json!(1e300),
            "too large to have digits",
        ),
        (
            "{{ 1e300 | floor }}",
            json!(1e300),
            "too large for an integer",
        ),
        ("{{ -1.5 | floor }}", json!(-2), "down"),
        ("{{ -1.5 | ceil }}", json!(-1), "up"),
        ("{{ -5 | abs }}", json!(5), "without sign"),
        (
            "{{ (0 - 9223372036854775808) | abs }}",
            json!(1_u64 << 63),
            "fits u64",
        ),
        (
            "{{ now }}",
            json!("2026-01-31T09:30:00.000Z"),
            "time of the event",
        ),
        (
            "{{ now | date: '%Y-%m-%d' }}",
            json!("2026-01-31"),
            "by format",
        ),
        (
            "{{ 0 | date }}",
            json!("1970-01-01T00:00:00.000Z"),
            "milliseconds",
        ),
        (
            "{{ '2026-01-31T01:00:00+02:00' | date: '%F %T' }}",
            json!("2026-01-30 23:00:00"),
            "always UTC",
        ),
    ]);
    check_errors(&[
        ("{{ 'secret' | date }}", "`date` needs an RFC 3339 time"),
        ("{{ now | date: '%!' }}", "a directive in it is unknown"),
        ("{{ 1.5 | round: 99 }}", "`round` keeps 0 to 15 digits"),
    ]);
}

#[test]
fn text_filters() {
    check(&[
        (
            "{{ ' aß ' | trim | upper }}",
            json!("ASS"),
            "Unicode's full mapping",
        ),
        ("{{ 'AB' | lower }}", json!("ab"), "lower"),
        (
            "{{ 'a-b-c' | replace: '-', '' }}",
            json!("abc"),
            "every one",
        ),
        (
            "{{ 'a,,b' | split: ',' }}",
            json!(["a", "", "b"]),
            "empty parts stay",
        ),
        ("{{ $.nums | join }}", json!("3,1,2"), "comma if not said"),
        (
            "{{ ['a', 1, null] | join: '' }}",
            json!("a1null"),
            "others as JSON",
        ),
        ("{{ 'né' | length }}", json!(2), "characters"),
        ("{{ $.lines | length }}", json!(3), "elements"),
        ("{{ {a: 1} | length }}", json!(1), "keys"),
        ("{{ 'aé' | reverse }}", json!("éa"), "by character"),
        (
            "{{ 'abcd' | slice: 1, -1 }}",
            json!("bc"),
            "before the last",
        ),
        ("{{ 'abcd' | slice: -2 }}", json!("cd"), "from the end"),
        ("{{ 'ab' | slice: 5 }}", json!(""), "outside is nothing"),
    ]);
    check_errors(&[
        ("{{ 'a' | replace: '', 'b' }}", "not an empty string"),
        ("{{ 'a' | split: '' }}", "not an empty string"),
        (
            "{{ 1 | length }}",
            "`length` needs a string, list or object",
        ),
    ]);
}

#[test]
fn list_filters() {
    check(&[
        ("{{ $.nums | first }}", json!(3), "the first"),
        ("{{ $.nums | last }}", json!(2), "the last"),
        ("{{ $.nums | sum }}", json!(6), "integers stay so"),
        ("{{ $.lines | sum: 'price' }}", json!(16.5), "10 + 2.5 + 4"),
        ("{{ $.empty | sum }}", json!(0), "nothing"),
        ("{{ [2, 1.5, 3] | min }}", json!(1.5), "mixed numbers"),
        ("{{ $.words | max }}", json!("b"), "strings"),
        ("{{ $.nums | sort }}", json!([1, 2, 3]), "ascending"),
        (
            "{{ $.lines | sort: 'price' | map: 'price' }}",
            json!([2.5, 4, 10]),
            "by key",
        ),
        (
            "{{ $.nums | sort | reverse }}",
            json!([3, 2, 1]),
            "descending",
        ),
        (
            "{{ [1, 1.0, '1', [1], [1.0]] | unique }}",
            json!([1, "1", [1]]),
            "by value and type",
        ),
        (
            "{{ $.lines | unique: 'sku' | map: 'price' }}",
            json!([10, 2.5]),
            "the first of each",
        ),
        (
            "{{ [[1, [2]], 3] | flatten }}",
            json!([1, [2], 3]),
            "one level",
        ),
        (
            "{{ $.lines | map: 'sku' }}",
            json!(["A", "B", "A"]),
            "of each",
        ),
        (
            "{{ $.lines | where: 'sku', 'A' | length }}",
            json!(2),
            "equal",
        ),
        (
            "{{ $.lines | where: 'gift' | length }}",
            json!(1),
            "true; a missing key is not",
        ),
        ("{{ {b: 1, a: 2} | keys }}", json!(["a", "b"]), "by key"),
        ("{{ {b: 1, a: 2} | values }}", json!([2, 1]), "by key"),
        (
            "{{ {a: 1, b: 1} | merge: {b: 2} }}",
            json!({"a": 1, "b": 2}),
            "the argument wins",
        ),
        ("{{ $.nums | contains: 2 }}", json!(true), "as `in`"),
        (
            "{{ $.nums | slice: 0, 10 }}",
            json!([3, 1, 2]),
            "up to the edge",
        ),
        (
            "{{ $.nums | slice: 2, 1 }}",
            json!([]),
            "backwards is nothing",
        ),
    ]);
    check_errors(&[
        ("{{ $.empty | max }}", "`max` of an empty list"),
        (
            "{{ [1, 'a'] | sort }}",
            "all numbers or all strings, not a number and a string",
        ),
        (
            "{{ [null] | min }}",
            "`min` needs numbers or strings, not null",
        ),
        (
            "{{ $.lines | map: 'gift' }}",
            "`map`: an element does not have the key, in `{{ $.lines | map: 'gift' }}`",
        ),
        (
            "{{ $.nums | map: 'x' }}",
            "`map` needs a list of objects, not a number",
        ),
        (
            "{{ [1, null] | sum }}",
            "`sum` needs a list of numbers, not null",
        ),
        (
            "{{ {a: 1} | merge: 1 }}",
            "`merge` needs two objects, not a number",
        ),
    ]);
}

#[test]
fn a_uuid_is_new_each_time_and_the_same_in_a_replay() {
    let text = "{{ [uuid, uuid, ('a' | uuid)] }}";
    let first = eval(text).expect("uuids");
    assert_eq!(eval(text).as_ref(), Ok(&first), "a replay");
    let unique: std::collections::BTreeSet<_> = first
        .as_array()
        .expect("a list")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(unique.len(), 3, "{first}");
    let parsed: uuid::Uuid = first[0].as_str().expect("text").parse().expect("a UUID");
    assert_eq!(
        parsed.get_version_num(),
        8,
        "version 8 is for hashes of one's own"
    );
}

#[test]
fn the_page_for_authors_names_every_filter_and_its_examples_hold() {
    let page = include_str!("../../../../docs/expressions.md").replace(r"\|", "|");
    for name in filter_names() {
        let is_named = |code: &str| code == name || code.starts_with(&format!("{name}: "));
        assert!(page.split('`').any(is_named), "{name}");
    }
    // What stands as "`expression` is `value`" anywhere on the page.
    let parts: Vec<&str> = page.split('`').collect();
    let examples: Vec<_> = parts.windows(3).filter(|part| part[1] == " is ").collect();
    assert!(examples.len() > 20, "{}", examples.len());
    for example in examples {
        let [given, expected] = [example[0], example[2]].map(|code| {
            eval(&format!("{{{{ {code} }}}}")).unwrap_or_else(|e| panic!("{code}: {e}"))
        });
        assert_eq!(given, expected, "{example:?}");
    }
}
