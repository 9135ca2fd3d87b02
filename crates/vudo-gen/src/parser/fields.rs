//! What stands inside a Gen: fields with their annotations, types and literals.

use super::{NESTING_MAX, Parsed, Parser, Refused};
use crate::diagnostic::{Diagnostic, nearest, quoted};
use crate::lexer::{TokenKind, unquote};
use crate::syntax::{
    AnnotationKind, AnnotationSyntax, BlockKind, FieldSyntax, Literal, LiteralSyntax, MemberSyntax,
    Name, TypeKind, TypeSyntax,
};

const ANNOTATIONS: [&str; 3] = ["crdt", "index", "personal"];

impl Parser<'_> {
    /// `None` where the member is nothing but a separator.
    pub(super) fn member(&mut self) -> Parsed<Option<MemberSyntax>> {
        if self.take_symbol(',') || self.take_symbol(';') {
            return Ok(None);
        }
        if self.is_word("pub") && self.kind_ahead(1) == TokenKind::Word {
            self.advance();
        }
        if self.field_begins_ahead(0) {
            return self.field().map(|field| Some(MemberSyntax::Field(field)));
        }
        if self.kind() != TokenKind::Word {
            return self.refuse("a field, as in `has title: String`");
        }
        let is_named = self.kind_ahead(1) == TokenKind::Word;
        Ok(Some(match self.text() {
            "docs" | "exegesis" if self.kind_ahead(1) == TokenKind::Symbol('{') => {
                MemberSyntax::Block(self.bare_block(BlockKind::Docs)?)
            }
            "rule" | "constraint" if is_named => MemberSyntax::Rule(self.rule()?),
            "enum" if self.kind_ahead(1) == TokenKind::Symbol('{') => {
                self.advance();
                MemberSyntax::Enum(self.variants("in this Gen")?)
            }
            "fun" if is_named => MemberSyntax::Block(self.named_block(BlockKind::Fun)?),
            _ => MemberSyntax::Statement(self.statement()?),
        }))
    }

    /// A line of words. One with a colon behind its second word was meant to be a field.
    fn statement(&mut self) -> Parsed<Name> {
        let is_field =
            self.kind_ahead(1) == TokenKind::Word && self.kind_ahead(2) == TokenKind::Symbol(':');
        if is_field || self.resembles_item() {
            let word = self.text();
            let refusal = self.refusal("a field, as in `has title: String`");
            self.push_once(refusal.suggest(word, ["has"]));
            return Err(Refused);
        }
        Ok(self.rest_of_line())
    }

    /// Whether a field begins that many tokens behind this one: an annotation, `has name`, `name:`
    /// or `task has name:`.
    pub(super) fn field_begins_ahead(&self, count: usize) -> bool {
        let ahead = |further: usize| self.kind_ahead(count + further);
        let colon = TokenKind::Symbol(':');
        if ahead(0) == TokenKind::Symbol('@') {
            return true;
        }
        let is_has = |further: usize| {
            ahead(further) == TokenKind::Word && self.text_ahead(count + further) == "has"
        };
        ahead(0) == TokenKind::Word && ahead(1) == colon
            || is_has(0)
            || ahead(0) == TokenKind::Word
                && is_has(1)
                && ahead(2) == TokenKind::Word
                && ahead(3) == colon
    }

    pub(super) fn field(&mut self) -> Parsed<FieldSyntax> {
        let mut annotations = Vec::new();
        while self.is_symbol('@') {
            annotations.push(self.annotation()?);
            if self.opens_item() {
                return self.refuse("a field");
            }
            // An annotation often has a line of its own.
            self.start = self.at;
        }
        let colon = TokenKind::Symbol(':');
        let has_subject = self.kind() == TokenKind::Word
            && self.text_ahead(1) == "has"
            && self.kind_ahead(1) == TokenKind::Word
            && self.kind_ahead(2) == TokenKind::Word;
        if has_subject {
            self.advance();
        }
        if self.is_word("has") && self.kind_ahead(1) != colon {
            self.advance();
        }
        let name = self.name("the field's name")?;
        self.expect_symbol(':')?;
        if self.is_next_line() {
            return self.refuse("a type");
        }
        let value_type = self.value_type(0)?;
        self.trailing_annotations(&mut annotations)?;
        let mut default = None;
        if self.take_symbol('=') {
            if self.is_next_line() {
                return self.refuse("a value");
            }
            default = Some(self.literal(0)?);
        }
        self.trailing_annotations(&mut annotations)?;
        let has_condition = self.is_word("where") && self.kind_ahead(1) != colon;
        let mut condition = None;
        if has_condition {
            self.advance();
            self.may_begin_line = !self.field_begins_ahead(0);
            condition = Some(self.expression()?);
            self.trailing_annotations(&mut annotations)?;
        }
        self.end_of_field()?;
        Ok(FieldSyntax { annotations, name, value_type, default, condition })
    }

    fn end_of_field(&mut self) -> Parsed<()> {
        if self.take_symbol(',') || self.take_symbol(';') {
            return Ok(());
        }
        let begins_block = ["rule", "fun", "docs", "constraint"].contains(&self.text())
            && matches!(self.kind_ahead(1), TokenKind::Word | TokenKind::Symbol('{'));
        let is_over = self.is_next_line()
            || self.is_symbol('}')
            || begins_block
            || self.field_begins_ahead(0);
        if is_over { Ok(()) } else { self.refuse("the end of the field, '=' or 'where'") }
    }

    /// `name: String @crdt(lww)`: annotations that end their line belong to the field before them,
    /// all others to the field behind them.
    fn trailing_annotations(&mut self, annotations: &mut Vec<AnnotationSyntax>) -> Parsed<()> {
        let mut after = self.at;
        while self.tokens[after].kind == TokenKind::Symbol('@')
            && !self.tokens[after].begins_line
            && self.tokens[after + 1].kind == TokenKind::Word
        {
            after += 2;
            if self.tokens[after].kind == TokenKind::Symbol('(') {
                after = self.partners[after] + 1;
            }
        }
        let last = &self.tokens[after];
        let is_trailing = last.begins_line
            || match last.kind {
                TokenKind::End => true,
                TokenKind::Symbol(symbol) => ['}', ',', ';', '='].contains(&symbol),
                TokenKind::Word => &self.source[last.span.clone()] == "where",
                _ => false,
            };
        while is_trailing && self.at < after {
            annotations.push(self.annotation()?);
        }
        Ok(())
    }

    pub(super) fn annotation(&mut self) -> Parsed<AnnotationSyntax> {
        let start = self.span().start;
        self.expect_symbol('@')?;
        let name = self.name("crdt, index or personal")?;
        let span = start..name.span.end;
        let kind = match name.text.as_str() {
            "crdt" => self.strategy()?,
            "index" => AnnotationKind::Index,
            "personal" => AnnotationKind::Personal,
            other => {
                let message = format!("there is no annotation {}", quoted(&format!("@{other}")));
                let label = "expected @crdt, @index or @personal";
                let mut diagnostic = Diagnostic::error("E0105", &span, message).label(label);
                if let Some(near) = nearest(other, ANNOTATIONS) {
                    diagnostic = diagnostic.help(format!("did you mean '@{near}'?"));
                }
                self.push_once(diagnostic);
                return Err(Refused);
            }
        };
        Ok(AnnotationSyntax { span, kind })
    }

    fn strategy(&mut self) -> Parsed<AnnotationKind> {
        self.expect_symbol('(')?;
        let strategy = self.name("a strategy, such as lww")?;
        let mut options = Vec::new();
        while self.take_symbol(',') {
            let option = self.name("the name of an option")?;
            self.expect_symbol('=')?;
            options.push((option, self.literal(0)?));
        }
        self.expect_symbol(')')?;
        Ok(AnnotationKind::Crdt { strategy, options })
    }

    /// Any type; what it means is checked later.
    pub(super) fn value_type(&mut self, depth: usize) -> Parsed<TypeSyntax> {
        if depth > NESTING_MAX {
            return self.refuse_nesting();
        }
        let start = self.span().start;
        let kind = match self.kind() {
            TokenKind::Word
                if self.text() == "enum" && self.kind_ahead(1) == TokenKind::Symbol('{') =>
            {
                self.advance();
                TypeKind::Enum(self.variants("in this field")?)
            }
            TokenKind::Word => {
                let name = self.qualified_name("a type")?.text;
                let mut arguments = Vec::new();
                if self.take_symbol('<') {
                    arguments = self.types_until('>', depth)?;
                }
                TypeKind::Named { name, arguments }
            }
            TokenKind::Symbol(open @ ('{' | '[')) => {
                self.advance();
                let inner = Box::new(self.value_type(depth + 1)?);
                self.expect_symbol(if open == '{' { '}' } else { ']' })?;
                if open == '{' { TypeKind::Set(inner) } else { TypeKind::List(inner) }
            }
            TokenKind::Symbol('(') if self.kind_ahead(1) == TokenKind::Symbol(')') => {
                self.advance();
                self.advance();
                TypeKind::Tuple(Vec::new())
            }
            TokenKind::Symbol('(') => {
                self.advance();
                TypeKind::Tuple(self.types_until(')', depth)?)
            }
            _ => return self.refuse("a type, such as String"),
        };
        let span = start..self.end_before();
        if depth == 0 {
            self.layout.types.push(span.clone());
        }
        Ok(TypeSyntax { kind, span })
    }

    fn types_until(&mut self, close: char, depth: usize) -> Parsed<Vec<TypeSyntax>> {
        let mut types = vec![self.value_type(depth + 1)?];
        while self.take_symbol(',') {
            types.push(self.value_type(depth + 1)?);
        }
        if !self.take_symbol(close) {
            return self.refuse(&format!("',' or '{close}'"));
        }
        Ok(types)
    }

    pub(super) fn refuse_nesting<T>(&mut self) -> Parsed<T> {
        let message = format!("this is nested more than {NESTING_MAX} deep");
        self.push_once(Diagnostic::error("E0110", &self.span(), message).label("too deep"));
        Err(Refused)
    }

    pub(super) fn literal(&mut self, depth: usize) -> Parsed<LiteralSyntax> {
        if depth > NESTING_MAX {
            return self.refuse_nesting();
        }
        let start = self.span().start;
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
            TokenKind::Symbol('[') => {
                self.advance();
                let mut elements = Vec::new();
                while !self.is_symbol(']') {
                    elements.push(self.literal(depth + 1)?);
                    if !self.take_symbol(',') && !self.is_symbol(']') {
                        return self.refuse("',' or ']'");
                    }
                }
                Literal::List(elements)
            }
            _ => return self.refuse("a value, such as 1, true or \"text\""),
        };
        self.advance();
        Ok(LiteralSyntax { literal, span: start..self.end_before() })
    }
}

pub(super) fn number(text: &str, is_negative: bool) -> Option<Literal> {
    let digits = text.replace('_', "");
    if digits.contains(['.', 'e', 'E']) {
        let number: f64 = digits.parse().ok()?;
        let number = if is_negative { -number } else { number };
        return number.is_finite().then_some(Literal::Float(number));
    }
    let number: i128 = digits.parse().ok()?;
    let number = if is_negative { -number } else { number };
    (i64::MIN.into()..=u64::MAX.into()).contains(&number).then_some(Literal::Integer(number))
}
