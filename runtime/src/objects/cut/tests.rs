//! Cutting: every record in one chunk, in order, whatever the sizes.

use std::fs::File;
use std::io::{Cursor, Write};

use proptest::prelude::*;
use serde_json::json;

use super::*;

const CSV: Format = Format::Csv {
    headers: None,
    delimiter: ',',
};

fn file(content: &str) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content.as_bytes()).expect("writes");
    file.rewind().expect("rewinds");
    file
}

fn sizes(items: u32, bytes: u64, batch: u32) -> Sizes {
    Sizes {
        items,
        bytes,
        batch,
        most: ITEM_BYTES,
    }
}

/// The items of each chunk.
fn chunks(content: &str, format: &Format, most: Option<u64>, sizes: Sizes) -> Vec<Vec<Value>> {
    let mut file = file(content);
    let Cut { headers, chunks } = cut(&mut file, format, most, sizes).expect("reads");
    let format = match format {
        Format::Csv { delimiter, .. } => Format::Csv {
            headers,
            delimiter: *delimiter,
        },
        other => other.clone(),
    };
    chunks
        .into_iter()
        .map(|span| {
            let list = items(&mut file, &format, span).expect("reads");
            let list: Vec<Value> = serde_json::from_str(&list).expect("a list");
            assert_eq!(list.len(), span.2 as usize);
            list
        })
        .collect()
}

fn fault_of(content: &str, format: &Format) -> String {
    let sizes = Sizes {
        most: 40,
        ..Sizes::of(1)
    };
    let cut = cut(Cursor::new(content.as_bytes()), format, None, sizes);
    cut.expect_err("it is refused").to_string()
}

#[test]
fn a_record_that_cannot_be_read_is_named_by_line_and_offset() {
    let long = format!("1\n\"{}\"\n", "x".repeat(40));
    for (format, content, expected) in [
        (
            Format::Ndjson,
            "1\n\n{\"a\":}\n",
            "line 3, offset 3: not JSON",
        ),
        (
            Format::Ndjson,
            &*long,
            "line 2, offset 2: an item has at most 40",
        ),
        (
            Format::Json,
            "{}",
            "line 1, offset 0: the content is no JSON list",
        ),
        (Format::Json, "[1,\n{\"a\"}]", "line 2, offset 4: not JSON"),
        (
            Format::Json,
            "[1,]",
            "line 1, offset 3: an element is missing",
        ),
        (
            Format::Json,
            "[1] 2",
            "line 1, offset 4: there is something after",
        ),
        (Format::Json, "[1, 2", "the list is not closed"),
        (Format::Json, "", "the list is not closed"),
        (
            CSV,
            "a,b\n1,\"2\n3,4\n",
            "line 2, offset 4: a quoted cell is not closed",
        ),
        (
            CSV,
            &format!("a\n{}\n", "x".repeat(200)),
            "line 2, offset 2: an item has at most 40",
        ),
        (
            CSV,
            &format!("{}a\n1\n", "a,".repeat(MAX_COLUMNS)),
            "line 1, offset 0: the header row has 1025 columns",
        ),
    ] {
        let fault = fault_of(content, &format);
        assert!(fault.contains(expected), "{content}: {fault}");
    }
}

#[test]
fn a_cell_without_end_does_not_take_the_memory_of_the_whole_content() {
    let content = format!("a\n\"{}", "x".repeat(3 << 20));
    let cut = cut(Cursor::new(content), &CSV, None, Sizes::of(1));
    let fault = cut.expect_err("it is refused").to_string();
    assert!(fault.contains("an item has at most"), "{fault}");
}

#[test]
fn short_rows_of_many_columns_take_no_more_memory_than_a_chunk_may() {
    let names: Vec<_> = (0..1_000).map(|n| format!("{n:0100}")).collect();
    let content = "1\n".repeat(10_000);
    let list = objects(&content, &names, ',').expect("rows");
    // No more than one row beyond it.
    assert!(list.len() > CHUNK_TEXT && list.len() < CHUNK_TEXT + 200_000);
    let format = Format::Csv {
        headers: Some(names),
        delimiter: ',',
    };
    let span = Span(0, content.len() as u64, 10_000);
    let fault = items(&mut file(&content), &format, span).expect_err("it is too long");
    let fault = fault.to_string();
    assert!(fault.contains("the items of a chunk have more"), "{fault}");
}

#[test]
fn formats_are_read_with_what_stands_around_their_records() {
    let few = sizes(2, 1 << 20, 1);
    let rows =
        "\u{feff}name,n\r\n\"a,b\",1\r\n\r\n\"say \"\"hi\"\"\",2\r\"two\nlines\",3,more\nlast";
    assert_eq!(
        chunks(rows, &CSV, None, few),
        [
            vec![
                json!({"name": "a,b", "n": "1"}),
                json!({"name": "say \"hi\"", "n": "2"})
            ],
            vec![
                json!({"name": "two\nlines", "n": "3"}),
                json!({"name": "last", "n": ""})
            ],
        ]
    );
    let given = Format::Csv {
        headers: Some(vec!["x".to_owned()]),
        delimiter: ';',
    };
    assert_eq!(
        chunks("1;2\n3\n", &given, Some(1), few),
        [vec![json!({"x": "1"})]]
    );
    let list = " [ 1 , \"a]\\\",\" ,\n[2,[3]],{\"b\":[{}]} ]\n";
    assert_eq!(
        chunks(list, &Format::Json, None, few),
        [
            vec![json!(1), json!("a]\",")],
            vec![json!([2, [3]]), json!({"b": [{}]})]
        ]
    );
    let lines = "\u{feff}1\r\n \n{\"a\":\"\u{fc}\"}\n\"end\"";
    assert_eq!(
        chunks(lines, &Format::Ndjson, None, few),
        [vec![json!(1), json!({"a": "\u{fc}"})], vec![json!("end")]]
    );
    assert_eq!(
        chunks("[]", &Format::Json, None, few),
        Vec::<Vec<Value>>::new()
    );
    assert_eq!(
        chunks("", &Format::Ndjson, None, few),
        Vec::<Vec<Value>>::new()
    );
}

#[test]
fn blank_space_between_items_makes_no_chunk_longer_than_can_be_read() {
    // Neither alone is too much for a chunk, and both together are.
    let (before, within) = (1_200_000, 900_000);
    let apart = |blank: &str| (blank.repeat(before), blank.repeat(within));
    let (lines, spaces) = (apart("\n"), apart(" "));
    for (format, content) in [
        (
            Format::Ndjson,
            format!("1\n2\n{}3\n{}4\n5\n", lines.0, lines.1),
        ),
        (Format::Json, format!("[1,2,{}3,{}4,5]", spaces.0, spaces.1)),
    ] {
        assert_eq!(
            chunks(&content, &format, None, Sizes::of(2)),
            [
                vec![json!(1), json!(2)],
                vec![json!(3), json!(4)],
                vec![json!(5)]
            ]
        );
    }
}

#[test]
fn what_one_execution_cannot_have_is_refused() {
    let many = "1\n".repeat(MAX_ITEMS as usize + 1);
    let fault = whole(&mut file(&many), &Format::Ndjson, None).expect_err("too many");
    assert!(fault.to_string().contains("distributed"), "{fault}");
    let some = whole(&mut file(&many), &Format::Ndjson, Some(3)).expect("three");
    assert_eq!(some, "[1,1,1]");
}

proptest! {
    #[test]
    fn every_record_is_in_one_chunk_and_in_order(
        texts in proptest::collection::vec("[a-z\",\n\\\\\u{fc}]{0,40}", 0..60),
        items in 1_u32..9,
        bytes in 1_u64..200,
        batch in 1_u32..5,
        most in proptest::option::of(0_u64..70),
        crlf: bool,
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let expected: Vec<_> = texts.iter().map(|text| json!(text)).collect();
        let lines: Vec<_> = expected.iter().map(|text| format!("{text}{end}")).collect();
        let lines = lines.concat();
        let list = Value::from(expected.clone()).to_string();
        let quoted = texts.iter().map(|text| format!("\"x{}\"{end}", text.replace('"', "\"\"")));
        let rows = format!("t{end}{}", quoted.collect::<String>());
        let limit = usize::try_from(most.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        for (format, content) in [(Format::Ndjson, lines), (Format::Json, list), (CSV, rows)] {
            let made = chunks(&content, &format, most, sizes(items, bytes, batch));
            let wanted: Vec<_> = match format {
                Format::Csv { .. } => texts.iter().map(|t| json!({"t": format!("x{t}")})).collect(),
                _ => expected.clone(),
            };
            let wanted = &wanted[..wanted.len().min(limit)];
            prop_assert_eq!(made.concat(), wanted);
            // Batches stay together: all but the last chunk have a multiple.
            for chunk in made.iter().rev().skip(1) {
                prop_assert_eq!(chunk.len() % batch as usize, 0);
            }
            prop_assert!(made.iter().all(|chunk| !chunk.is_empty()));
        }
    }
}
