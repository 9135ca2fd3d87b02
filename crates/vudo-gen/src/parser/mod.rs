//! Tokens to a syntax tree, by recursive descent. One bad line never hides the errors after it.
//!
//! **Recovery.** Whoever meets a token that does not belong reports it and returns [`Refused`]; the
//! loop over members goes on at the next line, the loop over items at the next keyword. Brackets
//! are matched once for the whole file before, so that stepping over a block costs nothing and an
//! unclosed one does not swallow what follows. Every loop moves forward: time is linear.

mod expressions;
mod fields;
mod items;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::lexer::{Token, TokenKind, lex};
use crate::syntax::{FileSyntax, Layout, Name};

/// Brackets nested deeper than this in types and literals are refused.
const NESTING_MAX: usize = 64;

/// A place was no good, and a diagnostic says why.
struct Refused;

type Parsed<T> = Result<T, Refused>;

/// Parses a source of any content.
pub(crate) fn parse(source: &str, diagnostics: &mut Diagnostics) -> FileSyntax {
    let lexed = lex(source);
    if let Some(span) = lexed.open_comment {
        let message = "this comment is never closed".to_owned();
        diagnostics.push(Diagnostic::error("E0111", &span, message).label("expected '*/' later"));
    }
    let partners = partners(&lexed.tokens);
    let mut parser = Parser {
        source,
        tokens: lexed.tokens,
        partners,
        at: 0,
        start: 0,
        column: 0,
        part_count: 0,
        may_begin_line: false,
        layout: Layout::default(),
        diagnostics,
    };
    parser.file()
}

/// For every bracket the index of the token that it belongs to; for all others their own index.
///
/// Braces weigh more than the others: a stray `)` closes no `(` outside the braces around it.
fn partners(tokens: &[Token]) -> Vec<usize> {
    let mut partners: Vec<usize> = (0..tokens.len()).collect();
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut open_brace_count = 0usize;
    for (index, token) in tokens.iter().enumerate() {
        let TokenKind::Symbol(symbol) = token.kind else { continue };
        let opener = match symbol {
            '{' | '(' | '[' => {
                open_brace_count += usize::from(symbol == '{');
                open.push((index, symbol));
                continue;
            }
            '}' if open_brace_count > 0 => {
                open_brace_count -= 1;
                while open.pop_if(|(_, symbol)| *symbol != '{').is_some() {}
                '{'
            }
            ')' => '(',
            ']' => '[',
            _ => continue,
        };
        if let Some((opened_at, _)) = open.pop_if(|(_, symbol)| *symbol == opener) {
            partners[index] = opened_at;
            partners[opened_at] = index;
        }
    }
    partners
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    partners: Vec<usize>,
    at: usize,
    /// Where the item, member or step begins that is being parsed.
    start: usize,
    /// How far from the beginning of its line the item begins that is being parsed, in bytes.
    column: usize,
    /// How many parts the expression has so far that is being parsed.
    part_count: usize,
    /// Whether what comes next belongs to the expression also from the next line.
    may_begin_line: bool,
    layout: Layout,
    diagnostics: &'a mut Diagnostics,
}

impl<'a> Parser<'a> {
    fn token(&self) -> &Token {
        &self.tokens[self.at]
    }

    fn kind(&self) -> TokenKind {
        self.token().kind
    }

    fn span(&self) -> Range<usize> {
        self.token().span.clone()
    }

    fn text(&self) -> &'a str {
        &self.source[self.span()]
    }

    /// The kind of the token that many behind this one.
    fn kind_ahead(&self, count: usize) -> TokenKind {
        self.tokens.get(self.at + count).map_or(TokenKind::End, |token| token.kind)
    }

    fn text_ahead(&self, count: usize) -> &'a str {
        self.tokens.get(self.at + count).map_or("", |token| &self.source[token.span.clone()])
    }

    /// The last token, the end, is never passed.
    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    /// Where the token before this one ends.
    fn end_before(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |before| self.tokens[before].span.end)
    }

    fn is_end(&self) -> bool {
        self.kind() == TokenKind::End
    }

    fn is_symbol(&self, symbol: char) -> bool {
        self.kind() == TokenKind::Symbol(symbol)
    }

    fn is_word(&self, word: &str) -> bool {
        self.kind() == TokenKind::Word && self.text() == word
    }

    /// Whether this token is on another line than what it would belong to.
    fn is_next_line(&self) -> bool {
        self.is_end() || (self.token().begins_line && self.at > self.start)
    }

    fn take_symbol(&mut self, symbol: char) -> bool {
        let found = self.is_symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    /// Reports that this token does not belong here. Where it is already on another line, what is
    /// missing is missing behind the token before it, and that is the place to show.
    fn refuse<T>(&mut self, expected: &str) -> Parsed<T> {
        let diagnostic = self.refusal(expected);
        self.push_once(diagnostic);
        Err(Refused)
    }

    fn refusal(&self, expected: &str) -> Diagnostic {
        let span = self.span();
        if self.is_next_line() && self.at > 0 {
            let before = self.tokens[self.at - 1].span.clone();
            let (code, what) =
                if self.is_end() { ("E0102", "the file") } else { ("E0101", "the line") };
            let diagnostic = Diagnostic::error(code, &before, format!("{what} ends too early"));
            return diagnostic.label(format!("expected {expected} after this"));
        }
        let (code, message) = match self.kind() {
            TokenKind::End => ("E0102", "the file ends here".to_owned()),
            TokenKind::OpenText => ("E0103", "this text is not closed on its line".to_owned()),
            _ => ("E0101", format!("unexpected {}", quoted(self.text()))),
        };
        Diagnostic::error(code, &span, message).label(format!("expected {expected}"))
    }

    /// One slip is reported once, also where the parser meets it again while it recovers.
    fn push_once(&mut self, diagnostic: Diagnostic) {
        if !self.diagnostics.ends_with_error_at(diagnostic.span.start) {
            self.diagnostics.push(diagnostic);
        }
    }

    fn expect_symbol(&mut self, symbol: char) -> Parsed<()> {
        if self.take_symbol(symbol) { Ok(()) } else { self.refuse(&format!("'{symbol}'")) }
    }

    fn name(&mut self, what: &str) -> Parsed<Name> {
        if self.kind() != TokenKind::Word {
            return self.refuse(what);
        }
        let name = Name { text: self.text().to_owned(), span: self.span() };
        self.advance();
        Ok(name)
    }

    fn qualified_name(&mut self, what: &str) -> Parsed<Name> {
        let mut name = self.name(what)?;
        while self.take_symbol('.') {
            let part = self.name("the next part of the name")?;
            name.text.push('.');
            name.text.push_str(&part.text);
            name.span.end = part.span.end;
        }
        Ok(name)
    }

    /// `1.2.0-beta`: everything up to the next white space or bracket.
    fn version(&mut self) -> Parsed<Name> {
        let start = self.span();
        let mut end = start.start;
        while self.span().start == end
            && match self.kind() {
                TokenKind::Number | TokenKind::Word => true,
                TokenKind::Symbol(symbol) => ['.', '-', '+'].contains(&symbol),
                _ => false,
            }
        {
            end = self.span().end;
            self.advance();
        }
        if end == start.start {
            return self.refuse("a version, such as 1.0.0");
        }
        let span = start.start..end;
        self.layout.verbatim.push(span.clone());
        Ok(Name { text: self.source[span.clone()].to_owned(), span })
    }

    fn optional_version(&mut self) -> Parsed<Option<Name>> {
        if self.take_symbol('@') { self.version().map(Some) } else { Ok(None) }
    }

    /// Steps over this token, and over all up to the closing one where it is an opening bracket.
    fn advance_over(&mut self) {
        self.at = self.at.max(self.partners[self.at]);
        self.advance();
    }

    /// Steps over `{ ... }` and gives the place of what is between the braces.
    fn block(&mut self) -> Parsed<Range<usize>> {
        if !self.is_symbol('{') {
            return self.refuse("'{'");
        }
        let opened_at = self.at;
        let open = self.span();
        let closed_at = self.partners[opened_at];
        if closed_at == opened_at {
            self.report_unclosed(&open, "this '{' is never closed".to_owned());
            self.advance();
            return Err(Refused);
        }
        self.at = closed_at;
        let body = open.end..self.span().start;
        self.advance();
        Ok(body)
    }

    fn report_unclosed(&mut self, open: &Range<usize>, message: String) {
        self.diagnostics.push(Diagnostic::error("E0104", open, message).label("opened here"));
    }

    /// Steps to the end of the line, but not out of the block around it, and over whole blocks that
    /// begin on it. Gives what it stepped over.
    fn rest_of_line(&mut self) -> Name {
        let start = self.span().start;
        if !self.is_end() && !self.is_symbol('}') {
            self.advance_over();
        }
        while !self.is_end() && !self.is_symbol('}') && !self.token().begins_line {
            self.advance_over();
        }
        let span = start..self.end_before().max(start);
        self.layout.verbatim.push(span.clone());
        Name { text: self.source[span.clone()].to_owned(), span }
    }
}
