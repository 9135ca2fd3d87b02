//! A model to the schema of the engine, as far as this version's engine goes.

use vudo_crdt::{EnumSchema, FieldSchema, GenSchema, Schema, Strategy};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{FieldModel, Merge, Model, Type, scalar_value};

/// The schema, without what the engine cannot store; that is refused, with the place.
pub(crate) fn lower(model: &Model, refused: &mut [Diagnostics]) -> Schema {
    let mut schema = Schema::default();
    for gen_model in &model.gens {
        let mut fields = Vec::new();
        for field in &gen_model.fields {
            match lower_field(field) {
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

fn lower_field(field: &FieldModel) -> Result<FieldSchema, String> {
    let FieldModel { name, number, kind, merge, .. } = field;
    if let Some(before) = field.predecessors.first() {
        let shape = FieldModel::shape(&before.kind, before.merge);
        let number = before.number;
        return Err(format!("reading number {number} ('{shape}') is not in this version"));
    }
    let Type::Scalar(value_type) = kind else {
        return Err(format!("the type {kind} is not in this version"));
    };
    let strategy = match merge {
        Merge::Immutable => Strategy::Immutable,
        Merge::Lww => Strategy::Lww,
        Merge::LwwContent => Strategy::LwwContent,
        Merge::PnCounter if kind.is_float() => Strategy::PnCounterFloat,
        Merge::PnCounter => Strategy::PnCounter,
        other => return Err(format!("the strategy {} is not in this version", other.name())),
    };
    let default = field.default.as_ref().and_then(|literal| scalar_value(literal, value_type));
    let lowered = FieldSchema::new(name, *number, strategy, value_type.clone());
    Ok(FieldSchema { default, counter: field.counter, ..lowered })
}
