//! Diagnostics as text for people, in rustc's style: title, place, the words at fault underlined, remedy.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::ast::Span;
use crate::diagnostic::{Diagnostic, Severity};
use crate::lint::{Rule, rule};

/// Draws a diagnostic without colours. `file` is the name to show, `source` the text that was parsed.
pub fn render(diagnostic: &Diagnostic, file: &str, source: &str) -> String {
    render_with(diagnostic, file, source, &Renderer::plain())
}

/// Draws a diagnostic with terminal colours.
pub fn render_colored(diagnostic: &Diagnostic, file: &str, source: &str) -> String {
    render_with(diagnostic, file, source, &Renderer::styled())
}

fn render_with(diagnostic: &Diagnostic, file: &str, source: &str, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut title = level.primary_title(diagnostic.message.as_str());
    if let Some(rule) = diagnostic.rule {
        title = title.id(rule);
    }
    let places = places(diagnostic, source);
    let mut group = match excerpt(&places, source) {
        None => title.element(annotate_snippets::Origin::path(file)),
        Some((range, first_line)) => {
            let offset = range.start;
            let annotations = places.iter().enumerate().map(|(index, place)| {
                let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                kind.span(place.start - offset..place.end - offset)
            });
            title.element(
                Snippet::source(&source[range]).line_start(first_line).path(file).annotations(annotations),
            )
        }
    };
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    if let Some(url) = diagnostic.rule.and_then(rule).and_then(Rule::url) {
        group = group.element(Level::NOTE.message(url));
    }
    renderer.render(&[group])
}

/// What to underline, most important first. A place of several lines shows its first one; without a place the
/// first line at fault is shown.
fn places(diagnostic: &Diagnostic, source: &str) -> Vec<Range<usize>> {
    let mut places: Vec<Range<usize>> =
        diagnostic.spans.iter().filter_map(|span| first_line_of(*span, source)).collect();
    if places.is_empty()
        && let Some(number) = diagnostic.lines.start.checked_sub(1)
        && let Some(line) = source.split_inclusive('\n').nth(number)
    {
        let start = line.as_ptr() as usize - source.as_ptr() as usize;
        let content = line.trim_end_matches(['\r', '\n']);
        let blank = content.len() - content.trim_start().len();
        places.push(start + blank..start + content.len());
    }
    places
}

fn first_line_of(span: Span, source: &str) -> Option<Range<usize>> {
    let text = source.get(span.range())?;
    let line = text.split('\n').next().unwrap_or_default().trim_end_matches('\r');
    Some(span.start..span.start + line.len())
}

/// The lines that hold the places, and the number of the first one.
fn excerpt(places: &[Range<usize>], source: &str) -> Option<(Range<usize>, usize)> {
    let first = places.iter().map(|place| place.start).min()?;
    let last = places.iter().map(|place| place.end).max()?;
    let start = source[..first].rfind('\n').map_or(0, |at| at + 1);
    let end = source[last..].find('\n').map_or(source.len(), |at| last + at);
    let number = source[..start].bytes().filter(|&byte| byte == b'\n').count() + 1;
    Some((start..end, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::LineRange;

    fn shown(text: &str) -> String {
        let (_, diagnostics) = crate::parse(text.as_bytes());
        let blocks: Vec<String> =
            diagnostics.iter().map(|diagnostic| render(diagnostic, "Dockerfile", text)).collect();
        blocks.join("\n\n")
    }

    #[test]
    fn underlines_the_words_at_fault() {
        let got = shown("FROM busybox\nCOPY --form=a \\\n  /b /c\n");
        let want = "error: unknown flag: --form (did you mean from?)
 --> Dockerfile:2:6
  |
2 | COPY --form=a \\
  |      ^^^^^^^^
  |
  = help: write --from";
        assert_eq!(got, want);
    }

    #[test]
    fn names_the_rule_of_a_warning() {
        let warning = Diagnostic::warning("SomeRule", "this could be better", LineRange::new(2, 2));
        let want = "warning[SomeRule]: this could be better
 --> Dockerfile:2:2
  |
2 |  b
  |  ^
  |
  = help: do better";
        assert_eq!(render(&warning.with_help("do better"), "Dockerfile", "a\n b\n"), want);
    }

    #[test]
    fn survives_places_outside_the_source() {
        let error = Diagnostic::error("x", LineRange::new(7, 9)).with_span(Span::new(3, 900));
        assert_eq!(render(&error, "f", "ab"), "error: x\n--> f");
        let inside_a_character = Diagnostic::error("x", LineRange::new(1, 1)).with_span(Span::new(1, 2));
        assert!(render(&inside_a_character, "f", "äb").contains("1 | äb"));
        assert_eq!(render(&Diagnostic::error("x", LineRange::default()), "f", ""), "error: x\n--> f");
    }
}
