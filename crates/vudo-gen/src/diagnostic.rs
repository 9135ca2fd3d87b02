//! Diagnostics: what is wrong, where, and what would be right.
//!
//! Codes are stable: `E01..` are about syntax, `E02..` about names, types and defaults, `E03..` about
//! strategies and their options, `W04..` about what is kept without effect. The letter is the
//! severity: error, warning, note.

use std::ops::Range;

use ariadne::{Color, Config, IndexType, Label, Report, ReportKind, Source};

use crate::SourceFile;

/// More errors of one file than this are counted, not listed; the same holds for warnings.
pub const DIAGNOSTICS_MAX: usize = 200;

/// A longer line is not shown: it would fill the screen around one underlined word.
const SHOWN_LINE_BYTES_MAX: usize = 400;

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What was expected at that place; empty where the diagnostic is about the whole file.
    pub label: String,
    /// What to do, such as the nearest right word.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error; [`Diagnostics::push`] fills the file in.
    pub(crate) fn error(code: &'static str, span: &Range<usize>, message: String) -> Diagnostic {
        let (severity, span) = (Severity::Error, span.clone());
        Diagnostic { code, severity, message, file: 0, span, label: String::new(), help: None }
    }

    pub(crate) fn warning(code: &'static str, span: &Range<usize>, message: String) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, span, message) }
    }

    pub(crate) fn note(code: &'static str, span: &Range<usize>, message: String) -> Diagnostic {
        Diagnostic { severity: Severity::Note, ..Diagnostic::error(code, span, message) }
    }

    pub(crate) fn label(self, label: impl Into<String>) -> Diagnostic {
        Diagnostic { label: label.into(), ..self }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Diagnostic {
        Diagnostic { help: Some(help.into()), ..self }
    }

    /// Helps with the word that was probably meant, where one is near.
    pub(crate) fn suggest<'a>(
        self,
        word: &str,
        words: impl IntoIterator<Item = &'a str>,
    ) -> Diagnostic {
        match nearest(word, words) {
            Some(near) => self.help(format!("did you mean '{near}'?")),
            None => self,
        }
    }

    /// The diagnostic as text for a terminal, the place underlined.
    pub fn render(&self, sources: &[SourceFile], colour: bool) -> String {
        let text = sources.get(self.file).map_or("", |source| source.text.as_str());
        let line = ShownLine::of(text, &self.span);
        if self.label.is_empty() || line.text.len() > SHOWN_LINE_BYTES_MAX {
            return self.render_plain(sources);
        }
        let (kind, hue) = match self.severity {
            Severity::Error => (ReportKind::Error, Color::Red),
            Severity::Warning => (ReportKind::Warning, Color::Yellow),
            Severity::Note => (ReportKind::Advice, Color::Blue),
        };
        let name = self.file_name(sources);
        // The renderer counts lines itself, so empty ones stand for those above.
        let span = line.index + line.span.start..line.index + line.span.end;
        let config = Config::default().with_color(colour).with_index_type(IndexType::Byte);
        let mut report = Report::build(kind, (name, span.clone()))
            .with_config(config)
            .with_code(self.code)
            .with_message(&self.message)
            .with_label(Label::new((name, span)).with_message(&self.label).with_color(hue));
        if let Some(help) = &self.help {
            report = report.with_help(help);
        }
        let source = Source::from("\n".repeat(line.index) + &line.text);
        let mut out = Vec::new();
        match report.finish().write((name, source), &mut out) {
            Ok(()) => String::from_utf8_lossy(&out).into_owned(),
            Err(_) => self.render_plain(sources),
        }
    }

    /// Without the source line.
    fn render_plain(&self, sources: &[SourceFile]) -> String {
        let severity = match self.severity {
            Severity::Error => "Error",
            Severity::Warning => "Warning",
            Severity::Note => "Advice",
        };
        let (line, column) = self.position(sources);
        let name = self.file_name(sources);
        let place = match self.label.is_empty() {
            true => name.to_owned(),
            false => format!("{name}:{line}:{column}: {}", self.label),
        };
        let help = self.help.as_ref().map(|help| format!("   Help: {help}\n")).unwrap_or_default();
        format!("[{}] {severity}: {}\n   {place}\n{help}", self.code, self.message)
    }

    fn file_name<'a>(&self, sources: &'a [SourceFile]) -> &'a str {
        sources.get(self.file).map_or("?", |source| source.name.as_str())
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

/// The line of a source that a diagnostic shows: the renderer never sees the rest.
struct ShownLine {
    /// From 0.
    index: usize,
    text: String,
    /// The place, cut to the line, in bytes of the line.
    span: Range<usize>,
}

impl ShownLine {
    fn of(text: &str, span: &Range<usize>) -> ShownLine {
        let start = span.start.min(text.len());
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
        ShownLine {
            index: text[..line_start].matches('\n').count(),
            text: text[line_start..line_end].chars().map(printable).collect(),
            span: start - line_start..span.end.clamp(start, line_end) - line_start,
        }
    }
}

/// A character that a terminal shows without acting on it, as many bytes long as the one it is for.
fn printable(character: char) -> char {
    match character {
        '\t' => character,
        '\0'..'\u{20}' | '\u{7f}' => '?',
        '\u{80}'..='\u{9f}' => '\u{b7}',
        // Line separators, and what reverses the order of the characters around it.
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        _ => character,
    }
}

/// A piece of source inside a message: short, and without anything that a terminal acts on.
pub(crate) fn quoted(text: &str) -> String {
    const LENGTH_MAX: usize = 40;
    let mut characters = text.chars().map(printable);
    let mut out: String = characters.by_ref().take(LENGTH_MAX).collect();
    if characters.next().is_some() {
        out.push('…');
    }
    format!("'{out}'")
}

/// `a, b or c`
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [all_but_last @ .., last] if !all_but_last.is_empty() => {
            format!("{} or {last}", all_but_last.join(", "))
        }
        _ => words.concat(),
    }
}

/// The diagnostics of one file, bounded in number.
pub(crate) struct Diagnostics {
    file: usize,
    list: Vec<Diagnostic>,
    error_count: usize,
    other_count: usize,
}

impl Diagnostics {
    pub(crate) fn new(file: usize) -> Diagnostics {
        Diagnostics { file, list: Vec::new(), error_count: 0, other_count: 0 }
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let count = match diagnostic.severity {
            Severity::Error => &mut self.error_count,
            Severity::Warning | Severity::Note => &mut self.other_count,
        };
        *count += 1;
        if *count <= DIAGNOSTICS_MAX {
            self.list.push(Diagnostic { file: self.file, ..diagnostic });
        }
    }

    /// Whether the last diagnostic is an error about something that begins here.
    pub(crate) fn ends_with_error_at(&self, at: usize) -> bool {
        self.list
            .last()
            .is_some_and(|last| last.severity == Severity::Error && last.span.start == at)
    }

    /// Whether further errors, or further warnings, are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.error_count >= DIAGNOSTICS_MAX || self.other_count >= DIAGNOSTICS_MAX
    }

    pub(crate) fn has_error(&self) -> bool {
        self.error_count > 0
    }

    /// In the order of the places; what was left out is counted at the end.
    pub(crate) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|one| one.span.start);
        let left_out = self.error_count + self.other_count - self.list.len();
        if left_out > 0 {
            let message = format!("{left_out} more errors and warnings are not shown");
            let note = Diagnostic::error("N0108", &(0..0), message);
            self.list.push(Diagnostic { severity: Severity::Note, file: self.file, ..note });
        }
        self.list
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
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= 8)
        .map(|candidate| (edit_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.chars().count())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_a_slip_away() {
        assert_eq!(nearest("lwww", ["immutable", "lww"]), Some("lww"));
        assert_eq!(nearest("BOOL", ["Bool"]), Some("Bool"));
        assert_eq!(nearest("xy", ["i8"]), None, "nothing of the word is left");
        assert_eq!(nearest("entirely", ["lww"]), None);
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_is_printed() {
        let text = "a\u{1b}[31m \u{9b}0m \u{202e}b".to_owned();
        let source = SourceFile { name: "a.dol".into(), text, lock: None };
        let message = format!("unexpected {}", quoted("\u{1b}"));
        let diagnostic = Diagnostic::error("E0101", &(1..2), message).label("here");
        let rendered = diagnostic.render(&[source], false);
        assert!(rendered.contains("a?[31m"), "{rendered}");
        assert!(!rendered.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{rendered:?}");
    }

    #[test]
    fn errors_past_the_bound_are_counted() {
        let mut diagnostics = Diagnostics::new(0);
        for _ in 0..DIAGNOSTICS_MAX + 3 {
            diagnostics.push(Diagnostic::warning("W0401", &(0..0), String::new()));
        }
        diagnostics.push(Diagnostic::error("E0101", &(0..0), String::new()));
        assert!(diagnostics.has_error());
        let list = diagnostics.into_sorted();
        assert!(list.iter().any(|one| one.severity == Severity::Error));
        assert_eq!(list.last().unwrap().message, "3 more errors and warnings are not shown");
    }
}
