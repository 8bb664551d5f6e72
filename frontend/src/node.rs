//! From text to [`Node`]s: joining lines, reading heredoc bodies, cutting words.

use crate::ast::{Directives, LineRange, Node, Span, Word};
use crate::diagnostic::{Diagnostic, Diagnostics, Phase};
use crate::directive::DirectiveReader;
use crate::heredoc;
use crate::json::{ExecForm, exec_form};
use crate::line::{blank_separated, continuation, is_separator, quoted_words, split_command};
use crate::source::{Fragment, Line, LineReader, Logical, MAX_INSTRUCTIONS, MAX_LINE_LENGTH};

/// Deepest `ONBUILD ONBUILD …` that is looked into. Two levels are an error already.
const MAX_ONBUILD_DEPTH: usize = 4;

const NOT_STRINGS: &str = "when using JSON array syntax, arrays must be comprised of strings only";

/// What the line parser found.
#[derive(Default)]
pub(crate) struct Nodes {
    pub(crate) directives: Directives,
    pub(crate) nodes: Vec<Node>,
    /// Errors in file order.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Reads the untyped instructions of a file.
pub(crate) fn parse_nodes(text: &str) -> Nodes {
    let mut parser = NodeParser {
        lines: LineReader::new(text),
        directives: DirectiveReader::default(),
        comments: Vec::new(),
        nodes: Vec::new(),
        diagnostics: Diagnostics::default(),
    };
    while let Some(line) = parser.lines.next_line() {
        if parser.nodes.len() >= MAX_INSTRUCTIONS {
            let lines = LineRange::new(parser.lines.number, parser.lines.number);
            let message = format!("more than {MAX_INSTRUCTIONS} instructions");
            parser.error(Diagnostic::error(message, lines).with_help("split the file"));
            break;
        }
        parser.line(line);
    }
    parser.finish(text)
}

struct NodeParser<'a> {
    lines: LineReader<'a>,
    directives: DirectiveReader,
    comments: Vec<String>,
    nodes: Vec<Node>,
    diagnostics: Diagnostics,
}

/// A node that cannot be made.
struct NodeError {
    message: String,
    span: Span,
    help: &'static str,
}

impl NodeParser<'_> {
    /// Takes the line that was just read, and with it all lines of the instruction that it begins.
    fn line(&mut self, line: Line<'_>) {
        let number = self.lines.number;
        let trimmed = line.without_end().trim_start();
        let directive = self.directives.line(trimmed).unwrap_or_else(|(message, word)| {
            // BuildKit counts a directive's line after reading it; the span is right.
            let lines = LineRange::new(number - 1, number - 1);
            self.error(Diagnostic::error(message, lines).with_span(word.span));
            true
        });
        if line.is_comment() {
            if !directive {
                self.comment(line.text);
            }
            return;
        }
        let body = continuation(trimmed.text, self.directives.directives.escape);
        if body.is_none() && trimmed.text.is_empty() {
            return;
        }
        let mut logical = Logical::default();
        logical.push(&trimmed.text[..body.unwrap_or(trimmed.text.len())], trimmed.offset);
        let empty = match body {
            Some(_) => self.continue_line(&mut logical),
            None => Vec::new(),
        };
        self.instruction(&logical, number, empty);
    }

    /// Joins lines until one does not continue. Gives the numbers of the blank ones.
    fn continue_line(&mut self, logical: &mut Logical) -> Vec<usize> {
        let mut empty = Vec::new();
        while let Some(line) = self.lines.next_line() {
            let line = line.without_end();
            if line.is_comment() {
                continue;
            }
            if line.text.trim_start().is_empty() {
                empty.push(self.lines.number);
                continue;
            }
            match continuation(line.text, self.directives.directives.escape) {
                Some(length) => logical.push(&line.text[..length], line.offset),
                None => {
                    logical.push(line.text, line.offset);
                    break;
                }
            }
        }
        empty
    }

    fn comment(&mut self, line: &str) {
        // The first character goes even when it is a blank before `#`, as in BuildKit.
        let mut chars = line.chars();
        chars.next();
        match chars.as_str().trim() {
            "" => self.comments.clear(),
            comment => self.comments.push(comment.to_owned()),
        }
    }

    fn instruction(&mut self, logical: &Logical, start: usize, empty: Vec<usize>) {
        let escape = self.directives.directives.escape;
        let made = new_node(logical.all(), escape, 0);
        let mut node = match made {
            Ok(node) => node,
            Err(NodeError { message, span, help }) => {
                let lines = LineRange::new(start, self.lines.number);
                self.error(Diagnostic::error(message, lines).with_span(span).with_help(help));
                self.comments.clear();
                return;
            }
        };
        node.empty_continuations = empty;
        node.prev_comments = std::mem::take(&mut self.comments);
        if can_contain_heredoc(&node) && logical.text.contains("<<") {
            self.read_heredocs(&mut node, logical, start);
        }
        node.lines = LineRange::new(start, self.lines.number);
        self.nodes.push(node);
    }

    fn read_heredocs(&mut self, node: &mut Node, logical: &Logical, start: usize) {
        for mut heredoc in heredoc::announced(&logical.text) {
            let mut terminated = false;
            let mut nearly = None;
            while let Some(line) = self.lines.next_line() {
                if heredoc.span == Span::default() {
                    heredoc.span = Span::new(line.offset, line.offset);
                }
                let mut last = line.without_end().text;
                if heredoc.chomp {
                    last = last.trim_start_matches('\t');
                }
                if last == heredoc.name {
                    terminated = true;
                    node.span.end = line.offset + line.without_end().text.len();
                    break;
                }
                if last.trim() == heredoc.name {
                    nearly = nearly.or(Some(self.lines.number));
                }
                heredoc.content.push_str(line.text);
                heredoc.span.end = line.offset + line.text.len();
            }
            if !terminated {
                let lines = LineRange::new(start, self.lines.number);
                let help = match nearly {
                    Some(line) => format!("remove the blanks around `{}` on line {line}", heredoc.name),
                    None => format!("end it with a line that holds nothing but `{}`", heredoc.name),
                };
                let error = Diagnostic::error("unterminated heredoc", lines).with_span(node.span);
                self.error(error.with_help(help));
                return;
            }
            node.heredocs.push(heredoc);
        }
    }

    fn error(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic.in_phase(Phase::Parse));
    }

    fn finish(mut self, text: &str) -> Nodes {
        let lines = LineRange::new(self.lines.number, self.lines.number);
        let failed = self.diagnostics.has_errors();
        if self.nodes.is_empty() && !failed {
            let help = match text.trim().is_empty() {
                true => "the file is empty: begin it with a FROM instruction",
                false => "there are only comments: begin with a FROM instruction",
            };
            self.error(Diagnostic::error("file with no instructions", lines).with_help(help));
        } else if self.lines.too_long {
            let message = format!("dockerfile line greater than max allowed size of {MAX_LINE_LENGTH}");
            let help = format!("break line {} with continuations", self.lines.number + 1);
            self.error(Diagnostic::error(message, lines).with_help(help));
        }
        Nodes {
            directives: self.directives.directives,
            nodes: self.nodes,
            diagnostics: self.diagnostics.finish(),
        }
    }
}

/// RUN, COPY and ADD, also below ONBUILD, if they are not in JSON form.
fn can_contain_heredoc(node: &Node) -> bool {
    let node = match &node.child {
        Some(child) if node.keyword.value.eq_ignore_ascii_case("onbuild") => child,
        _ => node,
    };
    !node.json && matches!(node.keyword.value.to_ascii_lowercase().as_str(), "run" | "copy" | "add")
}

fn new_node(line: Fragment<'_>, escape: char, depth: usize) -> Result<Node, NodeError> {
    let command = split_command(line, escape);
    let whole = line.trim();
    let mut node = Node {
        keyword: command.keyword.word(),
        flags: command.flags,
        span: whole.span(0..whole.text().len()),
        original: line.text().to_owned(),
        ..Node::default()
    };
    let rest = command.rest;
    match node.keyword.value.to_lowercase().as_str() {
        "add" | "copy" | "volume" => exec_or(&mut node, rest, blank_separated)?,
        "cmd" | "entrypoint" | "run" | "shell" => exec_or(&mut node, rest, one_word)?,
        "arg" => node.args = quoted_words(rest, escape),
        "env" | "label" => node.args = name_values(rest, escape, &node.keyword)?,
        "expose" | "from" => node.args = blank_separated(rest),
        "maintainer" | "stopsignal" | "user" | "workdir" => node.args = one_word(rest),
        "healthcheck" => healthcheck(&mut node, rest)?,
        "onbuild" if depth < MAX_ONBUILD_DEPTH => {
            if !rest.text().is_empty() {
                node.child = Some(Box::new(new_node(rest, escape, depth + 1)?));
            }
        }
        // Unknown instructions keep one empty word.
        _ => node.args = vec![Word::default()],
    }
    Ok(node)
}

fn one_word(rest: Fragment<'_>) -> Vec<Word> {
    match rest.text().is_empty() {
        true => Vec::new(),
        false => vec![rest.word()],
    }
}

/// A JSON array, or what `otherwise` makes of the text.
fn exec_or(
    node: &mut Node,
    rest: Fragment<'_>,
    otherwise: fn(Fragment<'_>) -> Vec<Word>,
) -> Result<(), NodeError> {
    match exec_form(rest) {
        ExecForm::Words(words) => {
            node.json = true;
            node.args.extend(words);
        }
        ExecForm::NotStrings => {
            let span = rest.span(0..rest.text().len());
            return Err(NodeError {
                message: NOT_STRINGS.to_owned(),
                span,
                help: "put every element in double quotes",
            });
        }
        ExecForm::No => node.args.extend(otherwise(rest)),
    }
    Ok(())
}

/// `HEALTHCHECK type rest`.
fn healthcheck(node: &mut Node, rest: Fragment<'_>) -> Result<(), NodeError> {
    let text = rest.text();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    if end == 0 {
        return Ok(());
    }
    node.args.push(rest.slice(0..end).word());
    exec_or(node, rest.from(end).trim(), one_word)
}

/// ENV and LABEL: triples of key, value and separator.
fn name_values(rest: Fragment<'_>, escape: char, keyword: &Word) -> Result<Vec<Word>, NodeError> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    if !first.value.contains('=') {
        return legacy_name_value(rest, keyword);
    }
    let mut triples = Vec::with_capacity(words.len() * 3);
    for word in words {
        let Some((key, value)) = word.value.split_once('=') else {
            let quoted = crate::dump::go_quote(&word.value);
            let message = format!("Syntax error - can't find = in {quoted}. Must be of the form: name=value");
            let help = "write name=value for every pair, and quote a value that has blanks: name=\"a b\"";
            return Err(NodeError { message, span: word.span, help });
        };
        // Where the word was cut by a continuation or an escape, the middle of it has no exact place.
        let exact = word.span.end - word.span.start == word.value.len();
        let middle = word.span.start + key.len();
        let (left, right) = match exact {
            true => (Span::new(word.span.start, middle), Span::new(middle + 1, word.span.end)),
            false => (word.span, word.span),
        };
        triples.extend([Word::new(key, left), Word::new(value, right), Word::new("=", Span::default())]);
    }
    Ok(triples)
}

/// `ENV KEY the rest of the line`.
fn legacy_name_value(rest: Fragment<'_>, keyword: &Word) -> Result<Vec<Word>, NodeError> {
    let text = rest.text();
    let Some(end) = text.find(is_separator) else {
        let message = format!("{} must have two arguments", keyword.value.to_uppercase());
        return Err(NodeError { message, span: rest.span(0..text.len()), help: "write name=value" });
    };
    let value = rest.from(end + (text[end..].len() - text[end..].trim_start_matches(is_separator).len()));
    Ok(vec![rest.slice(0..end).word(), value.word(), Word::default()])
}
