//! Schemas that follow each other in one store: what field numbers are for, and what of the stored
//! data a schema cannot show.
//!
//! A store takes any schema, newer or older than the last one, as long as no number changes hands:
//! data is found by its number, so two fields of one number would read each other's values.

use std::collections::BTreeMap;

use vudo_crdt::{FieldSchema, GenSchema, Misfit, Row, Schema};

use crate::error::{Error, Result};

/// Adds the numbers of a Gen's fields, also those that they had before, to those that are known.
pub(crate) fn take_numbers(numbers: &mut Schema, gen_schema: &GenSchema) -> Result<()> {
    let gen_name = &gen_schema.name;
    let place = numbers.gens.iter().position(|known| known.name == *gen_name);
    let place = place.unwrap_or_else(|| {
        numbers.gens.push(GenSchema::new(gen_name, []));
        numbers.gens.len() - 1
    });
    let known = &mut numbers.gens[place].fields;
    let mut taken: BTreeMap<u32, &str> = BTreeMap::new();
    for field in &gen_schema.fields {
        for earlier in field.lineage() {
            let number = earlier.number;
            let mut new =
                FieldSchema::new(&field.name, number, earlier.strategy, earlier.value_type.clone());
            new.value_strategy = earlier.value_strategy;
            let refused = |known: &FieldSchema, new: &FieldSchema| Error::NumberTaken {
                gen_name: gen_name.clone(),
                number,
                known: described(known),
                new: described(new),
            };
            let holder = known.iter_mut().find(|one| one.number == number);
            if let Some(holder) = holder {
                // A renamed field leaves its old name behind.
                let left = gen_schema.field(&holder.name);
                let is_moved =
                    left.is_some_and(|one| one.lineage().all(|one| one.number != number));
                let is_twice = taken.get(&number).is_some_and(|name| **name != *field.name);
                let is_same = holder.strategy == new.strategy
                    && holder.value_type == new.value_type
                    && holder.value_strategy == new.value_strategy;
                if is_moved || is_twice || !is_same {
                    return Err(refused(holder, &new));
                }
                *holder = new;
            } else {
                known.push(new);
            }
            taken.insert(number, &field.name);
        }
    }
    Ok(())
}

/// `title: lww String`
fn described(field: &FieldSchema) -> String {
    format!("{}: {} {}", field.name, field.strategy.name(), field.value_type)
}

/// The values in a row that its fields cannot show, of the fields that are wanted.
pub(crate) fn misfits(
    gen_schema: &GenSchema,
    row: &Row<'_>,
    is_wanted: impl Fn(&FieldSchema) -> bool,
) -> Vec<Misfit> {
    let fields = gen_schema.fields.iter().filter(|field| is_wanted(field));
    fields.flat_map(|field| field.misfits(row)).collect()
}
