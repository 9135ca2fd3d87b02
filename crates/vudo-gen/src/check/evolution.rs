//! Evolution within one file: what fields were before, and how their old values are read.

use vudo_crdt::Expression;
use vudo_crdt::limits::MAX_PREDECESSORS;

use super::{File, rules};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{FieldModel, Merge, Predecessor, Type};
use crate::syntax::{
    AnnotationKind, AnnotationSyntax, ExpressionSyntax, ItemSyntax, MemberSyntax, StepSyntax,
    TypeSyntax,
};

/// Most fields that conversions read to give one value: a schema has each of them in full.
const CONVERSION_FIELDS_MAX: usize = 1_000;

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
    let is_collection = |merge| matches!(merge, Merge::OrSet | Merge::Map(_));
    if old_type == new_type && old_merge == new_merge {
        Change::Same
    } else if new_merge == Merge::BoundedCounter
        || new_merge.is_sequence()
        || old_merge.is_sequence()
    {
        // What old replicas go on writing keeps to no bound of the new field.
        Change::Impossible
    } else if is_widened(old_type, new_type) && keeps_values(old_merge, new_merge) {
        Change::Safe
    } else if is_collection(new_merge) || is_collection(old_merge) {
        Change::Impossible
    } else {
        Change::NeedsConversion
    }
}

/// Whether every value of a type is one of the other type as it is.
fn is_widened(old: &Type, new: &Type) -> bool {
    if let (Some(old), Some(new)) = (old.integer_range(), new.integer_range()) {
        return new.0 <= old.0 && old.1 <= new.1;
    }
    match (old, new) {
        (Type::Option(old), Type::Option(new))
        | (Type::Set(old), Type::Set(new))
        | (Type::List(old), Type::List(new))
        | (Type::Array(old), Type::Array(new)) => is_widened(old, new),
        (Type::Map(old_key, old_value), Type::Map(key, value)) => {
            is_widened(old_key, key) && is_widened(old_value, value)
        }
        (old, Type::Option(new)) => old == &**new,
        (old, new) => old == new,
    }
}

/// Whether what a strategy shows is what the other one shows of it.
fn keeps_values(old: Merge, new: Merge) -> bool {
    use Merge::{GCounter, Immutable, Lww, LwwContent, Map, MvRegister, PnCounter};
    match (old, new) {
        (Map(old), Map(new)) => keeps_values(old.merge(), new.merge()),
        (Immutable | Lww | LwwContent, Lww | LwwContent | MvRegister) => true,
        (GCounter, PnCounter) => true,
        (old, new) => old == new,
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
                let conversion = conversion.filter(|found| *found != Expression::Field(number));
                let predecessor = Predecessor { number, kind: kind.clone(), merge, conversion };
                fields[index].predecessors.push(predecessor);
            }
        }
        for index in 0..fields.len() {
            if let Err(what) = depth_of(fields, index, &mut Vec::new(), &mut 0) {
                let message = format!("{gen_name}.{}: {what}", fields[index].name);
                let error = Diagnostic::error("E0605", &fields[index].place.span, message);
                self.diagnostics.push(error.label("this field is read through its conversions"));
                fields[index].predecessors.clear();
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
                    if !fields.iter().any(|one| one.name == name.text)
                        && !self.is_renamed(gen_name, &name.text) =>
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
        let with = self.with_of(gen_name, before, (kind, merge));
        if let Some((file, with)) = with.filter(|_| change != Change::Impossible) {
            let mut fields = fields.to_vec();
            if let Some(field) = fields.iter_mut().find(|field| field.name == before.name) {
                field.clone_from(before);
            }
            // The expression was written when fields had the names that they had then.
            for (_, step) in self.steps_of(gen_name).into_iter().rev() {
                if let StepSyntax::Renames { from, to } = step
                    && let Some(field) = fields.iter().find(|field| field.name == to.text)
                {
                    fields.push(FieldModel { name: from.text.clone(), ..field.clone() });
                }
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
                        .label("no conversion gives such a field")
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

    /// Whether a Gen had a field of this name, which has another name now.
    fn is_renamed(&self, gen_name: &str, name: &str) -> bool {
        let mut steps = self.steps_of(gen_name).into_iter();
        steps.any(|(_, step)| matches!(step, StepSyntax::Renames { from, .. } if from.text == name))
    }

    /// The expression that an evolution has for a field that was like this and became another.
    fn with_of(
        &mut self,
        gen_name: &str,
        before: &FieldModel,
        (kind, merge): (&Type, Merge),
    ) -> Option<(usize, &'a ExpressionSyntax)> {
        let steps = self.steps_of(gen_name);
        let mut names = Vec::from([before.name.as_str()]);
        for (_, step) in steps.iter().rev() {
            if let StepSyntax::Renames { from, to } = step
                && names.contains(&to.text.as_str())
            {
                names.push(&from.text);
            }
        }
        steps.into_iter().find_map(|(file, step)| match step {
            StepSyntax::Changes { name, from, to, with: Some(with) }
                if names.contains(&name.text.as_str())
                    && self.is_shape(from, (&before.kind, before.merge))
                    && self.is_shape(to, (kind, merge)) =>
            {
                Some((file, with))
            }
            _ => None,
        })
    }

    /// Whether a step means this strategy, and this type where it names one.
    fn is_shape(
        &mut self,
        (annotation, syntax): &(AnnotationSyntax, Option<TypeSyntax>),
        (kind, merge): (&Type, Merge),
    ) -> bool {
        let mut silent = Diagnostics::new(self.file);
        let mut scope = self.reborrowed();
        scope.diagnostics = &mut silent;
        let named = syntax.as_ref().map(|syntax| scope.value_type(syntax));
        strategy_of(annotation) == Some(merge.name())
            && named.is_none_or(|named| named.as_ref() == Some(kind))
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

/// How many fields lie behind a field, one before the other, where its conversions are followed.
/// `above` are those that have come before it; `count` is of all that have been visited.
fn depth_of(
    fields: &[FieldModel],
    index: usize,
    above: &mut Vec<usize>,
    count: &mut usize,
) -> Result<usize, &'static str> {
    if above.contains(&index) {
        return Err("conversions read each other's fields in a circle");
    }
    *count += 1;
    if *count > CONVERSION_FIELDS_MAX {
        return Err("its conversions read too many fields, through each other's conversions");
    }
    above.push(index);
    let mut deepest = fields[index].predecessors.len();
    for (place, before) in fields[index].predecessors.iter().enumerate() {
        let mut read = Vec::new();
        if let Some(conversion) = &before.conversion {
            conversion.for_each_field(&mut |number| read.push(number));
        }
        for number in read.into_iter().filter(|number| *number != before.number) {
            if let Some(input) = fields.iter().position(|field| field.number == number) {
                deepest = deepest.max(place + 1 + depth_of(fields, input, above, count)?);
            }
        }
    }
    above.pop();
    match deepest > MAX_PREDECESSORS {
        true => Err("more than 16 earlier fields lie behind one another"),
        false => Ok(deepest),
    }
}

/// The strategy of `@crdt(lww)`.
fn strategy_of(annotation: &AnnotationSyntax) -> Option<&'static str> {
    match &annotation.kind {
        AnnotationKind::Crdt { strategy, .. } => Merge::named(&strategy.text).map(Merge::name),
        _ => None,
    }
}
