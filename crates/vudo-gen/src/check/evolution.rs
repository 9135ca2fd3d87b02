//! Evolution within one file: what fields were before, and how their old values are read.

use vudo_crdt::Expression;

use super::{File, rules};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{FieldModel, Merge, Predecessor, Type};
use crate::syntax::{
    AnnotationKind, AnnotationSyntax, ExpressionSyntax, ItemSyntax, MemberSyntax, StepSyntax,
};

/// What a change of strategy or type does to old values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Same,
    /// Old values are values of the new field as they are.
    Safe,
    /// An expression has to say what an old value becomes.
    NeedsConversion,
    /// No expression gives such a value.
    Impossible,
}

/// The language's rules of evolution.
pub(crate) fn change(old: (&Type, Merge), new: (&Type, Merge)) -> Change {
    let ((old_type, old_merge), (new_type, new_merge)) = (old, new);
    let is_widened = match (old_type.integer_range(), new_type.integer_range()) {
        (Some((old_least, old_greatest)), Some((least, greatest))) => {
            least <= old_least && old_greatest <= greatest
        }
        _ => {
            old_type == new_type || matches!(new_type, Type::Option(inner) if **inner == *old_type)
        }
    };
    let keeps_values = match (old_merge, new_merge) {
        (old, new) if old == new => true,
        (Merge::Immutable, Merge::Lww | Merge::LwwContent | Merge::MvRegister) => true,
        (Merge::Lww | Merge::LwwContent, Merge::Lww | Merge::LwwContent | Merge::MvRegister) => {
            true
        }
        (Merge::GCounter, Merge::PnCounter) => true,
        _ => false,
    };
    let is_collection = |merge| matches!(merge, Merge::OrSet | Merge::Map(_));
    if old_type == new_type && old_merge == new_merge {
        Change::Same
    } else if is_collection(new_merge) || new_merge.is_sequence() || is_collection(old_merge) {
        Change::Impossible
    } else if is_widened && keeps_values {
        Change::Safe
    } else {
        Change::NeedsConversion
    }
}

impl<'a> File<'a> {
    /// The steps of every evolution of a Gen, with the source that they stand in.
    fn steps_of(&self, gen_name: &str) -> Vec<(usize, &'a StepSyntax)> {
        let evolutions = self.declarations.evolutions.get(gen_name);
        let evolutions = evolutions.into_iter().flatten();
        evolutions
            .flat_map(|(file, evolution)| evolution.steps.iter().map(|step| (*file, step)))
            .collect()
    }

    /// A field that has been renamed keeps its number.
    pub(super) fn rename_in_lock(&mut self, gen_name: &str, name: &str) {
        for (_, step) in self.steps_of(gen_name) {
            if let StepSyntax::Renames { from, to } = step
                && to.text == name
            {
                self.lock.rename(gen_name, &from.text, name);
            }
        }
    }

    /// Finds what the fields of a Gen were before, and how it is converted.
    pub(super) fn evolve(&mut self, gen_name: &str, fields: &mut [FieldModel]) {
        self.check_steps(gen_name, fields);
        for index in 0..fields.len() {
            let name = fields[index].name.clone();
            let old: Vec<(u32, String)> = self
                .lock
                .predecessors(gen_name, &name)
                .into_iter()
                .map(|(number, shape)| (number, shape.to_owned()))
                .collect();
            let (mut kind, mut merge) = (fields[index].kind.clone(), fields[index].merge);
            for (number, shape) in old {
                let Some((old_kind, old_merge)) = self.shape(&shape) else { continue };
                let change = change((&old_kind, old_merge), (&kind, merge));
                let mut before = fields[index].clone();
                (before.number, before.kind, before.merge) = (number, old_kind, old_merge);
                let conversion = self.conversion(gen_name, change, &before, (&kind, merge), fields);
                if conversion.is_none() {
                    break;
                }
                (kind, merge) = (before.kind, before.merge);
                let predecessor = Predecessor { number, kind: kind.clone(), merge };
                fields[index].predecessors.push(predecessor);
            }
        }
    }

    /// Steps that contradict the Gen.
    fn check_steps(&mut self, gen_name: &str, fields: &[FieldModel]) {
        for (file, step) in self.steps_of(gen_name) {
            if file != self.file {
                continue;
            }
            let wrong = match step {
                StepSyntax::Renames { from, to }
                    if fields.iter().any(|one| one.name == from.text) =>
                {
                    let message = format!("{} and {} would be one field", from.text, to.text);
                    Some((to, message, "the Gen still has the field of the old name"))
                }
                StepSyntax::Changes { name, .. }
                    if !fields.iter().any(|one| one.name == name.text) =>
                {
                    let message = format!("{gen_name} has no field {}", name.text);
                    Some((name, message, "expected a field of the Gen"))
                }
                _ => None,
            };
            if let Some((name, message, label)) = wrong {
                let names = fields.iter().map(|field| field.name.as_str());
                let error = Diagnostic::error("E0603", &name.span, message).label(label);
                let error = match step {
                    StepSyntax::Changes { .. } => error.suggest(&name.text, names),
                    _ => error,
                };
                self.diagnostics.push(error);
            }
        }
    }

    /// What an old value becomes; `None` where nothing says it, which is then reported.
    fn conversion(
        &mut self,
        gen_name: &str,
        change: Change,
        before: &FieldModel,
        (kind, merge): (&Type, Merge),
        fields: &[FieldModel],
    ) -> Option<Expression> {
        let shape = FieldModel::shape(&before.kind, before.merge);
        if let Some((file, with)) = self.with_of(gen_name, before) {
            let mut fields = fields.to_vec();
            if let Some(field) = fields.iter_mut().find(|field| field.name == before.name) {
                field.clone_from(before);
            }
            // An expression of another file is judged there.
            let mut elsewhere = Diagnostics::new(file);
            let is_here = file == self.file;
            let mut scope = self.reborrowed();
            if !is_here {
                scope.diagnostics = &mut elsewhere;
            }
            return rules::conversion(&mut scope, with, &fields, kind);
        }
        match change {
            Change::Same | Change::Safe => Some(Expression::Field(before.number)),
            Change::NeedsConversion | Change::Impossible => {
                let new_shape = FieldModel::shape(kind, merge);
                let message =
                    format!("{gen_name}.{} was '{shape}', and is '{new_shape}' now", before.name);
                let error = Diagnostic::error("E0604", &before.place.span, message);
                let error = if change == Change::Impossible {
                    error
                        .label("no conversion gives such a value")
                        .help("add a field of another name, and deprecate this one")
                } else {
                    error.label("nothing says what old values become").help(format!(
                        "evolves {gen_name} @ .. > .. {{ changes {} from @crdt({}) to @crdt({}) \
                         with .. }}",
                        before.name,
                        before.merge.name(),
                        merge.name()
                    ))
                };
                self.diagnostics.push(error);
                None
            }
        }
    }

    /// The expression that an evolution has for a field that was like this.
    fn with_of(
        &self,
        gen_name: &str,
        before: &FieldModel,
    ) -> Option<(usize, &'a ExpressionSyntax)> {
        self.steps_of(gen_name).into_iter().find_map(|(file, step)| match step {
            StepSyntax::Changes { name, from, with: Some(with), .. }
                if name.text == before.name
                    && strategy_of(&from.0) == Some(before.merge.name()) =>
            {
                Some((file, with))
            }
            _ => None,
        })
    }

    /// Strategy and type of a lock file's words; `None` where the words are of another version.
    fn shape(&mut self, shape: &str) -> Option<(Type, Merge)> {
        let (merge, kind) = shape.split_once(' ')?;
        let merge = Merge::of_shape(merge)?;
        let mut silent = Diagnostics::new(self.file);
        let tree = crate::parser::parse(&format!("gen A {{ has a: {kind} }}"), &mut silent);
        let [ItemSyntax::Gen(syntax)] = &tree.items[..] else { return None };
        let [MemberSyntax::Field(field)] = &syntax.members[..] else { return None };
        let mut scope = self.reborrowed();
        scope.diagnostics = &mut silent;
        Some((scope.value_type(&field.value_type)?, merge))
    }
}

/// The strategy of `@crdt(lww)`.
fn strategy_of(annotation: &AnnotationSyntax) -> Option<&'static str> {
    match &annotation.kind {
        AnnotationKind::Crdt { strategy, .. } => Merge::named(&strategy.text).map(Merge::name),
        _ => None,
    }
}
