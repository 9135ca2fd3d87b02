//! Rules: conditions that a document of a Gen is to meet, as a schema carries them.
//!
//! **The idea.** The compiler turns `where` and `rule` into a small tree, the schema carries the tree
//! in prefix order, and whoever applies writes evaluates it over a document: purely, in time linear in
//! the tree and in the values that it reads. Nothing else is needed to hold a rule, so stores of every
//! kind judge alike.
//!
//! ```text
//! rule       = name | condition
//! condition  = operation | what it needs | operands, in prefix order
//! ```
//!
//! **Absence.** A field that nobody has written has no value, and what is computed from it has none
//! either; a rule is broken only where it is false, as with checks in SQL. So an empty document
//! breaks no rule, and `is_some` and `unwrap_or` ask about absence itself. What cannot be computed
//! (a division by zero, a number past 128 bits) breaks the rule.
//!
//! **The invariant.** Bytes that decode give a tree within [`MAX_RULE_PARTS`], and no tree makes the
//! evaluator panic.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::limits::{MAX_FIELD_NUMBER, MAX_GEN_NAME_BYTES, MAX_RULE_PARTS};
use crate::value::{Value, skip_value};
use crate::wire::{MalformedFrame, Reader, write_bytes, write_varint};

/// A condition with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What a write that breaks the rule is refused with: 1 to 255 bytes.
    pub name: String,
    /// What is to hold.
    pub condition: Expression,
}

/// A pure computation over one document.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A value.
    Constant(Value),
    /// What the field of this number holds.
    Field(u32),
    /// What an operation makes of its operands, whose number the operation says.
    Apply(Operation, Vec<Expression>),
    /// The values of some expressions, of which one may be looked for.
    List(Vec<Expression>),
}

/// What an expression does with its operands. The number is the tag in a schema's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // The names are those of the language.
pub enum Operation {
    Or = 1,
    And,
    Not,
    Negate,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    Less,
    LessOrEqual,
    /// Whether the first is an element of the second, a part of its text, or one of its keys.
    In,
    StartsWith,
    EndsWith,
    /// Whether the first matches the second, a regular expression.
    Matches,
    /// How many characters, elements, entries or bytes there are.
    Len,
    /// Whether there is a value.
    IsSome,
    /// The first, or where it has no value the second.
    UnwrapOr,
    /// Of the second, a list of pairs, what stands behind the first; no value where it is not there.
    Select,
}

const OPERATIONS: [Operation; 20] = [
    Operation::Or,
    Operation::And,
    Operation::Not,
    Operation::Negate,
    Operation::Add,
    Operation::Subtract,
    Operation::Multiply,
    Operation::Divide,
    Operation::Remainder,
    Operation::Equal,
    Operation::Less,
    Operation::LessOrEqual,
    Operation::In,
    Operation::StartsWith,
    Operation::EndsWith,
    Operation::Matches,
    Operation::Len,
    Operation::IsSome,
    Operation::UnwrapOr,
    Operation::Select,
];
const TAG_CONSTANT: u8 = 64;
const TAG_FIELD: u8 = 65;
const TAG_LIST: u8 = 66;

impl Operation {
    /// How many operands it takes.
    pub fn operand_count(self) -> usize {
        match self {
            Operation::Not | Operation::Negate | Operation::Len | Operation::IsSome => 1,
            _ => 2,
        }
    }
}

/// Why an expression has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluationError {
    /// A division by zero.
    DivisionByZero,
    /// A number that needs more than 128 bits.
    Overflow,
    /// An operation on values that it is not for: the document holds what its schema does not expect.
    Type,
}

impl core::fmt::Display for EvaluationError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            EvaluationError::DivisionByZero => "it divides by zero",
            EvaluationError::Overflow => "a number in it grows past 128 bits",
            EvaluationError::Type => "it meets a value of another type than its field has",
        })
    }
}

impl core::error::Error for EvaluationError {}

/// What an expression needs from outside.
pub trait Environment {
    /// The value of a field, `None` while nobody has written it and it has no default.
    fn field(&self, number: u32) -> Option<Value>;

    /// Whether a text matches a regular expression; `None` where the host has none of them.
    fn matches(&self, text: &str, pattern: &str) -> Option<bool>;
}

impl Rule {
    /// Whether a document breaks the rule.
    ///
    /// # Errors
    /// The condition cannot be computed, which counts as broken too.
    pub fn is_broken(&self, environment: &dyn Environment) -> Result<bool, EvaluationError> {
        Ok(self.condition.evaluate(environment)? == Some(Value::Bool(false)))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, self.name.as_bytes());
        self.condition.encode(out);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Rule, MalformedFrame> {
        let name = reader.bytes()?;
        if name.is_empty() || name.len() > MAX_GEN_NAME_BYTES {
            return Err(MalformedFrame::TooLarge);
        }
        let name = core::str::from_utf8(name).map_err(|_| MalformedFrame::StringNotUtf8)?;
        Ok(Rule { name: String::from(name), condition: Expression::decode(reader)? })
    }
}

impl Expression {
    /// An operation and its operands.
    pub fn apply(operation: Operation, operands: impl Into<Vec<Expression>>) -> Expression {
        Expression::Apply(operation, operands.into())
    }

    /// Calls a function with the number of every field that is read.
    pub fn for_each_field(&self, visit: &mut dyn FnMut(u32)) {
        match self {
            Expression::Constant(_) => {}
            Expression::Field(number) => visit(*number),
            Expression::Apply(_, parts) | Expression::List(parts) => {
                parts.iter().for_each(|part| part.for_each_field(visit));
            }
        }
    }

    /// How many parts it has; a schema carries at most [`MAX_RULE_PARTS`].
    pub fn part_count(&self) -> usize {
        match self {
            Expression::Constant(_) | Expression::Field(_) => 1,
            Expression::Apply(_, parts) | Expression::List(parts) => {
                1 + parts.iter().map(Expression::part_count).sum::<usize>()
            }
        }
    }

    /// Appends the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Expression::Constant(value) => {
                out.push(TAG_CONSTANT);
                value.encode(out);
            }
            Expression::Field(number) => {
                out.push(TAG_FIELD);
                write_varint(out, (*number).into());
            }
            Expression::Apply(operation, operands) => {
                out.push(*operation as u8);
                operands.iter().for_each(|operand| operand.encode(out));
            }
            Expression::List(elements) => {
                out.push(TAG_LIST);
                write_varint(out, elements.len() as u64);
                elements.iter().for_each(|element| element.encode(out));
            }
        }
    }

    /// Reads an expression.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; an operation of a later version is an error too.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Expression, MalformedFrame> {
        let mut parts_left = MAX_RULE_PARTS;
        Self::decode_within(reader, &mut parts_left)
    }

    fn decode_within(
        reader: &mut Reader<'_>,
        parts_left: &mut usize,
    ) -> Result<Expression, MalformedFrame> {
        *parts_left = parts_left.checked_sub(1).ok_or(MalformedFrame::TooLarge)?;
        let unknown = MalformedFrame::PayloadDoesNotFit;
        let tag = reader.byte()?;
        let (operation, count) = match tag {
            TAG_CONSTANT => {
                let value = Value::decode(skip_value(reader)?).ok_or(unknown)?;
                return Ok(Expression::Constant(value));
            }
            TAG_FIELD => {
                let number = reader.varint_up_to(MAX_FIELD_NUMBER.into())? as u32;
                return Ok(Expression::Field(number));
            }
            TAG_LIST => (None, reader.varint_up_to(*parts_left as u64)? as usize),
            _ => {
                let index = usize::from(tag).checked_sub(1).ok_or(unknown)?;
                let operation = *OPERATIONS.get(index).ok_or(unknown)?;
                (Some(operation), operation.operand_count())
            }
        };
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(Self::decode_within(reader, parts_left)?);
        }
        Ok(match operation {
            Some(operation) => Expression::Apply(operation, parts),
            None => Expression::List(parts),
        })
    }

    /// The value of the expression for one document, `None` where it has none.
    ///
    /// # Errors
    /// It cannot be computed.
    pub fn evaluate(
        &self,
        environment: &dyn Environment,
    ) -> Result<Option<Value>, EvaluationError> {
        match self {
            Expression::Constant(value) => Ok(present(value.clone())),
            Expression::Field(number) => Ok(environment.field(*number).and_then(present)),
            // Lists are looked through where they are operands; alone they have no value.
            Expression::List(_) => Err(EvaluationError::Type),
            Expression::Apply(operation, operands) => match (operation, &operands[..]) {
                (Operation::Or, [left, right]) => either(left, right, true, environment),
                (Operation::And, [left, right]) => either(left, right, false, environment),
                (Operation::IsSome, [operand]) => {
                    Ok(Some(Value::Bool(operand.evaluate(environment)?.is_some())))
                }
                (Operation::UnwrapOr, [first, second]) => match first.evaluate(environment)? {
                    Some(value) => Ok(Some(value)),
                    None => second.evaluate(environment),
                },
                (Operation::In, [needle, Expression::List(elements)]) => {
                    let Some(needle) = needle.evaluate(environment)? else { return Ok(None) };
                    for element in elements {
                        if element.evaluate(environment)?.is_some_and(|one| equal(&one, &needle)) {
                            return Ok(Some(Value::Bool(true)));
                        }
                    }
                    Ok(Some(Value::Bool(false)))
                }
                (Operation::Select, [selector, Expression::List(pairs)]) => {
                    let Some(selector) = selector.evaluate(environment)? else { return Ok(None) };
                    for pair in pairs.chunks_exact(2) {
                        if pair[0].evaluate(environment)?.is_some_and(|one| equal(&one, &selector))
                        {
                            return pair[1].evaluate(environment);
                        }
                    }
                    Ok(None)
                }
                (operation, [operand]) => match operand.evaluate(environment)? {
                    Some(operand) => one(*operation, operand).map(Some),
                    None => Ok(None),
                },
                (operation, [left, right]) => {
                    let left = left.evaluate(environment)?;
                    let right = right.evaluate(environment)?;
                    match (left, right) {
                        (Some(left), Some(right)) => two(*operation, &left, &right, environment),
                        _ => Ok(None),
                    }
                }
                _ => Err(EvaluationError::Type),
            },
        }
    }
}

/// A value, unless it is the absence that an `Option` holds.
fn present(value: Value) -> Option<Value> {
    if value == Value::None { None } else { Some(value) }
}

/// `or` where `decisive` is true, `and` where it is false: with one side decided, the other one may
/// have no value.
fn either(
    left: &Expression,
    right: &Expression,
    decisive: bool,
    environment: &dyn Environment,
) -> Result<Option<Value>, EvaluationError> {
    let truth = |value: Option<Value>| match value {
        None => Ok(None),
        Some(Value::Bool(truth)) => Ok(Some(truth)),
        Some(_) => Err(EvaluationError::Type),
    };
    let left = truth(left.evaluate(environment)?)?;
    if left == Some(decisive) {
        return Ok(Some(Value::Bool(decisive)));
    }
    let right = truth(right.evaluate(environment)?)?;
    Ok(match (left, right) {
        (_, Some(right)) if right == decisive => Some(Value::Bool(decisive)),
        (Some(_), Some(_)) => Some(Value::Bool(!decisive)),
        _ => None,
    })
}

fn one(operation: Operation, operand: Value) -> Result<Value, EvaluationError> {
    Ok(match (operation, operand) {
        (Operation::Not, Value::Bool(truth)) => Value::Bool(!truth),
        (Operation::Negate, Value::Int(number)) => {
            Value::Int(number.checked_neg().ok_or(EvaluationError::Overflow)?)
        }
        (Operation::Negate, Value::Float(number)) => Value::Float(-number),
        (Operation::Len, Value::String(text)) => Value::Int(text.chars().count() as i128),
        (Operation::Len, Value::Bytes(bytes)) => Value::Int(bytes.len() as i128),
        (Operation::Len, Value::List(values)) => Value::Int(values.len() as i128),
        (Operation::Len, Value::Map(entries)) => Value::Int(entries.len() as i128),
        _ => return Err(EvaluationError::Type),
    })
}

fn two(
    operation: Operation,
    left: &Value,
    right: &Value,
    environment: &dyn Environment,
) -> Result<Option<Value>, EvaluationError> {
    let value = match operation {
        Operation::Equal => Value::Bool(equal(left, right)),
        Operation::Less => Value::Bool(order(left, right)? == Some(Ordering::Less)),
        Operation::LessOrEqual => {
            Value::Bool(order(left, right)?.is_some_and(|order| order != Ordering::Greater))
        }
        Operation::In => Value::Bool(is_in(left, right)?),
        Operation::StartsWith | Operation::EndsWith | Operation::Matches => {
            let (Value::String(text), Value::String(part)) = (left, right) else {
                return Err(EvaluationError::Type);
            };
            match operation {
                Operation::StartsWith => Value::Bool(text.starts_with(part.as_str())),
                Operation::EndsWith => Value::Bool(text.ends_with(part.as_str())),
                // A host without regular expressions does not judge.
                _ => return Ok(environment.matches(text, part).map(Value::Bool)),
            }
        }
        _ => arithmetic(operation, left, right)?,
    };
    Ok(Some(value))
}

fn is_in(needle: &Value, haystack: &Value) -> Result<bool, EvaluationError> {
    match (needle, haystack) {
        (Value::String(needle), Value::String(haystack)) => Ok(haystack.contains(needle.as_str())),
        (needle, Value::List(values)) => Ok(values.iter().any(|value| equal(value, needle))),
        (needle, Value::Map(entries)) => Ok(entries.iter().any(|(key, _)| equal(key, needle))),
        _ => Err(EvaluationError::Type),
    }
}

/// Integers and floats are compared by what they are worth.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(left), Value::Float(right)) => *left as f64 == *right,
        (Value::Float(left), Value::Int(right)) => *left == *right as f64,
        _ => left == right,
    }
}

/// `None` where one of them is no number.
fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, EvaluationError> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Ok(Some(left.cmp(right))),
        (Value::String(left), Value::String(right)) => Ok(Some(left.cmp(right))),
        (Value::Bytes(left), Value::Bytes(right)) => Ok(Some(left.cmp(right))),
        _ => Ok(float(left)?.partial_cmp(&float(right)?)),
    }
}

fn float(value: &Value) -> Result<f64, EvaluationError> {
    match value {
        Value::Int(number) => Ok(*number as f64),
        Value::Float(number) => Ok(*number),
        _ => Err(EvaluationError::Type),
    }
}

fn arithmetic(operation: Operation, left: &Value, right: &Value) -> Result<Value, EvaluationError> {
    if let (Value::Int(left), Value::Int(right)) = (left, right) {
        let (left, right) = (*left, *right);
        let divides = matches!(operation, Operation::Divide | Operation::Remainder);
        if divides && right == 0 {
            return Err(EvaluationError::DivisionByZero);
        }
        let result = match operation {
            Operation::Add => left.checked_add(right),
            Operation::Subtract => left.checked_sub(right),
            Operation::Multiply => left.checked_mul(right),
            Operation::Divide => left.checked_div(right),
            Operation::Remainder => left.checked_rem(right),
            _ => return Err(EvaluationError::Type),
        };
        return result.map(Value::Int).ok_or(EvaluationError::Overflow);
    }
    if let (Operation::Add, Value::String(left), Value::String(right)) = (operation, left, right) {
        let mut text = left.clone();
        text.push_str(right);
        return Ok(Value::String(text));
    }
    let (left, right) = (float(left)?, float(right)?);
    Ok(Value::Float(match operation {
        Operation::Add => left + right,
        Operation::Subtract => left - right,
        Operation::Multiply => left * right,
        Operation::Divide => left / right,
        Operation::Remainder => left % right,
        _ => return Err(EvaluationError::Type),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fields(Vec<(u32, Value)>);

    impl Environment for Fields {
        fn field(&self, number: u32) -> Option<Value> {
            self.0.iter().find(|(one, _)| *one == number).map(|(_, value)| value.clone())
        }

        fn matches(&self, text: &str, pattern: &str) -> Option<bool> {
            Some(text.ends_with(pattern))
        }
    }

    fn int(number: i128) -> Expression {
        Expression::Constant(Value::Int(number))
    }

    fn truth(value: bool) -> Expression {
        Expression::Constant(Value::Bool(value))
    }

    #[test]
    fn absence_decides_nothing_that_the_other_side_does_not_decide() {
        let absent = Expression::Field(9);
        let fields = Fields(Vec::new());
        let both = |operation, other: bool| {
            let expression = Expression::apply(operation, [absent.clone(), truth(other)]);
            expression.evaluate(&fields).unwrap()
        };
        assert_eq!(both(Operation::And, false), Some(Value::Bool(false)));
        assert_eq!(both(Operation::And, true), None);
        assert_eq!(both(Operation::Or, true), Some(Value::Bool(true)));
        assert_eq!(both(Operation::Or, false), None);
        let less = Expression::apply(Operation::Less, [absent.clone(), int(3)]);
        let rule = Rule { name: "small".into(), condition: less };
        assert_eq!(rule.is_broken(&fields), Ok(false));
        assert_eq!(rule.is_broken(&Fields([(9, 3.into())].into())), Ok(true));
        let set = Expression::apply(Operation::IsSome, [absent.clone()]);
        assert_eq!(set.evaluate(&fields), Ok(Some(Value::Bool(false))));
        let or_seven = Expression::apply(Operation::UnwrapOr, [absent, int(7)]);
        assert_eq!(or_seven.evaluate(&fields), Ok(Some(7.into())));
    }

    #[test]
    fn what_cannot_be_computed_is_said() {
        let fields = Fields(Vec::new());
        let of =
            |operation, left, right| Expression::apply(operation, [left, right]).evaluate(&fields);
        assert_eq!(of(Operation::Divide, int(1), int(0)), Err(EvaluationError::DivisionByZero));
        assert_eq!(of(Operation::Remainder, int(1), int(0)), Err(EvaluationError::DivisionByZero));
        assert_eq!(of(Operation::Divide, int(i128::MIN), int(-1)), Err(EvaluationError::Overflow));
        assert_eq!(of(Operation::Add, int(i128::MAX), int(1)), Err(EvaluationError::Overflow));
        assert_eq!(of(Operation::Add, truth(true), int(1)), Err(EvaluationError::Type));
        assert_eq!(of(Operation::Divide, int(7), int(2)), Ok(Some(3.into())));
    }

    #[test]
    fn numbers_and_texts_compare() {
        let fields = Fields([(1, "tea".into())].into());
        let text = Expression::Field(1);
        let constant = |text: &str| Expression::Constant(text.into());
        let holds = |operation, operands: [Expression; 2]| {
            Expression::apply(operation, operands).evaluate(&fields) == Ok(Some(Value::Bool(true)))
        };
        assert!(holds(Operation::Equal, [int(2), Expression::Constant(2.0.into())]));
        assert!(holds(Operation::Less, [int(2), Expression::Constant(2.5.into())]));
        assert!(!holds(Operation::Less, [int(2), Expression::Constant(f64::NAN.into())]));
        assert!(holds(Operation::StartsWith, [text.clone(), constant("te")]));
        assert!(holds(Operation::EndsWith, [text.clone(), constant("ea")]));
        assert!(holds(Operation::Matches, [text.clone(), constant("a")]));
        assert!(holds(Operation::In, [constant("e"), text.clone()]));
        let list = Expression::List([constant("milk"), constant("tea")].into());
        assert!(holds(Operation::In, [text.clone(), list]));
        let names = Expression::List([constant("tea"), int(1), constant("milk"), int(2)].into());
        let select = |text: Expression| {
            Expression::apply(Operation::Select, [text, names.clone()]).evaluate(&fields)
        };
        assert_eq!(select(constant("milk")), Ok(Some(2.into())));
        assert_eq!(select(constant("rum")), Ok(None));
        let length = Expression::apply(Operation::Len, [Expression::Constant("größe".into())]);
        assert_eq!(length.evaluate(&fields), Ok(Some(5.into())));
    }

    #[test]
    fn an_expression_survives_its_bytes_and_every_truncation_is_refused() {
        let list = Expression::List([int(1), Expression::Field(70)].into());
        let inside = Expression::apply(Operation::In, [Expression::Field(3), list]);
        let expression = Expression::apply(Operation::Not, [inside]);
        let mut bytes = Vec::new();
        expression.encode(&mut bytes);
        assert_eq!(Expression::decode(&mut Reader::new(&bytes)), Ok(expression.clone()));
        assert_eq!(expression.part_count(), 6);
        for length in 0..bytes.len() {
            assert!(Expression::decode(&mut Reader::new(&bytes[..length])).is_err());
        }
        let deep = [Operation::Not as u8].repeat(MAX_RULE_PARTS + 1);
        assert_eq!(Expression::decode(&mut Reader::new(&deep)), Err(MalformedFrame::TooLarge));
        for (index, operation) in OPERATIONS.iter().enumerate() {
            assert_eq!(*operation as usize, index + 1);
        }
    }
}
