//! The formatter: one layout for all files, keeping comments and the author's line breaks.
//!
//! **The idea.** Tokens are printed again in their order, with the white space between them set
//! anew; the tree only says where members begin and what keeps its own layout. So no token can be
//! lost, and formatting twice changes nothing: what decides (tokens, whether a block lies on one line,
//! whether a line was broken) is the same in the output.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::SourceFile;
use crate::diagnostic::{Diagnostic, Severity};
use crate::lexer::{Token, TokenKind, lex};
use crate::syntax::Layout;

const INDENTATION: &str = "    ";
/// A block of more bytes on one line is broken into its members.
const ONE_LINE_BYTES_MAX: usize = 100;

/// The source in the one layout.
///
/// # Errors
/// What is no source cannot be laid out: the errors of its syntax.
pub fn format(source: &SourceFile) -> Result<String, Vec<Diagnostic>> {
    let (syntax, diagnostics) = crate::parse(source);
    if diagnostics.iter().any(|one| one.severity == Severity::Error) {
        return Err(diagnostics);
    }
    let tokens = lex(&source.text).tokens;
    Ok(Printer::new(&source.text, &syntax.layout).print(&tokens))
}

struct Printer<'a> {
    source: &'a str,
    /// What begins a line, in bytes.
    line_starts: BTreeSet<usize>,
    /// Braces of blocks.
    opens: BTreeSet<usize>,
    closes: BTreeSet<usize>,
    members: BTreeSet<usize>,
    types: Pieces,
    verbatim: Pieces,
    out: String,
    depth: usize,
    /// How many brackets are open in the member.
    bracket_count: usize,
    /// Whether only annotations of the member have been printed.
    is_in_annotations: bool,
}

/// Pieces of the source, outermost only, ascending.
struct Pieces(Vec<Range<usize>>);

impl Pieces {
    fn new(pieces: &[Range<usize>]) -> Pieces {
        let mut sorted = pieces.to_vec();
        sorted.sort_by_key(|piece| (piece.start, std::cmp::Reverse(piece.end)));
        let mut outermost: Vec<Range<usize>> = Vec::new();
        for piece in sorted {
            if outermost.last().is_none_or(|last| piece.start >= last.end) {
                outermost.push(piece);
            }
        }
        Pieces(outermost)
    }

    /// The piece that a place is in.
    fn around(&self, place: usize) -> Option<&Range<usize>> {
        let after = self.0.partition_point(|piece| piece.start <= place);
        self.0[..after].last().filter(|piece| place < piece.end)
    }
}

impl<'a> Printer<'a> {
    fn new(source: &'a str, layout: &Layout) -> Printer<'a> {
        let mut printer = Printer {
            source,
            line_starts: layout.items.iter().copied().collect(),
            opens: BTreeSet::new(),
            closes: BTreeSet::new(),
            members: layout.items.iter().copied().collect(),
            types: Pieces::new(&layout.types),
            verbatim: Pieces::new(&layout.verbatim),
            out: String::with_capacity(source.len()),
            depth: 0,
            bracket_count: 0,
            is_in_annotations: false,
        };
        for block in &layout.blocks {
            printer.opens.insert(block.open);
            printer.closes.insert(block.close);
            printer.members.extend(&block.members);
            let inside = &source[block.open..block.close];
            if inside.contains('\n') || inside.len() > ONE_LINE_BYTES_MAX {
                printer.line_starts.extend(&block.members);
                if !block.members.is_empty() {
                    printer.line_starts.insert(block.close);
                }
            }
        }
        printer
    }

    fn print(mut self, tokens: &[Token]) -> String {
        let mut index = 0;
        let mut end = if self.source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut before: Option<&Token> = None;
        while let Some(token) = tokens.get(index) {
            let start = token.span.start;
            if self.closes.contains(&start) {
                self.depth = self.depth.saturating_sub(1);
            }
            if self.members.contains(&start) {
                self.bracket_count = 0;
                self.is_in_annotations = token.kind == TokenKind::Symbol('@');
            }
            if token.kind == TokenKind::End {
                self.gap(&self.source[end..start], None, None);
                break;
            }
            self.note_annotation(before, token);
            self.gap(&self.source[end..start], before, Some(token));
            if let Some(piece) = self.verbatim.around(start).cloned() {
                self.out.push_str(&self.source[piece.clone()]);
                end = piece.end;
                while tokens[index].span.start < end && tokens[index].kind != TokenKind::End {
                    before = Some(&tokens[index]);
                    index += 1;
                }
                continue;
            }
            self.out.push_str(&self.source[token.span.clone()]);
            match token.kind {
                _ if self.opens.contains(&start) => self.depth += 1,
                TokenKind::Symbol('(' | '[' | '{') => self.bracket_count += 1,
                TokenKind::Symbol(')' | ']' | '}') if !self.closes.contains(&start) => {
                    self.bracket_count = self.bracket_count.saturating_sub(1);
                }
                _ => {}
            }
            end = token.span.end;
            before = Some(token);
            index += 1;
        }
        let length = self.out.trim_end().len();
        self.out.truncate(length);
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out
    }

    /// A field's own words end its annotations.
    fn note_annotation(&mut self, before: Option<&Token>, token: &Token) {
        let follows_at = before.is_some_and(|one| one.kind == TokenKind::Symbol('@'));
        if token.kind == TokenKind::Word && self.bracket_count == 0 && !follows_at {
            let was = std::mem::replace(&mut self.is_in_annotations, false);
            // The first word still stands where the annotations stand.
            if was {
                self.members.insert(token.span.start);
            }
        }
    }

    /// White space and comments between two tokens.
    fn gap(&mut self, gap: &str, before: Option<&Token>, after: Option<&Token>) {
        let mut rest = gap;
        let mut newline_count = 0;
        let mut last_comment = None;
        loop {
            let trimmed = rest.trim_start();
            newline_count += rest[..rest.len() - trimmed.len()].matches('\n').count();
            if trimmed.is_empty() {
                break;
            }
            let length = if let Some(inside) = trimmed.strip_prefix("/*") {
                inside.find("*/").map_or(trimmed.len(), |end| end + 4)
            } else {
                trimmed.find('\n').unwrap_or(trimmed.len())
            };
            let comment = trimmed[..length].trim_end();
            let is_first = self.out.is_empty();
            if newline_count > 0 || is_first {
                self.break_line(newline_count, before, true);
                self.indent(self.depth);
            } else if !self.out.ends_with(' ') {
                self.out.push(' ');
            }
            self.out.push_str(comment);
            newline_count = 0;
            last_comment = Some(comment);
            rest = &trimmed[length..];
        }
        let Some(token) = after else { return };
        let start = token.span.start;
        let is_line_comment = last_comment.is_some_and(|comment| !comment.starts_with("/*"));
        let begins = newline_count > 0
            || is_line_comment
            || self.line_starts.contains(&start) && before.is_some()
            || token.begins_line && before.is_some() && last_comment.is_none();
        if begins {
            self.break_line(newline_count.max(1), before.filter(|_| last_comment.is_none()), {
                !self.closes.contains(&start)
            });
            let is_continued = !self.members.contains(&start) && !self.closes.contains(&start);
            let is_annotation = self.is_in_annotations && self.bracket_count == 0;
            let is_further_in = is_continued && !is_annotation;
            self.indent(self.depth + usize::from(is_further_in));
        } else if last_comment.is_some() {
            self.out.push(' ');
        } else if let Some(before) = before
            && self.is_spaced(before, token)
        {
            self.out.push(' ');
        }
    }

    /// Ends the line, and leaves one line empty where the source does, but not inside of a brace.
    fn break_line(&mut self, newline_count: usize, before: Option<&Token>, may_be_empty: bool) {
        if self.out.is_empty() {
            return;
        }
        let length = self.out.trim_end_matches([' ', '\t']).len();
        self.out.truncate(length);
        self.out.push('\n');
        let follows_open = before.is_some_and(|one| self.opens.contains(&one.span.start));
        if newline_count > 1 && may_be_empty && !follows_open {
            self.out.push('\n');
        }
    }

    fn indent(&mut self, depth: usize) {
        self.out.push_str(&INDENTATION.repeat(depth));
    }

    /// Whether a space stands between two tokens of one line.
    fn is_spaced(&self, before: &Token, after: &Token) -> bool {
        use TokenKind::{Number, Symbol, Text, Word};
        let (left, right) = (before.span.start, after.span.start);
        let word = |token: &Token| &self.source[token.span.clone()];
        let is_operator_word = |token: &Token| {
            token.kind == Word && ["and", "or", "not", "in", "where", "with"].contains(&word(token))
        };
        let touches = before.span.end == after.span.start;
        // Versions touch what is around them only where they are told apart by it.
        if self.verbatim.around(right).is_some() || self.verbatim.around(left).is_some() {
            return !matches!(after.kind, Symbol(',' | ';'));
        }
        if self.opens.contains(&left) || self.closes.contains(&right) {
            return !(self.opens.contains(&left) && self.closes.contains(&right));
        }
        if self.opens.contains(&right) {
            return true;
        }
        let in_type = self.types.around(right).is_some_and(|piece| piece.contains(&left));
        if in_type {
            return before.kind == Symbol(',');
        }
        match (before.kind, after.kind) {
            (_, Symbol(',' | ';' | ')' | ']' | ':' | '.')) | (Symbol('(' | '[' | '.'), _) => false,
            (Symbol('@'), Word) => false,
            (Word, Symbol('<')) if self.types.around(right).is_some() => false,
            (Word, Symbol('(')) => is_operator_word(before),
            (Symbol(first), Symbol(second)) if touches => {
                const PAIRS: [(char, char); 6] =
                    [('=', '='), ('!', '='), ('<', '='), ('>', '='), ('&', '&'), ('|', '|')];
                !PAIRS.contains(&(first, second)) && first != '!' && !self.is_sign(before)
            }
            (Symbol('!'), _) => false,
            (Symbol('-'), Number | Word | Text | Symbol(_)) => !self.is_sign(before),
            _ => true,
        }
    }

    /// Whether a minus stands before its only operand.
    fn is_sign(&self, minus: &Token) -> bool {
        if minus.kind != TokenKind::Symbol('-') {
            return false;
        }
        let before = self.source[..minus.span.start].trim_end();
        let Some(last) = before.chars().next_back() else { return true };
        let is_word = |character: char| character == '_' || character.is_alphanumeric();
        if !is_word(last) {
            return !matches!(last, ')' | ']' | '"');
        }
        let start = before
            .rfind(|one: char| !is_word(one))
            .map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8));
        ["and", "or", "not", "in", "where", "with"].contains(&&before[start..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(text: &str) -> String {
        let source = SourceFile { name: "a.dol".into(), text: text.into(), lock: None };
        let once = format(&source).unwrap_or_else(|errors| panic!("{errors:?} in {text}"));
        let again = SourceFile { text: once.clone(), ..source };
        assert_eq!(format(&again).as_ref(), Ok(&once), "formatting twice changes {text:?}");
        once
    }

    #[test]
    fn members_have_a_line_each_and_comments_stay() {
        let text = "// Tasks.\nmodule  a.b@ 1.0.0\ngen Task{ // a task\n@crdt( lww ,tie_break=\"content\")\n   has title:String=\"x\"// said\n\n\n has  n :i64 where n>-1 and not(n in[ 1,2 ])\n rule small{this.n<10\n||n==-5} /* end */ }\nenum E{A,B}\n";
        let expected = "\
// Tasks.
module a.b @ 1.0.0
gen Task { // a task
    @crdt(lww, tie_break = \"content\")
    has title: String = \"x\" // said

    has n: i64 where n > -1 and not (n in [1, 2])
    rule small {
        this.n < 10
            || n == -5
    } /* end */
}
enum E { A, B }
";
        assert_eq!(formatted(text), expected);
    }

    #[test]
    fn types_and_what_is_kept_as_text_keep_their_form() {
        let text = "gene a { x:Map< String , List<( i8,Option<Bool> )>>, y: {T}\n fun f( a :i64 )->{Bool} {  a  }\n docs {  it's  }\n}\n";
        let expected = "\
gene a {
    x: Map<String, List<(i8, Option<Bool>)>>,
    y: {T}
    fun f( a :i64 )->{Bool} {  a  }
    docs {  it's  }
}
";
        assert_eq!(formatted(text), expected);
        assert_eq!(formatted("\n\n"), "");
        assert_eq!(formatted("gen A { }"), "gen A {}\n");
    }

    #[test]
    fn long_lines_are_broken_into_members() {
        let fields: Vec<String> = (0..9).map(|index| format!("has field_{index}: i64")).collect();
        let text = formatted(&format!("gen A {{ {} }}", fields.join(" ")));
        assert_eq!(text.lines().count(), 11, "{text}");
    }
}
