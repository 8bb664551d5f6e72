//! ARG, ENV, LABEL.

use super::{Fault, at_least_one, name, no_flags};
use crate::ast::{ArgInstruction, ArgPair, KeyValue, Node, Span, Word};

/// ARG takes no notice of flags, as in BuildKit.
pub(super) fn arg(node: &Node) -> Result<ArgInstruction, Fault> {
    if node.args.is_empty() {
        return Err(at_least_one(node).help("write ARG name or ARG name=default"));
    }
    let pairs = node.args.iter().map(|word| arg_pair(word, node)).collect::<Result<_, _>>()?;
    Ok(ArgInstruction { pairs })
}

fn arg_pair(word: &Word, node: &Node) -> Result<ArgPair, Fault> {
    let Some((key, value)) = word.value.split_once('=') else {
        return Ok(ArgPair { name: word.clone(), default: None });
    };
    if key.is_empty() {
        return Err(blank_name(node, word));
    }
    let exact = word.span.end - word.span.start == word.value.len();
    let middle = word.span.start + key.len();
    let (left, right) = match exact {
        true => (Span::new(word.span.start, middle), Span::new(middle + 1, word.span.end)),
        false => (word.span, word.span),
    };
    Ok(ArgPair { name: Word::new(key, left), default: Some(Word::new(value, right)) })
}

pub(super) fn env_or_label(node: &Node) -> Result<Vec<KeyValue>, Fault> {
    no_flags(node)?;
    if node.args.is_empty() {
        return Err(at_least_one(node).help(format!("write {} name=value", name(node))));
    }
    let mut pairs = Vec::with_capacity(node.args.len() / 3);
    for triple in node.args.chunks_exact(3) {
        let [key, value, separator] = triple else { continue };
        if key.value.is_empty() {
            return Err(blank_name(node, value));
        }
        pairs.push(KeyValue { key: key.clone(), value: value.clone(), no_delim: separator.value.is_empty() });
    }
    Ok(pairs)
}

fn blank_name(node: &Node, at: &Word) -> Fault {
    Fault::new(format!("{} names can not be blank", name(node)), at.span).help("put a name before the `=`")
}
