//! Rules of Gens: conditions on one document that `where` and `rule` of a Gen state.
//!
//! A transaction that would break a rule is refused whole, with the rule's name. Merging never
//! refuses: what two replicas write apart can break a rule together, and then the event of the change
//! says so ([`crate::DocumentEvent::broken_rules`]). A document that breaks a rule already may be
//! written to, or nobody could mend it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use regex_lite::Regex;
use vudo_crdt::rule::Environment;
use vudo_crdt::{GenIndex, GenSchema, Reading, Value};

/// The names of the rules that a document breaks, in the order of its Gen; none where there is no
/// document. Its rows must be loaded.
pub(crate) fn broken_rules<'s>(
    reading: &mut impl Reading,
    gen_schema: &'s GenSchema,
    gen_index: GenIndex,
    key: &str,
) -> Vec<&'s str> {
    if !reading.view_row(gen_index, key.as_bytes()).is_alive() {
        return Vec::new();
    }
    let mut fields = Fields(BTreeMap::new());
    for rule in &gen_schema.rules {
        rule.condition.for_each_field(&mut |number| {
            let Some(field) = gen_schema.field_numbered(number) else { return };
            // A total that does not fit its type is no value that a rule could judge.
            let read = || reading.read_loaded(gen_index, key.as_bytes(), field).unwrap_or_default();
            fields.0.entry(number).or_insert_with(read);
        });
    }
    let rules = gen_schema.rules.iter();
    // What cannot be computed breaks its rule.
    let broken = rules.filter(|rule| rule.is_broken(&fields).unwrap_or(true));
    broken.map(|rule| rule.name.as_str()).collect()
}

thread_local! {
    /// Patterns that have been read, so that a write does not read them anew: there are as many as
    /// the schemas of a program have. `None` stands for what is no pattern.
    static PATTERNS: RefCell<BTreeMap<String, Option<Regex>>> = RefCell::default();
}

/// What the fields of a document hold, by their numbers.
struct Fields(BTreeMap<u32, Option<Value>>);

impl Environment for Fields {
    fn field(&self, number: u32) -> Option<Value> {
        self.0.get(&number).cloned().flatten()
    }

    fn matches(&self, text: &str, pattern: &str) -> Option<bool> {
        PATTERNS.with_borrow_mut(|patterns| {
            if !patterns.contains_key(pattern) {
                patterns.insert(pattern.to_owned(), Regex::new(pattern).ok());
            }
            // The compiler has read the pattern; one that it would refuse matches nothing.
            Some(patterns[pattern].as_ref().is_some_and(|pattern| pattern.is_match(text)))
        })
    }
}
