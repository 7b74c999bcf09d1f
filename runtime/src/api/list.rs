//! Pages and cursors of lists.

use std::fmt::Debug;

use cascade_cdl::TenantId;
use sha2::{Digest, Sha256};

use super::problem::{Code, Problem};
use crate::store::{Cursor, ListCursor};

/// Bytes of the tag that binds a cursor to its list. It catches mistakes, it
/// protects nothing: every page is read for the caller's tenant, wherever the
/// cursor is from.
const TAG: usize = 8;

/// How long a page may be.
pub(super) fn limit(given: Option<u32>, default: u32, most: u32) -> Result<u32, Problem> {
    match given {
        None => Ok(default),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(limit) => {
            let detail = format!("`limit` must be from 1 to {most}, not {limit}");
            Err(Problem::new(Code::InvalidRequest, detail))
        }
    }
}

/// Where a list goes on, as a text of one length.
pub(super) trait Mark: Copy {
    fn write(self) -> String;
    /// What was written; the text is of hexadecimal digits.
    fn read(text: &str) -> Option<Self>;
}

impl Mark for Cursor {
    fn write(self) -> String {
        format!("{:016x}", self.0)
    }

    fn read(text: &str) -> Option<Self> {
        (text.len() == 16).then_some(())?;
        u64::from_str_radix(text, 16).map(Self).ok()
    }
}

impl Mark for ListCursor {
    fn write(self) -> String {
        format!("{:016x}{:016x}", self.at, self.seq)
    }

    fn read(text: &str) -> Option<Self> {
        let (at, seq) = text.split_at_checked(16)?;
        let (Cursor(at), Cursor(seq)) = (Mark::read(at)?, Mark::read(seq)?);
        Some(Self { at, seq })
    }
}

/// A cursor as the client gets it. Lists differ if their filters are shown otherwise.
pub(super) fn write_cursor(cursor: impl Mark, tenant: &TenantId, filter: &impl Debug) -> String {
    use std::fmt::Write;
    let mut text = cursor.write();
    for byte in tag(&text, tenant, filter) {
        write!(text, "{byte:02x}").expect("writing to a string");
    }
    text
}

/// A cursor that a page of the same list gave out.
pub(super) fn read_cursor<M: Mark>(
    text: &str,
    tenant: &TenantId,
    filter: &impl Debug,
) -> Result<M, Problem> {
    let invalid = || {
        let detail = "`cursor` must be the `next` of a page with the same filters";
        Problem::new(Code::InvalidCursor, detail)
    };
    if !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(invalid());
    }
    let mark = text.len().checked_sub(2 * TAG).map(|end| &text[..end]);
    let cursor = mark.and_then(M::read).ok_or_else(invalid)?;
    if write_cursor(cursor, tenant, filter) == text {
        Ok(cursor)
    } else {
        Err(invalid())
    }
}

fn tag(cursor: &str, tenant: &TenantId, filter: &impl Debug) -> [u8; TAG] {
    let mut hash = Sha256::new();
    hash.update(cursor);
    // A tenant has no space, and texts of a filter are quoted: no two lists give the same.
    hash.update(format!("{tenant} {filter:?}"));
    let mut tag = [0; TAG];
    tag.copy_from_slice(&hash.finalize()[..TAG]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Filter, StatusName};

    #[test]
    fn a_cursor_is_good_for_its_list_only() {
        let [a, b]: [TenantId; 2] = ["a", "b"].map(|id| id.parse().expect("valid"));
        let all = Filter::default();
        let failed = Filter {
            status: Some(StatusName::Failed),
            ..Filter::default()
        };
        let at = ListCursor { at: 77, seq: 5 };
        let cursor = write_cursor(at, &a, &all);
        let read = |text: &str, tenant, filter| read_cursor::<ListCursor>(text, tenant, filter);
        assert_eq!(read(&cursor, &a, &all).ok(), Some(at));
        assert!(read(&cursor, &b, &all).is_err(), "another tenant");
        assert!(read(&cursor, &a, &failed).is_err(), "another filter");
        assert!(read_cursor::<Cursor>(&cursor, &a, &all).is_err());
        let cursor = write_cursor(Cursor(77), &a, &all);
        assert_eq!(read_cursor(&cursor, &a, &all).ok(), Some(Cursor(77)));
        assert!(read(&cursor, &a, &all).is_err(), "of another order");
        let upper = cursor.to_uppercase().replace('A', "B");
        for forged in [
            "",
            "x",
            &cursor[1..],
            &upper,
            &"0".repeat(32),
            &"ä".repeat(16),
            &"f".repeat(10_000),
            &"0".repeat(48),
        ] {
            assert!(read(forged, &a, &all).is_err(), "{}", forged.len());
            assert!(read_cursor::<Cursor>(forged, &a, &all).is_err());
        }
    }
}
