//! Rules and conditions: their types, their form for the engine, and what holds them.
//!
//! **Classes.** A is held by the strategy itself: of concurrent writes of one register one stays
//! whole, and each was checked where it was made. B may break while replicas are apart, because two
//! writes that were each right meet in one document; it is reported then. C is a bound of what is
//! summed over replicas, which only agreement beforehand can hold.

use vudo_crdt::limits::MAX_RULE_PARTS;
use vudo_crdt::rule::Operation;
use vudo_crdt::{Expression, Rule, Value, ValueType};

use super::File;
use crate::diagnostic::{Diagnostic, quoted};
use crate::model::{FieldModel, Merge, Type};
use crate::syntax::{
    BinaryOperator, ExpressionKind, ExpressionSyntax, FileSyntax, GenSyntax, ItemSyntax, Literal,
    MemberSyntax, Name, RuleSyntax, UnaryOperator,
};

/// What is said of a rule, `where` or constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// With its Gen, as in `Task.small`.
    pub name: String,
    /// `'A'`, `'B'` or `'C'`; `None` where it is in words that are not judged.
    pub class: Option<char>,
    /// What that means for it.
    pub meaning: &'static str,
}

pub(super) type Constraints = Vec<Constraint>;

const HELD: &str =
    "held by the strategy where every write is checked: merging keeps one of them whole";
const REPORTED: &str = "may break while replicas are apart; it is reported when they meet";
const COORDINATED: &str =
    "needs coordination: use bounded_counter for a bound, the credit ledger for value";
const IN_WORDS: &str = "in words that are not judged";

const METHODS: [&str; 9] = [
    "len",
    "contains",
    "starts_with",
    "ends_with",
    "matches",
    "is_empty",
    "is_some",
    "is_none",
    "unwrap_or",
];

/// The type of an expression. Whether there is a value is not part of it: any field may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Integer,
    Float,
    Text,
    Bytes,
    Enum(String),
    /// A list or a set.
    List(Type),
    /// By its keys.
    Map(Type),
    /// A Gen as a value.
    Record,
    /// `none`
    None,
    /// A word that is no field: a variant of an enum, where one is expected.
    Word(String),
    /// `[1, 2]`
    Literals,
}

impl Kind {
    fn of(kind: &Type) -> Option<Kind> {
        Some(match kind.inside_option() {
            Type::Scalar(ValueType::Bool) => Kind::Bool,
            Type::Scalar(ValueType::String) | Type::Ref(_) | Type::RichText => Kind::Text,
            Type::Scalar(scalar) if scalar.is_bytes() => Kind::Bytes,
            Type::Scalar(scalar) if scalar.is_float() => Kind::Float,
            Type::Scalar(_) => Kind::Integer,
            Type::Enum(name) => Kind::Enum(name.clone()),
            Type::Set(inner) | Type::List(inner) | Type::Array(inner) => {
                Kind::List((**inner).clone())
            }
            Type::Map(key, _) => Kind::Map((**key).clone()),
            Type::Record(_) | Type::Tuple(_) => Kind::Record,
            _ => return None,
        })
    }

    fn is_number(&self) -> bool {
        matches!(self, Kind::Integer | Kind::Float)
    }

    fn described(&self) -> String {
        match self {
            Kind::Bool => "a Bool".into(),
            Kind::Integer => "an integer".into(),
            Kind::Float => "a float".into(),
            Kind::Text => "a String".into(),
            Kind::Bytes => "bytes".into(),
            Kind::Enum(name) => format!("a {name}"),
            Kind::List(inner) => format!("a list of {inner}"),
            Kind::Map(key) => format!("a map from {key}"),
            Kind::Record => "a Gen or tuple".into(),
            Kind::None => "none".into(),
            Kind::Word(word) => format!("the word {}", quoted(word)),
            Kind::Literals => "a list".into(),
        }
    }
}

type Checked = Option<(Expression, Kind)>;

/// What checking an expression needs beside it.
struct Scope<'s, 'f> {
    fields: &'s [FieldModel],
    file: &'s mut File<'f>,
}

impl File<'_> {
    /// The rules of a Gen and the conditions of its fields.
    pub(super) fn rules(
        &mut self,
        syntax: &GenSyntax,
        fields: &[FieldModel],
        rules: &mut Vec<Rule>,
        constraints: &mut Constraints,
    ) {
        let mut add = |rule: Rule| {
            let name = format!("{}.{}", syntax.name.text, rule.name);
            let (class, meaning) = class_of(&rule.condition, fields);
            constraints.push(Constraint { name, class: Some(class), meaning });
            rules.push(rule);
        };
        for member in &syntax.members {
            match member {
                MemberSyntax::Field(field) => {
                    let Some(condition) = &field.condition else { continue };
                    let name = format!("where {}", field.name.text);
                    if let Some(condition) = self.condition(condition, fields) {
                        add(Rule { name, condition });
                    }
                }
                MemberSyntax::Rule(rule) => {
                    self.check_assignments(rule, fields);
                    if rule.is_foreign {
                        self.kept(&format!("rule {}", rule.name.text), &rule.head);
                    }
                    let Some(expression) = &rule.expression else { continue };
                    if !self.is_short(&rule.name) {
                        continue;
                    }
                    let name = rule.name.text.clone();
                    if let Some(condition) = self.condition(expression, fields) {
                        add(Rule { name, condition });
                    }
                }
                _ => {}
            }
        }
    }

    /// A condition decides and does not act.
    fn check_assignments(&mut self, rule: &RuleSyntax, fields: &[FieldModel]) {
        for name in &rule.assigned {
            let field = fields.iter().find(|field| field.name == name.text);
            let is_immutable = field.is_some_and(|field| field.merge == Merge::Immutable);
            if rule.is_foreign && !is_immutable {
                continue;
            }
            let what = if is_immutable { "immutable, and a rule assigns it" } else { "assigned" };
            let message = format!("the field {} is {what}", quoted(&name.text));
            let diagnostic = Diagnostic::error("E0505", &name.span, message)
                .label("expected a condition: a rule changes nothing")
                .help("'==' compares");
            self.diagnostics.push(diagnostic);
        }
    }

    /// An expression that is true or false.
    pub(super) fn condition(
        &mut self,
        syntax: &ExpressionSyntax,
        fields: &[FieldModel],
    ) -> Option<Expression> {
        let mut scope = Scope { fields, file: self };
        let (expression, kind) = scope.check(syntax)?;
        if kind != Kind::Bool {
            let message = format!("a condition is true or false, and this is {}", kind.described());
            let diagnostic = Diagnostic::error("E0507", &syntax.span, message);
            scope.file.diagnostics.push(diagnostic.label("expected a comparison"));
            return None;
        }
        Some(expression)
    }
}

/// An expression over the old record that gives a value of the new field.
pub(super) fn conversion(
    file: &mut File<'_>,
    syntax: &ExpressionSyntax,
    fields: &[FieldModel],
    wanted: &Type,
) -> Option<Expression> {
    let mut scope = Scope { fields, file };
    let (expression, kind) = scope.check(syntax)?;
    let wanted_kind = Kind::of(wanted)?;
    let (expression, kind) = scope.as_variant(expression, kind, &wanted_kind, syntax)?;
    let (expression, kind) = match (kind, &wanted_kind) {
        (Kind::Enum(name), Kind::Text) => (scope.variant_name(expression, &name), Kind::Text),
        other => (expression, other.0),
    };
    // A float has no place among integers; the other way round every integer has one.
    let fits = kind == wanted_kind || (&kind, &wanted_kind) == (&Kind::Integer, &Kind::Float);
    if !fits {
        let message = format!("the conversion gives {}", kind.described());
        let error = Diagnostic::error("E0605", &syntax.span, message);
        scope.push(error.label(format!("expected a value of {wanted}")));
        return None;
    }
    let mut reads_collection = false;
    expression.for_each_field(&mut |number| {
        let read = fields.iter().find(|field| field.number == number);
        reads_collection |=
            read.is_some_and(|field| matches!(field.merge, Merge::OrSet | Merge::Map(_)));
    });
    let fault = if reads_collection {
        "a conversion reads registers and counters, and this reads a set or map"
    } else if uses(&expression, Operation::Matches) {
        "a conversion has no .matches(): not every replica has regular expressions"
    } else if expression.part_count() > MAX_RULE_PARTS {
        "the conversion has more than 256 parts, the variants of enums among them"
    } else {
        return Some(expression);
    };
    let error = Diagnostic::error("E0605", &syntax.span, fault.to_owned());
    scope.push(error.label("expected a short computation over the document's own fields"));
    None
}

/// Whether an expression has an operation anywhere.
fn uses(expression: &Expression, wanted: Operation) -> bool {
    match expression {
        Expression::Constant(_) | Expression::Field(_) => false,
        Expression::List(parts) => parts.iter().any(|part| uses(part, wanted)),
        Expression::Apply(operation, parts) => {
            *operation == wanted || parts.iter().any(|part| uses(part, wanted))
        }
    }
}

impl Scope<'_, '_> {
    fn push(&mut self, diagnostic: Diagnostic) {
        self.file.diagnostics.push(diagnostic);
    }

    fn mismatch(&mut self, span: &std::ops::Range<usize>, message: String, expected: &str) {
        let diagnostic = Diagnostic::error("E0501", span, message);
        self.push(diagnostic.label(format!("expected {expected}")));
    }

    fn check(&mut self, syntax: &ExpressionSyntax) -> Checked {
        match &syntax.kind {
            ExpressionKind::Literal(literal) => Some(literal_value(literal)),
            ExpressionKind::List(elements) => {
                let checked: Vec<Checked> = elements.iter().map(|one| self.check(one)).collect();
                let checked = checked.into_iter().collect::<Option<Vec<_>>>()?;
                let elements = checked.into_iter().map(|(element, _)| element).collect();
                Some((Expression::List(elements), Kind::Literals))
            }
            ExpressionKind::Name(name) => self.name(name, &syntax.span),
            ExpressionKind::This => {
                let message = "'this' is the whole record".to_owned();
                self.mismatch(&syntax.span, message, "one of its fields, as in this.title");
                None
            }
            ExpressionKind::Member(of, name) => self.member(of, name),
            ExpressionKind::Unary(operator, operand) => self.unary(*operator, operand),
            ExpressionKind::Binary(operator, left, right) => self.binary(*operator, left, right),
            ExpressionKind::Call(of, name, arguments) => self.call(of, name, arguments),
        }
    }

    fn field(&mut self, name: &str, span: &std::ops::Range<usize>) -> Checked {
        let fields = self.fields;
        let found = fields.iter().find(|field| field.name == name);
        let Some(field) = found else {
            let message = format!("there is no field {}", quoted(name));
            let names = fields.iter().map(|field| field.name.as_str());
            let diagnostic = Diagnostic::error("E0502", span, message)
                .label("expected a field of this Gen")
                .suggest(name, names);
            self.push(diagnostic);
            return None;
        };
        let Some(kind) = Kind::of(&field.kind) else {
            let message = format!("nothing is known of {}, the type of {name}", field.kind);
            let diagnostic = Diagnostic::error("E0205", span, message)
                .label("a rule needs to know the type")
                .help("declare it as a Gen or an enum");
            self.push(diagnostic);
            return None;
        };
        Some((Expression::Field(field.number), kind))
    }

    fn name(&mut self, name: &str, span: &std::ops::Range<usize>) -> Checked {
        let is_field = self.fields.iter().any(|field| field.name == name);
        let is_variant = self.fields.iter().any(|field| match field.kind.inside_option() {
            Type::Enum(known) => self.file.variants_of(known).iter().any(|one| one == name),
            _ => false,
        });
        let is_capital = name.starts_with(char::is_uppercase);
        if !is_field && (is_variant || is_capital) {
            let absent = Expression::Constant(Value::Bool(false));
            return Some((absent, Kind::Word(name.to_owned())));
        }
        self.field(name, span)
    }

    fn member(&mut self, of: &ExpressionSyntax, name: &Name) -> Checked {
        match &of.kind {
            ExpressionKind::This => self.field(&name.text, &name.span),
            // `Colour.Red`
            ExpressionKind::Name(known) if self.file.variants_of(known).contains(&name.text) => {
                let number = self.file.lock.number(known, &name.text)?;
                Some((variant(number), Kind::Enum(known.clone())))
            }
            _ if matches!(name.text.as_str(), "length" | "len") => self.call(of, name, &[]),
            _ => {
                let (_, kind) = self.check(of)?;
                let message = format!("{} has no field {}", kind.described(), quoted(&name.text));
                let diagnostic = Diagnostic::error("E0502", &name.span, message)
                    .label("expected a field of this record, as in this.title");
                self.push(diagnostic);
                None
            }
        }
    }

    fn unary(&mut self, operator: UnaryOperator, operand: &ExpressionSyntax) -> Checked {
        let (expression, kind) = self.check(operand)?;
        let (operation, is_good, expected) = match operator {
            UnaryOperator::Not => (Operation::Not, kind == Kind::Bool, "a Bool"),
            UnaryOperator::Negate => (Operation::Negate, kind.is_number(), "a number"),
        };
        if !is_good {
            self.mismatch(&operand.span, format!("this is {}", kind.described()), expected);
            return None;
        }
        Some((Expression::apply(operation, [expression]), kind))
    }

    fn binary(
        &mut self,
        operator: BinaryOperator,
        left_syntax: &ExpressionSyntax,
        right_syntax: &ExpressionSyntax,
    ) -> Checked {
        let left = self.check(left_syntax);
        let right = self.check(right_syntax);
        let ((left, left_kind), (right, right_kind)) = (left?, right?);
        let (left, left_kind) = self.as_variant(left, left_kind, &right_kind, left_syntax)?;
        let (right, right_kind) = self.as_variant(right, right_kind, &left_kind, right_syntax)?;
        let symbol = operator.symbol();
        let apply = |operation| Expression::apply(operation, [left.clone(), right.clone()]);
        let not = |expression| Expression::apply(Operation::Not, [expression]);
        match operator {
            BinaryOperator::Or | BinaryOperator::And => {
                for (kind, syntax) in [(&left_kind, left_syntax), (&right_kind, right_syntax)] {
                    if *kind != Kind::Bool {
                        let message = format!("'{symbol}' joins conditions, and this is {}", {
                            kind.described()
                        });
                        self.mismatch(&syntax.span, message, "a Bool");
                        return None;
                    }
                }
                let is_or = operator == BinaryOperator::Or;
                let operation = if is_or { Operation::Or } else { Operation::And };
                Some((apply(operation), Kind::Bool))
            }
            BinaryOperator::Equal | BinaryOperator::NotEqual => {
                let is_equal = operator == BinaryOperator::Equal;
                let expression = match (&left_kind, &right_kind) {
                    (_, Kind::None) => not(Expression::apply(Operation::IsSome, [left])),
                    (Kind::None, _) => not(Expression::apply(Operation::IsSome, [right])),
                    _ if comparable(&left_kind, &right_kind) => apply(Operation::Equal),
                    _ => {
                        self.incomparable(symbol, &left_kind, &right_kind, right_syntax);
                        return None;
                    }
                };
                Some((if is_equal { expression } else { not(expression) }, Kind::Bool))
            }
            BinaryOperator::Less
            | BinaryOperator::LessOrEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterOrEqual => {
                let is_ordered =
                    matches!(left_kind, Kind::Integer | Kind::Float | Kind::Text | Kind::Bytes);
                if !is_ordered || !comparable(&left_kind, &right_kind) {
                    self.incomparable(symbol, &left_kind, &right_kind, right_syntax);
                    return None;
                }
                let (operation, is_swapped) = match operator {
                    BinaryOperator::Less => (Operation::Less, false),
                    BinaryOperator::LessOrEqual => (Operation::LessOrEqual, false),
                    BinaryOperator::Greater => (Operation::Less, true),
                    _ => (Operation::LessOrEqual, true),
                };
                let operands = if is_swapped { [right, left] } else { [left, right] };
                Some((Expression::apply(operation, operands), Kind::Bool))
            }
            BinaryOperator::In => self.is_in((left, left_kind), (right, right_kind), right_syntax),
            _ => {
                let is_text = operator == BinaryOperator::Add
                    && (&left_kind, &right_kind) == (&Kind::Text, &Kind::Text);
                let are_numbers = left_kind.is_number() && right_kind.is_number();
                if !is_text && !are_numbers {
                    let wrong = if left_kind.is_number() { &right_kind } else { &left_kind };
                    let place = if left_kind.is_number() { right_syntax } else { left_syntax };
                    let message = format!("'{symbol}' computes, and this is {}", wrong.described());
                    self.mismatch(&place.span, message, "a number");
                    return None;
                }
                let operation = match operator {
                    BinaryOperator::Add => Operation::Add,
                    BinaryOperator::Subtract => Operation::Subtract,
                    BinaryOperator::Multiply => Operation::Multiply,
                    BinaryOperator::Divide => Operation::Divide,
                    _ => Operation::Remainder,
                };
                let kind = match (is_text, &left_kind, &right_kind) {
                    (true, ..) => Kind::Text,
                    (_, Kind::Integer, Kind::Integer) => Kind::Integer,
                    _ => Kind::Float,
                };
                Some((apply(operation), kind))
            }
        }
    }

    fn incomparable(&mut self, symbol: &str, left: &Kind, right: &Kind, place: &ExpressionSyntax) {
        let (left, right) = (left.described(), right.described());
        let message = format!("'{symbol}' cannot compare {left} with {right}");
        self.mismatch(&place.span, message, &left);
    }

    /// A word becomes a variant where the other side is an enum, also inside of a list.
    fn as_variant(
        &mut self,
        expression: Expression,
        kind: Kind,
        other: &Kind,
        syntax: &ExpressionSyntax,
    ) -> Checked {
        match (&kind, other) {
            (Kind::Word(word), Kind::Enum(name)) => {
                let variants = self.file.variants_of(name);
                if !variants.contains(word) {
                    let message = format!("{name} has no variant {}", quoted(word));
                    let diagnostic = Diagnostic::error("E0502", &syntax.span, message)
                        .label(format!("expected a variant of {name}"))
                        .suggest(word, variants.iter().map(String::as_str));
                    self.push(diagnostic);
                    return None;
                }
                let number = self.enum_number(name, word)?;
                Some((variant(number), Kind::Enum(name.clone())))
            }
            (Kind::Literals, Kind::Enum(_)) => {
                let ExpressionKind::List(elements) = &syntax.kind else {
                    return Some((expression, kind));
                };
                let mut resolved = Vec::new();
                for element in elements {
                    let (expression, kind) = self.check(element)?;
                    resolved.push(self.as_variant(expression, kind, other, element)?.0);
                }
                Some((Expression::List(resolved), kind))
            }
            _ => Some((expression, kind)),
        }
    }

    /// The name of a variant, as a text.
    fn variant_name(&mut self, expression: Expression, name: &str) -> Expression {
        let mut pairs = Vec::new();
        for word in self.file.variants_of(name) {
            if let Some(number) = self.enum_number(name, &word) {
                pairs.extend([variant(number), Expression::Constant(Value::from(word.as_str()))]);
            }
        }
        Expression::apply(Operation::Select, [expression, Expression::List(pairs)])
    }

    fn enum_number(&mut self, name: &str, variant: &str) -> Option<u32> {
        let inline = self.file.enums.iter().find(|one| one.name == name);
        match inline {
            Some(found) => found.number(variant),
            None => self.file.lock.number(name, variant),
        }
    }

    fn is_in(
        &mut self,
        (needle, needle_kind): (Expression, Kind),
        (haystack, haystack_kind): (Expression, Kind),
        place: &ExpressionSyntax,
    ) -> Checked {
        let is_good = match (&haystack_kind, &place.kind) {
            (Kind::Literals, ExpressionKind::List(elements)) => {
                let mut is_good = true;
                for element in elements {
                    let silent_kind = self.kind_of_element(element);
                    is_good &= silent_kind.is_none_or(|kind| {
                        comparable(&kind, &needle_kind) || matches!(kind, Kind::Word(_))
                    });
                }
                is_good
            }
            (Kind::Text, _) => needle_kind == Kind::Text,
            (Kind::List(inner), _) | (Kind::Map(inner), _) => {
                Kind::of(inner).is_none_or(|inner| comparable(&inner, &needle_kind))
            }
            _ => false,
        };
        if !is_good {
            let (needle, haystack) = (needle_kind.described(), haystack_kind.described());
            let message = format!("{needle} cannot be in {haystack}");
            self.mismatch(&place.span, message, "a list or a text of such values");
            return None;
        }
        Some((Expression::apply(Operation::In, [needle, haystack]), Kind::Bool))
    }

    /// The kind of an element whose faults have been reported already.
    fn kind_of_element(&mut self, element: &ExpressionSyntax) -> Option<Kind> {
        match &element.kind {
            ExpressionKind::Literal(literal) => Some(literal_value(literal).1),
            ExpressionKind::Unary(UnaryOperator::Negate, inner) => self.kind_of_element(inner),
            ExpressionKind::Member(of, name) => match &of.kind {
                ExpressionKind::This => {
                    let field = self.fields.iter().find(|field| field.name == name.text)?;
                    Kind::of(&field.kind)
                }
                ExpressionKind::Name(known) => Some(Kind::Enum(known.clone())),
                _ => None,
            },
            ExpressionKind::Name(name) => {
                let field = self.fields.iter().find(|field| field.name == *name);
                field.map_or(Some(Kind::Word(name.clone())), |field| Kind::of(&field.kind))
            }
            _ => None,
        }
    }

    fn call(
        &mut self,
        of: &ExpressionSyntax,
        method: &Name,
        arguments: &[ExpressionSyntax],
    ) -> Checked {
        let (receiver, kind) = self.check(of)?;
        let name = if method.text == "length" { "len" } else { method.text.as_str() };
        if !METHODS.contains(&name) {
            let message = format!("there is no method {}", quoted(name));
            let diagnostic = Diagnostic::error("E0503", &method.span, message)
                .label("expected a method such as .len() or .contains(..)")
                .suggest(name, METHODS.into_iter().chain(["length"]));
            self.push(diagnostic);
            return None;
        }
        let takes = usize::from(!matches!(name, "len" | "is_empty" | "is_some" | "is_none"));
        if arguments.len() != takes {
            let message = format!(".{name}() has {} arguments here", arguments.len());
            let diagnostic = Diagnostic::error("E0503", &method.span, message);
            let expected = if takes == 0 { "no argument" } else { "one argument" };
            self.push(diagnostic.label(format!("expected {expected}")));
            return None;
        }
        let has_length = matches!(
            kind,
            Kind::Text | Kind::Bytes | Kind::List(_) | Kind::Map(_) | Kind::Literals
        );
        let one = |operation, receiver| Expression::apply(operation, [receiver]);
        match (name, arguments) {
            ("len", _) if has_length => Some((one(Operation::Len, receiver), Kind::Integer)),
            ("is_empty", _) if has_length => {
                let zero = Expression::Constant(Value::Int(0));
                let length = one(Operation::Len, receiver);
                Some((Expression::apply(Operation::Equal, [length, zero]), Kind::Bool))
            }
            ("is_some", _) => Some((one(Operation::IsSome, receiver), Kind::Bool)),
            ("is_none", _) => {
                Some((one(Operation::Not, one(Operation::IsSome, receiver)), Kind::Bool))
            }
            ("unwrap_or", [argument]) => {
                let (other, other_kind) = self.check(argument)?;
                let (other, other_kind) = self.as_variant(other, other_kind, &kind, argument)?;
                if !comparable(&kind, &other_kind) {
                    let message = format!("this is {}", other_kind.described());
                    self.mismatch(&argument.span, message, &kind.described());
                    return None;
                }
                let both = Expression::apply(Operation::UnwrapOr, [receiver, other]);
                let is_float = kind == Kind::Float || other_kind == Kind::Float;
                Some((both, if is_float { Kind::Float } else { kind }))
            }
            ("contains", [argument]) if has_length && kind != Kind::Bytes => {
                let needle = self.check(argument)?;
                let inner = match &kind {
                    Kind::List(inner) | Kind::Map(inner) => Kind::of(inner),
                    _ => None,
                };
                let needle = match &inner {
                    Some(inner) => self.as_variant(needle.0, needle.1, inner, argument)?,
                    None => needle,
                };
                self.is_in(needle, (receiver, kind), of)
            }
            ("starts_with" | "ends_with" | "matches", [argument]) if kind == Kind::Text => {
                let (other, other_kind) = self.check(argument)?;
                if other_kind != Kind::Text {
                    let message = format!("this is {}", other_kind.described());
                    self.mismatch(&argument.span, message, "a String");
                    return None;
                }
                let operation = match name {
                    "starts_with" => Operation::StartsWith,
                    "ends_with" => Operation::EndsWith,
                    _ => {
                        self.check_pattern(argument)?;
                        Operation::Matches
                    }
                };
                Some((Expression::apply(operation, [receiver, other]), Kind::Bool))
            }
            _ => {
                let message = format!(".{name}() is not for {}", kind.described());
                let diagnostic = Diagnostic::error("E0503", &method.span, message);
                let expected = match name {
                    "starts_with" | "ends_with" | "matches" => "a String before it",
                    _ => "a text, a list, a set or a map before it",
                };
                self.push(diagnostic.label(format!("expected {expected}")));
                None
            }
        }
    }

    /// A regular expression is known when it is compiled, so that a wrong one is found then.
    fn check_pattern(&mut self, argument: &ExpressionSyntax) -> Option<()> {
        let ExpressionKind::Literal(Literal::Text(pattern)) = &argument.kind else {
            let message = "the regular expression is not a text".to_owned();
            self.mismatch(&argument.span, message, "a text in quotation marks");
            return None;
        };
        if let Err(error) = regex_lite::Regex::new(pattern) {
            let message = format!("this is no regular expression: {error}");
            let diagnostic = Diagnostic::error("E0504", &argument.span, message)
                .label("expected a pattern such as \"^[a-z]+$\"")
                .help("look-around and back-references are not there: matching takes linear time");
            self.push(diagnostic);
            return None;
        }
        Some(())
    }
}

/// The number of a variant as a value.
fn variant(number: u32) -> Expression {
    Expression::Constant(Value::Variant(number))
}

fn literal_value(literal: &Literal) -> (Expression, Kind) {
    let (value, kind) = match literal {
        Literal::Text(text) => (Value::from(text.as_str()), Kind::Text),
        Literal::Integer(number) => (Value::Int(*number), Kind::Integer),
        Literal::Float(number) => (Value::Float(*number), Kind::Float),
        Literal::Bool(truth) => (Value::Bool(*truth), Kind::Bool),
        // Only compared with, which asks for absence and never for this value.
        _ => (Value::Bool(false), Kind::None),
    };
    (Expression::Constant(value), kind)
}

fn comparable(left: &Kind, right: &Kind) -> bool {
    left.is_number() && right.is_number()
        || left == right && !matches!(left, Kind::Record | Kind::Literals | Kind::Word(_))
}

/// The class of a rule, and what it means.
fn class_of(condition: &Expression, fields: &[FieldModel]) -> (char, &'static str) {
    let mut read: Vec<&FieldModel> = Vec::new();
    condition.for_each_field(&mut |number| {
        let field = fields.iter().find(|field| field.number == number);
        read.extend(field.filter(|field| !read.iter().any(|one| one.number == field.number)));
    });
    let is_sum = |field: &&FieldModel| matches!(field.merge, Merge::PnCounter | Merge::GCounter);
    if read.iter().any(is_sum) {
        return ('C', COORDINATED);
    }
    match &read[..] {
        [] => ('A', HELD),
        [field] if field.merge.is_register() || field.merge == Merge::BoundedCounter => ('A', HELD),
        _ => ('B', REPORTED),
    }
}

/// What is said of a constraint that is kept as text: lines such as `balance always >= 0` and
/// `transfer never changes amount` are judged.
pub(super) fn constraint_in_words(name: &Name, body: &str, file: &FileSyntax) -> Constraint {
    let mut class = None;
    for line in body.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let found = match words[..] {
            [field, "always", operator, _] if !operator.starts_with(char::is_alphabetic) => {
                let is_sum =
                    strategies_of(field, file).iter().any(|name| name.ends_with("n_counter"));
                Some(if is_sum { 'C' } else { 'B' })
            }
            [_, "never", "changes", field] => {
                let strategies = strategies_of(field, file);
                let is_final = strategies.iter().all(|name| *name == "immutable");
                (!strategies.is_empty()).then_some(if is_final { 'A' } else { 'B' })
            }
            _ => None,
        };
        class = class.max(found);
    }
    let meaning = match class {
        Some('A') => HELD,
        Some('B') => REPORTED,
        Some(_) => COORDINATED,
        None => IN_WORDS,
    };
    Constraint { name: name.text.clone(), class, meaning }
}

/// The strategies that fields of this name have.
fn strategies_of<'a>(field: &str, file: &'a FileSyntax) -> Vec<&'a str> {
    let mut strategies = Vec::new();
    for item in &file.items {
        let ItemSyntax::Gen(syntax) = item else { continue };
        for member in &syntax.members {
            let MemberSyntax::Field(found) = member else { continue };
            if found.name.text == field {
                let crdt = found.annotations.iter().find_map(|annotation| match &annotation.kind {
                    crate::syntax::AnnotationKind::Crdt { strategy, .. } => Some(strategy),
                    _ => None,
                });
                strategies.push(crdt.map_or("lww", |strategy| strategy.text.as_str()));
            }
        }
    }
    strategies
}
