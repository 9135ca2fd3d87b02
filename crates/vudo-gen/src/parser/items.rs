//! What stands at the top level: Gens, and what is kept without being executed.

use super::{Parsed, Parser, Refused};
use crate::lexer::{TokenKind, unquote};
use crate::syntax::{
    BlockKind, BlockLayout, BlockSyntax, EvolutionSyntax, FileSyntax, GenSyntax, ItemSyntax,
    StepSyntax, TypeSyntax, VariantSyntax,
};

/// Words that begin what belongs to a program and is no data: it is kept as it is.
const FOREIGN_WORDS: [&str; 17] = [
    "const", "impl", "rule", "type", "struct", "sex", "extern", "let", "var", "fn", "macro",
    "test", "spirit", "law", "effect", "static", "mod",
];

const KEYWORDS: [&str; 14] = [
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
    "exegesis",
    "fun",
    "pub",
];

const EXPECTED_ITEM: &str = "a Gen, as in `gen Task { ... }`";

impl Parser<'_> {
    pub(super) fn file(&mut self) -> FileSyntax {
        let mut items = Vec::new();
        while !self.is_end() {
            let before = self.begin();
            if self.take_symbol(';') {
                continue;
            }
            let start = self.span().start;
            match self.item() {
                Ok(item) => {
                    items.push(item);
                    self.layout.items.push(start);
                }
                Err(Refused) => self.skip_to_item(before),
            }
        }
        FileSyntax { items, layout: std::mem::take(&mut self.layout) }
    }

    /// Notes where the next piece of syntax begins.
    fn begin(&mut self) -> usize {
        self.start = self.at;
        self.at
    }

    /// How far this token is from the beginning of its line, in bytes.
    fn column(&self) -> usize {
        let before = &self.source[..self.span().start];
        before.len() - before.rfind('\n').map_or(0, |newline| newline + 1)
    }

    fn item(&mut self) -> Parsed<ItemSyntax> {
        if self.is_word("pub") && self.kind_ahead(1) == TokenKind::Word {
            self.advance();
        }
        if self.kind() != TokenKind::Word {
            return self.refuse(EXPECTED_ITEM);
        }
        // Columns are looked at where a line begins, so that one long line costs nothing.
        self.column = if self.token().begins_line { self.column() } else { usize::MAX };
        Ok(match self.text() {
            "gen" | "gene" => ItemSyntax::Gen(self.gen_item()?),
            "module" => {
                self.advance();
                let name = self.qualified_name("the module's name")?;
                ItemSyntax::Module { name, version: self.optional_version()? }
            }
            "use" => {
                self.advance();
                if self.is_next_line() {
                    return self.refuse("what is used");
                }
                ItemSyntax::Use(self.rest_of_line())
            }
            "enum" => self.enum_item()?,
            "evolves" | "evo" => ItemSyntax::Evolution(self.evolution()?),
            "trait" => ItemSyntax::Block(self.named_block(BlockKind::Trait)?),
            "constraint" => ItemSyntax::Block(self.named_block(BlockKind::Constraint)?),
            "system" => ItemSyntax::Block(self.named_block(BlockKind::System)?),
            "fun" => ItemSyntax::Block(self.named_block(BlockKind::Fun)?),
            "docs" | "exegesis" => ItemSyntax::Block(self.bare_block(BlockKind::Docs)?),
            word if FOREIGN_WORDS.contains(&word) && self.kind_ahead(1) == TokenKind::Word => {
                ItemSyntax::Statement(self.rest_of_line())
            }
            word => {
                let refusal = self.refusal(EXPECTED_ITEM).suggest(word, KEYWORDS);
                self.push_once(refusal);
                return Err(Refused);
            }
        })
    }

    /// Goes on at the next keyword that begins a line, outside the blocks that begin before it.
    fn skip_to_item(&mut self, before: usize) {
        if self.at == before {
            self.advance_over();
        }
        while !self.is_end() && !self.begins_item() {
            self.advance_over();
        }
    }

    /// Whether a keyword that is followed by a name, or a block, begins this line.
    fn begins_item(&self) -> bool {
        self.token().begins_line
            && self.kind() == TokenKind::Word
            && (KEYWORDS.contains(&self.text()) || FOREIGN_WORDS.contains(&self.text()))
            && matches!(self.kind_ahead(1), TokenKind::Word | TokenKind::Symbol('{'))
    }

    /// Whether an item with a block begins here: a Gen has no such member, so it was not closed.
    pub(super) fn opens_item(&self) -> bool {
        self.token().begins_line && self.resembles_item() && !self.is_constraint_of_gen()
    }

    /// Whether an item with a block stands here, at the beginning of a line or not.
    pub(super) fn resembles_item(&self) -> bool {
        let is_item = self.kind() == TokenKind::Word
            && KEYWORDS.contains(&self.text())
            && self.kind_ahead(1) == TokenKind::Word
            && !matches!(self.text(), "docs" | "exegesis" | "fun" | "pub" | "module" | "use");
        let mut line = self.tokens[self.at + 1..].iter().take_while(|token| !token.begins_line);
        is_item && line.any(|token| token.kind == TokenKind::Symbol('{'))
    }

    /// Whether this is a constraint that stands further in than the Gen around it.
    fn is_constraint_of_gen(&self) -> bool {
        self.is_word("constraint") && self.column != usize::MAX && self.column() > self.column
    }

    fn gen_item(&mut self) -> Parsed<GenSyntax> {
        self.advance();
        let name = self.qualified_name("the Gen's name")?;
        let mut parameters = Vec::new();
        if self.take_symbol('<') {
            parameters.push(self.name("a type parameter")?);
            while self.take_symbol(',') {
                parameters.push(self.name("a type parameter")?);
            }
            self.expect_symbol('>')?;
            self.layout.types.push(name.span.end..self.end_before());
        }
        let version = self.optional_version()?;
        let extends = match self.take_word("extends") {
            true => Some(self.qualified_name("the name of the Gen that is extended")?),
            false => None,
        };
        let open = self.span();
        self.expect_symbol('{')?;
        let mut members = Vec::new();
        let mut layout = BlockLayout::from(open.start);
        while !self.closes(&mut layout) {
            if self.is_end() || self.opens_item() {
                self.report_unclosed(&open, format!("the Gen {} is never closed", name.text));
                break;
            }
            let before = self.begin();
            let start = self.span().start;
            match self.member() {
                Ok(Some(member)) => {
                    members.push(member);
                    layout.members.push(start);
                }
                Ok(None) => {}
                Err(Refused) => self.skip_member(before),
            }
        }
        Ok(GenSyntax { name, parameters, version, extends, members })
    }

    /// Whether the block ends here; its layout is then kept.
    fn closes(&mut self, layout: &mut BlockLayout) -> bool {
        layout.close = self.span().start;
        let closes = self.take_symbol('}');
        if closes {
            self.layout.blocks.push(std::mem::replace(layout, BlockLayout::from(0)));
        }
        closes
    }

    /// Goes on at the next line, or behind the next separator, of the same block, and in any case
    /// further on than the member began.
    fn skip_member(&mut self, before: usize) {
        if self.at == before && !self.is_symbol('}') {
            self.advance_over();
        }
        while !self.is_end() && !self.is_symbol('}') && !self.token().begins_line {
            let is_separator = self.is_symbol(',') || self.is_symbol(';');
            self.advance_over();
            if is_separator {
                return;
            }
        }
    }

    fn enum_item(&mut self) -> Parsed<ItemSyntax> {
        self.advance();
        let name = self.qualified_name("the enum's name")?;
        let variants = self.variants(&name.text)?;
        Ok(ItemSyntax::Enum { name, variants })
    }

    /// `{ Open, Done }`
    pub(super) fn variants(&mut self, of: &str) -> Parsed<Vec<VariantSyntax>> {
        let open = self.span();
        self.expect_symbol('{')?;
        let mut variants = Vec::new();
        let mut layout = BlockLayout::from(open.start);
        while !self.closes(&mut layout) {
            if self.is_end() || self.opens_item() {
                self.report_unclosed(&open, format!("the enum {of} is never closed"));
                break;
            }
            let before = self.begin();
            let start = self.span().start;
            match self.variant() {
                Ok(variant) => {
                    variants.push(variant);
                    layout.members.push(start);
                }
                Err(Refused) => self.skip_member(before),
            }
        }
        Ok(variants)
    }

    fn variant(&mut self) -> Parsed<VariantSyntax> {
        let name = self.name("a variant")?;
        let start = self.span().start;
        if matches!(self.kind(), TokenKind::Symbol('(' | '{')) && !self.is_next_line() {
            self.advance_over();
        } else if self.take_symbol('=') {
            self.take_symbol('-');
            self.advance_over();
        }
        let payload = (self.span().start > start).then(|| start..self.end_before());
        if !self.take_symbol(',') && !self.is_symbol('}') {
            return self.refuse("',' or '}'");
        }
        Ok(VariantSyntax { name, payload })
    }

    /// `trait fruit.ripe { ... }`. Between the name and the block there may be a version, and for a
    /// function its parameters and result.
    pub(super) fn named_block(&mut self, kind: BlockKind) -> Parsed<BlockSyntax> {
        let start = self.span().start;
        self.advance();
        let name = self.qualified_name(&format!("the name of the {}", kind.keyword()))?;
        let head = start..name.span.end;
        let mut is_result = false;
        while is_result || !self.is_symbol('{') {
            if self.is_next_line() || self.is_symbol('}') {
                return self.refuse("'{'");
            }
            // `-> {T}` has braces that are not those of the block.
            is_result = self.is_symbol('-') && self.kind_ahead(1) == TokenKind::Symbol('>')
                || is_result && self.is_symbol('>') && self.kind_before() == TokenKind::Symbol('-');
            self.advance_over();
        }
        let body = self.block()?;
        self.layout.verbatim.push(start..self.end_before());
        Ok(BlockSyntax { kind, name: Some(name), head, body })
    }

    fn kind_before(&self) -> TokenKind {
        self.at.checked_sub(1).map_or(TokenKind::End, |before| self.tokens[before].kind)
    }

    /// `docs { ... }`
    pub(super) fn bare_block(&mut self, kind: BlockKind) -> Parsed<BlockSyntax> {
        let head = self.span();
        self.advance();
        let body = self.block()?;
        self.layout.verbatim.push(head.start..self.end_before());
        Ok(BlockSyntax { kind, name: None, head, body })
    }

    fn evolution(&mut self) -> Parsed<EvolutionSyntax> {
        self.advance();
        let name = self.qualified_name("the name of the Gen that evolves")?;
        self.expect_symbol('@')?;
        let left = self.version()?;
        self.expect_symbol('>')?;
        let right = self.version()?;
        let open = self.span();
        self.expect_symbol('{')?;
        let mut steps = Vec::new();
        let mut layout = BlockLayout::from(open.start);
        while !self.closes(&mut layout) {
            if self.is_end() || self.opens_item() {
                let message = format!("the evolution of {} is never closed", name.text);
                self.report_unclosed(&open, message);
                break;
            }
            let before = self.begin();
            layout.members.push(self.span().start);
            match self.step() {
                Ok(step) => steps.push(step),
                Err(Refused) => self.skip_member(before),
            }
        }
        Ok(EvolutionSyntax { name, left, right, steps })
    }

    fn step(&mut self) -> Parsed<StepSyntax> {
        if self.kind() != TokenKind::Word {
            return self.refuse("a step, such as `adds` or `renames`");
        }
        let names_one_field = self.names_one_field();
        Ok(match self.text() {
            "adds" if self.field_begins_ahead(1) => {
                self.advance();
                StepSyntax::Adds(self.field()?)
            }
            "removes" if names_one_field => {
                self.advance();
                StepSyntax::Removes(self.name("the field")?)
            }
            "deprecates" if names_one_field => {
                self.advance();
                StepSyntax::Deprecates(self.name("the field")?)
            }
            "renames" => {
                self.advance();
                let from = self.name("the field's old name")?;
                self.expect_word("to")?;
                StepSyntax::Renames { from, to: self.name("the field's new name")? }
            }
            "changes" => self.changes()?,
            "because" => {
                self.advance();
                if self.kind() != TokenKind::Text {
                    return self.refuse("the reason in quotation marks");
                }
                let reason = unquote(self.text());
                self.advance();
                StepSyntax::Because(reason)
            }
            "migrate" => StepSyntax::Migrate(self.bare_block(BlockKind::Migrate)?),
            _ => StepSyntax::Statement(self.rest_of_line()),
        })
    }

    /// Whether one word, and nothing else, follows on this line.
    fn names_one_field(&self) -> bool {
        let is_over = self.tokens.get(self.at + 2).is_none_or(|token| token.begins_line)
            || matches!(self.kind_ahead(2), TokenKind::End | TokenKind::Symbol('}'));
        self.kind_ahead(1) == TokenKind::Word && is_over
    }

    fn expect_word(&mut self, word: &str) -> Parsed<()> {
        if self.take_word(word) {
            return Ok(());
        }
        let refusal = self.refusal(&format!("'{word}'")).suggest(self.text(), [word]);
        self.push_once(refusal);
        Err(Refused)
    }

    fn changes(&mut self) -> Parsed<StepSyntax> {
        self.advance();
        let name = self.name("the field that changes")?;
        self.expect_word("from")?;
        let from = (self.annotation()?, self.type_unless("to")?);
        self.expect_word("to")?;
        let to = (self.annotation()?, self.type_unless("with")?);
        let mut with = None;
        if self.take_word("with") {
            with = Some(self.expression()?);
        }
        Ok(StepSyntax::Changes { name, from, to, with })
    }

    fn type_unless(&mut self, word: &str) -> Parsed<Option<TypeSyntax>> {
        if self.is_word(word) || self.is_next_line() || self.is_symbol('}') {
            return Ok(None);
        }
        self.value_type(0).map(Some)
    }
}
