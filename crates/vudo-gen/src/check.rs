//! A syntax tree to a schema: what the words mean, and whether they go together.

use std::ops::Range;

use vudo_crdt::{
    CounterOptions, FieldSchema, GenSchema, Overflow, Schema, Strategy, Value, ValueType, limits,
};

use crate::diagnostic::{Diagnostic, Severity, nearest};
use crate::lock::Lock;
use crate::syntax::{
    FieldSyntax, GenSyntax, Literal, LiteralSyntax, Name, StrategySyntax, TypeSyntax,
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
const LATER_TYPES: [&str; 13] = [
    "Set",
    "List",
    "Vec",
    "Map",
    "Option",
    "Ref",
    "Bytes",
    "Uuid",
    "Timestamp",
    "Duration",
    "Identity",
    "RichText",
    "Enum",
];

/// Checks the Gens of one file.
pub(crate) struct Checker<'a> {
    pub(crate) file: usize,
    pub(crate) diagnostics: &'a mut Vec<Diagnostic>,
}

impl Checker<'_> {
    fn report(
        &mut self,
        code: &'static str,
        severity: Severity,
        span: &Range<usize>,
        message: String,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        let (file, span, label) = (self.file, span.clone(), label.into());
        self.diagnostics.push(Diagnostic { code, severity, message, file, span, label, help });
    }

    fn error(
        &mut self,
        code: &'static str,
        span: &Range<usize>,
        message: String,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        self.report(code, Severity::Error, span, message, label, help);
    }

    /// Adds a Gen to the schema. Fields that are in error are left out of it.
    pub(crate) fn gen_schema(&mut self, syntax: &GenSyntax, lock: &mut Lock, schema: &mut Schema) {
        let name = &syntax.name;
        if name.text.len() > limits::MAX_GEN_NAME_BYTES {
            let longest = limits::MAX_GEN_NAME_BYTES;
            let message = format!("a name has at most {longest} bytes");
            self.error("E0201", &name.span, message, "too long", None);
            return;
        }
        if schema.gen_named(&name.text).is_some() {
            let message = format!("there is a Gen '{}' already", name.text);
            self.error("E0202", &name.span, message, "declared again", None);
            return;
        }
        let mut fields: Vec<FieldSchema> = Vec::new();
        for field in &syntax.fields {
            if fields.iter().any(|known| known.name == field.name.text) {
                let message = format!("{} has a field '{}' already", name.text, field.name.text);
                self.error("E0203", &field.name.span, message, "declared again", None);
                continue;
            }
            fields.extend(self.field(&name.text, field, lock));
        }
        schema.gens.push(GenSchema { name: name.text.clone(), fields });
    }

    fn field(
        &mut self,
        gen_name: &str,
        syntax: &FieldSyntax,
        lock: &mut Lock,
    ) -> Option<FieldSchema> {
        let value_type = self.value_type(&syntax.value_type);
        let strategy = match &syntax.strategy {
            Some(strategy) => self.strategy(strategy),
            None => Some(Strategy::Lww),
        };
        let (value_type, mut strategy) = (value_type?, strategy?);
        let mut counter = CounterOptions::default();
        if let Some(strategy_syntax) = &syntax.strategy {
            self.options(strategy_syntax, &mut strategy, &mut counter);
            if strategy.is_counter() {
                strategy = self.counter_strategy(strategy_syntax, syntax, value_type)?;
            }
        }
        let default = match &syntax.default {
            Some(literal) => self.default(literal, strategy, value_type),
            None => None,
        };
        let number = lock.number(gen_name, &syntax.name.text);
        if number > limits::MAX_FIELD_NUMBER {
            let message = format!("{gen_name} has used up its field numbers");
            let label = format!("at most {} fields, ever", limits::MAX_FIELD_NUMBER);
            self.error("E0204", &syntax.name.span, message, label, None);
            return None;
        }
        let name = syntax.name.text.clone();
        Some(FieldSchema { name, number, strategy, value_type, default, counter })
    }

    fn value_type(&mut self, syntax: &TypeSyntax) -> Option<ValueType> {
        let base: String =
            syntax.text.chars().take_while(|one| one.is_alphanumeric() || *one == '_').collect();
        let known = ValueType::ALL
            .into_iter()
            .find(|known| syntax.is_plain && known.name().eq_ignore_ascii_case(&syntax.text));
        if known.is_some() {
            return known;
        }
        if syntax.is_plain && syntax.text.eq_ignore_ascii_case("Float") {
            return Some(ValueType::F64);
        }
        let is_later =
            !syntax.is_plain || LATER_TYPES.iter().any(|later| later.eq_ignore_ascii_case(&base));
        if is_later {
            let message = format!("the type '{}' is not in this version", syntax.text);
            let label = "this field cannot be stored yet";
            let help = "String, Bool, integers and floats are".to_owned();
            self.error("E0206", &syntax.span, message, label, Some(help));
        } else {
            let names = ValueType::ALL.into_iter().map(ValueType::name).chain(["Float"]);
            let help = nearest(&syntax.text, names).map(|near| format!("did you mean '{near}'?"));
            let message = format!("there is no type '{}'", syntax.text);
            let label = "expected String, Bool, an integer or a float";
            self.error("E0205", &syntax.span, message, label, help);
        }
        None
    }

    fn strategy(&mut self, syntax: &StrategySyntax) -> Option<Strategy> {
        let Name { text, span } = &syntax.name;
        match text.as_str() {
            "immutable" => return Some(Strategy::Immutable),
            "lww" => return Some(Strategy::Lww),
            "pn_counter" => return Some(Strategy::PnCounter),
            _ => {}
        }
        if LATER_STRATEGIES.contains(&text.as_str()) {
            let message = format!("the strategy '{text}' is not in this version");
            let help = format!("{} are", STRATEGIES.join(", "));
            self.error("E0302", span, message, "this field cannot be merged yet", Some(help));
        } else {
            let help = nearest(text, STRATEGIES.into_iter().chain(LATER_STRATEGIES))
                .map(|near| format!("did you mean '{near}'?"));
            let message = format!("there is no strategy '{text}'");
            self.error("E0301", span, message, format!("expected {}", STRATEGIES.join(", ")), help);
        }
        None
    }

    fn options(
        &mut self,
        syntax: &StrategySyntax,
        strategy: &mut Strategy,
        counter: &mut CounterOptions,
    ) {
        let allowed: &[&str] = match strategy {
            Strategy::Lww => &["tie_break", "clock"],
            Strategy::PnCounter => &["min_value", "max_value", "overflow_strategy"],
            _ => &["clock"],
        };
        for (option, value) in &syntax.options {
            if !allowed.contains(&option.text.as_str()) {
                let near = nearest(&option.text, allowed.iter().copied());
                let help = near.map(|near| format!("did you mean '{near}'?"));
                let message = format!("{} has no option '{}'", syntax.name.text, option.text);
                let label = format!("expected {}", allowed.join(" or "));
                self.error("E0303", &option.span, message, label, help);
                continue;
            }
            let word = match &value.literal {
                Literal::Text(word) | Literal::Word(word) => word.as_str(),
                _ => "",
            };
            match (option.text.as_str(), word, &value.literal) {
                ("clock", "hlc", _) | ("tie_break", "replica" | "actor_id", _) => {}
                ("tie_break", "content" | "content_hash", _) => *strategy = Strategy::LwwContent,
                ("overflow_strategy", "saturate", _) => counter.overflow = Overflow::Saturate,
                ("overflow_strategy", "wrap", _) => counter.overflow = Overflow::Wrap,
                ("overflow_strategy", "error", _) => counter.overflow = Overflow::Error,
                ("min_value", _, Literal::Integer(bound)) if i64::try_from(*bound).is_ok() => {
                    counter.min_value = Some(*bound as i64);
                }
                ("max_value", _, Literal::Integer(bound)) if i64::try_from(*bound).is_ok() => {
                    counter.max_value = Some(*bound as i64);
                }
                (name, _, _) => self.option_value(name, word, value),
            }
        }
        if let (Some(least), Some(greatest)) = (counter.min_value, counter.max_value)
            && least > greatest
        {
            let message = format!("min_value {least} is above max_value {greatest}");
            self.error("E0305", &syntax.name.span, message, "no count is within both", None);
        }
    }

    fn option_value(&mut self, option: &str, word: &str, value: &LiteralSyntax) {
        let expected: &[&str] = match option {
            "clock" => &["hlc"],
            "tie_break" => &["replica", "content"],
            "overflow_strategy" => &["saturate", "wrap", "error"],
            _ => &[],
        };
        let help = nearest(word, expected.iter().copied());
        let help = help.map(|near| format!("did you mean \"{near}\"?"));
        let label = match expected.is_empty() {
            true => "expected an integer of 64 bits".to_owned(),
            false => format!("expected {}", expected.join(", ")),
        };
        let message = format!("this is no value for '{option}'");
        self.error("E0304", &value.span, message, label, help);
    }

    /// Which counter a type asks for.
    fn counter_strategy(
        &mut self,
        strategy: &StrategySyntax,
        field: &FieldSyntax,
        value_type: ValueType,
    ) -> Option<Strategy> {
        if value_type.is_float() {
            let message = "sums of floats depend on rounding".to_owned();
            let label = "replicas agree, but not to the last digit of the true sum";
            let span = &field.value_type.span;
            self.report("W0307", Severity::Warning, span, message, label, None);
            return Some(Strategy::PnCounterFloat);
        }
        if value_type.integer_range().is_none() {
            let message = format!("{} cannot be counted", value_type.name());
            let label = "expected an integer or a float";
            let help = "lww keeps the latest value".to_owned();
            self.error("E0306", &strategy.name.span, message, label, Some(help));
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
                self.error("E0207", &syntax.span, message, "expected 0, or nothing", None);
            }
            return None;
        }
        let value = match &syntax.literal {
            Literal::Text(text) => Some(Value::from(text.as_str())),
            Literal::Bool(truth) => Some(Value::Bool(*truth)),
            Literal::Float(number) if value_type == ValueType::F32 => {
                Some(Value::Float(f64::from(*number as f32)))
            }
            Literal::Float(number) => Some(Value::Float(*number)),
            Literal::Integer(number) if value_type.is_float() => Some(Value::Float(*number as f64)),
            Literal::Integer(number) => Some(Value::Int(*number)),
            Literal::None | Literal::Word(_) | Literal::List => None,
        };
        let fitting = value.filter(|value| value_type.admits(value));
        if fitting.is_none() {
            let message = "the default does not fit the field".to_owned();
            let label = format!("expected a value of {}", value_type.name());
            self.error("E0207", &syntax.span, message, label, None);
        }
        fitting
    }
}
