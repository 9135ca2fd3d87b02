//! Source text to tokens. Never fails: what is no token becomes one that says so.

use std::ops::Range;

/// A piece of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name or a keyword.
    Word,
    /// Digits, with a fraction or an exponent where there is one.
    Number,
    /// Text in double quotes that is closed.
    Text,
    /// Text in double quotes that is not closed on its line.
    OpenText,
    /// Any other character.
    Symbol(char),
    /// The end of the source.
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    /// In bytes.
    pub(crate) span: Range<usize>,
    /// Whether it is the first on its line.
    pub(crate) begins_line: bool,
}

/// The tokens of a source, the last of them [`TokenKind::End`].
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { source, at: 0, begins_line: true, tokens: Vec::new() };
    while lexer.at < source.len() {
        lexer.step();
    }
    lexer.push(TokenKind::End, 0);
    lexer.tokens
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    begins_line: bool,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn push(&mut self, kind: TokenKind, length: usize) {
        let span = self.at..self.at + length;
        self.tokens.push(Token { kind, span, begins_line: self.begins_line });
        self.begins_line = false;
        self.at += length;
    }

    /// How many bytes at the front belong to characters for which this holds.
    fn run(&self, belongs: impl Fn(char) -> bool) -> usize {
        self.rest().find(|character| !belongs(character)).unwrap_or(self.rest().len())
    }

    fn step(&mut self) {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return };
        if first == '\n' {
            self.begins_line = true;
            self.at += 1;
        } else if first.is_whitespace() {
            self.at += first.len_utf8();
        } else if rest.starts_with("//") || (first == '#' && self.begins_line) {
            self.at += self.run(|character| character != '\n');
        } else if rest.starts_with("/*") {
            let length = rest.find("*/").map_or(rest.len(), |end| end + 2);
            self.begins_line |= rest[..length].contains('\n');
            self.at += length;
        } else if first == '"' {
            let length = text_length(rest);
            let kind = if length.is_some() { TokenKind::Text } else { TokenKind::OpenText };
            let line = rest.find('\n').unwrap_or(rest.len());
            self.push(kind, length.unwrap_or(line));
        } else if first.is_alphabetic() || first == '_' {
            self.push(TokenKind::Word, self.run(|one| one.is_alphanumeric() || one == '_'));
        } else if first.is_ascii_digit() {
            self.push(TokenKind::Number, number_length(rest));
        } else {
            self.push(TokenKind::Symbol(first), first.len_utf8());
        }
    }
}

/// The length of a text with its quotes, if it is closed on its line.
fn text_length(rest: &str) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some(at + 1),
            '\n' => return None,
            '\\' => {
                characters.next();
            }
            _ => {}
        }
    }
    None
}

/// The length of a number: digits, then a fraction and an exponent where they are complete.
fn number_length(rest: &str) -> usize {
    let digits = |from: usize| {
        let tail = &rest[from..];
        tail.find(|one: char| !one.is_ascii_digit() && one != '_').unwrap_or(tail.len())
    };
    let mut length = digits(0);
    if rest[length..].starts_with('.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
    }
    if rest[length..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[length + 1..].starts_with(['-', '+']));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}

/// The text that a closed token stands for.
pub(crate) fn unquote(token: &str) -> String {
    let inner = token.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(token);
    let mut out = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}
