//! Fields: what their types and strategies mean, and whether they go together.

use std::ops::Range;

use vudo_crdt::{CounterOptions, FieldSchema, Overflow, Strategy, Value, ValueType, limits};

use super::{Checker, Declared, File};
use crate::diagnostic::{Diagnostic, nearest, one_of, quoted};
use crate::syntax::{
    AnnotationKind, AnnotationSyntax, FieldSyntax, Literal, LiteralSyntax, Name, TypeKind,
    TypeSyntax,
};

const STRATEGIES: [&str; 3] = ["immutable", "lww", "pn_counter"];
const LATER_STRATEGIES: [&str; 10] = [
    "mv_register",
    "mvr",
    "g_counter",
    "bounded_counter",
    "escrow",
    "or_set",
    "map",
    "rga",
    "list",
    "peritext",
];
const LATER_TYPES: [&str; 7] = ["Set", "List", "Vec", "Map", "Option", "Ref", "RichText"];

/// A strategy that this version merges, with what its options say.
#[derive(Default)]
struct Chosen {
    /// `None` where no strategy of this version is meant.
    strategy: Option<Strategy>,
    counter: CounterOptions,
}

impl Checker<'_> {
    /// `None` where the field is in error: what is wrong with it is then reported.
    pub(super) fn field(
        &self,
        gen_name: &Name,
        syntax: &FieldSyntax,
        file: &mut File<'_>,
    ) -> Option<FieldSchema> {
        let is_short = file.is_short(&syntax.name);
        let value_type = self.value_type(&syntax.value_type, file);
        let chosen = file.strategy(&syntax.annotations, value_type);
        let (value_type, strategy) = (value_type?, chosen.strategy?);
        let strategy = match strategy.is_counter() {
            true => file.counter_strategy(syntax, value_type)?,
            false => strategy,
        };
        let default = match &syntax.default {
            Some(literal) => file.default(literal, strategy, value_type),
            None => None,
        };
        if !is_short {
            return None;
        }
        let Some(number) = file.lock.number(&gen_name.text, &syntax.name.text) else {
            let message = format!("{} has used up its field numbers", gen_name.text);
            let label = format!("at most {} fields, ever", limits::MAX_FIELD_NUMBER);
            let diagnostic = Diagnostic::error("E0204", &syntax.name.span, message);
            file.diagnostics.push(diagnostic.label(label));
            return None;
        };
        let name = syntax.name.text.clone();
        Some(FieldSchema { name, number, strategy, value_type, default, counter: chosen.counter })
    }

    fn value_type(&self, syntax: &TypeSyntax, file: &mut File<'_>) -> Option<ValueType> {
        let TypeKind::Named { name, arguments } = &syntax.kind else {
            file.later_type(syntax, "sets, lists and tuples are not in this version".into());
            return None;
        };
        let known = match name.eq_ignore_ascii_case("Float") {
            true => Some(ValueType::F64),
            false => {
                ValueType::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
            }
        };
        if arguments.is_empty() && known.is_some() {
            return known;
        }
        if LATER_TYPES.iter().any(|later| later.eq_ignore_ascii_case(name)) {
            file.later_type(syntax, format!("the type {} is not in this version", quoted(name)));
            return None;
        }
        if let Some((declared, _)) = self.declarations.types.get(name.as_str()) {
            let what = if *declared == Declared::Gen { "a Gen" } else { "an enum" };
            let message = format!("{} is {what}: no field holds one in this version", quoted(name));
            file.later_type(syntax, message);
            return None;
        }
        let diagnostic = match known {
            Some(_) => {
                let message = format!("{} takes no types in angle brackets", quoted(name));
                Diagnostic::error("E0205", &syntax.span, message).label("expected only the name")
            }
            None => {
                let names = ValueType::ALL.into_iter().map(ValueType::name).chain(["Float"]);
                let message = format!("there is no type {}", quoted(name));
                Diagnostic::error("E0205", &syntax.span, message)
                    .label("expected a type such as String, Bool, i64, f64, Timestamp or Bytes")
                    .suggest(name, names.chain(LATER_TYPES))
            }
        };
        file.diagnostics.push(diagnostic);
        None
    }
}

impl File<'_> {
    fn later_type(&mut self, syntax: &TypeSyntax, message: String) {
        let diagnostic = Diagnostic::error("E0206", &syntax.span, message)
            .label("this field cannot be stored yet")
            .help("this version stores String, Bool, integers, floats, times and bytes");
        self.diagnostics.push(diagnostic);
    }

    /// What the annotations say about merging; a field without a word about it is lww.
    fn strategy(
        &mut self,
        annotations: &[AnnotationSyntax],
        value_type: Option<ValueType>,
    ) -> Chosen {
        let mut chosen = None;
        for annotation in annotations {
            let AnnotationKind::Crdt { strategy, options } = &annotation.kind else { continue };
            if chosen.is_some() {
                let message = "a field has one strategy".to_owned();
                let diagnostic = Diagnostic::error("E0109", &annotation.span, message);
                self.diagnostics.push(diagnostic.label("the second one"));
                continue;
            }
            let mut one =
                Chosen { strategy: self.strategy_named(strategy, value_type), ..Chosen::default() };
            if one.strategy.is_some() {
                self.options(strategy, options, value_type, &mut one);
            }
            chosen = Some(one);
        }
        chosen.unwrap_or(Chosen { strategy: Some(Strategy::Lww), ..Chosen::default() })
    }

    fn strategy_named(&mut self, name: &Name, value_type: Option<ValueType>) -> Option<Strategy> {
        let text = name.text.as_str();
        match text {
            "immutable" => return Some(Strategy::Immutable),
            "lww" => return Some(Strategy::Lww),
            "pn_counter" => return Some(Strategy::PnCounter),
            later if LATER_STRATEGIES.contains(&later) => {
                // Where the type is not in this version either, that has been said of the field.
                if value_type.is_some() {
                    let message = format!("the strategy '{later}' is not in this version");
                    let diagnostic = Diagnostic::error("E0302", &name.span, message)
                        .label("this field cannot be merged yet")
                        .help(format!("this version has {}", STRATEGIES.join(", ")));
                    self.diagnostics.push(diagnostic);
                }
            }
            other => {
                let message = format!("there is no strategy {}", quoted(other));
                let diagnostic = Diagnostic::error("E0301", &name.span, message)
                    .label(format!("expected {}", one_of(&STRATEGIES)))
                    .suggest(other, STRATEGIES.into_iter().chain(LATER_STRATEGIES));
                self.diagnostics.push(diagnostic);
            }
        }
        None
    }

    fn options(
        &mut self,
        strategy: &Name,
        options: &[(Name, LiteralSyntax)],
        value_type: Option<ValueType>,
        chosen: &mut Chosen,
    ) {
        let allowed: &[&str] = match chosen.strategy {
            Some(Strategy::Lww) => &["tie_break", "clock"],
            Some(Strategy::PnCounter) => &["min_value", "max_value", "overflow_strategy", "clock"],
            _ => &["clock"],
        };
        let mut seen: Vec<&str> = Vec::new();
        for (option, value) in options {
            if !allowed.contains(&option.text.as_str()) {
                let message = format!("{} has no option {}", strategy.text, quoted(&option.text));
                let diagnostic = Diagnostic::error("E0303", &option.span, message)
                    .label(format!("expected {}", one_of(allowed)))
                    .suggest(&option.text, allowed.iter().copied());
                self.diagnostics.push(diagnostic);
            } else if seen.contains(&option.text.as_str()) {
                let message = format!("'{}' is given twice", option.text);
                let diagnostic = Diagnostic::error("E0307", &option.span, message);
                self.diagnostics.push(diagnostic.label("the second one"));
            } else {
                seen.push(&option.text);
                self.option(&option.text, value, value_type, chosen);
            }
        }
        let CounterOptions { min_value, max_value, .. } = chosen.counter;
        if let (Some(least), Some(greatest)) = (min_value, max_value)
            && least > greatest
        {
            let message = format!("min_value {least} is above max_value {greatest}");
            let diagnostic = Diagnostic::error("E0305", &strategy.span, message);
            self.diagnostics.push(diagnostic.label("no count is within both"));
        } else if min_value > Some(0) || max_value.is_some_and(|greatest| greatest < 0) {
            let message = "a counter begins at 0, which is out of these bounds".to_owned();
            let label = "writes are refused until one of them reaches the bounds";
            let diagnostic = Diagnostic::warning("W0308", &strategy.span, message);
            self.diagnostics.push(diagnostic.label(label));
        }
    }

    /// An option that its strategy has.
    fn option(
        &mut self,
        name: &str,
        value: &LiteralSyntax,
        value_type: Option<ValueType>,
        chosen: &mut Chosen,
    ) {
        if matches!(name, "min_value" | "max_value") {
            let bound = self.bound(name, value, value_type);
            let place = match name {
                "min_value" => &mut chosen.counter.min_value,
                _ => &mut chosen.counter.max_value,
            };
            *place = bound;
            return;
        }
        let word = match &value.literal {
            Literal::Text(word) | Literal::Word(word) => word.as_str(),
            _ => "",
        };
        let counter = &mut chosen.counter;
        match (name, word) {
            ("clock", "hlc") | ("tie_break", "replica" | "actor_id") => {}
            ("tie_break", "content" | "content_hash") => {
                chosen.strategy = Some(Strategy::LwwContent);
            }
            ("overflow_strategy", "saturate") => counter.overflow = Overflow::Saturate,
            ("overflow_strategy", "wrap") => counter.overflow = Overflow::Wrap,
            ("overflow_strategy", "error") => counter.overflow = Overflow::Error,
            ("clock", _) => self.not_a_value(name, word, &value.span, &["hlc"]),
            ("tie_break", _) => {
                self.not_a_value(name, word, &value.span, &["replica", "content"]);
            }
            _ => self.not_a_value(name, word, &value.span, &["saturate", "wrap", "error"]),
        }
    }

    fn not_a_value(&mut self, option: &str, word: &str, span: &Range<usize>, expected: &[&str]) {
        let message = format!("this is no value for '{option}'");
        let mut diagnostic = Diagnostic::error("E0304", span, message)
            .label(format!("expected {}", one_of(expected)));
        if let Some(near) = nearest(word, expected.iter().copied()) {
            diagnostic = diagnostic.help(format!("did you mean \"{near}\"?"));
        }
        self.diagnostics.push(diagnostic);
    }

    /// A bound of a counter: an integer, also where floats are counted.
    fn bound(
        &mut self,
        option: &str,
        value: &LiteralSyntax,
        value_type: Option<ValueType>,
    ) -> Option<i64> {
        let number = match value.literal {
            Literal::Integer(number) => Some(number),
            Literal::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                Some(number as i128)
            }
            _ => None,
        };
        let Some(bound) = number.and_then(|number| i64::try_from(number).ok()) else {
            let message = format!("this is no value for '{option}'");
            let diagnostic = Diagnostic::error("E0304", &value.span, message);
            self.diagnostics.push(diagnostic.label("expected an integer of 64 bits"));
            return None;
        };
        if let Some((value_type, (least, greatest))) =
            value_type.and_then(|one| one.integer_range().map(|range| (one, range)))
            && !(least..=greatest).contains(&bound.into())
        {
            let message = format!("no {} is ever {bound}", value_type.name());
            let label = format!("expected {least} to {greatest}");
            self.diagnostics.push(Diagnostic::error("E0305", &value.span, message).label(label));
            return None;
        }
        Some(bound)
    }

    /// Which counter a type asks for.
    fn counter_strategy(
        &mut self,
        syntax: &FieldSyntax,
        value_type: ValueType,
    ) -> Option<Strategy> {
        let span = &syntax.value_type.span;
        if value_type.is_float() {
            let message = "sums of floats depend on rounding".to_owned();
            let label = "replicas agree, but not to the last digit of the true sum";
            self.diagnostics.push(Diagnostic::warning("W0307", span, message).label(label));
            return Some(Strategy::PnCounterFloat);
        }
        if !value_type.is_countable() {
            let message = format!("{} cannot be counted", value_type.name());
            let diagnostic = Diagnostic::error("E0306", span, message)
                .label("expected an integer or a float, as pn_counter adds")
                .help("lww keeps the latest value");
            self.diagnostics.push(diagnostic);
            return None;
        }
        Some(Strategy::PnCounter)
    }

    fn default(
        &mut self,
        syntax: &LiteralSyntax,
        strategy: Strategy,
        value_type: ValueType,
    ) -> Option<Value> {
        if strategy.is_counter() {
            let is_zero = matches!(syntax.literal, Literal::Integer(0))
                || matches!(syntax.literal, Literal::Float(number) if number == 0.0);
            if !is_zero {
                let message = "a counter begins at 0".to_owned();
                let diagnostic = Diagnostic::error("E0207", &syntax.span, message);
                self.diagnostics.push(diagnostic.label("expected 0, or nothing"));
            }
            return None;
        }
        let value = default_value(&syntax.literal, value_type);
        if value.is_none() {
            let message = "the default does not fit the field".to_owned();
            let expected = match value_type.integer_range() {
                Some((least, greatest)) => format!("{least} to {greatest}"),
                None => format!("a value of {}", value_type.name()),
            };
            let mut diagnostic = Diagnostic::error("E0207", &syntax.span, message)
                .label(format!("expected {expected}"));
            if let (ValueType::Bool, Literal::Word(word)) = (value_type, &syntax.literal) {
                diagnostic = diagnostic.suggest(word, ["true", "false"]);
            }
            self.diagnostics.push(diagnostic);
        }
        value
    }
}

/// The value of a literal, where the type holds it.
fn default_value(literal: &Literal, value_type: ValueType) -> Option<Value> {
    let value = match literal {
        Literal::Text(text) => Value::from(text.as_str()),
        Literal::Bool(truth) => Value::Bool(*truth),
        Literal::Integer(number) if value_type == ValueType::F32 => {
            Value::Float(f64::from(*number as f32))
        }
        Literal::Integer(number) if value_type.is_float() => Value::Float(*number as f64),
        Literal::Integer(number) => Value::Int(*number),
        // A number that is too large for `f32` would become an infinity.
        Literal::Float(number) if value_type == ValueType::F32 => {
            Value::Float(Some(*number as f32).filter(|near| near.is_finite())?.into())
        }
        Literal::Float(number) => Value::Float(*number),
        Literal::None | Literal::Word(_) | Literal::List(_) => return None,
    };
    value_type.admits(&value).then_some(value)
}
