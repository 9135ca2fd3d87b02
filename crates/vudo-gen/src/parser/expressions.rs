//! Expressions, by precedence climbing: `or`, `and`, `not`, comparisons, sums, products, signs, then
//! members and calls. An expression goes on over lines that begin with an operator.

use std::ops::Range;

use super::{NESTING_MAX, Parsed, Parser, Refused};
use crate::diagnostic::{Diagnostic, quoted};
use crate::lexer::{Token, TokenKind, unquote};
use crate::syntax::{
    BinaryOperator, BlockLayout, ExpressionKind, ExpressionSyntax, Literal, Name, RuleSyntax,
    UnaryOperator,
};

/// An expression of more parts is refused: nobody reads it, and it would be evaluated at each write.
const PARTS_MAX: usize = 200;

/// How tightly operators bind, from loose to tight.
const PRECEDENCE: [&[(&str, BinaryOperator)]; 5] = [
    &[("or", BinaryOperator::Or), ("||", BinaryOperator::Or)],
    &[("and", BinaryOperator::And), ("&&", BinaryOperator::And)],
    // Longer ones first, as they begin with the shorter ones.
    &[
        ("==", BinaryOperator::Equal),
        ("!=", BinaryOperator::NotEqual),
        ("<=", BinaryOperator::LessOrEqual),
        (">=", BinaryOperator::GreaterOrEqual),
        ("<", BinaryOperator::Less),
        (">", BinaryOperator::Greater),
        ("in", BinaryOperator::In),
    ],
    &[("+", BinaryOperator::Add), ("-", BinaryOperator::Subtract)],
    &[
        ("*", BinaryOperator::Multiply),
        ("/", BinaryOperator::Divide),
        ("%", BinaryOperator::Remainder),
    ],
];
const COMPARISONS: usize = 2;

/// Words that begin what is a program and no expression.
const FOREIGN_WORDS: [&str; 14] = [
    "for", "let", "if", "match", "return", "forall", "while", "each", "all", "every", "exists",
    "var", "when", "requires",
];

impl Parser<'_> {
    /// An expression.
    pub(super) fn expression(&mut self) -> Parsed<ExpressionSyntax> {
        self.part_count = 0;
        self.binary(0, 0)
    }

    /// Whether what begins here is in words (`container has identity`) or in the statements of a
    /// program, so that it is kept and not taken for an expression.
    pub(super) fn is_foreign(&self) -> bool {
        if self.kind() != TokenKind::Word {
            return false;
        }
        let is_word_ahead = self.kind_ahead(1) == TokenKind::Word
            && !["and", "or", "in", "not"].contains(&self.text_ahead(1));
        FOREIGN_WORDS.contains(&self.text())
            && !matches!(self.kind_ahead(1), TokenKind::Symbol('.' | '=' | '<' | '>' | '!'))
            || is_word_ahead && self.text() != "not"
    }

    fn binary(&mut self, level: usize, depth: usize) -> Parsed<ExpressionSyntax> {
        let Some(operators) = PRECEDENCE.get(level) else {
            return self.unary(depth);
        };
        if level == COMPARISONS && (self.is_word("not") || self.begins_not()) {
            return self.not(depth);
        }
        let mut left = self.binary(level + 1, depth)?;
        let mut is_compared = false;
        loop {
            let operator_at = self.at;
            let Some(operator) = self.take_operator(operators) else { break };
            if level == COMPARISONS && std::mem::replace(&mut is_compared, true) {
                self.at = operator_at;
                return self.refuse("'and' between two comparisons");
            }
            let right = self.binary(level + 1, depth)?;
            let span = left.span.start..right.span.end;
            let kind = ExpressionKind::Binary(operator, Box::new(left), Box::new(right));
            left = self.part(kind, span)?;
        }
        Ok(left)
    }

    /// `!x`, and not the beginning of `!=`.
    fn begins_not(&self) -> bool {
        self.is_symbol('!') && !self.touches_next('=')
    }

    fn not(&mut self, depth: usize) -> Parsed<ExpressionSyntax> {
        let start = self.span().start;
        self.check_depth(depth)?;
        self.advance();
        let operand = self.binary(COMPARISONS, depth + 1)?;
        let span = start..operand.span.end;
        self.part(ExpressionKind::Unary(UnaryOperator::Not, Box::new(operand)), span)
    }

    fn unary(&mut self, depth: usize) -> Parsed<ExpressionSyntax> {
        let start = self.span().start;
        if self.is_symbol('-') {
            self.check_depth(depth)?;
            self.advance();
            if self.kind() == TokenKind::Number {
                return self.number(start, true);
            }
            let operand = self.unary(depth + 1)?;
            let span = start..operand.span.end;
            return self
                .part(ExpressionKind::Unary(UnaryOperator::Negate, Box::new(operand)), span);
        }
        if self.begins_not() {
            self.check_depth(depth)?;
            self.advance();
            let operand = self.unary(depth + 1)?;
            let span = start..operand.span.end;
            return self.part(ExpressionKind::Unary(UnaryOperator::Not, Box::new(operand)), span);
        }
        let mut expression = self.primary(depth)?;
        while self.is_symbol('.') && self.kind_ahead(1) == TokenKind::Word {
            self.advance();
            let name = self.name("a field or a method")?;
            let is_call = self.is_symbol('(') && !self.token().begins_line;
            let kind = if is_call {
                let arguments = self.expressions_until('(', ')', depth)?;
                ExpressionKind::Call(Box::new(expression), name, arguments)
            } else {
                ExpressionKind::Member(Box::new(expression), name)
            };
            expression = self.part(kind, start..self.end_before())?;
        }
        Ok(expression)
    }

    fn primary(&mut self, depth: usize) -> Parsed<ExpressionSyntax> {
        const EXPECTED: &str = "a field, a number, a text or '('";
        let span = self.span();
        if self.is_next_line() && !self.may_begin_line {
            return self.refuse(EXPECTED);
        }
        self.may_begin_line = false;
        match self.kind() {
            TokenKind::Symbol('(') => {
                self.check_depth(depth)?;
                self.advance();
                self.may_begin_line = true;
                let inside = self.binary(0, depth + 1)?;
                self.expect_symbol(')')?;
                // The span takes the parentheses in, so that whoever shows it shows all of it.
                Ok(ExpressionSyntax { span: span.start..self.end_before(), ..inside })
            }
            TokenKind::Symbol('[') => {
                let elements = self.expressions_until('[', ']', depth)?;
                self.part(ExpressionKind::List(elements), span.start..self.end_before())
            }
            TokenKind::Number => self.number(span.start, false),
            TokenKind::Text => {
                let literal = Literal::Text(unquote(self.text()));
                self.advance();
                self.part(ExpressionKind::Literal(literal), span)
            }
            TokenKind::Word => {
                let kind = match self.text() {
                    "true" => ExpressionKind::Literal(Literal::Bool(true)),
                    "false" => ExpressionKind::Literal(Literal::Bool(false)),
                    "none" => ExpressionKind::Literal(Literal::None),
                    "this" => ExpressionKind::This,
                    word => ExpressionKind::Name(word.to_owned()),
                };
                self.advance();
                if self.is_symbol('(') && !self.token().begins_line {
                    let message =
                        format!("there is no function {}", quoted(&self.source[span.clone()]));
                    let diagnostic = Diagnostic::error("E0506", &span, message)
                        .label("expected a field: an expression reads its record and nothing else")
                        .help("clocks and randomness would make replicas differ");
                    self.push_once(diagnostic);
                    return Err(Refused);
                }
                self.part(kind, span)
            }
            _ => self.refuse(EXPECTED),
        }
    }

    fn number(&mut self, start: usize, is_negative: bool) -> Parsed<ExpressionSyntax> {
        let Some(literal) = super::fields::number(self.text(), is_negative) else {
            return self.refuse("a number that fits 64 bits");
        };
        self.advance();
        self.part(ExpressionKind::Literal(literal), start..self.end_before())
    }

    fn expressions_until(
        &mut self,
        open: char,
        close: char,
        depth: usize,
    ) -> Parsed<Vec<ExpressionSyntax>> {
        self.check_depth(depth)?;
        self.expect_symbol(open)?;
        let mut expressions = Vec::new();
        while !self.is_symbol(close) {
            self.may_begin_line = true;
            expressions.push(self.binary(0, depth + 1)?);
            if !self.take_symbol(',') && !self.is_symbol(close) {
                return self.refuse(&format!("',' or '{close}'"));
            }
        }
        self.advance();
        Ok(expressions)
    }

    /// Takes the operator that stands here, if it is one of these. A word at the beginning of a line
    /// with a colon behind it is a field.
    fn take_operator(&mut self, operators: &[(&str, BinaryOperator)]) -> Option<BinaryOperator> {
        let found = operators.iter().find(|(symbol, _)| self.is_operator(symbol))?;
        let is_word = self.kind() == TokenKind::Word;
        let count = if is_word { 1 } else { found.0.len() };
        (0..count).for_each(|_| self.advance());
        self.may_begin_line = true;
        Some(found.1)
    }

    fn is_operator(&self, symbol: &str) -> bool {
        let mut characters = symbol.chars();
        match (characters.next(), characters.next()) {
            (Some(first), _) if first.is_alphabetic() => {
                self.is_word(symbol) && self.kind_ahead(1) != TokenKind::Symbol(':')
            }
            (Some(first), Some(second)) => self.is_symbol(first) && self.touches_next(second),
            // A lone `&`, `|` or `=` is none, and `->` no difference.
            (Some(first), None) => self.is_symbol(first),
            _ => false,
        }
    }

    /// Whether the next token is this symbol, without white space before it.
    fn touches_next(&self, symbol: char) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|next| {
            next.kind == TokenKind::Symbol(symbol) && next.span.start == self.span().end
        })
    }

    fn check_depth(&mut self, depth: usize) -> Parsed<()> {
        if depth >= NESTING_MAX { self.refuse_nesting() } else { Ok(()) }
    }

    /// One more part of the expression.
    fn part(&mut self, kind: ExpressionKind, span: Range<usize>) -> Parsed<ExpressionSyntax> {
        self.part_count += 1;
        if self.part_count > PARTS_MAX {
            let message = format!("an expression has at most {PARTS_MAX} parts");
            let diagnostic = Diagnostic::error("E0112", &span, message).label("too long");
            self.push_once(diagnostic);
            return Err(Refused);
        }
        Ok(ExpressionSyntax { kind, span })
    }

    /// `rule adult { this.age >= 18 }`
    pub(super) fn rule(&mut self) -> Parsed<RuleSyntax> {
        let start = self.span().start;
        let is_rule = self.is_word("rule");
        self.advance();
        let name: Name = self.qualified_name("the name of the rule")?;
        let head = start..name.span.end;
        let opened_at = self.at;
        let body = self.block()?;
        let closed_at = self.partners[opened_at];
        let after = self.at;
        self.at = opened_at + 1;
        let is_empty = self.at == closed_at;
        let is_foreign = is_empty || self.is_foreign() || !is_rule && self.begins_in_words();
        let assigned = self.assigned(opened_at + 1..closed_at);
        let mut expression = None;
        if !is_foreign && assigned.is_empty() {
            self.may_begin_line = true;
            expression = match self.expression() {
                Ok(expression) if self.at == closed_at => Some(expression),
                Ok(_) => {
                    self.start = self.at;
                    let _ = self.refuse::<()>("an operator such as 'and', or '}'");
                    None
                }
                Err(_) => None,
            };
        }
        self.at = after;
        if expression.is_some() {
            let (open, close) = (body.start - 1, body.end);
            let members = vec![self.tokens[opened_at + 1].span.start];
            self.layout.blocks.push(BlockLayout { open, members, close });
        } else {
            self.layout.verbatim.push(start..body.end + 1);
        }
        Ok(RuleSyntax { name, head, body, expression, is_foreign, assigned })
    }

    /// What stands before a lone `=` within these tokens.
    fn assigned(&self, body: Range<usize>) -> Vec<Name> {
        let symbol = |index: usize| match self.tokens[index].kind {
            TokenKind::Symbol(symbol) => symbol,
            _ => ' ',
        };
        let is_assignment = |index: &usize| {
            symbol(*index) == '='
                && self.tokens[index - 1].kind == TokenKind::Word
                && symbol(index + 1) != '='
        };
        let names = body.filter(is_assignment).map(|index| {
            let span = self.tokens[index - 1].span.clone();
            Name { text: self.source[span.clone()].to_owned(), span }
        });
        names.collect()
    }

    /// Whether the line is in words behind a path: `balance.total always >= 0`.
    fn begins_in_words(&self) -> bool {
        let mut line = self.tokens[self.at..].iter().enumerate();
        line.by_ref()
            .take_while(|(index, token)| *index == 0 || !token.begins_line)
            .zip(self.tokens[self.at + 1..].iter())
            .take(8)
            .any(|((_, token), next)| {
                let text = |token: &Token| &self.source[token.span.clone()];
                let is_operator = |token| ["and", "or", "in", "not"].contains(&text(token));
                token.kind == TokenKind::Word
                    && next.kind == TokenKind::Word
                    && !next.begins_line
                    && !is_operator(token)
                    && !is_operator(next)
            })
    }
}
