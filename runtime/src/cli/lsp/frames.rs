//! Messages as they come over the wire: a header, and a text of the length that it says.
//!
//! Instead of the reader of `lsp-server`, which takes whatever memory a header asks for,
//! and ends at a text that is not a message.

use std::io::{self, BufRead, Read};

use lsp_server::Message;

/// Longest message: the text of a whole file, in which JSON may take six bytes for
/// each, and some.
pub(super) const MAX_MESSAGE_BYTES: u64 = 32 * 1024 * 1024;

/// Longest header: there are two fields, both short.
const MAX_HEADER_BYTES: u64 = 4 * 1024;

/// What came.
#[derive(Debug)]
pub(super) enum Frame {
    Message(Message),
    /// Something that is none; why.
    Malformed(String),
}

/// Reads one message; `None` at the end of the input.
///
/// # Errors
///
/// If it cannot be known where the next one begins.
pub(super) fn read(input: &mut impl BufRead) -> io::Result<Option<Frame>> {
    let Some(length) = header(input)? else {
        return Ok(None);
    };
    if length > MAX_MESSAGE_BYTES {
        io::copy(&mut input.take(length), &mut io::sink())?;
        return Ok(Some(Frame::Malformed(format!(
            "a message of {length} bytes is longer than {MAX_MESSAGE_BYTES}"
        ))));
    }
    let mut text = Vec::new();
    input.take(length).read_to_end(&mut text)?;
    if (text.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(match serde_json::from_slice(&text) {
        Ok(message) => Frame::Message(message),
        Err(error) => Frame::Malformed(error.to_string()),
    }))
}

/// Reads up to the empty line, and gives the length of what follows.
fn header(input: &mut impl BufRead) -> io::Result<Option<u64>> {
    let mut header = input.take(MAX_HEADER_BYTES);
    let mut length = None;
    for first in std::iter::once(true).chain(std::iter::repeat(false)) {
        let mut line = Vec::new();
        header.read_until(b'\n', &mut line)?;
        if line.is_empty() && first {
            return Ok(None);
        }
        if !line.ends_with(b"\n") {
            return Err(invalid("the header of a message does not end"));
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if name.eq_ignore_ascii_case("Content-Length") {
            let value = value.trim().parse();
            length = Some(value.map_err(|_| invalid("Content-Length is not a number"))?);
        }
    }
    length
        .map(Some)
        .ok_or_else(|| invalid("a message without Content-Length"))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(mut input: &[u8]) -> (Vec<&'static str>, bool) {
        let mut kinds = Vec::new();
        loop {
            match read(&mut input) {
                Ok(Some(Frame::Message(_))) => kinds.push("message"),
                Ok(Some(Frame::Malformed(_))) => kinds.push("malformed"),
                Ok(None) => return (kinds, true),
                Err(_) => return (kinds, false),
            }
        }
    }

    fn framed(text: &str) -> String {
        format!("Content-Length: {}\r\n\r\n{text}", text.len())
    }

    #[test]
    fn a_message_that_is_none_does_not_hide_the_next() {
        let good = framed(r#"{"jsonrpc":"2.0","method":"exit"}"#);
        for (input, expected) in [
            (String::new(), (vec![], true)),
            (good.clone(), (vec!["message"], true)),
            (
                format!("{}{good}", framed("{")),
                (vec!["malformed", "message"], true),
            ),
            (
                format!("{}{good}", framed("[]")),
                (vec!["malformed", "message"], true),
            ),
            (
                format!("{}{good}", framed(&"[".repeat(100_000))),
                (vec!["malformed", "message"], true),
            ),
            (
                format!("content-LENGTH: 2\r\nContent-Type: x\r\n\r\n{{}}{good}"),
                (vec!["malformed", "message"], true),
            ),
            // From here on it is not known where a message begins.
            (
                "Content-Length: 99999999999999999\r\n\r\n{}".into(),
                (vec!["malformed"], true),
            ),
            ("Content-Length: 100\r\n\r\n{}".into(), (vec![], false)),
            ("Content-Length: -1\r\n\r\n{}".into(), (vec![], false)),
            ("Content-Length: x\r\n\r\n{}".into(), (vec![], false)),
            ("Content-Type: x\r\n\r\n{}".into(), (vec![], false)),
            ("GET / HTTP/1.1\r\n\r\n".into(), (vec![], false)),
            ("x".repeat(1_000_000), (vec![], false)),
        ] {
            assert_eq!(read_all(input.as_bytes()), expected, "{input:.60}");
        }
    }
}
