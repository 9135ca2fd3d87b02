//! What a schema must hold for a module to be built: the store's bounds, and strategies that can
//! merge their types. The language's checker says all of this earlier and with the place.

use std::collections::BTreeSet;

use vudo_crdt::limits::{MAX_FIELD_NUMBER, MAX_GEN_NAME_BYTES, MAX_GENS};
use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, ValueType};

use super::BuildError;

pub(super) fn validate(schema: &Schema) -> Result<(), BuildError> {
    let mut gen_names = BTreeSet::new();
    for (index, gen_schema) in schema.gens.iter().enumerate() {
        let refuse = |what| BuildError::Gen { name: gen_schema.name.clone(), what };
        if index >= MAX_GENS {
            return Err(refuse("a schema holds at most 4,096 Gens"));
        }
        if gen_schema.name.is_empty() || gen_schema.name.len() > MAX_GEN_NAME_BYTES {
            return Err(refuse("a name has 1 to 255 bytes"));
        }
        if !gen_names.insert(gen_schema.name.as_str()) {
            return Err(refuse("another Gen has this name"));
        }
        validate_fields(gen_schema)?;
    }
    Ok(())
}

fn validate_fields(gen_schema: &GenSchema) -> Result<(), BuildError> {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for field in &gen_schema.fields {
        let what = if !names.insert(&*field.name) {
            Some("another field has this name")
        } else if !numbers.insert(field.number) {
            Some("another field has this number")
        } else {
            fault_of(field)
        };
        if let Some(what) = what {
            return Err(BuildError::Field {
                gen_name: gen_schema.name.clone(),
                name: field.name.to_string(),
                what,
            });
        }
    }
    Ok(())
}

fn fault_of(field: &FieldSchema) -> Option<&'static str> {
    if field.name.is_empty() || field.name.len() > MAX_GEN_NAME_BYTES {
        return Some("a name has 1 to 255 bytes");
    }
    if field.number == 0 || field.number > MAX_FIELD_NUMBER {
        return Some("a field number is 1 to 65,535");
    }
    let merges = |strategy: Strategy, value_type: &ValueType| match strategy {
        Strategy::PnCounter | Strategy::GCounter | Strategy::BoundedCounter => {
            value_type.is_countable()
        }
        Strategy::PnCounterFloat => value_type.is_float(),
        _ => true,
    };
    let merges_type = match (field.strategy, &field.value_type) {
        (Strategy::OrSet, _) => field.element_type().is_some(),
        (Strategy::Map, ValueType::Map(_, value)) => {
            let inner = field.value_strategy;
            if inner.is_collection() || inner == Strategy::BoundedCounter {
                return Some("a map does not hold values of this strategy");
            }
            merges(inner, value)
        }
        (Strategy::Map, _) => false,
        (strategy, value_type) => merges(strategy, value_type),
    };
    if !merges_type {
        return Some("the strategy does not merge this type");
    }
    if let Some(predecessor) = &field.predecessor {
        if field.strategy == Strategy::BoundedCounter {
            return Some("a bounded counter was nothing else before");
        }
        if let Some(fault) = fault_of(&predecessor.field) {
            return Some(fault);
        }
    }
    let default_fits = match &field.default {
        Some(default) => field.value_type.admits(default),
        None => true,
    };
    (!default_fits).then_some("the default is not of the field's type")
}
