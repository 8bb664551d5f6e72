//! Instructions that only set something in the image config, and ONBUILD.

use super::{Fault, at_least_one, name, no_flags};
use crate::ast::{Healthcheck, Node, OnBuild, Word};
use crate::dump::go_quote;
use crate::flag::{Flags, Kind, Known};
use crate::number::parse_duration;

/// Shortest healthcheck interval in nanoseconds.
const MIN_INTERVAL: i64 = 1_000_000;

const HEALTHCHECK_FLAGS: Known = &[
    ("interval", Kind::Text),
    ("timeout", Kind::Text),
    ("start-period", Kind::Text),
    ("start-interval", Kind::Text),
    ("retries", Kind::Text),
];

fn exactly_one(node: &Node) -> Result<Word, Fault> {
    match node.args.as_slice() {
        [word] => Ok(word.clone()),
        _ => {
            let name = name(node);
            let value = if name == "WORKDIR" { "/path" } else { "value" };
            let fault = Fault::new(format!("{name} requires exactly one argument"), node.span);
            Err(fault.help(format!("write {name} {value}")))
        }
    }
}

/// MAINTAINER, USER, WORKDIR: the rest of the line.
pub(super) fn one_word(node: &Node) -> Result<Word, Fault> {
    let word = exactly_one(node)?;
    no_flags(node)?;
    Ok(word)
}

/// STOPSIGNAL takes no notice of flags, as in BuildKit.
pub(super) fn stop_signal(node: &Node) -> Result<Word, Fault> {
    exactly_one(node).map_err(|fault| fault.help("write STOPSIGNAL SIGTERM"))
}

pub(super) fn volume(node: &Node) -> Result<Vec<Word>, Fault> {
    if node.args.is_empty() {
        return Err(at_least_one(node).help("write VOLUME /path"));
    }
    no_flags(node)?;
    let mut volumes = Vec::with_capacity(node.args.len());
    for word in &node.args {
        let path = word.value.trim();
        if path.is_empty() {
            return Err(Fault::new("VOLUME specified can not be an empty string", word.span));
        }
        volumes.push(Word::new(path, word.span));
    }
    Ok(volumes)
}

/// The words, sorted: this is the order in which they reach config and history.
pub(super) fn expose(node: &Node) -> Result<Vec<Word>, Fault> {
    if node.args.is_empty() {
        return Err(at_least_one(node).help("write EXPOSE 80/tcp"));
    }
    no_flags(node)?;
    let mut ports = node.args.clone();
    ports.sort_by(|left, right| left.value.cmp(&right.value));
    Ok(ports)
}

pub(super) fn healthcheck(node: &Node) -> Result<Healthcheck, Fault> {
    let Some((kind, args)) = node.args.split_first() else {
        return Err(at_least_one(node).help("write HEALTHCHECK CMD command or HEALTHCHECK NONE"));
    };
    let kind_name = kind.value.to_uppercase();
    if kind_name == "NONE" {
        return match args.first() {
            None => Ok(Healthcheck { test: vec![kind_name], ..Healthcheck::default() }),
            Some(word) => Err(Fault::new("HEALTHCHECK NONE takes no arguments", word.span)),
        };
    }
    let flags = Flags::parse(&node.flags, HEALTHCHECK_FLAGS)?;
    if kind_name != "CMD" {
        let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", go_quote(&kind_name));
        return Err(Fault::new(message, kind.span).help("put CMD before the command"));
    }
    if args.is_empty() {
        return Err(Fault::new("Missing command after HEALTHCHECK CMD", kind.span));
    }
    let form = if node.json { "CMD" } else { "CMD-SHELL" };
    let mut test = vec![form.to_owned()];
    test.extend(args.iter().map(|word| word.value.clone()));
    Ok(Healthcheck {
        test,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<i64, Fault> {
    let Some(word) = flags.text(name) else { return Ok(0) };
    let help = "write a number with a unit: 500ms, 30s, 1m30s";
    let value = parse_duration(&word.value).map_err(|message| Fault::new(message, word.span).help(help))?;
    if value != 0 && value < MIN_INTERVAL {
        let message = format!("Interval {} cannot be less than 1ms", go_quote(name));
        return Err(Fault::new(message, word.span));
    }
    Ok(value)
}

fn retries(flags: &Flags) -> Result<i64, Fault> {
    let Some(word) = flags.text("retries") else { return Ok(0) };
    let digits = word.value.strip_prefix(['-', '+']).unwrap_or(&word.value);
    let numeric = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = |why: &str| {
        let message = format!("strconv.ParseInt: parsing {}: {why}", go_quote(&word.value));
        Fault::new(message, word.span).help("write a whole number")
    };
    if !numeric {
        return Err(wrong("invalid syntax"));
    }
    match word.value.parse::<i32>() {
        Err(_) => Err(wrong("value out of range")),
        Ok(value) if value < 0 => {
            Err(Fault::new(format!("--retries cannot be negative ({value})"), word.span))
        }
        Ok(value) => Ok(value.into()),
    }
}

pub(super) fn onbuild(node: &Node) -> Result<OnBuild, Fault> {
    let Some(child) = &node.child else {
        return Err(at_least_one(node).help("write an instruction behind ONBUILD"));
    };
    no_flags(node)?;
    let trigger = child.keyword.value.to_uppercase();
    match trigger.as_str() {
        "ONBUILD" => {
            let message = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed";
            return Err(Fault::new(message, child.keyword.span));
        }
        "MAINTAINER" | "FROM" => {
            let message = format!("{trigger} isn't allowed as an ONBUILD trigger");
            return Err(Fault::new(message, child.keyword.span));
        }
        _ => {}
    }
    let text = node.original.trim_start();
    let keyword = node.keyword.value.len().min(text.len());
    let mut expression = text[keyword..].trim_start_matches(|c: char| c.is_ascii_whitespace()).to_owned();
    for heredoc in &node.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    Ok(OnBuild { expression, trigger })
}
