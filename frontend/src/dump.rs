//! Two plain forms of the node tree: S-expressions (BuildKit's AST dump) and JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::ast::{Dockerfile, Node};

/// The tree as S-expressions, one instruction per line:
/// `(keyword ["--flag"] "argument" …)`. Heredoc bodies are not part of it.
pub fn dump(dockerfile: &Dockerfile) -> String {
    let lines: Vec<String> = dockerfile.nodes.iter().map(|node| format!("({})", dump_node(node))).collect();
    lines.join("\n")
}

fn dump_node(node: &Node) -> String {
    let mut text = node.keyword.value.to_lowercase();
    if !node.flags.is_empty() {
        let flags: Vec<String> = node.flags.iter().map(|flag| go_quote(&flag.value)).collect();
        let _ = write!(text, " [{}]", flags.join(" "));
    }
    if let Some(child) = &node.child {
        let _ = write!(text, " ({})", dump_node(child));
    }
    for arg in &node.args {
        let _ = write!(text, " {}", go_quote(&arg.value));
    }
    text
}

/// The nodes as JSON, with the keys of conformance/golden/dockerfile-parse.json: empty parts are left out.
pub fn nodes_json(dockerfile: &Dockerfile) -> Value {
    Value::Array(dockerfile.nodes.iter().map(node_json).collect())
}

fn node_json(node: &Node) -> Value {
    let mut map = Map::new();
    map.insert("value".into(), json!(node.keyword.value));
    if !node.flags.is_empty() {
        map.insert("flags".into(), words(&node.flags));
    }
    map.insert("args".into(), words(&node.args));
    if node.json {
        map.insert("json".into(), json!(true));
    }
    map.insert("start_line".into(), json!(node.lines.start));
    map.insert("end_line".into(), json!(node.lines.end));
    map.insert("original".into(), json!(node.original));
    if !node.prev_comments.is_empty() {
        map.insert("prev_comments".into(), json!(node.prev_comments));
    }
    if !node.heredocs.is_empty() {
        let heredocs = node.heredocs.iter().map(|heredoc| {
            json!({
                "Name": heredoc.name,
                "FileDescriptor": heredoc.fd,
                "Expand": heredoc.expand,
                "Chomp": heredoc.chomp,
                "Content": heredoc.content,
            })
        });
        map.insert("heredocs".into(), heredocs.collect());
    }
    if let Some(child) = &node.child {
        map.insert("child".into(), node_json(child));
    }
    Value::Object(map)
}

fn words(words: &[crate::ast::Word]) -> Value {
    words.iter().map(|word| Value::from(word.value.as_str())).collect()
}

/// A string as Go writes it with `%q`: printable characters as they are, others escaped.
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if is_printable(c) => quoted.push(c),
            c if (c as u32) < 0x80 => {
                let _ = write!(quoted, "\\x{:02x}", c as u32);
            }
            c if (c as u32) < 0x10000 => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => {
                let _ = write!(quoted, "\\U{:08x}", c as u32);
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Go's `IsPrint`, near enough: `char::escape_debug` escapes what is not printable; besides, of the blanks only
/// the ASCII space counts as printable.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let is_mark = || c.escape_debug().next() != Some('\\') || is_combining(c);
    !c.is_whitespace() && !c.is_control() && is_mark()
}

/// `escape_debug` escapes combining marks, which are printable in Go.
fn is_combining(c: char) -> bool {
    matches!(c as u32, 0x300..=0x36f | 0x483..=0x489 | 0x591..=0x5bd | 0x610..=0x61a | 0x64b..=0x65f
        | 0x900..=0x903 | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f)
}
