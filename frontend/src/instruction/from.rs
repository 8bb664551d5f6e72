//! FROM.

use super::Fault;
use crate::ast::{FromInstruction, Node, Word};
use crate::dump::go_quote;
use crate::flag::{Flags, Kind, Known};

const FLAGS: Known = &[("platform", Kind::Text)];

pub(super) fn from(node: &Node) -> Result<FromInstruction, Fault> {
    let (image, as_keyword, name) = match node.args.as_slice() {
        [image] => (image, None, None),
        [image, keyword, name] if keyword.value.eq_ignore_ascii_case("as") => {
            check_name(name)?;
            (image, Some(keyword.clone()), Some(name.clone()))
        }
        _ => {
            let fault = Fault::new("FROM requires either one or three arguments", node.span);
            return Err(fault.help(match node.args.as_slice() {
                [image, name] if !name.value.eq_ignore_ascii_case("as") => {
                    format!("write FROM {} AS {}", image.value, name.value)
                }
                _ => "write FROM image or FROM image AS name".to_owned(),
            }));
        }
    };
    let flags = Flags::parse(&node.flags, FLAGS)?;
    Ok(FromInstruction { platform: flags.text("platform"), image: image.clone(), as_keyword, name })
}

/// `^[a-z][a-z0-9-_.]*$` after lower-casing.
fn check_name(name: &Word) -> Result<(), Fault> {
    let lower = name.value.to_lowercase();
    let starts = lower.starts_with(|c: char| c.is_ascii_lowercase());
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if starts && lower.chars().all(valid) {
        return Ok(());
    }
    let message = format!(
        "invalid name for build stage: {}, name can't start with a number or contain symbols",
        go_quote(&name.value)
    );
    Err(Fault::new(message, name.span)
        .help("begin with a letter; letters, digits, `-`, `_` and `.` may follow"))
}
