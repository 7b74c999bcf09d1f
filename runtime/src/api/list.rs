//! Pages and cursors of lists.

use std::fmt::Debug;

use cascade_cdl::TenantId;
use sha2::{Digest, Sha256};

use super::problem::{Code, Problem};
use crate::store::Cursor;

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

/// A cursor as the client gets it. Lists differ if their filters are shown otherwise.
pub(super) fn write_cursor(cursor: Cursor, tenant: &TenantId, filter: &impl Debug) -> String {
    use std::fmt::Write;
    let mut text = format!("{:016x}", cursor.0);
    for byte in tag(cursor, tenant, filter) {
        write!(text, "{byte:02x}").expect("writing to a string");
    }
    text
}

/// A cursor that a page of the same list gave out.
pub(super) fn read_cursor(
    text: &str,
    tenant: &TenantId,
    filter: &impl Debug,
) -> Result<Cursor, Problem> {
    let invalid = || {
        let detail = "`cursor` must be the `next` of a page with the same filters";
        Problem::new(Code::InvalidCursor, detail)
    };
    if text.len() != 16 + 2 * TAG || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(invalid());
    }
    let cursor = u64::from_str_radix(&text[..16], 16)
        .map(Cursor)
        .map_err(|_| invalid())?;
    if write_cursor(cursor, tenant, filter) == text {
        Ok(cursor)
    } else {
        Err(invalid())
    }
}

fn tag(cursor: Cursor, tenant: &TenantId, filter: &impl Debug) -> [u8; TAG] {
    let mut hash = Sha256::new();
    hash.update(cursor.0.to_le_bytes());
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
        let cursor = write_cursor(Cursor(77), &a, &all);
        assert_eq!(read_cursor(&cursor, &a, &all).ok(), Some(Cursor(77)));
        assert!(read_cursor(&cursor, &b, &all).is_err(), "another tenant");
        assert!(read_cursor(&cursor, &a, &failed).is_err(), "another filter");
        let upper = cursor.to_uppercase().replace('A', "B");
        for forged in [
            "",
            "x",
            &cursor[1..],
            &upper,
            &"0".repeat(32),
            &"ä".repeat(16),
            &"f".repeat(10_000),
        ] {
            assert!(read_cursor(forged, &a, &all).is_err(), "{}", forged.len());
        }
    }
}
