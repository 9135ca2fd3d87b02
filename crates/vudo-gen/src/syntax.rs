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
        variants: Vec<Name>,
    },
    /// `evolves Task @ 1.0.0 > 1.1.0 { ... }`
    Evolution(EvolutionSyntax),
    /// A trait, constraint, system, function or documentation.
    Block(BlockSyntax),
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
    /// A rule, function or documentation.
    Block(BlockSyntax),
    /// A line of words, such as `container has identity`.
    Statement(Name),
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
    Rule,
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
            BlockKind::Rule => "rule",
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
        with: Option<Range<usize>>,
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
    /// From `where` to the end of the expression.
    pub condition: Option<Range<usize>>,
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
