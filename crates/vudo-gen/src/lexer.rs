//! Source text to tokens. Never fails: what is no token becomes one that says so.

use std::ops::Range;

use unicode_ident::{is_xid_continue, is_xid_start};

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
    /// The words between the braces of a `docs` block, which follow no rule but balanced braces.
    Prose,
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

/// What a source is made of.
pub(crate) struct Lexed {
    /// The last of them is [`TokenKind::End`].
    pub(crate) tokens: Vec<Token>,
    /// A `/*` that is never closed and so hides the rest of the source.
    pub(crate) open_comment: Option<Range<usize>>,
}

/// Splits a source into tokens, in time linear in its length.
pub(crate) fn lex(source: &str) -> Lexed {
    // An editor may begin a file with a byte order mark.
    let at = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let tokens = Vec::new();
    let mut lexer = Lexer { source, at, begins_line: true, has_open_prose: false, tokens };
    let mut open_comment = None;
    while lexer.at < source.len() {
        lexer.step(&mut open_comment);
    }
    lexer.push(TokenKind::End, 0);
    Lexed { tokens: lexer.tokens, open_comment }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    begins_line: bool,
    /// The braces of a `docs` block were found unbalanced. Later blocks are then not looked through
    /// to the end of the source again, each on its own.
    has_open_prose: bool,
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

    fn step(&mut self, open_comment: &mut Option<Range<usize>>) {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return };
        if first == '\n' {
            self.begins_line = true;
            self.at += 1;
        } else if first.is_whitespace() {
            self.at += first.len_utf8();
        } else if rest.starts_with("//") || (first == '#' && self.begins_line) {
            self.at += self.run(|character| character != '\n');
        } else if let Some(comment) = rest.strip_prefix("/*") {
            let length = match comment.find("*/") {
                Some(end) => end + 4,
                None => {
                    *open_comment = Some(self.at..self.at + 2);
                    rest.len()
                }
            };
            self.begins_line |= rest[..length].contains('\n');
            self.at += length;
        } else if first == '"' {
            let length = text_length(rest);
            let kind = if length.is_some() { TokenKind::Text } else { TokenKind::OpenText };
            let length = length.unwrap_or_else(|| self.run(|character| character != '\n'));
            self.push(kind, length);
        } else if first == '_' || is_xid_start(first) {
            self.push(TokenKind::Word, self.run(is_xid_continue));
        } else if first.is_ascii_digit() {
            self.push(TokenKind::Number, number_length(rest));
        } else {
            let opens_prose = first == '{' && self.follows_docs();
            self.push(TokenKind::Symbol(first), first.len_utf8());
            if opens_prose {
                self.prose();
            }
        }
    }

    fn follows_docs(&self) -> bool {
        self.tokens.last().is_some_and(|last| {
            last.kind == TokenKind::Word
                && ["docs", "exegesis"].contains(&&self.source[last.span.clone()])
        })
    }

    /// Takes the words up to the brace that closes the block, which prose such as `http://` or an
    /// odd quotation mark would otherwise hide.
    fn prose(&mut self) {
        if self.has_open_prose {
            return;
        }
        let mut depth = 1usize;
        for (length, character) in self.rest().char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.push(TokenKind::Prose, length);
                return;
            }
        }
        self.has_open_prose = true;
    }
}

/// The length of a text with its quotes, if it is closed on its line.
fn text_length(rest: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            '\n' => return None,
            '"' if !is_escaped => return Some(at + 1),
            _ => is_escaped = character == '\\' && !is_escaped,
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
            Some(other @ ('"' | '\\')) => out.push(other),
            // `"\."`, in the regular expressions of files that do not escape the backslash.
            Some(other) => out.extend(['\\', other]),
            None => {}
        }
    }
    out
}
