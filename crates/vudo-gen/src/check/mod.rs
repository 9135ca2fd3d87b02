//! A syntax tree to a schema: what the words mean, and whether they go together.

mod fields;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use vudo_crdt::{GenSchema, Schema, limits};

use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::lock::Lock;
use crate::syntax::{
    AnnotationKind, BlockKind, BlockSyntax, FieldSyntax, FileSyntax, GenSyntax, ItemSyntax,
    MemberSyntax, Name,
};

/// The types that the sources declare, known before any field is looked at.
#[derive(Default)]
pub(crate) struct Declarations<'a> {
    /// By name, what it is and the index of the source that declares it first.
    types: BTreeMap<&'a str, (Declared, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Declared {
    Gen,
    Enum,
}

impl<'a> Declarations<'a> {
    pub(crate) fn add(&mut self, syntax: &'a FileSyntax, file: usize) {
        for item in &syntax.items {
            let (name, kind) = match item {
                ItemSyntax::Gen(syntax) => (&syntax.name, Declared::Gen),
                ItemSyntax::Enum { name, .. } => (name, Declared::Enum),
                _ => continue,
            };
            self.types.entry(&name.text).or_insert((kind, file));
        }
    }
}

/// Checks the sources one after the other, and collects their Gens.
pub(crate) struct Checker<'a> {
    declarations: &'a Declarations<'a>,
    /// The names of the sources.
    file_names: &'a [&'a str],
    gen_names: BTreeSet<&'a str>,
    schema: Schema,
}

/// What checking one source needs beside the source.
struct File<'a> {
    lock: &'a mut Lock,
    diagnostics: &'a mut Diagnostics,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(
        declarations: &'a Declarations<'a>,
        file_names: &'a [&'a str],
    ) -> Checker<'a> {
        let (gen_names, schema) = (BTreeSet::new(), Schema::default());
        Checker { declarations, file_names, gen_names, schema }
    }

    /// The Gens of all sources. Fields that are in error are left out.
    pub(crate) fn into_schema(self) -> Schema {
        self.schema
    }

    pub(crate) fn file(
        &mut self,
        syntax: &'a FileSyntax,
        lock: &mut Lock,
        diagnostics: &mut Diagnostics,
    ) {
        let mut file = File { lock, diagnostics };
        for item in &syntax.items {
            match item {
                ItemSyntax::Gen(syntax) => self.gen_item(syntax, &mut file),
                ItemSyntax::Use(path) => file.kept(&format!("use {}", path.text), &path.span),
                ItemSyntax::Enum { name, .. } => {
                    file.kept(&format!("enum {}", name.text), &name.span);
                }
                ItemSyntax::Evolution(evolution) => {
                    let name = &evolution.name;
                    file.kept(&format!("evolves {}", name.text), &name.span);
                }
                ItemSyntax::Block(block) => file.block(block),
                ItemSyntax::Module { .. } => {}
            }
        }
    }

    fn gen_item(&mut self, syntax: &'a GenSyntax, file: &mut File<'_>) {
        if let Some(base) = &syntax.extends {
            let message = kept(&format!("extends {}", base.text));
            let label = "the fields of that Gen are not in this one yet";
            file.diagnostics.push(Diagnostic::warning("W0401", &base.span, message).label(label));
        }
        let is_good = self.is_good_gen_name(&syntax.name, file);
        let mut names = BTreeSet::new();
        let mut fields = Vec::new();
        for member in &syntax.members {
            match member {
                MemberSyntax::Field(field) => {
                    file.kept_of_field(field);
                    if !names.insert(field.name.text.as_str()) {
                        file.declared_again(field, &syntax.name);
                    } else {
                        fields.extend(self.field(&syntax.name, field, file));
                    }
                }
                MemberSyntax::Block(block) => file.block(block),
                MemberSyntax::Statement(line) => file.kept(&line.text, &line.span),
            }
        }
        if is_good {
            self.schema.gens.push(GenSchema { name: syntax.name.text.clone(), fields });
        }
    }

    fn is_good_gen_name(&mut self, name: &'a Name, file: &mut File<'_>) -> bool {
        if !file.is_short(name) {
            return false;
        }
        if !self.gen_names.insert(&name.text) {
            let message = format!("there is a Gen {} already", quoted(&name.text));
            let mut diagnostic =
                Diagnostic::error("E0202", &name.span, message).label("declared again");
            if let Some((_, first)) = self.declarations.types.get(name.text.as_str()) {
                diagnostic =
                    diagnostic.help(format!("the first is in {}", self.file_names[*first]));
            }
            file.diagnostics.push(diagnostic);
            return false;
        }
        if self.gen_names.len() > limits::MAX_GENS {
            let message = format!("a schema holds at most {} Gens", limits::MAX_GENS);
            file.diagnostics
                .push(Diagnostic::error("E0208", &name.span, message).label("one too many"));
            return false;
        }
        true
    }
}

/// What is said of something that was understood and has no effect yet.
fn kept(what: &str) -> String {
    format!("{}: kept, not executed in this version", quoted(what))
}

impl File<'_> {
    fn kept(&mut self, what: &str, span: &Range<usize>) {
        let label = "has no effect yet";
        self.diagnostics.push(Diagnostic::warning("W0401", span, kept(what)).label(label));
    }

    /// Documentation has no effect by nature, so nothing is said of it.
    fn block(&mut self, block: &BlockSyntax) {
        if let (Some(name), true) = (&block.name, block.kind != BlockKind::Docs) {
            self.kept(&format!("{} {}", block.kind.keyword(), name.text), &block.head);
        }
    }

    fn kept_of_field(&mut self, field: &FieldSyntax) {
        for annotation in &field.annotations {
            match annotation.kind {
                AnnotationKind::Crdt { .. } => {}
                AnnotationKind::Index => self.kept("@index", &annotation.span),
                AnnotationKind::Personal => {
                    let message = "@personal: kept; not yet encrypted: it syncs like any field";
                    let warning = Diagnostic::warning("W0402", &annotation.span, message.into());
                    self.diagnostics.push(warning.label("has no effect yet"));
                }
            }
        }
        if let Some(span) = &field.condition {
            self.kept("where", span);
        }
    }

    fn declared_again(&mut self, field: &FieldSyntax, gen_name: &Name) {
        let message = format!("{} has a field {} already", gen_name.text, quoted(&field.name.text));
        let diagnostic = Diagnostic::error("E0203", &field.name.span, message);
        self.diagnostics.push(diagnostic.label("declared again"));
    }

    fn is_short(&mut self, name: &Name) -> bool {
        let is_short = name.text.len() <= limits::MAX_GEN_NAME_BYTES;
        if !is_short {
            let message = format!("a name has at most {} bytes", limits::MAX_GEN_NAME_BYTES);
            self.diagnostics
                .push(Diagnostic::error("E0201", &name.span, message).label("too long"));
        }
        is_short
    }
}
