//! Text to tokens, one at a time.

use std::ops::Range;

use super::SyntaxError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `$`
    Dollar,
    /// A name or keyword.
    Word(Box<str>),
    Text(String),
    Integer(u64),
    Float(f64),
    /// An operator or bracket, as it is written.
    Symbol(&'static str),
    /// The `}}` that ends the expression.
    Close,
    /// The end of the text.
    End,
}

impl Token {
    /// What it is, in a message.
    pub(super) fn describe(&self, text: &str) -> String {
        match self {
            Self::Close => "the closing `}}`".into(),
            Self::End => "the end of the text".into(),
            _ => format!("`{text}`"),
        }
    }
}

/// Longest first, so that `<=` is not read as `<` and `=`.
const SYMBOLS: [&str; 23] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ",", ".",
    "(", ")", "[", "]", "|",
];

/// Slips from other languages, and what CDL has for them.
const SLIPS: [(char, &str); 4] = [
    ('=', "equality is `==`"),
    ('&', "logical and is `&&`"),
    ('~', "text is joined with `+`"),
    ('^', "there is no power operator; multiply"),
];

pub(super) struct Lexer<'t> {
    text: &'t str,
    position: usize,
    /// Braces of object literals that are open: `}}` ends the expression only
    /// outside them.
    braces: usize,
}

/// Whether `c` can stand in a name.
fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `text` can be written behind a dot.
pub(super) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text.chars().all(is_word_char)
}

impl<'t> Lexer<'t> {
    /// Reads `text` from byte `position` on.
    pub(super) fn new(text: &'t str, position: usize) -> Self {
        Self {
            text,
            position,
            braces: 0,
        }
    }

    /// The next token and where it stands.
    pub(super) fn next(&mut self) -> Result<(Token, Range<usize>), SyntaxError> {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start().len();
        let start = self.position;
        let token = match self.rest().chars().next() {
            None => Token::End,
            Some('$') => self.take(1, Token::Dollar),
            Some(quote @ ('\'' | '"')) => self.string(quote)?,
            Some(c) if c.is_ascii_digit() => self.number()?,
            Some(c) if is_word_char(c) => self.word(),
            Some('{') => {
                self.braces += 1;
                self.take(1, Token::Symbol("{"))
            }
            Some('}') => self.closing_brace()?,
            Some(c) => self.symbol(c)?,
        };
        Ok((token, start..self.position))
    }

    fn rest(&self) -> &'t str {
        &self.text[self.position..]
    }

    fn take(&mut self, len: usize, token: Token) -> Token {
        self.position += len;
        token
    }

    fn word(&mut self) -> Token {
        let rest = self.rest();
        let len = rest.find(|c| !is_word_char(c)).unwrap_or(rest.len());
        self.take(len, Token::Word(rest[..len].into()))
    }

    fn closing_brace(&mut self) -> Result<Token, SyntaxError> {
        if self.braces > 0 {
            self.braces -= 1;
            Ok(self.take(1, Token::Symbol("}")))
        } else if self.rest().starts_with("}}") {
            Ok(self.take(2, Token::Close))
        } else {
            Err(
                SyntaxError::new(self.position..self.position + 1, "`}` closes nothing")
                    .help("an expression ends with `}}`"),
            )
        }
    }

    fn symbol(&mut self, c: char) -> Result<Token, SyntaxError> {
        let rest = self.rest();
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            return Ok(self.take(symbol.len(), Token::Symbol(symbol)));
        }
        let span = self.position..self.position + c.len_utf8();
        let error = SyntaxError::new(span, format!("unexpected character `{}`", c.escape_debug()));
        Err(match SLIPS.iter().find(|(slip, _)| *slip == c) {
            Some((_, help)) => error.help(*help),
            None => error,
        })
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let bytes = self.rest().as_bytes();
        let digits = |from: usize| {
            bytes[from..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count()
        };
        let mut len = digits(0);
        let mut is_float = false;
        if bytes.get(len) == Some(&b'.') && digits(len + 1) > 0 {
            len += 1 + digits(len + 1);
            is_float = true;
        }
        if let Some(b'e' | b'E') = bytes.get(len) {
            let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
            let exponent = digits((len + 1 + sign).min(bytes.len()));
            if exponent > 0 {
                len += 1 + sign + exponent;
                is_float = true;
            }
        }
        let rest = self.rest();
        let text = &rest[..len];
        let span = self.position..self.position + len;
        if rest[len..].starts_with(is_word_char) {
            return Err(SyntaxError::new(span, format!("`{text}` runs into a word"))
                .help("a name starts with a letter; quote a key that does not: `$['1st']`"));
        }
        let token = if is_float {
            text.parse()
                .ok()
                .filter(|n: &f64| n.is_finite())
                .map(Token::Float)
        } else {
            text.parse().ok().map(Token::Integer)
        };
        let token =
            token.ok_or_else(|| SyntaxError::new(span, format!("`{text}` is too large")))?;
        Ok(self.take(len, token))
    }

    fn string(&mut self, quote: char) -> Result<Token, SyntaxError> {
        let start = self.position;
        let mut value = String::new();
        let mut chars = self.rest().char_indices();
        chars.next();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                return Ok(self.take(at + 1, Token::Text(value)));
            }
            if c != '\\' {
                value.push(c);
                continue;
            }
            let escaped = chars.next().map(|(_, c)| c);
            let plain = match escaped {
                Some('n') => Some('\n'),
                Some('t') => Some('\t'),
                Some('r') => Some('\r'),
                Some('b') => Some('\u{8}'),
                Some('f') => Some('\u{c}'),
                Some(c @ ('\\' | '\'' | '"' | '/')) => Some(c),
                Some('u') => unicode(&mut chars),
                _ => None,
            };
            let Some(plain) = plain else {
                let span = start + at..start + at + 1 + escaped.map_or(0, char::len_utf8);
                return Err(SyntaxError::new(span, "unknown escape in a string")
                    .help(r#"escapes are \n \t \r \b \f \\ \' \" \/ and \uXXXX"#));
            };
            value.push(plain);
        }
        Err(SyntaxError::new(start..start + 1, "string is not closed")
            .help(format!("close it with `{quote}`")))
    }
}

/// The character behind `\u`: four hexadecimal digits, or a surrogate pair of
/// two such escapes.
fn unicode(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    let high = hex4(chars)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high);
    }
    let escape = (chars.next()?.1, chars.next()?.1);
    let low = hex4(chars)?;
    if escape != ('\\', 'u') || !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
}

fn hex4(chars: &mut std::str::CharIndices<'_>) -> Option<u32> {
    (0..4).try_fold(0, |value, _| {
        Some(value * 16 + chars.next()?.1.to_digit(16)?)
    })
}
