//! Rows of CSV, as all read them that read some (RFC 4180).

use std::io::Read;

/// Bytes that are read ahead.
pub const READ_AHEAD: usize = 64 << 10;

/// Reads rows. Each may have fewer cells than there are columns, or more; it ends with
/// CR, LF or both, and blank lines are none.
pub fn rows<R: Read>(content: R, delimiter: char) -> csv::Reader<R> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(u8::try_from(delimiter).unwrap_or(b','))
        .buffer_capacity(READ_AHEAD)
        .from_reader(content)
}

/// Whether a row ends within quotes: those of a cell that begins with one come in pairs.
/// The reader takes such a cell for one that goes to the end of all.
pub fn ends_quoted(row: &[u8], delimiter: char) -> bool {
    let (mut quoted, mut at_start) = (false, true);
    for &byte in row {
        match byte {
            b'"' if quoted => quoted = false,
            // After the end of a quoted cell it is the second of a pair.
            b'"' if at_start => quoted = true,
            _ => {}
        }
        if !quoted {
            at_start = char::from(byte) == delimiter || matches!(byte, b'\n' | b'\r' | b'"');
        }
    }
    quoted
}
