//! A syntax tree to a model: what the words mean, and whether they go together.

pub(crate) mod evolution;
mod fields;
pub(crate) mod rules;
mod strategies;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use vudo_crdt::limits;

use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::lock::Lock;
use crate::model::{EnumModel, FieldModel, GenModel, Model, Place};
use crate::syntax::{
    AnnotationKind, BlockKind, BlockSyntax, EvolutionSyntax, FieldSyntax, FileSyntax, GenSyntax,
    ItemSyntax, MemberSyntax, Name, StepSyntax, VariantSyntax,
};

use rules::Constraints;

/// Gens extend each other at most so deep.
const EXTENDS_MAX: usize = 32;

/// The types that the sources declare, known before any field is looked at.
#[derive(Default)]
pub(crate) struct Declarations<'a> {
    types: BTreeMap<&'a str, Declaration<'a>>,
    /// By the Gen that evolves, with the index of the source.
    evolutions: BTreeMap<&'a str, Vec<(usize, &'a EvolutionSyntax)>>,
}

/// The first declaration of a name.
struct Declaration<'a> {
    kind: Declared,
    /// The index of the source.
    file: usize,
    syntax: Option<&'a GenSyntax>,
    variants: &'a [VariantSyntax],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Declared {
    Gen,
    Enum,
    /// A Gen with type parameters, or an enum whose variants hold values.
    Opaque,
}

/// The variants of a Gen that is an enum in another spelling.
fn variants_of_gen(syntax: &GenSyntax) -> Option<&[VariantSyntax]> {
    let mut variants = None;
    for member in &syntax.members {
        match member {
            MemberSyntax::Enum(found) => variants = Some(&found[..]),
            MemberSyntax::Field(_) => return None,
            _ => {}
        }
    }
    variants
}

fn declared_enum(variants: &[VariantSyntax]) -> Declared {
    // `Open = 3` numbers a variant; anything else is a value that it holds.
    if variants.iter().any(|variant| variant.payload.is_some()) {
        Declared::Opaque
    } else {
        Declared::Enum
    }
}

impl<'a> Declarations<'a> {
    pub(crate) fn add(&mut self, syntax: &'a FileSyntax, file: usize) {
        for item in &syntax.items {
            let (name, kind, gen_syntax, variants) = match item {
                ItemSyntax::Gen(syntax) => match variants_of_gen(syntax) {
                    Some(variants) => (&syntax.name, declared_enum(variants), None, variants),
                    None if syntax.parameters.is_empty() => {
                        (&syntax.name, Declared::Gen, Some(syntax), &[][..])
                    }
                    None => (&syntax.name, Declared::Opaque, Some(syntax), &[][..]),
                },
                ItemSyntax::Enum { name, variants } => {
                    (name, declared_enum(variants), None, &variants[..])
                }
                ItemSyntax::Evolution(evolution) => {
                    let of_gen = self.evolutions.entry(&evolution.name.text).or_default();
                    of_gen.push((file, evolution));
                    continue;
                }
                _ => continue,
            };
            let declaration = Declaration { kind, file, syntax: gen_syntax, variants };
            self.types.entry(&name.text).or_insert(declaration);
        }
    }
}

/// Checks the sources one after the other, and collects their Gens.
pub(crate) struct Checker<'a> {
    declarations: &'a Declarations<'a>,
    /// The names of the sources.
    file_names: &'a [&'a str],
    names: BTreeSet<&'a str>,
    model: Model,
    constraints: Constraints,
}

/// What checking one source needs beside the source.
struct File<'a> {
    declarations: &'a Declarations<'a>,
    /// The index of the source.
    file: usize,
    lock: &'a mut Lock,
    diagnostics: &'a mut Diagnostics,
    /// What this version cannot build.
    refused: &'a mut Diagnostics,
    /// The type parameters of the Gen.
    parameters: &'a [Name],
    /// The Gen, by which the enums of its fields are called.
    gen_name: String,
    field_name: String,
    /// The enums that fields declare.
    enums: Vec<EnumModel>,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(
        declarations: &'a Declarations<'a>,
        file_names: &'a [&'a str],
    ) -> Checker<'a> {
        let (names, model) = (BTreeSet::new(), Model::default());
        Checker { declarations, file_names, names, model, constraints: Vec::new() }
    }

    /// The Gens of all sources, without the fields that are in error, and what the rules are.
    pub(crate) fn into_model(self) -> (Model, Constraints) {
        (self.model, self.constraints)
    }

    pub(crate) fn file(
        &mut self,
        index: usize,
        syntax: &'a FileSyntax,
        source: &str,
        lock: &mut Lock,
        diagnostics: &mut Diagnostics,
        refused: &mut Diagnostics,
    ) {
        let mut file = File {
            declarations: self.declarations,
            file: index,
            lock,
            diagnostics,
            refused,
            parameters: &[],
            gen_name: String::new(),
            field_name: String::new(),
            enums: Vec::new(),
        };
        for item in &syntax.items {
            match item {
                ItemSyntax::Gen(syntax) => {
                    file.parameters = &syntax.parameters;
                    self.gen_item(syntax, &mut file);
                    file.parameters = &[];
                }
                ItemSyntax::Use(path) => file.kept(&format!("use {}", path.text), &path.span),
                ItemSyntax::Enum { name, variants } => {
                    if self.is_good_name(name, "enum", &mut file) {
                        self.model.enums.extend(file.enumeration(name, variants));
                    }
                }
                ItemSyntax::Evolution(evolution) => self.evolution(evolution, &mut file),
                ItemSyntax::Block(block) => {
                    file.block(block);
                    if let (BlockKind::Constraint, Some(name)) = (block.kind, &block.name) {
                        let body = &source[block.body.clone()];
                        let constraint = rules::constraint_in_words(name, body, syntax);
                        self.constraints.push(constraint);
                    }
                }
                ItemSyntax::Statement(line) => {
                    let head = line.text.split(['{', '\n']).next().unwrap_or_default();
                    file.kept(head.trim_end(), &line.span);
                }
                ItemSyntax::Module { .. } => {}
            }
        }
        self.model.enums.extend(file.enums);
    }

    fn gen_item(&mut self, syntax: &'a GenSyntax, file: &mut File<'_>) {
        file.gen_name.clone_from(&syntax.name.text);
        let is_good = self.is_good_name(&syntax.name, "Gen", file);
        let mut fields: Vec<FieldModel> = Vec::new();
        let mut names = BTreeSet::new();
        let mut rule_bases = Vec::new();
        for base in self.bases(syntax, file) {
            let mut silent = Diagnostics::new(file.file);
            let mut as_base = File { diagnostics: &mut silent, ..file.reborrowed() };
            for member in &base.members {
                if let MemberSyntax::Field(field) = member
                    && names.insert(field.name.text.as_str())
                {
                    fields.extend(as_base.field(&syntax.name.text, field));
                }
            }
            let enums = std::mem::take(&mut as_base.enums);
            file.enums.extend(enums);
            rule_bases.push(base);
        }
        for member in &syntax.members {
            match member {
                MemberSyntax::Field(field) => {
                    file.kept_of_field(field);
                    if !names.insert(field.name.text.as_str()) {
                        file.declared_again(field, &syntax.name);
                    } else {
                        fields.extend(file.field(&syntax.name.text, field));
                    }
                }
                MemberSyntax::Block(block) => file.block(block),
                MemberSyntax::Statement(line) => file.kept(&line.text, &line.span),
                MemberSyntax::Rule(_) | MemberSyntax::Enum(_) => {}
            }
        }
        if let Some(variants) = variants_of_gen(syntax) {
            if is_good {
                self.model.enums.extend(file.enumeration(&syntax.name, variants));
            }
            return;
        }
        file.evolve(&syntax.name.text, &mut fields);
        let mut rules = Vec::new();
        for base in rule_bases {
            let mut silent = Diagnostics::new(file.file);
            let mut as_base = File { diagnostics: &mut silent, ..file.reborrowed() };
            as_base.rules(base, &fields, &mut rules, &mut Vec::new());
        }
        file.rules(syntax, &fields, &mut rules, &mut self.constraints);
        if !syntax.parameters.is_empty() {
            file.kept(&format!("type parameters of {}", syntax.name.text), &syntax.name.span);
            return;
        }
        if is_good {
            self.model.gens.push(GenModel {
                name: syntax.name.text.clone(),
                place: Place { file: file.file, span: syntax.name.span.clone() },
                fields,
                rules,
            });
        }
    }

    /// The Gens that this one extends, the most general first.
    fn bases(&self, syntax: &'a GenSyntax, file: &mut File<'_>) -> Vec<&'a GenSyntax> {
        let mut bases: Vec<&GenSyntax> = Vec::new();
        let mut current = syntax;
        while let Some(name) = &current.extends {
            let found = self.declarations.types.get(name.text.as_str());
            let Some(base) = found.and_then(|declaration| declaration.syntax) else {
                if bases.is_empty() {
                    let gens = self.declarations.types.keys().copied();
                    let message = format!("no Gen is called {}", quoted(&name.text));
                    let warning = Diagnostic::warning("W0210", &name.span, message)
                        .label("its fields are not in this Gen")
                        .suggest(&name.text, gens);
                    file.diagnostics.push(warning);
                }
                break;
            };
            if bases.len() >= EXTENDS_MAX || std::ptr::eq(base, syntax) {
                if let Some(extends) = &syntax.extends {
                    let message = format!("{} extends itself", syntax.name.text);
                    let diagnostic = Diagnostic::error("E0211", &extends.span, message);
                    let label = "through this Gen, or through too many";
                    file.diagnostics.push(diagnostic.label(label));
                }
                break;
            }
            bases.push(base);
            current = base;
        }
        bases.reverse();
        bases
    }

    /// What an evolution says of a Gen of these sources is used where versions are compared; what
    /// it says of anything else, and what it says in words, is kept.
    fn evolution(&self, evolution: &EvolutionSyntax, file: &mut File<'_>) {
        let name = &evolution.name;
        let is_gen = file.declared(&name.text) == Some(Declared::Gen);
        if !is_gen {
            file.kept(&format!("evolves {}", name.text), &name.span);
            return;
        }
        for step in &evolution.steps {
            match step {
                StepSyntax::Migrate(block) => file.kept("migrate", &block.head),
                StepSyntax::Statement(line) => file.kept(&line.text, &line.span),
                _ => {}
            }
        }
    }

    fn is_good_name(&mut self, name: &'a Name, what: &str, file: &mut File<'_>) -> bool {
        if !file.is_short(name) {
            return false;
        }
        if !self.names.insert(&name.text) {
            let message = format!("there is a Gen or enum {} already", quoted(&name.text));
            let mut diagnostic =
                Diagnostic::error("E0202", &name.span, message).label("declared again");
            if let Some(first) = self.declarations.types.get(name.text.as_str()) {
                diagnostic =
                    diagnostic.help(format!("the first is in {}", self.file_names[first.file]));
            }
            file.diagnostics.push(diagnostic);
            return false;
        }
        if self.names.len() > limits::MAX_GENS {
            let message = format!("a schema holds at most {} Gens and enums", limits::MAX_GENS);
            let label = format!("one {what} too many");
            file.diagnostics.push(Diagnostic::error("E0208", &name.span, message).label(label));
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
    fn reborrowed(&mut self) -> File<'_> {
        File {
            declarations: self.declarations,
            file: self.file,
            lock: self.lock,
            diagnostics: self.diagnostics,
            refused: self.refused,
            parameters: self.parameters,
            gen_name: self.gen_name.clone(),
            field_name: String::new(),
            enums: Vec::new(),
        }
    }

    fn declared(&self, name: &str) -> Option<Declared> {
        self.declarations.types.get(name).map(|declaration| declaration.kind)
    }

    fn variants_of(&self, name: &str) -> Vec<String> {
        if let Some(declaration) = self.declarations.types.get(name) {
            return declaration.variants.iter().map(|one| one.name.text.clone()).collect();
        }
        let inline = self.enums.iter().find(|one| one.name == name);
        inline.map_or(Vec::new(), |one| one.variants.iter().map(|one| one.0.clone()).collect())
    }

    /// The numbers of an enum's variants, from the lock file like those of fields.
    fn enumeration(&mut self, name: &Name, variants: &[VariantSyntax]) -> Option<EnumModel> {
        let mut numbered: Vec<(String, u32)> = Vec::new();
        let mut has_payload = false;
        for variant in variants {
            if numbered.iter().any(|(known, _)| *known == variant.name.text) {
                let message = format!("{} has a variant {} already", name.text, variant.name.text);
                let diagnostic = Diagnostic::error("E0212", &variant.name.span, message);
                self.diagnostics.push(diagnostic.label("declared again"));
                continue;
            }
            if let Some(payload) = &variant.payload {
                has_payload = true;
                self.kept(&format!("what {} holds", variant.name.text), payload);
            }
            let number = self.lock.number(&name.text, &variant.name.text)?;
            numbered.push((variant.name.text.clone(), number));
        }
        let name = name.text.clone();
        (!has_payload).then_some(EnumModel { name, variants: numbered })
    }

    /// `has state: enum { Open, Done }`, which is called `Task.state`.
    fn inline_enum(
        &mut self,
        variants: &[VariantSyntax],
        span: &Range<usize>,
    ) -> crate::model::Type {
        let text = format!("{}.{}", self.gen_name, self.field_name);
        let name = Name { text, span: span.clone() };
        match self.enumeration(&name, variants) {
            Some(found) => {
                self.enums.push(found);
                crate::model::Type::Enum(name.text)
            }
            None => crate::model::Type::Opaque(name.text),
        }
    }

    fn kept(&mut self, what: &str, span: &Range<usize>) {
        let label = "has no effect yet";
        self.diagnostics.push(Diagnostic::warning("W0401", span, kept(what)).label(label));
    }

    /// Notes a field that this version parses and checks, and does not store.
    fn later(&mut self, name: &Name, why: &str, span: &Range<usize>) {
        let message = format!("{}.{}: {why}", self.gen_name, name.text);
        let note = Diagnostic::note("N0309", span, message.clone());
        self.diagnostics.push(note.label("checked, and refused by `vudo build`"));
        let error = Diagnostic::error("E0309", span, message);
        self.refused.push(error.label("cannot be stored yet").help("leave the field out for now"));
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
