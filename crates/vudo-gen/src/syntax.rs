//! What the parser makes of a file: a tree in which everything has its place in the source.
//!
//! All of the language is here, also what this version does not execute: of that the tree keeps the
//! name and the place of the text, so that formatters and later versions need no other parser.

use std::ops::Range;

/// A file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileSyntax {
    /// In the order of the source.
    pub items: Vec<ItemSyntax>,
    /// What the formatter goes by.
    pub layout: Layout,
}

/// Where the pieces of a file lie that are laid out, in bytes. Each list is ascending by the end of
/// its pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The first token of each item.
    pub items: Vec<usize>,
    /// The blocks of members.
    pub blocks: Vec<BlockLayout>,
    /// The types, in which angle brackets and braces are no operators and blocks.
    pub types: Vec<Range<usize>>,
    /// What keeps its own layout: versions, and what is kept as text.
    pub verbatim: Vec<Range<usize>>,
}

/// Where the members of a block begin, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    /// The opening brace.
    pub open: usize,
    /// Each member's first token.
    pub members: Vec<usize>,
    /// The closing brace.
    pub close: usize,
}

impl From<usize> for BlockLayout {
    /// A block that begins here and has no members yet.
    fn from(open: usize) -> BlockLayout {
        BlockLayout { open, members: Vec::new(), close: open }
    }
}

/// What stands at the top level of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemSyntax {
    /// `module social @ 0.1.0`
    Module {
        /// Its name.
        name: Name,
        /// Its version.
        version: Option<Name>,
    },
    /// `use other.things`: the path as it is written.
    Use(Name),
    /// `gen Task { ... }`
    Gen(GenSyntax),
    /// `enum Colour { Red, Green }`
    Enum {
        /// Its name.
        name: Name,
        /// In the order of the source.
        variants: Vec<VariantSyntax>,
    },
    /// `evolves Task @ 1.0.0 > 1.1.0 { ... }`
    Evolution(EvolutionSyntax),
    /// A trait, constraint, system, function or documentation.
    Block(BlockSyntax),
    /// A declaration of a program, such as `const LIMIT: i64 = 3`, which is not data.
    Statement(Name),
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantSyntax {
    /// Its name.
    pub name: Name,
    /// `(f64)` or `{ x: f64 }` or `= 3` behind the name.
    pub payload: Option<Range<usize>>,
}

/// A word, words joined by dots, or a line of words, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// Without the white space that the source may have around dots.
    pub text: String,
    /// In bytes.
    pub span: Range<usize>,
}

/// A record type.
#[derive(Clone, Debug, PartialEq)]
pub struct GenSyntax {
    /// `Task` or `chat.message`.
    pub name: Name,
    /// `T` in `gen Box<T>`.
    pub parameters: Vec<Name>,
    /// `1.2.0`
    pub version: Option<Name>,
    /// The Gen whose fields this one has as well.
    pub extends: Option<Name>,
    /// In the order of the source.
    pub members: Vec<MemberSyntax>,
}

/// What stands inside a Gen.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberSyntax {
    /// `has title: String`
    Field(FieldSyntax),
    /// `rule adult { this.age >= 18 }`
    Rule(RuleSyntax),
    /// `enum { Open, Done }`: the Gen is an enum, in another spelling.
    Enum(Vec<VariantSyntax>),
    /// A function or documentation.
    Block(BlockSyntax),
    /// A line of words, such as `container has identity`.
    Statement(Name),
}

/// A condition that every document of a Gen is to meet.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSyntax {
    /// What a write that breaks it is refused with.
    pub name: Name,
    /// From the keyword to the name.
    pub head: Range<usize>,
    /// Between the braces.
    pub body: Range<usize>,
    /// `None` where the body is in words or in a language of its own, and where it is in error.
    pub expression: Option<ExpressionSyntax>,
    /// Whether the body is in words or in a language of its own.
    pub is_foreign: bool,
    /// The fields that the body assigns, which a condition must not.
    pub assigned: Vec<Name>,
}

/// A piece of text in braces that is kept as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSyntax {
    /// What it is.
    pub kind: BlockKind,
    /// Documentation and migrations have none.
    pub name: Option<Name>,
    /// From the keyword to the name.
    pub head: Range<usize>,
    /// Between the braces, which are balanced.
    pub body: Range<usize>,
}

/// What a block of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the keywords.
pub enum BlockKind {
    Trait,
    Constraint,
    System,
    Fun,
    Docs,
    Migrate,
}

impl BlockKind {
    /// As it is written.
    pub fn keyword(self) -> &'static str {
        match self {
            BlockKind::Trait => "trait",
            BlockKind::Constraint => "constraint",
            BlockKind::System => "system",
            BlockKind::Fun => "fun",
            BlockKind::Docs => "docs",
            BlockKind::Migrate => "migrate",
        }
    }
}

/// How one version of a Gen becomes the next.
#[derive(Clone, Debug, PartialEq)]
pub struct EvolutionSyntax {
    /// The Gen.
    pub name: Name,
    /// The version on the left of `>`.
    pub left: Name,
    /// The version on the right of `>`.
    pub right: Name,
    /// In the order of the source.
    pub steps: Vec<StepSyntax>,
}

/// One line of an evolution.
#[derive(Clone, Debug, PartialEq)]
pub enum StepSyntax {
    /// `adds has done: Bool`
    Adds(FieldSyntax),
    /// `removes done`
    Removes(Name),
    /// `deprecates done`
    Deprecates(Name),
    /// `renames done to finished`
    Renames {
        /// The old name.
        from: Name,
        /// The new name.
        to: Name,
    },
    /// `changes votes from @crdt(lww) i32 to @crdt(pn_counter) i64 with this.votes`
    Changes {
        /// The field.
        name: Name,
        /// What it was.
        from: (AnnotationSyntax, Option<TypeSyntax>),
        /// What it becomes.
        to: (AnnotationSyntax, Option<TypeSyntax>),
        /// The expression that converts a value.
        with: Option<ExpressionSyntax>,
    },
    /// `because "the reason"`
    Because(String),
    /// `migrate { ... }`
    Migrate(BlockSyntax),
    /// Any other line, such as `adds container is paused`.
    Statement(Name),
}

/// A field of a record type.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSyntax {
    /// In the order of the source.
    pub annotations: Vec<AnnotationSyntax>,
    /// Its name.
    pub name: Name,
    /// What it holds.
    pub value_type: TypeSyntax,
    /// What a reader sees while nobody has written it.
    pub default: Option<LiteralSyntax>,
    /// What follows `where`.
    pub condition: Option<ExpressionSyntax>,
}

/// An annotation of a field.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnotationSyntax {
    /// The sign and the word.
    pub span: Range<usize>,
    /// What it says.
    pub kind: AnnotationKind,
}

/// What an annotation says.
#[derive(Clone, Debug, PartialEq)]
pub enum AnnotationKind {
    /// `@crdt(lww, tie_break = "content")`
    Crdt {
        /// `lww`
        strategy: Name,
        /// `tie_break` and `"content"`
        options: Vec<(Name, LiteralSyntax)>,
    },
    /// `@personal`
    Personal,
    /// `@index`
    Index,
}

/// A type and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeSyntax {
    /// What it is made of.
    pub kind: TypeKind,
    /// In bytes.
    pub span: Range<usize>,
}

/// What a type is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum TypeKind {
    /// `String`, `Map<String, i64>`
    Named {
        /// The word, or words with dots.
        name: String,
        /// Between the angle brackets.
        arguments: Vec<TypeSyntax>,
    },
    /// `{T}`
    Set(Box<TypeSyntax>),
    /// `[T]`
    List(Box<TypeSyntax>),
    /// `(A, B)`
    Tuple(Vec<TypeSyntax>),
    /// `enum { Open, Done }`
    Enum(Vec<VariantSyntax>),
}

/// A literal and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct LiteralSyntax {
    /// What it says.
    pub literal: Literal,
    /// In bytes.
    pub span: Range<usize>,
}

/// What a literal says.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `"text"`, its escapes resolved.
    Text(String),
    /// `i64::MIN <= number <= u64::MAX`
    Integer(i128),
    /// Finite.
    Float(f64),
    /// `true` or `false`
    Bool(bool),
    /// `none`
    None,
    /// A bare word, such as a variant or the strategy inside a map.
    Word(String),
    /// `[1, 2]`
    List(Vec<LiteralSyntax>),
}

/// An expression and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpressionSyntax {
    /// What it is made of.
    pub kind: ExpressionKind,
    /// In bytes.
    pub span: Range<usize>,
}

/// What an expression is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpressionKind {
    /// `1`, `"text"`, `true`, `none`; never a word or a list.
    Literal(Literal),
    /// `[1, 2]`
    List(Vec<ExpressionSyntax>),
    /// `age`: a field of this record, or a variant of an enum.
    Name(String),
    /// `this`
    This,
    /// `this.age`, `this.address.city`, `Colour.Red`
    Member(Box<ExpressionSyntax>, Name),
    /// `-x`, `not x`
    Unary(UnaryOperator, Box<ExpressionSyntax>),
    /// `x + y`, `x and y`, `x in [1, 2]`
    Binary(BinaryOperator, Box<ExpressionSyntax>, Box<ExpressionSyntax>),
    /// `this.tags.contains("a")`
    Call(Box<ExpressionSyntax>, Name, Vec<ExpressionSyntax>),
}

/// An operator before its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it all.
pub enum UnaryOperator {
    Negate,
    Not,
}

/// An operator between its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it all.
pub enum BinaryOperator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl BinaryOperator {
    /// As it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOperator::Or => "or",
            BinaryOperator::And => "and",
            BinaryOperator::Equal => "==",
            BinaryOperator::NotEqual => "!=",
            BinaryOperator::Less => "<",
            BinaryOperator::LessOrEqual => "<=",
            BinaryOperator::Greater => ">",
            BinaryOperator::GreaterOrEqual => ">=",
            BinaryOperator::In => "in",
            BinaryOperator::Add => "+",
            BinaryOperator::Subtract => "-",
            BinaryOperator::Multiply => "*",
            BinaryOperator::Divide => "/",
            BinaryOperator::Remainder => "%",
        }
    }
}
