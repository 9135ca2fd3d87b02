//! Two versions of a schema beside each other: what a change does to replicas that have not upgraded.
//!
//! **The idea.** Stored cells are never reinterpreted: a field of another strategy or type has
//! another number, and reads the old one, converted, until it is written. So replicas of both
//! versions hold the same cells and stay equal; what is said here is what each of them sees.

use crate::check::evolution::{Change, change};
use crate::diagnostic::Diagnostic;
use crate::model::{FieldModel, GenModel, Place};
use crate::syntax::{ItemSyntax, StepSyntax};
use crate::{Analysis, Compilation, SourceFile, analyse};

/// Compiles the new files, and says what changes between the old ones and them.
///
/// New files without a lock file of their own go on with that of the old ones.
pub fn compile_against(old: &[SourceFile], new: &[SourceFile]) -> Compilation {
    let old = analyse(old);
    let mut new = new.to_vec();
    for (source, parsed) in new.iter_mut().zip(&old.sources) {
        source.lock.get_or_insert_with(|| parsed.lock.print());
    }
    let mut new = analyse(&new);
    let mut found = Findings::default();
    if old.sources.iter().any(|one| one.diagnostics.has_error()) {
        let message = "the old files are in error, so nothing is said of what changes";
        found.everywhere(Diagnostic::error("E0609", &(0..0), message.into()));
    } else {
        found.gens(&old, &new);
        found.variants(&old, &new);
        found.clashes(&old, &new);
    }
    for (file, diagnostic) in found.0 {
        if let Some(source) = new.sources.get_mut(file) {
            source.diagnostics.push(diagnostic);
        }
    }
    new.into_compilation()
}

/// What there is to say, with the index of the new file.
#[derive(Default)]
struct Findings(Vec<(usize, Diagnostic)>);

impl Findings {
    fn everywhere(&mut self, diagnostic: Diagnostic) {
        self.0.push((0, diagnostic));
    }

    fn note(&mut self, place: &Place, message: String, label: &str) {
        let note = Diagnostic::note("N0601", &place.span, message);
        self.0.push((place.file, note.label(label)));
    }

    fn error(&mut self, code: &'static str, place: &Place, message: String, help: String) {
        let error = Diagnostic::error(code, &place.span, message).label("here").help(help);
        self.0.push((place.file, error));
    }

    fn gens(&mut self, old: &Analysis, new: &Analysis) {
        for old_gen in &old.model.gens {
            match new.model.gen_named(&old_gen.name) {
                Some(new_gen) => self.fields(old, old_gen, new, new_gen),
                None => {
                    let message = format!(
                        "the Gen {} is gone: its documents are kept and passed on, and not seen",
                        old_gen.name
                    );
                    self.everywhere(Diagnostic::note("N0601", &(0..0), message));
                }
            }
        }
    }

    fn fields(&mut self, old: &Analysis, old_gen: &GenModel, new: &Analysis, new_gen: &GenModel) {
        let gen_name = &new_gen.name;
        let deprecated = |name: &str| {
            old.steps(gen_name).any(
                |step| matches!(step, StepSyntax::Deprecates(deprecated) if deprecated.text == name),
            )
        };
        for old_field in &old_gen.fields {
            let name = &old_field.name;
            let to = new.steps(gen_name).find_map(|step| match step {
                StepSyntax::Renames { from, to } if from.text == *name => Some(to.text.as_str()),
                _ => None,
            });
            let found = new_gen.field(to.unwrap_or(name)).or_else(|| new_gen.field(name));
            match found {
                Some(new_field) => self.field(gen_name, old_field, new_field),
                None if deprecated(name) => {
                    let message = format!("{gen_name}.{name} is gone");
                    let label = "it was deprecated before; what still comes of it is passed on";
                    self.note(&new_gen.place, message, label);
                }
                None => {
                    let message =
                        format!("{gen_name}.{name} is gone, and others may still write it");
                    let help = format!(
                        "keep the field, and write `evolves {gen_name} @ .. > .. {{ deprecates \
                         {name} }}`; the version after that can leave it out"
                    );
                    self.error("E0602", &new_gen.place, message, help);
                }
            }
        }
        for new_field in &new_gen.fields {
            let is_old = |old: &&FieldModel| old.name == new_field.name;
            let is_renamed = new.steps(gen_name).any(
                |step| matches!(step, StepSyntax::Renames { to, .. } if to.text == new_field.name),
            );
            if !is_renamed && !old_gen.fields.iter().any(|old| is_old(&old)) {
                let message = format!("{gen_name}.{} is new", new_field.name);
                let label = "replicas of the old version keep it and pass it on";
                self.note(&new_field.place, message, label);
            }
        }
    }

    fn field(&mut self, gen_name: &str, old: &FieldModel, new: &FieldModel) {
        let path = format!("{gen_name}.{}", new.name);
        let (old_shape, shape) =
            (FieldModel::shape(&old.kind, old.merge), FieldModel::shape(&new.kind, new.merge));
        let change = change((&old.kind, old.merge), (&new.kind, new.merge));
        if old.name != new.name {
            let message = format!("{path} was {}", old.name);
            self.note(&new.place, message, "both names are one field, whoever wrote it");
        }
        if change == Change::Same {
            if old.counter != new.counter {
                let message = format!("the bounds of {path} change");
                let label = "each replica holds its own writes to the bounds that it knows";
                self.note(&new.place, message, label);
            }
            if old.default != new.default {
                let message = format!("the default of {path} changes");
                let label = "each replica shows its own while nobody has written the field";
                self.note(&new.place, message, label);
            }
            if old.number != new.number {
                let message =
                    format!("{path} had the number {}, and has {} now", old.number, new.number);
                let help = "restore the lock file from version control".to_owned();
                self.error("E0607", &new.place, message, help);
            }
        } else if old.number == new.number {
            let message = format!("{path} was '{old_shape}' and is '{shape}' under one number");
            let help = "the lock file was edited: restore it from version control".to_owned();
            self.error("E0607", &new.place, message, help);
        } else {
            // Where no conversion is said, the compiler has refused the file already.
            let message = format!("{path} was '{old_shape}', and is '{shape}' now");
            let label = match change {
                Change::Safe => "old values are read as they are until it is written anew",
                _ => {
                    "old values are converted until it is written anew; old replicas do not see new writes"
                }
            };
            self.note(&new.place, message, label);
        }
    }

    fn variants(&mut self, old: &Analysis, new: &Analysis) {
        for old_enum in &old.model.enums {
            let Some(new_enum) = new.model.enum_named(&old_enum.name) else { continue };
            for (variant, number) in &old_enum.variants {
                if new_enum.number(variant).is_none() {
                    let message = format!(
                        "{}.{variant} is gone: values of it read as the unknown variant {number}",
                        old_enum.name
                    );
                    self.everywhere(Diagnostic::warning("W0608", &(0..0), message));
                }
            }
        }
    }

    /// Two branches that took one number for different fields.
    fn clashes(&mut self, old: &Analysis, new: &Analysis) {
        for (file, (old_source, new_source)) in old.sources.iter().zip(&new.sources).enumerate() {
            for (gen_name, number, old_name, new_name) in old_source.lock.clashes(&new_source.lock)
            {
                let is_renamed = new.steps(gen_name).any(|step| {
                    matches!(step, StepSyntax::Renames { from, to }
                        if from.text == old_name && to.text == new_name)
                });
                if !is_renamed {
                    let message = format!(
                        "field number {number} of {gen_name} is {old_name} in the old files and \
                         {new_name} in the new ones"
                    );
                    let help = "two branches took it: take one lock file, and let the compiler \
                                give the other field a new number";
                    let error = Diagnostic::error("E0607", &(0..0), message).help(help);
                    self.0.push((file, error));
                }
            }
        }
    }
}

impl Analysis {
    /// The steps of every evolution of a Gen.
    fn steps<'s>(&'s self, gen_name: &'s str) -> impl Iterator<Item = &'s StepSyntax> {
        let items = self.sources.iter().flat_map(|source| &source.syntax.items);
        let evolutions = items.filter_map(move |item| match item {
            ItemSyntax::Evolution(evolution) if evolution.name.text == gen_name => Some(evolution),
            _ => None,
        });
        evolutions.flat_map(|evolution| &evolution.steps)
    }
}
