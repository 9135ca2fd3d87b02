//! Tokens to a syntax tree. One bad line never hides the errors after it.

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Severity, nearest};
use crate::lexer::{Token, TokenKind, tokens, unquote};
use crate::syntax::{
    FieldSyntax, FileSyntax, GenSyntax, Literal, LiteralSyntax, Name, StrategySyntax, TypeSyntax,
};

/// Brackets nested deeper than this are refused.
const NESTING_MAX: usize = 64;

const TOP_LEVEL: [&str; 12] = [
    "module",
    "use",
    "gen",
    "gene",
    "enum",
    "trait",
    "constraint",
    "system",
    "evolves",
    "evo",
    "docs",
    "pub",
];

/// A place was no good, and a diagnostic says why.
struct Refused;

type Parsed<T> = Result<T, Refused>;

pub(crate) fn parse(source: &str, file: usize, diagnostics: &mut Vec<Diagnostic>) -> FileSyntax {
    let mut parser = Parser { source, file, tokens: tokens(source), at: 0, diagnostics };
    let mut syntax = FileSyntax::default();
    while parser.kind() != TokenKind::End {
        if parser.item(&mut syntax).is_err() {
            parser.skip_to_item();
        }
    }
    syntax
}

struct Parser<'a> {
    source: &'a str,
    file: usize,
    tokens: Vec<Token>,
    at: usize,
    diagnostics: &'a mut Vec<Diagnostic>,
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

    /// The last token, the end, is never passed.
    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn is_symbol(&self, symbol: char) -> bool {
        self.kind() == TokenKind::Symbol(symbol)
    }

    fn is_word(&self, word: &str) -> bool {
        self.kind() == TokenKind::Word && self.text() == word
    }

    fn take_symbol(&mut self, symbol: char) -> bool {
        let found = self.is_symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn report(
        &mut self,
        code: &'static str,
        severity: Severity,
        span: Range<usize>,
        message: String,
        label: &str,
    ) {
        let (file, label) = (self.file, label.to_owned());
        let diagnostic = Diagnostic { code, severity, message, file, span, label, help: None };
        self.diagnostics.push(diagnostic);
    }

    fn refuse<T>(&mut self, expected: &str) -> Parsed<T> {
        let (code, message) = match self.kind() {
            TokenKind::End => ("E0102", "the file ends here".to_owned()),
            TokenKind::OpenText => ("E0103", "this text is not closed on its line".to_owned()),
            _ => ("E0101", format!("unexpected '{}'", self.text())),
        };
        let label = format!("expected {expected}");
        self.report(code, Severity::Error, self.span(), message, &label);
        Err(Refused)
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
        while self.is_symbol('.') {
            self.advance();
            let part = self.name("the next part of the name")?;
            name.text.push('.');
            name.text.push_str(&part.text);
            name.span.end = part.span.end;
        }
        Ok(name)
    }

    /// Says that something was understood and has no effect yet.
    fn kept(&mut self, what: &str, span: Range<usize>) {
        let message = format!("{what}: kept, not executed in this version");
        self.report("W0401", Severity::Warning, span, message, "has no effect yet");
    }

    fn item(&mut self, syntax: &mut FileSyntax) -> Parsed<()> {
        let start = self.span();
        if self.kind() != TokenKind::Word {
            return self.refuse("a Gen, as in `gen Task { ... }`");
        }
        match self.text() {
            "gen" | "gene" => {
                let gen_syntax = self.gen_item()?;
                syntax.gens.push(gen_syntax);
                Ok(())
            }
            "module" | "use" => {
                self.skip_line();
                Ok(())
            }
            "pub" => {
                self.advance();
                Ok(())
            }
            "docs" => {
                self.advance();
                self.skip_block()
            }
            word @ ("enum" | "trait" | "constraint" | "system" | "evolves" | "evo") => {
                let what = format!("this {word}");
                self.advance();
                while !self.is_symbol('{') {
                    if self.kind() == TokenKind::End || self.begins_item() {
                        return self.refuse("'{'");
                    }
                    self.advance();
                }
                self.skip_block()?;
                self.kept(&what, start);
                Ok(())
            }
            word => {
                let help = nearest(word, TOP_LEVEL).map(|near| format!("did you mean '{near}'?"));
                let refused = self.refuse("a Gen, as in `gen Task { ... }`");
                if let Some(last) = self.diagnostics.last_mut() {
                    last.help = help;
                }
                refused
            }
        }
    }

    fn begins_item(&self) -> bool {
        let token = self.token();
        token.kind == TokenKind::Word && token.begins_line && TOP_LEVEL.contains(&self.text())
    }

    fn skip_to_item(&mut self) {
        let mut depth = 0usize;
        loop {
            self.advance();
            match self.kind() {
                TokenKind::End => return,
                TokenKind::Symbol('{') => depth += 1,
                TokenKind::Symbol('}') => depth = depth.saturating_sub(1),
                _ if depth == 0 && self.begins_item() => return,
                _ => {}
            }
        }
    }

    fn skip_line(&mut self) {
        self.advance();
        while self.kind() != TokenKind::End && !self.token().begins_line {
            self.advance();
        }
    }

    /// Steps over balanced braces.
    fn skip_block(&mut self) -> Parsed<()> {
        let open = self.span();
        self.expect_symbol('{')?;
        let mut depth = 1usize;
        while depth > 0 {
            match self.kind() {
                TokenKind::Symbol('{') => depth += 1,
                TokenKind::Symbol('}') => depth -= 1,
                TokenKind::End => {
                    let message = "this '{' is never closed".to_owned();
                    self.report("E0104", Severity::Error, open, message, "opened here");
                    return Err(Refused);
                }
                _ => {}
            }
            self.advance();
        }
        Ok(())
    }

    /// `@1.2.0`, which has no white space in it.
    fn skip_version(&mut self) {
        if !self.take_symbol('@') {
            return;
        }
        while matches!(self.kind(), TokenKind::Number | TokenKind::Word | TokenKind::Symbol('.'))
            && !self.token().begins_line
            && !self.is_word("extends")
        {
            self.advance();
        }
    }

    fn gen_item(&mut self) -> Parsed<GenSyntax> {
        self.advance();
        let name = self.qualified_name("the Gen's name")?;
        self.skip_version();
        if self.is_word("extends") {
            let start = self.span();
            self.advance();
            self.qualified_name("the name of the Gen that is extended")?;
            self.kept("`extends`", start);
        }
        let open = self.span();
        self.expect_symbol('{')?;
        let mut fields = Vec::new();
        while !self.is_symbol('}') {
            if self.kind() == TokenKind::End {
                let message = format!("the Gen {} is never closed", name.text);
                self.report("E0104", Severity::Error, open, message, "opened here");
                break;
            }
            let before = self.at;
            if self.member(&mut fields).is_err() {
                self.skip_member(before);
            }
        }
        self.take_symbol('}');
        if self.is_word("docs") {
            self.advance();
            self.skip_block()?;
        }
        Ok(GenSyntax { name, fields })
    }

    /// Goes on at the next line, or behind the next separator, of the same block.
    fn skip_member(&mut self, before: usize) {
        let mut depth = 0usize;
        if self.at == before {
            self.advance();
        }
        loop {
            match self.kind() {
                TokenKind::End => return,
                TokenKind::Symbol('}') if depth == 0 => return,
                TokenKind::Symbol('{' | '(') => depth += 1,
                TokenKind::Symbol('}' | ')') => depth = depth.saturating_sub(1),
                TokenKind::Symbol(',' | ';') if depth == 0 => return self.advance(),
                _ if depth == 0 && self.token().begins_line => return,
                _ => {}
            }
            self.advance();
        }
    }

    fn member(&mut self, fields: &mut Vec<FieldSyntax>) -> Parsed<()> {
        let start = self.span();
        if self.is_symbol('@') || self.is_word("has") {
            fields.push(self.field()?);
            return Ok(());
        }
        if self.kind() != TokenKind::Word {
            return self.refuse("a field, as in `has title: String`");
        }
        let next = self.tokens.get(self.at + 1).map(|token| token.kind);
        if next == Some(TokenKind::Symbol(':')) {
            fields.push(self.field()?);
            return Ok(());
        }
        match self.text() {
            "docs" => {
                self.advance();
                self.skip_block()
            }
            word @ ("rule" | "fun") => {
                while !self.is_symbol('{') {
                    if matches!(self.kind(), TokenKind::End | TokenKind::Symbol('}')) {
                        return self.refuse("'{'");
                    }
                    self.advance();
                }
                self.skip_block()?;
                self.kept(&format!("this {word}"), start);
                Ok(())
            }
            _ => {
                self.skip_statement();
                self.kept("this statement", start);
                Ok(())
            }
        }
    }

    /// A line of words.
    fn skip_statement(&mut self) {
        self.advance();
        while !matches!(self.kind(), TokenKind::End | TokenKind::Symbol('}'))
            && !self.token().begins_line
        {
            self.advance();
        }
    }

    fn field(&mut self) -> Parsed<FieldSyntax> {
        let mut strategy = None;
        while self.is_symbol('@') {
            let start = self.span();
            self.advance();
            let annotation = self.name("crdt, index or personal")?;
            match annotation.text.as_str() {
                "crdt" => strategy = Some(self.strategy()?),
                "index" => self.kept("@index", start),
                "personal" => {
                    let message = "@personal: kept; not yet encrypted: it syncs like any field";
                    let label = "has no effect yet";
                    self.report("W0402", Severity::Warning, start, message.into(), label);
                }
                other => {
                    let near = nearest(other, ["crdt", "index", "personal"]);
                    let help = near.map(|near| format!("did you mean '@{near}'?"));
                    let message = format!("there is no annotation '@{other}'");
                    let label = "expected @crdt, @index or @personal";
                    self.report("E0105", Severity::Error, annotation.span, message, label);
                    if let Some(last) = self.diagnostics.last_mut() {
                        last.help = help;
                    }
                    return Err(Refused);
                }
            }
        }
        if self.is_word("has") {
            self.advance();
        }
        let name = self.name("the field's name")?;
        self.expect_symbol(':')?;
        let value_type = self.value_type()?;
        let mut default = None;
        if self.take_symbol('=') {
            default = Some(self.literal(0)?);
        }
        if self.is_word("where") {
            let start = self.span();
            self.skip_statement();
            self.kept("this condition", start);
        } else if !self.take_symbol(',') {
            self.take_symbol(';');
        }
        let is_at_end = self.token().begins_line
            || matches!(self.kind(), TokenKind::End | TokenKind::Symbol('}' | '@'))
            || self.is_word("has")
            || matches!(self.tokens[self.at - 1].kind, TokenKind::Symbol(',' | ';'));
        if !is_at_end {
            self.refuse::<()>("the end of the field, '=' or 'where'")?;
        }
        Ok(FieldSyntax { name, strategy, value_type, default })
    }

    fn strategy(&mut self) -> Parsed<StrategySyntax> {
        self.expect_symbol('(')?;
        let name = self.name("a strategy, such as lww")?;
        let mut options = Vec::new();
        while self.take_symbol(',') {
            let option = self.name("the name of an option")?;
            self.expect_symbol('=')?;
            options.push((option, self.literal(0)?));
        }
        self.expect_symbol(')')?;
        Ok(StrategySyntax { name, options })
    }

    /// Any type; what it means is checked later.
    fn value_type(&mut self) -> Parsed<TypeSyntax> {
        let start = self.span();
        let is_plain = self.kind() == TokenKind::Word;
        if is_plain {
            self.qualified_name("a type")?;
        } else if !matches!(self.kind(), TokenKind::Symbol('{' | '[' | '(')) {
            return self.refuse("a type, such as String");
        }
        let has_arguments = matches!(self.kind(), TokenKind::Symbol('<' | '{' | '[' | '('));
        if has_arguments && !self.token().begins_line {
            self.skip_brackets()?;
        }
        let end = self.tokens[self.at - 1].span.end;
        let span = start.start..end;
        let text = self.source[span.clone()].to_owned();
        Ok(TypeSyntax { is_plain: is_plain && !has_arguments, text, span })
    }

    fn skip_brackets(&mut self) -> Parsed<()> {
        let mut depth = 0usize;
        loop {
            match self.kind() {
                TokenKind::Symbol('<' | '{' | '[' | '(') => depth += 1,
                TokenKind::Symbol('>' | '}' | ']' | ')') => depth -= 1,
                TokenKind::Word | TokenKind::Symbol(',' | '.') => {}
                _ => return self.refuse("the end of the type"),
            }
            if depth > NESTING_MAX {
                return self.refuse("a type that is nested less deeply");
            }
            self.advance();
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn literal(&mut self, depth: usize) -> Parsed<LiteralSyntax> {
        let start = self.span();
        let is_negative = self.take_symbol('-');
        let text = self.text();
        let literal = match self.kind() {
            TokenKind::Number => match number(text, is_negative) {
                Some(literal) => literal,
                None => return self.refuse("a number that fits 64 bits"),
            },
            _ if is_negative => return self.refuse("a number"),
            TokenKind::Text => Literal::Text(unquote(text)),
            TokenKind::Word => match text {
                "true" => Literal::Bool(true),
                "false" => Literal::Bool(false),
                "none" => Literal::None,
                word => Literal::Word(word.to_owned()),
            },
            TokenKind::Symbol('[') if depth < NESTING_MAX => {
                self.advance();
                while !self.is_symbol(']') {
                    self.literal(depth + 1)?;
                    if !self.take_symbol(',') && !self.is_symbol(']') {
                        return self.refuse("',' or ']'");
                    }
                }
                Literal::List
            }
            _ => return self.refuse("a value, such as 1, true or \"text\""),
        };
        let span = start.start..self.span().end;
        self.advance();
        Ok(LiteralSyntax { literal, span })
    }
}

fn number(text: &str, is_negative: bool) -> Option<Literal> {
    let digits = text.replace('_', "");
    if digits.contains(['.', 'e', 'E']) {
        let number: f64 = digits.parse().ok()?;
        return number.is_finite().then_some(Literal::Float(if is_negative {
            -number
        } else {
            number
        }));
    }
    let number: i128 = digits.parse().ok()?;
    let number = if is_negative { -number } else { number };
    (i64::MIN.into()..=u64::MAX.into()).contains(&number).then_some(Literal::Integer(number))
}
