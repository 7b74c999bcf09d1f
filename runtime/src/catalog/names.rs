//! Names, version names and etags.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// What [`is_name`] asks for.
pub const NAME_RULE: &str =
    "1 to 64 letters, digits, `-`, `_` or `.`, starting with a letter or digit";

/// Whether `name` can name an application, an activity or a version of one:
/// what the front end takes as such, and safe in paths, keys and subjects.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// Whether a version name is of the kind that the server counts: `v1`, `v2`.
pub(super) fn is_counted(version: &str) -> bool {
    version
        .strip_prefix('v')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
}

/// A strong etag of one version of an application.
pub fn etag(version: u32, source: &str) -> String {
    let digest = Sha256::digest(source.as_bytes());
    let mut etag = format!("\"v{version}-");
    // 64 bits: it tells versions of one application apart, it protects nothing.
    for byte in &digest[..8] {
        write!(etag, "{byte:02x}").expect("writing to a string");
    }
    etag.push('"');
    etag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_a_path() {
        for good in ["a", "charge_card", "Order.v2", "0-x", &"a".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "a/b",
            "a\\b",
            "a b",
            "a%2f",
            "ä",
            "a\0",
            &"a".repeat(65),
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn only_v_and_digits_are_counted_versions() {
        for (version, counted) in [
            ("v1", true),
            ("v007", true),
            ("v", false),
            ("v1.0", false),
            ("1", false),
        ] {
            assert_eq!(is_counted(version), counted, "{version}");
        }
    }

    #[test]
    fn an_etag_tells_version_and_source() {
        assert_ne!(etag(1, "a"), etag(2, "a"));
        assert_ne!(etag(1, "a"), etag(1, "b"));
        // The first 64 bits of the SHA-256 of the empty text.
        assert_eq!(etag(3, ""), "\"v3-e3b0c44298fc1c14\"");
    }
}
