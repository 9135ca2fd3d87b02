//! Where in a document a write goes: a field, or what a map holds under a key.

use vudo_crdt::Value;

/// A field, and for what lies in a map the keys that lead there.
///
/// ```
/// use vudo_state::FieldPath;
///
/// let title = FieldPath::from("title");
/// let apples = FieldPath::from(("stock", "apples"));
/// assert_eq!(title.to_string(), "title");
/// assert_eq!(apples.to_string(), "stock[apples]");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FieldPath<'p> {
    /// The field of the document.
    pub field: &'p str,
    /// The key in the field's map, then the key in the map that lies there, and so on.
    pub keys: Vec<Value>,
}

impl<'p> From<&'p str> for FieldPath<'p> {
    fn from(field: &'p str) -> FieldPath<'p> {
        FieldPath { field, keys: Vec::new() }
    }
}

impl<'p> From<&&'p str> for FieldPath<'p> {
    fn from(field: &&'p str) -> FieldPath<'p> {
        FieldPath::from(*field)
    }
}

impl<'p> From<&'p String> for FieldPath<'p> {
    fn from(field: &'p String) -> FieldPath<'p> {
        FieldPath::from(field.as_str())
    }
}

impl<'p, K: Into<Value>> From<(&'p str, K)> for FieldPath<'p> {
    fn from((field, key): (&'p str, K)) -> FieldPath<'p> {
        FieldPath { field, keys: vec![key.into()] }
    }
}

impl std::fmt::Display for FieldPath<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.field)?;
        self.keys.iter().try_for_each(|key| write!(formatter, "[{key}]"))
    }
}
