//! The blocks of a document that figures are written into.

use anyhow::{Result, bail};

const START: &str = "<!-- figures:";
const END: &str = "<!-- /figures -->";

/// Puts what `figures` gives for a command between its marks; where it gives nothing, what is there
/// stays. Everything outside of the marks stays as it is.
///
/// # Errors
/// A block has no end, or `figures` failed.
pub(super) fn rewrite(
    text: &str,
    mut figures: impl FnMut(&str) -> Result<Option<String>>,
) -> Result<String> {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        let Some(command) = line.trim().strip_prefix(START) else { continue };
        let command = command.trim_end_matches("-->").trim();
        let mut kept = String::new();
        loop {
            match lines.next() {
                Some(line) if line.trim() == END => break,
                Some(line) => kept = kept + line + "\n",
                None => bail!("the figures of `{command}` have no end: write {END}"),
            }
        }
        let written = figures(command)?.map(|written| format!("\n{}\n\n", written.trim()));
        out += &written.unwrap_or(kept);
        out = out + END + "\n";
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Before.
<!-- figures: one -->
1 ms
<!-- /figures -->
Between.
<!-- figures: two -->
2 ms
<!-- /figures -->
";

    #[test]
    fn only_blocks_with_figures_change() {
        let give = |command: &str| Ok((command == "one").then(|| "3 ms".to_owned()));
        let written = rewrite(TEXT, give).unwrap();
        assert_eq!(written, TEXT.replace("1 ms", "\n3 ms\n"));
        assert_eq!(rewrite(&written, give).unwrap(), written, "writing again changes nothing");
    }

    #[test]
    fn a_block_without_an_end_is_an_error() {
        let error = rewrite("<!-- figures: one -->\n1 ms\n", |_| Ok(None)).unwrap_err();
        assert!(error.to_string().contains("`one`"), "{error}");
    }
}
