//! What the parser makes of a file: names, types and literals with their places.

use std::ops::Range;

#[derive(Debug, Default)]
pub(crate) struct FileSyntax {
    pub(crate) gens: Vec<GenSyntax>,
}

#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

#[derive(Debug)]
pub(crate) struct GenSyntax {
    pub(crate) name: Name,
    pub(crate) fields: Vec<FieldSyntax>,
}

#[derive(Debug)]
pub(crate) struct FieldSyntax {
    pub(crate) name: Name,
    pub(crate) strategy: Option<StrategySyntax>,
    pub(crate) value_type: TypeSyntax,
    pub(crate) default: Option<LiteralSyntax>,
}

#[derive(Debug)]
pub(crate) struct StrategySyntax {
    pub(crate) name: Name,
    pub(crate) options: Vec<(Name, LiteralSyntax)>,
}

#[derive(Debug)]
pub(crate) struct TypeSyntax {
    /// As it stands in the source.
    pub(crate) text: String,
    /// Whether it is one word, without arguments or brackets.
    pub(crate) is_plain: bool,
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct LiteralSyntax {
    pub(crate) literal: Literal,
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    None,
    /// A bare word, such as a variant or the strategy inside a map.
    Word(String),
    /// `[..]`: kept as a whole.
    List,
}
