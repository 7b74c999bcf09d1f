//! Values given on the command line: `JSON`, `@file` or `-` for standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use super::error::Error;

/// Largest value that is read. The server's limit is lower and better
/// explained; this one only keeps a wrong file out of memory.
const MAX_INPUT_BYTES: u64 = 64 * 1024 * 1024;

/// Reads the value that `argument` stands for; without one it is `{}`.
pub(crate) fn read(argument: Option<&str>) -> Result<Value, Error> {
    let Some(argument) = argument else {
        return Ok(Value::Object(serde_json::Map::new()));
    };
    let (origin, text) = match argument.strip_prefix('@') {
        Some(path) => (path.to_owned(), read_file(Path::new(path))?),
        None if argument == "-" => {
            let text = read_bounded(io::stdin().lock())
                .map_err(|source| Error::usage(format!("cannot read the input: {source}")))?;
            ("standard input".to_owned(), text)
        }
        None => ("the input".to_owned(), argument.to_owned()),
    };
    serde_json::from_str(&text).map_err(|source| {
        Error::usage(format!("{origin} is not JSON: {source}"))
            .hint("give JSON, as in '{\"order_id\": 1}', or @file, or - for standard input")
    })
}

/// Reads a text file of bounded size.
pub(crate) fn read_file(path: &Path) -> Result<String, Error> {
    let read = File::open(path).and_then(read_bounded);
    read.map_err(|source| Error::file("read", path, &source))
}

/// Reads a binary file of bounded size.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let read = File::open(path).and_then(bounded);
    read.map_err(|source| Error::file("read", path, &source))
}

fn read_bounded(from: impl Read) -> io::Result<String> {
    let bytes = bounded(from)?;
    String::from_utf8(bytes)
        .map_err(|source| io::Error::new(io::ErrorKind::InvalidData, source.utf8_error()))
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {MAX_INPUT_BYTES} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn no_input_is_an_empty_object() {
        assert_eq!(read(None).expect("read"), serde_json::json!({}));
    }

    #[test]
    fn an_input_is_json_or_names_a_file_of_it() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"[1, 2]").expect("written");
        let named = format!("@{}", file.path().display());
        assert_eq!(
            read(Some("{\"a\":1}")).expect("read"),
            serde_json::json!({"a": 1})
        );
        assert_eq!(read(Some(&named)).expect("read"), serde_json::json!([1, 2]));
    }

    #[test]
    fn what_is_not_json_says_how_to_give_it() {
        for argument in ["{", "@/nowhere", "order=1"] {
            assert!(read(Some(argument)).is_err(), "{argument}");
        }
        let error = read(Some("order=1")).expect_err("not JSON");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("@file")));
    }
}
