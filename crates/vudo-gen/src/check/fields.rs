//! Fields: whether type, strategy and default go together.

use vudo_crdt::{ValueType, limits};

use super::File;
use crate::diagnostic::Diagnostic;
use crate::model::{FieldModel, Merge, Place, Type, scalar_value};
use crate::syntax::{FieldSyntax, Literal, LiteralSyntax};

use super::strategies::{Cell, cell};

impl File<'_> {
    /// `None` where the field is in error: what is wrong with it is then reported.
    pub(super) fn field(&mut self, gen_name: &str, syntax: &FieldSyntax) -> Option<FieldModel> {
        let is_short = self.is_short(&syntax.name);
        self.field_name.clone_from(&syntax.name.text);
        let type_span = &syntax.value_type.span;
        let kind = self.value_type(&syntax.value_type);
        let chosen = self.strategy(&syntax.annotations, kind.as_ref(), type_span);
        let (kind, merge) = (kind?, chosen.merge?);
        if !self.check_cell(&kind, merge, type_span) {
            return None;
        }
        if let (Merge::Map(inner), Type::Map(_, value)) = (merge, &kind)
            && !self.check_inner_cell(value, inner.merge(), &chosen.span, type_span)
        {
            return None;
        }
        let default = match &syntax.default {
            Some(literal) => self.default(literal, merge, &kind),
            None => None,
        };
        if cell(&kind, merge) == Cell::Later {
            self.later(&syntax.name, "sequences are not in this version", &chosen.span);
        }
        if !is_short {
            return None;
        }
        let shape = FieldModel::shape(&kind, merge);
        self.rename_in_lock(gen_name, &syntax.name.text);
        let Some(number) = self.lock.field(gen_name, &syntax.name.text, &shape) else {
            let message = format!("{gen_name} has used up its field numbers");
            let label = format!("at most {} fields, ever", limits::MAX_FIELD_NUMBER);
            let diagnostic = Diagnostic::error("E0204", &syntax.name.span, message);
            self.diagnostics.push(diagnostic.label(label));
            return None;
        };
        let name = syntax.name.text.clone();
        let place = Place { file: self.file, span: syntax.name.span.clone() };
        let (counter, predecessors) = (chosen.counter, Vec::new());
        Some(FieldModel { name, place, number, kind, merge, counter, default, predecessors })
    }

    /// Whether the values of a map go with the strategy that the map has for them. That a value is
    /// replaced as a whole is what the values of a map are for, so nothing is said of it.
    fn check_inner_cell(
        &mut self,
        kind: &Type,
        merge: Merge,
        strategy_span: &std::ops::Range<usize>,
        type_span: &std::ops::Range<usize>,
    ) -> bool {
        match cell(kind, merge) {
            Cell::Yes | Cell::Warn("W0310") => true,
            Cell::Later => {
                let message = "sequences cannot be the values of a map in this version".to_owned();
                let diagnostic = Diagnostic::error("E0304", strategy_span, message);
                self.diagnostics.push(diagnostic.label("expected a strategy of records"));
                false
            }
            Cell::Warn(_) | Cell::No => self.check_cell(kind, merge, type_span),
        }
    }

    fn default(&mut self, syntax: &LiteralSyntax, merge: Merge, kind: &Type) -> Option<Literal> {
        if !merge.is_register() {
            let (is_good, message, label) = if merge.is_counter() {
                let is_zero = matches!(syntax.literal, Literal::Integer(0))
                    || matches!(syntax.literal, Literal::Float(number) if number == 0.0);
                (is_zero, "a counter begins at 0".to_owned(), "expected 0, or nothing")
            } else {
                let is_empty = match &syntax.literal {
                    Literal::List(elements) => elements.is_empty(),
                    Literal::Text(text) => merge == Merge::Peritext && text.is_empty(),
                    _ => false,
                };
                let message = format!("a field of {} begins empty", merge.name());
                (is_empty, message, "expected [], or nothing")
            };
            if !is_good {
                let diagnostic = Diagnostic::error("E0207", &syntax.span, message);
                self.diagnostics.push(diagnostic.label(label));
            }
            return None;
        }
        if self.fits(&syntax.literal, kind) {
            return Some(syntax.literal.clone());
        }
        let message = "the default does not fit the field".to_owned();
        let (expected, words) = self.expected_default(kind);
        let mut diagnostic =
            Diagnostic::error("E0207", &syntax.span, message).label(format!("expected {expected}"));
        if let Literal::Word(word) | Literal::Text(word) = &syntax.literal {
            diagnostic = diagnostic.suggest(word, words.iter().map(String::as_str));
        }
        self.diagnostics.push(diagnostic);
        None
    }

    /// What a default of the type looks like, and the words that it can be.
    fn expected_default(&self, kind: &Type) -> (String, Vec<String>) {
        if let Some((least, greatest)) = kind.integer_range() {
            return (format!("{least} to {greatest}"), Vec::new());
        }
        match kind {
            Type::Scalar(ValueType::Bool) => {
                ("true or false".into(), ["true".into(), "false".into()].into())
            }
            Type::Enum(name) => {
                let variants = self.variants_of(name);
                (format!("a variant of {name}"), variants)
            }
            Type::Option(inner) => {
                let (expected, words) = self.expected_default(inner);
                (format!("none, or {expected}"), words)
            }
            _ => (format!("a value of {kind}"), Vec::new()),
        }
    }

    /// Whether a literal is a value of the type. Opaque values have no literals.
    fn fits(&self, literal: &Literal, kind: &Type) -> bool {
        match (kind, literal) {
            (Type::Scalar(scalar), literal) => scalar_value(literal, scalar).is_some(),
            (Type::Ref(_), Literal::Text(_)) | (Type::Option(_), Literal::None) => true,
            (Type::Enum(name), Literal::Word(word)) => self.variants_of(name).contains(word),
            (Type::Option(inner), literal) => self.fits(literal, inner),
            (Type::Set(inner) | Type::List(inner) | Type::Array(inner), Literal::List(list)) => {
                list.iter().all(|element| self.fits(&element.literal, inner))
            }
            (Type::Tuple(parts), Literal::List(list)) => {
                let mut pairs = parts.iter().zip(list);
                parts.len() == list.len() && pairs.all(|(part, one)| self.fits(&one.literal, part))
            }
            (Type::Map(..), Literal::List(list)) => list.is_empty(),
            _ => false,
        }
    }
}
