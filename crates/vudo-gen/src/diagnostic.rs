//! Diagnostics: what is wrong, where, and what would be right.

use std::ops::Range;

use ariadne::{Color, Config, IndexType, Label, Report, ReportKind, Source};

use crate::SourceFile;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// There is no schema.
    Error,
    /// There is one, and something in it may not be what was meant.
    Warning,
    /// For information.
    Note,
}

/// Something that the compiler has to say about a place in a source.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Stable, such as `E0301`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The index of the source.
    pub file: usize,
    /// The place in it, in bytes.
    pub span: Range<usize>,
    /// What was expected at that place.
    pub label: String,
    /// What to do, such as the nearest right word.
    pub help: Option<String>,
}

impl Diagnostic {
    /// The diagnostic as text for a terminal, the place underlined.
    pub fn render(&self, sources: &[SourceFile], colour: bool) -> String {
        let Some(source) = sources.get(self.file) else {
            return format!("{}: {}\n", self.code, self.message);
        };
        let (kind, hue) = match self.severity {
            Severity::Error => (ReportKind::Error, Color::Red),
            Severity::Warning => (ReportKind::Warning, Color::Yellow),
            Severity::Note => (ReportKind::Advice, Color::Blue),
        };
        let name = source.name.as_str();
        let config = Config::default().with_color(colour).with_index_type(IndexType::Byte);
        let mut report = Report::build(kind, (name, self.span.clone()))
            .with_config(config)
            .with_code(self.code)
            .with_message(&self.message)
            .with_label(
                Label::new((name, self.span.clone())).with_message(&self.label).with_color(hue),
            );
        if let Some(help) = &self.help {
            report = report.with_help(help);
        }
        let mut out = Vec::new();
        match report.finish().write((name, Source::from(source.text.as_str())), &mut out) {
            Ok(()) => String::from_utf8_lossy(&out).into_owned(),
            Err(_) => format!("{}: {}\n", self.code, self.message),
        }
    }

    /// Line and column of the place, both from 1; columns count characters.
    pub fn position(&self, sources: &[SourceFile]) -> (usize, usize) {
        let text = sources.get(self.file).map_or("", |source| source.text.as_str());
        let before = text.get(..self.span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

/// The word among these that was probably meant: at most two edits away.
pub(crate) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long word is no slip of these, and comparing it would cost its length squared.
    if word.len() > 40 {
        return None;
    }
    let word = word.to_lowercase();
    words
        .into_iter()
        .map(|candidate| (edit_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters have to be put in, taken out or replaced (Levenshtein).
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, left) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, right) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
