//! Cuts an application's module from the embedded runtime.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use vudo_crdt::{FieldSchema, Schema, Strategy};
use walrus::ir::{
    BinaryOp, Const, ExtendedLoad, Load, LoadKind, MemArg, Store, Value, Visitor, dfs_in_order,
};
use walrus::{
    ConstExpr, Data, DataId, DataKind, ExportId, ExportItem, FunctionBuilder, FunctionId,
    GlobalKind, InstrSeqBuilder, MemoryId, Module, ModuleConfig, ValType,
};
use wasm_encoder::CustomSection;

use super::abi::{
    COMMON, ENTRY_CLASS, ENTRY_EXTRAS, ENTRY_WORD, FIELD_ENTRY_BYTES, FOUND, FieldExport,
    NOT_THIS_OPERATION, OF_GEN, SchemaData, class_of, exports_of, exports_of_class, field_word,
    has_evolved, has_founder, is_encoded, reads_all, sharing_reads,
};
use super::order::order_functions;
use super::{Accessors, BuildError, SCHEMA_SECTION, schema_section};

/// Built by `cargo xtask runtime` from the crate `vudo-gen-runtime`: values without parts under
/// strategies that keep one value; with bounded counters; with values that have parts; with these
/// and registers of many values; with all strategies; and with fields that were something else before.
const RUNTIME: &[u8] = include_bytes!("../../runtime/vudo_gen_runtime.wasm");
const RUNTIME_BOUNDED: &[u8] = include_bytes!("../../runtime/vudo_gen_runtime_bounded.wasm");
const RUNTIME_COMPOSITE: &[u8] = include_bytes!("../../runtime/vudo_gen_runtime_composite.wasm");
const RUNTIME_REGISTERS: &[u8] = include_bytes!("../../runtime/vudo_gen_runtime_registers.wasm");
const RUNTIME_COLLECTIONS: &[u8] =
    include_bytes!("../../runtime/vudo_gen_runtime_collections.wasm");
const RUNTIME_EVOLUTION: &[u8] = include_bytes!("../../runtime/vudo_gen_runtime_evolution.wasm");

/// The smallest runtime that has what a schema needs.
fn runtime_for(schema: &Schema) -> &'static [u8] {
    let any = |is: fn(&FieldSchema) -> bool| schema.gens.iter().flat_map(|one| &one.fields).any(is);
    let has_encoded = any(is_encoded);
    if any(|field| field.predecessor.is_some()) {
        RUNTIME_EVOLUTION
    } else if any(|field| field.strategy.is_collection()) || (has_founder(schema) && has_encoded) {
        RUNTIME_COLLECTIONS
    } else if has_founder(schema) {
        RUNTIME_BOUNDED
    } else if any(|field| field.strategy == Strategy::MvRegister) {
        RUNTIME_REGISTERS
    } else if has_encoded {
        RUNTIME_COMPOSITE
    } else {
        RUNTIME
    }
}

const PAGE_BYTES: u64 = 64 << 10;

/// An address so far before a segment is taken for one into it: where an index begins at one, the
/// optimiser folds the difference into the address of the table.
const LEAD_BYTES: u64 = 16;

pub(super) fn specialise(schema: &Schema, accessors: Accessors) -> Result<Vec<u8>, BuildError> {
    specialise_runtime(schema, accessors)
        .map_err(|error| BuildError::NotAModule(format!("{error:#}")))
}

fn specialise_runtime(schema: &Schema, accessors: Accessors) -> walrus::Result<Vec<u8>> {
    let mut config = ModuleConfig::new();
    config.generate_producers_section(false).generate_name_section(false);
    let mut cutter = Cutter {
        module: config.parse(runtime_for(schema))?,
        kept: COMMON.iter().map(|name| String::from(*name)).collect(),
        added: HashSet::new(),
    };
    if has_founder(schema) {
        cutter.kept.insert(FOUND.into());
    }
    let mut data = SchemaData::of(schema);
    let reads_all = reads_all(schema);
    for (gen_index, gen_schema) in schema.gens.iter().enumerate() {
        let gen_index = Value::I32(gen_index as i32);
        for operation in OF_GEN {
            let name = format!("{}.{operation}", gen_schema.name);
            cutter.add_export(name, operation, &[gen_index])?;
        }
        for field in gen_schema.fields.iter().filter(|_| accessors == Accessors::Typed) {
            let mut extras = None;
            for mut export in exports_of(field) {
                if reads_all {
                    export = sharing_reads(export);
                }
                let name = format!("{}.{}.{}", gen_schema.name, field.name, export.operation);
                let mut constants = Vec::from([gen_index, Value::I32(field_word(field) as i32)]);
                if export.takes_extras {
                    let place = *extras.get_or_insert_with(|| match field.predecessor {
                        None => data.push_extras(field),
                        Some(_) => data.push_schema(field),
                    });
                    constants.push(Value::I32(place as i32));
                }
                cutter.add_export(name, export.runtime_function, &constants)?;
            }
        }
    }
    if accessors == Accessors::Generic {
        add_generic_exports(&mut cutter, schema, &mut data)?;
    }
    cutter.place_data(data.bytes)?;
    cutter.finish(schema_section::encode(schema, accessors))
}

/// Adds a table of all fields to the data, and for each class of fields exports that look there.
fn add_generic_exports(
    cutter: &mut Cutter,
    schema: &Schema,
    data: &mut SchemaData,
) -> walrus::Result<()> {
    let fields: Vec<(usize, &FieldSchema)> = (schema.gens.iter().enumerate())
        .flat_map(|(gen_index, one)| one.fields.iter().map(move |field| (gen_index, field)))
        .collect();
    let mut classes: BTreeMap<char, Vec<&FieldSchema>> = BTreeMap::new();
    for (_, field) in &fields {
        classes.entry(class_of(field)).or_default().push(field);
    }
    let classes: BTreeMap<char, (bool, Vec<FieldExport>)> = (classes.into_iter())
        .map(|(class, fields)| (class, (has_evolved(&fields), exports_of_class(&fields))))
        .collect();
    let mut extras = Vec::new();
    for (_, field) in &fields {
        let (is_evolved, exports) = &classes[&class_of(field)];
        extras.push(match exports.iter().any(|export| export.takes_extras) {
            true if *is_evolved => data.push_schema(field),
            true => data.push_extras(field),
            false => 0,
        });
    }
    let table = Table {
        address: cutter.heap_base()? + data.bytes.len() as u32,
        field_count: fields.len() as i32,
    };
    for ((gen_index, field), extras) in fields.into_iter().zip(extras) {
        data.push_entry(gen_index, field, extras);
    }
    for (class, (_, exports)) in &classes {
        for export in exports {
            cutter.add_generic_export(*class, export, &table)?;
        }
    }
    Ok(())
}

/// Where the table of all fields lies, and how long it is.
struct Table {
    address: u32,
    field_count: i32,
}

struct Cutter {
    module: Module,
    /// The names of the exports that the finished module has.
    kept: HashSet<String>,
    /// The functions that the runtime does not have.
    added: HashSet<FunctionId>,
}

impl Cutter {
    /// Adds an export that calls the runtime's function with these constants before its own
    /// arguments.
    fn add_export(
        &mut self,
        name: String,
        runtime_function: &str,
        constants: &[Value],
    ) -> walrus::Result<()> {
        let function = self.module.exports.get_func(runtime_function)?;
        let function_type = self.module.funcs.get(function).ty();
        let function_type = self.module.types.get(function_type);
        let parameters = function_type.params()[constants.len()..].to_vec();
        let results = function_type.results().to_vec();
        let mut builder = FunctionBuilder::new(&mut self.module.types, &parameters, &results);
        let arguments: Vec<_> =
            parameters.iter().map(|parameter| self.module.locals.add(*parameter)).collect();
        let mut body = builder.func_body();
        constants.iter().for_each(|constant| {
            body.const_(*constant);
        });
        arguments.iter().for_each(|argument| {
            body.local_get(*argument);
        });
        body.call(function);
        let wrapper = builder.finish(arguments, &mut self.module.funcs);
        self.module.exports.add(&name, wrapper);
        self.kept.insert(name);
        self.added.insert(wrapper);
        Ok(())
    }

    /// Adds an export for the fields of a class that takes the number of a field in front of its own
    /// arguments, and calls the runtime's function with what the table has of the field.
    fn add_generic_export(
        &mut self,
        class: char,
        export: &FieldExport,
        table: &Table,
    ) -> walrus::Result<()> {
        let memory = self.memory()?;
        let function = self.module.exports.get_func(export.runtime_function)?;
        let function_type = self.module.types.get(self.module.funcs.get(function).ty());
        let constant_count = 2 + usize::from(export.takes_extras);
        let mut parameters = Vec::from([ValType::I32]);
        parameters.extend_from_slice(&function_type.params()[constant_count..]);
        let results = function_type.results().to_vec();
        let mut builder = FunctionBuilder::new(&mut self.module.types, &parameters, &results);
        let arguments: Vec<_> =
            parameters.iter().map(|parameter| self.module.locals.add(*parameter)).collect();
        let (field, entry) = (arguments[0], self.module.locals.add(ValType::I32));
        let refuse = |then: &mut InstrSeqBuilder<'_>| {
            then.i32_const(NOT_THIS_OPERATION).return_();
        };
        let at = |offset: u32| MemArg { align: 1, offset: offset.into() };
        let byte = LoadKind::I32_8 { kind: ExtendedLoad::ZeroExtend };
        let two_bytes = LoadKind::I32_16 { kind: ExtendedLoad::ZeroExtend };
        let mut body = builder.func_body();
        body.local_get(field).i32_const(table.field_count).binop(BinaryOp::I32GeU);
        body.if_else(None, refuse, |_| {});
        body.local_get(field).i32_const(FIELD_ENTRY_BYTES as i32).binop(BinaryOp::I32Mul);
        body.i32_const(table.address as i32).binop(BinaryOp::I32Add).local_tee(entry);
        body.load(memory, byte, at(ENTRY_CLASS)).i32_const(class as i32).binop(BinaryOp::I32Ne);
        body.if_else(None, refuse, |_| {});
        body.local_get(entry).load(memory, two_bytes, at(0));
        let words = [ENTRY_WORD, ENTRY_EXTRAS];
        for word in &words[..constant_count - 1] {
            body.local_get(entry).load(memory, LoadKind::I32 { atomic: false }, at(*word));
        }
        for argument in &arguments[1..] {
            body.local_get(*argument);
        }
        body.call(function);
        let wrapper = builder.finish(arguments, &mut self.module.funcs);
        let name = format!("{class}.{}", export.operation);
        self.module.exports.add(&name, wrapper);
        self.kept.insert(name);
        self.added.insert(wrapper);
        Ok(())
    }

    /// Puts the compiler's data behind the runtime's own and tells the runtime where it is. The
    /// allocator takes fresh pages only, so whatever lies in the first ones is safe.
    fn place_data(&mut self, bytes: Vec<u8>) -> walrus::Result<()> {
        let memory = self.memory()?;
        let place = self.heap_base()?;
        let end_page = (u64::from(place) + bytes.len() as u64).div_ceil(PAGE_BYTES);
        let memory_limits = self.module.memories.get_mut(memory);
        memory_limits.initial = memory_limits.initial.max(end_page);
        self.replace_import("address", place as i32)?;
        self.replace_import("length", bytes.len() as i32)?;
        let offset = ConstExpr::Value(Value::I32(place as i32));
        self.module.data.add(DataKind::Active { memory, offset }, bytes);
        Ok(())
    }

    fn memory(&self) -> walrus::Result<MemoryId> {
        self.module.get_memory_id()
    }

    /// Where the runtime's own data ends.
    fn heap_base(&self) -> walrus::Result<u32> {
        let export = self.export_named("__heap_base");
        if let Some(ExportItem::Global(global)) = export.map(|id| self.module.exports.get(id).item)
            && let GlobalKind::Local(ConstExpr::Value(Value::I32(address))) =
                self.module.globals.get(global).kind
        {
            return Ok(address as u32);
        }
        Err(walrus::ErrorKind::InvalidWasm.into())
    }

    fn export_named(&self, name: &str) -> Option<ExportId> {
        let mut exports = self.module.exports.iter();
        exports.find(|export| export.name == name).map(|export| export.id())
    }

    fn replace_import(&mut self, name: &str, constant: i32) -> walrus::Result<FunctionId> {
        let function = self.module.imports.get_func("schema", name)?;
        self.module.replace_imported_func(function, |(body, _)| {
            body.i32_const(constant);
        })
    }

    fn finish(mut self, schema: Vec<u8>) -> walrus::Result<Vec<u8>> {
        let dropped: Vec<ExportId> = (self.module.exports.iter())
            .filter(|export| !self.kept.contains(&export.name))
            .map(|export| export.id())
            .collect();
        for export in dropped {
            self.module.exports.delete(export);
        }
        walrus::passes::gc::run(&mut self.module);
        drop_unused_data(&mut self.module);
        let schema = CustomSection { name: SCHEMA_SECTION.into(), data: schema.into() };
        order_functions(&self.module.emit_wasm(), &self.order_of_functions(), &schema)
    }

    /// The order that functions had in the runtime and then those of the exports for fields by type,
    /// in indexes as walrus writes them: the longest function first.
    fn order_of_functions(&self) -> Vec<u32> {
        let functions = self.module.funcs.iter_local();
        let mut written: Vec<(Reverse<u64>, FunctionId)> =
            functions.map(|(id, function)| (Reverse(function.size()), id)).collect();
        written.sort_unstable();
        let mut order: Vec<u32> = (0..written.len() as u32).collect();
        order.sort_by_key(|index| {
            let (_, id) = written[*index as usize];
            let is_added = self.added.contains(&id);
            (is_added.then(|| self.module.funcs.get(id).ty()), id)
        });
        order
    }
}

/// Drops the data segments that neither code nor kept data refers to, and those that say nothing.
/// The linker gives each constant of the runtime a segment of its own, most of them texts of panics
/// that no code here prints.
fn drop_unused_data(module: &mut Module) {
    let mut addresses = Addresses::default();
    for (_, function) in module.funcs.iter_local() {
        dfs_in_order(&mut addresses, function, function.entry_block());
    }
    let mut unused: Vec<_> = module.data.iter().map(|data| data.id()).collect();
    loop {
        let is_used = |id: &DataId| {
            let data = module.data.get(*id);
            let start = address_of(data);
            let first = start.saturating_sub(LEAD_BYTES);
            let mut range = addresses.0.range(first..start + data.value.len() as u64);
            range.next().is_some()
        };
        let Some(place) = unused.iter().position(is_used) else {
            break;
        };
        let used = unused.swap_remove(place);
        let words = module.data.get(used).value.as_chunks::<4>().0;
        let words = words.iter().map(|word| u64::from(u32::from_le_bytes(*word)));
        addresses.0.extend(words);
    }
    let says_nothing = |data: &&Data| {
        // Memory is zero from the start, and where in its source a panic was is never read.
        data.value.iter().all(|byte| *byte == 0) || data.value.ends_with(b".rs\0")
    };
    unused.extend(module.data.iter().filter(says_nothing).map(|data| data.id()));
    unused.sort_unstable();
    unused.dedup();
    unused.into_iter().for_each(|id| module.data.delete(id));
}

/// Every constant and offset in the code that may be an address.
#[derive(Default)]
struct Addresses(BTreeSet<u64>);

impl<'instructions> Visitor<'instructions> for Addresses {
    fn visit_const(&mut self, constant: &Const) {
        if let Value::I32(number) = constant.value {
            self.0.insert((number as u32).into());
        }
    }

    fn visit_load(&mut self, load: &Load) {
        self.0.insert(load.arg.offset);
    }

    fn visit_store(&mut self, store: &Store) {
        self.0.insert(store.arg.offset);
    }
}

/// Where an active segment lies; the linker writes no others.
fn address_of(data: &Data) -> u64 {
    match data.kind {
        DataKind::Active { offset: ConstExpr::Value(Value::I32(address)), .. } => {
            (address as u32).into()
        }
        _ => 0,
    }
}
