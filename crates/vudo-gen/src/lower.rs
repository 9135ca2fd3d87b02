//! A model to the schema of the engine, as far as this version's engine goes.

use std::collections::BTreeSet;

use vudo_crdt::{
    Conversion, EnumSchema, FieldSchema, GenSchema, Schema, Strategy, Value, ValueType,
};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{FieldModel, GenModel, Inner, Merge, Model, Predecessor, Type, scalar_value};
use crate::syntax::Literal;

/// The schema, without what the engine cannot store; that is refused, with the place.
pub(crate) fn lower(model: &Model, refused: &mut [Diagnostics]) -> Schema {
    let mut schema = Schema::default();
    for gen_model in &model.gens {
        let mut fields = Vec::new();
        for field in &gen_model.fields {
            match lower_field(field, gen_model, model) {
                Ok(lowered) => fields.push(lowered),
                // What comes later has been said by the checker.
                Err(_) if field.merge.is_sequence() => {}
                Err(what) => {
                    let message = format!("{}.{}: {what}", gen_model.name, field.name);
                    let error = Diagnostic::error("E0206", &field.place.span, message)
                        .label("this field cannot be stored yet");
                    if let Some(refused) = refused.get_mut(field.place.file) {
                        refused.push(error);
                    }
                }
            }
        }
        let rules = gen_model.rules.clone();
        schema.gens.push(GenSchema { name: gen_model.name.clone(), fields, rules });
    }
    for one in &model.enums {
        schema.enums.push(EnumSchema { name: one.name.clone(), variants: one.variants.clone() });
    }
    schema
}

fn lower_field(
    field: &FieldModel,
    gen_model: &GenModel,
    model: &Model,
) -> Result<FieldSchema, String> {
    let FieldModel { name, number, kind, merge, counter, predecessors, .. } = field;
    let mut lowered = lower_cell(name, *number, kind, *merge)?;
    lowered.default = field.default.as_ref().and_then(|literal| value_of(literal, kind, model));
    lowered.counter = *counter;
    let mut predecessor = None;
    for before in predecessors.iter().rev() {
        let mut earlier = lower_cell(name, before.number, &before.kind, before.merge)?;
        (earlier.counter, earlier.predecessor) = (*counter, predecessor);
        let conversion = lower_conversion(before, gen_model, model)?;
        predecessor = Some(Box::new(vudo_crdt::Predecessor { field: earlier, conversion }));
    }
    Ok(FieldSchema { predecessor, ..lowered })
}

fn lower_conversion(
    before: &Predecessor,
    gen_model: &GenModel,
    model: &Model,
) -> Result<Option<Conversion>, String> {
    let Some(expression) = before.conversion.clone() else { return Ok(None) };
    let mut numbers = BTreeSet::new();
    expression.for_each_field(&mut |number| {
        numbers.insert(number);
    });
    let inputs = gen_model.fields.iter().filter(|field| numbers.contains(&field.number));
    // The checker has refused circles.
    let inputs = inputs.map(|field| lower_field(field, gen_model, model));
    Ok(Some(Conversion { inputs: inputs.collect::<Result<_, _>>()?, expression }))
}

/// A field's number, strategy and type.
fn lower_cell(name: &str, number: u32, kind: &Type, merge: Merge) -> Result<FieldSchema, String> {
    let (merge, inner) = match merge {
        Merge::Map(Inner::OrSet | Inner::Map) => {
            return Err("a map of collections is not in this version".to_owned());
        }
        Merge::Map(inner) => (merge, inner.merge()),
        merge => (merge, Merge::Lww),
    };
    let is_float = |kind: &Type| match kind {
        Type::Map(_, value) => value.is_float(),
        other => other.is_float(),
    };
    let lowered = (strategy_of(merge, is_float(kind)), strategy_of(inner, is_float(kind)));
    let (Some(strategy), Some(value_strategy)) = lowered else {
        return Err(format!("the strategy {} is not in this version", merge.name()));
    };
    let value_type =
        lower_type(kind).ok_or_else(|| format!("the type {kind} is not in this version"))?;
    let lowered = FieldSchema::new(name, number, strategy, value_type);
    Ok(FieldSchema { value_strategy, ..lowered })
}

/// The engine's strategy; `None` for sequences.
fn strategy_of(merge: Merge, is_float: bool) -> Option<Strategy> {
    Some(match merge {
        Merge::Immutable => Strategy::Immutable,
        Merge::Lww => Strategy::Lww,
        Merge::LwwContent => Strategy::LwwContent,
        Merge::MvRegister => Strategy::MvRegister,
        Merge::GCounter => Strategy::GCounter,
        Merge::PnCounter if is_float => Strategy::PnCounterFloat,
        Merge::PnCounter => Strategy::PnCounter,
        Merge::BoundedCounter => Strategy::BoundedCounter,
        Merge::OrSet => Strategy::OrSet,
        Merge::Map(_) => Strategy::Map,
        Merge::Rga | Merge::List | Merge::Peritext => return None,
    })
}

/// The engine's type; `None` for rich text.
fn lower_type(kind: &Type) -> Option<ValueType> {
    let boxed = |inner: &Type| lower_type(inner).map(Box::new);
    Some(match kind {
        Type::Scalar(scalar) => scalar.clone(),
        Type::RichText => return None,
        Type::Enum(name) => ValueType::Enum(name.as_str().into()),
        Type::Record(name) => ValueType::Record(name.as_str().into()),
        Type::Ref(name) => ValueType::Ref(name.as_str().into()),
        Type::Option(inner) => ValueType::Option(boxed(inner)?),
        Type::Set(inner) => ValueType::Set(boxed(inner)?),
        Type::List(inner) | Type::Array(inner) => ValueType::List(boxed(inner)?),
        Type::Map(key, value) => ValueType::Map(boxed(key)?, boxed(value)?),
        Type::Tuple(parts) => {
            let parts: Option<Vec<ValueType>> = parts.iter().map(lower_type).collect();
            ValueType::Tuple(parts?)
        }
        Type::Opaque(name) => ValueType::Opaque(name.as_str().into()),
    })
}

/// The value of a default, which the checker has found to fit its type.
fn value_of(literal: &Literal, kind: &Type, model: &Model) -> Option<Value> {
    let all = |list: &[crate::syntax::LiteralSyntax], inner: &Type| {
        let values = list.iter().map(|one| value_of(&one.literal, inner, model));
        values.collect::<Option<Vec<Value>>>()
    };
    Some(match (kind, literal) {
        (Type::Scalar(scalar), literal) => scalar_value(literal, scalar)?,
        (Type::Ref(_), Literal::Text(text)) => Value::from(text.as_str()),
        (Type::Option(_), Literal::None) => Value::None,
        (Type::Option(inner), literal) => value_of(literal, inner, model)?,
        (Type::Enum(name), Literal::Word(word)) => {
            Value::Variant(model.enum_named(name)?.number(word)?)
        }
        (Type::Set(inner), Literal::List(list)) => Value::set_of(all(list, inner)?),
        (Type::List(inner) | Type::Array(inner), Literal::List(list)) => {
            Value::List(all(list, inner)?)
        }
        (Type::Map(..), Literal::List(_)) => Value::Map(Vec::new()),
        (Type::Tuple(parts), Literal::List(list)) => {
            let pairs = parts.iter().zip(list);
            let values = pairs.map(|(part, one)| value_of(&one.literal, part, model));
            Value::List(values.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}
