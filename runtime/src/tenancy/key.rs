//! The text of API keys: `ck_<id>_<secret>`.
//!
//! The id is public and short, for lists and logs; the secret has 256 random
//! bits, so a plain SHA-256 of the whole text is as hard to reverse as any
//! password hash, and costs next to nothing at each request. The prefix lets
//! scanners find keys that were published by mistake.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What ids look like, for messages.
pub const ID_RULE: &str = "1 to 32 characters of a-z and 0-9";

/// What keys look like, for messages.
pub const RULE: &str = "`ck_<id>_<secret>`, the id 1 to 32 characters of a-z and 0-9, \
                        the secret 32 to 128 characters of letters, digits, - and _";

/// Whether `text` can be the id of a key. No `_`, so that the parts of a key are unambiguous.
pub fn is_id(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=32).contains(&text.len()) && text.bytes().all(plain)
}

/// The id in a key's text, if it is one.
pub fn parse(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix("ck_")?.split_once('_')?;
    // 32 characters of 62 have 190 bits: what operators make themselves is accepted, too.
    let fits = (32..=128).contains(&secret.len())
        && secret
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    (fits && is_id(id)).then_some(id)
}

/// A new key: its id and its text.
pub fn generate() -> (String, String) {
    let mut random = [0; 40];
    getrandom::fill(&mut random).expect("the system gives random numbers");
    let (id, secret) = random.split_at(8);
    let id = hex(id);
    let text = format!("ck_{id}_{}", hex(secret));
    (id, text)
}

/// SHA-256 of a key's text: what is kept of it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub(super) [u8; 32]);

impl Digest {
    /// That of `text`.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "a digest has 64 hexadecimal digits";
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(RULE);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).ok_or(RULE);
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).map_err(|_| RULE)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_reads_back_and_never_repeats() {
        let (id, text) = generate();
        assert_eq!(parse(&text), Some(id.as_str()));
        assert_eq!(
            text.len(),
            "ck_".len() + 16 + 1 + 64,
            "64 and 256 bits in hexadecimal"
        );
        assert_ne!(generate().1, text);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let secret = "a".repeat(32);
        for bad in [
            String::new(),
            "ck_".to_owned(),
            format!("ck__{secret}"),
            format!("ck_A_{secret}"),
            format!("ck_{}_{secret}", "a".repeat(33)),
            format!("sk_a_{secret}"),
            format!("ck_a_{}", &secret[1..]), // a character too short
            format!("ck_a_{}", "a".repeat(129)),
            format!("ck_a_{secret} "),
            format!("ck_a_{secret}ä"),
            format!("ck_a_{secret}\0"),
        ] {
            assert_eq!(parse(&bad), None, "{bad:?}");
        }
        assert_eq!(parse(&format!("ck_a_{secret}")), Some("a"));
    }

    #[test]
    fn a_digest_reads_back() {
        // SHA-256 of the empty text, as published with the algorithm.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of("").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of("")));
        for bad in ["", "e3", &"g".repeat(64), &"ä".repeat(32)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
