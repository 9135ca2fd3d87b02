//! Types: what their names mean.

use vudo_crdt::ValueType;

use super::{Declared, File};
use crate::diagnostic::{Diagnostic, quoted};
use crate::model::Type;
use crate::syntax::{TypeKind, TypeSyntax};

/// Other words for types without parts, in small letters.
const ALIASES: [(&str, &str); 11] = [
    ("float", "f64"),
    ("float32", "f32"),
    ("float64", "f64"),
    ("int8", "i8"),
    ("int16", "i16"),
    ("int32", "i32"),
    ("int64", "i64"),
    ("uint8", "u8"),
    ("uint16", "u16"),
    ("uint32", "u32"),
    ("uint64", "u64"),
];

/// Types that take others, with how many.
const CONTAINERS: [(&str, usize); 6] =
    [("Set", 1), ("List", 1), ("Vec", 1), ("Map", 2), ("Option", 1), ("Ref", 1)];

/// The type without parts of this name, in capitals or not.
fn scalar_named(name: &str) -> Option<ValueType> {
    let small = name.to_ascii_lowercase();
    let small = ALIASES.iter().find(|(alias, _)| *alias == small).map_or(&*small, |(_, of)| of);
    ValueType::SCALARS.into_iter().find(|known| known.to_string().eq_ignore_ascii_case(small))
}

/// Every name that a type can have.
fn names<'a>() -> impl Iterator<Item = &'a str> {
    let scalars = ValueType::SCALARS.into_iter().filter_map(|scalar| scalar.scalar_name());
    scalars.chain(["Float", "RichText"]).chain(CONTAINERS.iter().map(|(name, _)| *name))
}

impl File<'_> {
    /// The type that is written, and whether all of its names are known. `None` where it is in error.
    pub(super) fn value_type(&mut self, syntax: &TypeSyntax) -> Option<Type> {
        let (name, arguments) = match &syntax.kind {
            TypeKind::Named { name, arguments } => (name, arguments),
            TypeKind::Set(inner) => return Some(Type::Set(self.boxed(inner)?)),
            TypeKind::List(inner) => return Some(Type::Array(self.boxed(inner)?)),
            TypeKind::Tuple(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| self.value_type(part)).collect();
                return parts.into_iter().collect::<Option<_>>().map(Type::Tuple);
            }
            TypeKind::Enum(variants) => return Some(self.inline_enum(variants, &syntax.span)),
        };
        if self.parameters.iter().any(|parameter| parameter.text == *name) {
            return Some(Type::Opaque(name.clone()));
        }
        let container = CONTAINERS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        if let Some((container, count)) = container {
            if arguments.len() != *count {
                let types = if *count == 1 { "one type" } else { "two types" };
                let message = format!("{container} takes {types} in angle brackets");
                let example = match *container {
                    "Map" => "Map<String, i64>".to_owned(),
                    "Ref" => "Ref<Task>".to_owned(),
                    other => format!("{other}<String>"),
                };
                let diagnostic = Diagnostic::error("E0205", &syntax.span, message);
                self.diagnostics.push(diagnostic.label(format!("expected {example}")));
                return None;
            }
            return self.container(container, arguments);
        }
        let scalar = scalar_named(name);
        let is_rich = name.eq_ignore_ascii_case("RichText");
        if (scalar.is_some() || is_rich) && !arguments.is_empty() {
            let message = format!("{} takes no types in angle brackets", quoted(name));
            let diagnostic = Diagnostic::error("E0205", &syntax.span, message);
            self.diagnostics.push(diagnostic.label("expected only the name"));
            return None;
        }
        if is_rich {
            return Some(Type::RichText);
        }
        if let Some(scalar) = scalar {
            return Some(Type::Scalar(scalar));
        }
        match self.declared(name) {
            Some(Declared::Gen) if arguments.is_empty() => {
                return Some(Type::Record(name.clone()));
            }
            Some(Declared::Enum) if arguments.is_empty() => return Some(Type::Enum(name.clone())),
            // A Gen with type parameters is only kept.
            Some(_) => return Some(Type::Opaque(name.clone())),
            None => {}
        }
        let message = format!("no Gen or enum is called {}", quoted(name));
        let mut warning = Diagnostic::warning("W0209", &syntax.span, message)
            .label("kept as an opaque value, without a look inside");
        // Of what is only counted nobody reads which word was near.
        if !self.diagnostics.is_full() {
            let declared = self.declarations.types.keys().copied();
            warning = warning.suggest(name, names().chain(declared));
        }
        self.diagnostics.push(warning);
        Some(Type::Opaque(name.clone()))
    }

    fn boxed(&mut self, syntax: &TypeSyntax) -> Option<Box<Type>> {
        self.value_type(syntax).map(Box::new)
    }

    fn container(&mut self, name: &str, arguments: &[TypeSyntax]) -> Option<Type> {
        Some(match (name, arguments) {
            ("Set", [inner]) => Type::Set(self.boxed(inner)?),
            ("Option", [inner]) => Type::Option(self.boxed(inner)?),
            ("Ref", [target]) => self.reference(target)?,
            ("Map", [key, value]) => {
                let (key, value) = (self.boxed(key), self.boxed(value));
                Type::Map(key?, value?)
            }
            (_, inner) => Type::List(self.boxed(&inner[0])?),
        })
    }

    /// `Ref<Task>`: only the key is stored, so nothing depends on whether the Gen is declared here.
    fn reference(&mut self, target: &TypeSyntax) -> Option<Type> {
        let name = match &target.kind {
            TypeKind::Named { name, arguments } if arguments.is_empty() => name,
            _ => {
                let message = "a Ref names a Gen".to_owned();
                let diagnostic = Diagnostic::error("E0205", &target.span, message);
                self.diagnostics.push(diagnostic.label("expected the name of a Gen"));
                return None;
            }
        };
        if self.declared(name) != Some(Declared::Gen) {
            let gens = self.declarations.types.iter();
            let gens = gens.filter(|(_, one)| one.kind == Declared::Gen).map(|(name, _)| *name);
            let warning = Diagnostic::warning(
                "W0209",
                &target.span,
                format!("no Gen is called {}", quoted(name)),
            );
            let warning = warning.label("the key is kept, and what it refers to is not known");
            self.diagnostics.push(warning.suggest(name, gens));
        }
        Some(Type::Ref(name.clone()))
    }
}
