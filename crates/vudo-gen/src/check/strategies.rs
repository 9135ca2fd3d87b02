//! Strategies: which types they merge, and what their options say.

use std::ops::Range;

use vudo_crdt::{CounterOptions, Overflow, ValueType};

use super::File;
use crate::diagnostic::{Diagnostic, nearest, one_of, quoted};
use crate::model::{Inner, Merge, Type};
use crate::syntax::{AnnotationKind, AnnotationSyntax, Literal, LiteralSyntax, Name};

/// What the language says of a type under a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Yes,
    /// Allowed, with a warning of this code.
    Warn(&'static str),
    /// Parsed and checked, and not stored by this version.
    Later,
    No,
}

/// The rows of the language's table.
#[derive(Clone, Copy)]
enum Row {
    Integer,
    Float,
    String,
    Plain,
    Set,
    List,
    Array,
    Map,
    RichText,
    Opaque,
}

fn row_of(kind: &Type) -> Row {
    match kind {
        Type::Scalar(ValueType::String) => Row::String,
        Type::Scalar(scalar) if scalar.is_countable() => Row::Integer,
        Type::Scalar(scalar) if scalar.is_float() => Row::Float,
        Type::Set(_) => Row::Set,
        Type::List(_) => Row::List,
        Type::Array(_) => Row::Array,
        Type::Map(..) => Row::Map,
        Type::RichText => Row::RichText,
        Type::Opaque(_) => Row::Opaque,
        _ => Row::Plain,
    }
}

/// The language's table.
pub(crate) fn cell(kind: &Type, merge: Merge) -> Cell {
    use Cell::{Later, No, Warn, Yes};
    let row = row_of(kind);
    match merge {
        Merge::Immutable | Merge::Lww | Merge::LwwContent => match row {
            Row::Set | Row::List | Row::Array | Row::Map => Warn("W0310"),
            Row::RichText => No,
            _ => Yes,
        },
        Merge::MvRegister => match row {
            Row::RichText => No,
            _ => Yes,
        },
        Merge::GCounter | Merge::PnCounter | Merge::BoundedCounter => match row {
            Row::Integer => Yes,
            Row::Float if merge == Merge::PnCounter => Warn("W0307"),
            _ => No,
        },
        Merge::OrSet => match row {
            Row::Set | Row::Array => Yes,
            Row::Map => Warn("W0311"),
            _ => No,
        },
        Merge::Map(_) => match row {
            Row::Map => Yes,
            _ => No,
        },
        Merge::Rga | Merge::List => match row {
            Row::List | Row::Array => Later,
            _ => No,
        },
        Merge::Peritext => match row {
            Row::String | Row::RichText => Later,
            _ => No,
        },
    }
}

/// What the annotations of a field say about merging.
pub(super) struct Chosen {
    /// `None` where no strategy is meant that the language has.
    pub(super) merge: Option<Merge>,
    pub(super) counter: CounterOptions,
    /// The strategy's name, or the type where there is none.
    pub(super) span: Range<usize>,
}

/// The options that a strategy takes.
fn options_of(merge: Merge) -> &'static [&'static str] {
    match merge {
        Merge::Lww | Merge::LwwContent => &["tie_break", "clock"],
        Merge::GCounter | Merge::PnCounter | Merge::BoundedCounter => {
            &["min_value", "max_value", "overflow_strategy", "clock"]
        }
        Merge::Map(_) => &["value", "clock"],
        Merge::Peritext => &["formatting", "max_length", "clock"],
        _ => &["clock"],
    }
}

impl File<'_> {
    /// What the annotations say about merging; a field without a word about it is lww.
    pub(super) fn strategy(
        &mut self,
        annotations: &[AnnotationSyntax],
        kind: Option<&Type>,
        type_span: &Range<usize>,
    ) -> Chosen {
        let unsaid = |span: &Range<usize>, merge| Chosen {
            merge,
            counter: CounterOptions::default(),
            span: span.clone(),
        };
        let mut chosen = None;
        for annotation in annotations {
            let AnnotationKind::Crdt { strategy, options } = &annotation.kind else { continue };
            if chosen.is_some() {
                let message = "a field has one strategy".to_owned();
                let diagnostic = Diagnostic::error("E0109", &annotation.span, message);
                self.diagnostics.push(diagnostic.label("the second one"));
                continue;
            }
            let mut one = unsaid(&strategy.span, self.strategy_named(strategy));
            if let Some(merge) = one.merge {
                self.options(merge, strategy, options, kind, &mut one);
            }
            chosen = Some(one);
        }
        chosen.unwrap_or_else(|| unsaid(type_span, Some(Merge::Lww)))
    }

    fn strategy_named(&mut self, name: &Name) -> Option<Merge> {
        let found = Merge::named(&name.text);
        if found.is_none() {
            let names = Merge::NAMES.map(|(name, _)| name);
            let message = format!("there is no strategy {}", quoted(&name.text));
            let diagnostic = Diagnostic::error("E0301", &name.span, message)
                .label("expected a strategy such as immutable, lww, pn_counter, or_set or map")
                .suggest(&name.text, names);
            self.diagnostics.push(diagnostic);
        }
        found
    }

    /// Whether the type goes with the strategy, which is said where it does not.
    pub(super) fn check_cell(&mut self, kind: &Type, merge: Merge, span: &Range<usize>) -> bool {
        let name = merge.name();
        let diagnostic = match cell(kind, merge) {
            Cell::Yes | Cell::Later => return true,
            Cell::Warn("W0307") => {
                let message = "sums of floats depend on rounding".to_owned();
                Diagnostic::warning("W0307", span, message)
                    .label("replicas agree, but not to the last digit of the true sum")
            }
            Cell::Warn("W0311") => {
                let message = "or_set keeps the keys of a map only".to_owned();
                Diagnostic::warning("W0311", span, message)
                    .label("the values are not stored")
                    .help("map keeps keys with values; Set<..> says that there are keys only")
            }
            Cell::Warn(code) => {
                let better = match kind {
                    Type::Set(_) => "or_set merges what both add and remove",
                    Type::Map(..) => "map merges entry by entry",
                    Type::Array(_) => "or_set merges elements whose order does not matter",
                    _ => "mv_register keeps both",
                };
                let message = format!("{name} keeps a {kind} as one value");
                Diagnostic::warning(code, span, message)
                    .label("of two concurrent changes only one stays")
                    .help(better)
            }
            Cell::No => {
                let message = match merge.is_counter() {
                    true => format!("{kind} cannot be counted"),
                    false => format!("{name} does not merge {kind}"),
                };
                let (expected, help) = expectation(merge, kind);
                Diagnostic::error("E0306", span, message).label(expected).help(help)
            }
        };
        let is_good = diagnostic.severity != crate::Severity::Error;
        self.diagnostics.push(diagnostic);
        is_good
    }

    fn options(
        &mut self,
        merge: Merge,
        strategy: &Name,
        options: &[(Name, LiteralSyntax)],
        kind: Option<&Type>,
        chosen: &mut Chosen,
    ) {
        let allowed = options_of(merge);
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
                self.option(&option.text, value, kind, chosen);
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
        kind: Option<&Type>,
        chosen: &mut Chosen,
    ) {
        let word = match &value.literal {
            Literal::Text(word) | Literal::Word(word) => word.as_str(),
            _ => "",
        };
        let counter = &mut chosen.counter;
        match (name, word) {
            ("min_value", _) => counter.min_value = self.bound(name, value, kind),
            ("max_value", _) => counter.max_value = self.bound(name, value, kind),
            ("clock", "hlc") | ("tie_break", "replica" | "actor_id") => {}
            ("formatting", "full" | "markdown" | "plain") => {}
            ("tie_break", "content" | "content_hash") => chosen.merge = Some(Merge::LwwContent),
            ("overflow_strategy", "saturate") => counter.overflow = Overflow::Saturate,
            ("overflow_strategy", "wrap") if chosen.merge != Some(Merge::BoundedCounter) => {
                counter.overflow = Overflow::Wrap;
            }
            ("overflow_strategy", "error") => counter.overflow = Overflow::Error,
            ("max_length", _) => {
                let is_length = matches!(&value.literal, Literal::Integer(length) if *length > 0);
                if !is_length {
                    let message = "this is no value for 'max_length'".to_owned();
                    let diagnostic = Diagnostic::error("E0304", &value.span, message);
                    self.diagnostics.push(diagnostic.label("expected a number of characters"));
                }
            }
            ("value", word) => self.map_value(word, &value.span, chosen),
            ("clock", _) => self.not_a_value(name, word, &value.span, &["hlc"]),
            ("tie_break", _) => {
                self.not_a_value(name, word, &value.span, &["replica", "content"]);
            }
            ("formatting", _) => {
                self.not_a_value(name, word, &value.span, &["full", "markdown", "plain"]);
            }
            _ if chosen.merge == Some(Merge::BoundedCounter) => {
                self.not_a_value(name, word, &value.span, &["saturate", "error"]);
            }
            _ => self.not_a_value(name, word, &value.span, &["saturate", "wrap", "error"]),
        }
    }

    /// `value = pn_counter` of a map.
    fn map_value(&mut self, word: &str, span: &Range<usize>, chosen: &mut Chosen) {
        let merge = Merge::named(word);
        match merge.and_then(Inner::of) {
            Some(inner) => chosen.merge = Some(Merge::Map(inner)),
            None if merge == Some(Merge::BoundedCounter) => {
                let message = "bounded_counter cannot be the strategy of a map's values".to_owned();
                let diagnostic = Diagnostic::error("E0304", span, message)
                    .label("rights belong to a field of a document")
                    .help("pn_counter counts without a bound; a Gen of its own can have one");
                self.diagnostics.push(diagnostic);
            }
            None if merge.is_some_and(Merge::is_sequence) => {
                let message = "sequences cannot be the values of a map in this version".to_owned();
                let diagnostic = Diagnostic::error("E0304", span, message);
                self.diagnostics.push(diagnostic.label("expected a strategy of records"));
            }
            None => {
                let names =
                    ["lww", "immutable", "mv_register", "g_counter", "pn_counter", "or_set"];
                self.not_a_value("value", word, span, &names);
            }
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
    fn bound(&mut self, option: &str, value: &LiteralSyntax, kind: Option<&Type>) -> Option<i64> {
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
        if let Some((kind, (least, greatest))) =
            kind.and_then(|one| one.integer_range().map(|range| (one, range)))
            && !(least..=greatest).contains(&bound.into())
        {
            let message = format!("no {kind} is ever {bound}");
            let label = format!("expected {least} to {greatest}");
            self.diagnostics.push(Diagnostic::error("E0305", &value.span, message).label(label));
            return None;
        }
        Some(bound)
    }
}

/// What a strategy merges, and what would merge the type.
fn expectation(merge: Merge, kind: &Type) -> (String, &'static str) {
    let expected = match merge {
        Merge::PnCounter => "an integer or a float, as pn_counter adds".to_owned(),
        Merge::GCounter | Merge::BoundedCounter => format!("an integer, as {} adds", merge.name()),
        Merge::OrSet => "Set<..> or [..]".to_owned(),
        Merge::Map(_) => "Map<.., ..>".to_owned(),
        Merge::Rga | Merge::List => "List<..> or [..]".to_owned(),
        Merge::Peritext => "String or RichText".to_owned(),
        _ => "a type of records".to_owned(),
    };
    let help = match row_of(kind) {
        Row::Float => "pn_counter counts floats",
        Row::Set => "or_set merges sets",
        Row::Map => "map merges maps entry by entry",
        Row::RichText => "peritext merges rich text",
        Row::Opaque => "declare the type as a Gen or an enum, or keep it with lww",
        _ => "lww keeps the latest value",
    };
    (format!("expected {expected}"), help)
}
