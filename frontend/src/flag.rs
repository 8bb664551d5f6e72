//! `--name[=value]` flags of instructions (features ).

use crate::ast::{Span, Word};
use crate::instruction::Fault;
use crate::suggest::suggest;

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, `=true` or `=false`.
    Bool,
    /// One value; at most once.
    Text,
    /// One value; any number of times.
    Texts,
}

/// The flags that an instruction knows.
pub(crate) type Known = &'static [(&'static str, Kind)];

/// The flags that were given.
pub(crate) struct Flags {
    given: Vec<(&'static str, Word)>,
}

impl Flags {
    pub(crate) fn parse(words: &[Word], known: Known) -> Result<Flags, Fault> {
        let mut given: Vec<(&'static str, Word)> = Vec::new();
        for word in words {
            let text = word.value.strip_prefix("--").unwrap_or(&word.value);
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text, None),
            };
            let Some(&(name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(name, known, word.span));
            };
            if kind != Kind::Texts && given.iter().any(|(other, _)| *other == name) {
                let fault = Fault::new(format!("duplicate flag specified: --{name}"), word.span);
                return Err(fault.help(format!("give --{name} once")));
            }
            given.push((name, check_value(name, kind, value, word)?));
        }
        Ok(Flags { given })
    }

    /// A flag's value; `None` if it was not given.
    pub(crate) fn given(&self, name: &str) -> Option<Word> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.clone())
    }

    /// A flag's value; `None` if it was not given or is empty.
    pub(crate) fn text(&self, name: &str) -> Option<Word> {
        self.given(name).filter(|word| !word.value.is_empty())
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<Word> {
        self.given.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.given(name).map(|word| word.value == "true")
    }

    /// The names, in order.
    pub(crate) fn used(&self) -> Vec<String> {
        self.given.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

fn unknown(name: &str, known: Known, span: Span) -> Fault {
    let message = format!("unknown flag: --{name}");
    match suggest(name, known.iter().map(|(known, _)| *known), true) {
        Some(word) => {
            Fault::new(format!("{message} (did you mean {word}?)"), span).help(format!("write --{word}"))
        }
        None if known.is_empty() => Fault::new(message, span)
            .help("this instruction has no flags; put `--` before words that look like flags"),
        None => {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("--{name}")).collect();
            Fault::new(message, span).help(format!("the flags here are {}", names.join(", ")))
        }
    }
}

fn check_value(name: &str, kind: Kind, value: Option<&str>, word: &Word) -> Result<Word, Fault> {
    let missing = || {
        let fault = Fault::new(format!("missing a value on flag: --{name}"), word.span);
        Err(fault.help(format!("write --{name}=VALUE, without blanks around the `=`")))
    };
    let value = match (kind, value) {
        (Kind::Bool, None) => "true".to_owned(),
        (Kind::Bool, Some("")) | (Kind::Text | Kind::Texts, None) => return missing(),
        (Kind::Bool, Some(value)) => {
            let lower = value.to_lowercase();
            if lower != "true" && lower != "false" {
                let message = format!("expecting boolean value for flag --{name}, not: {value}");
                return Err(Fault::new(message, word.span).help("write true or false"));
            }
            lower
        }
        (Kind::Text | Kind::Texts, Some(value)) => value.to_owned(),
    };
    Ok(Word::new(value, word.span))
}
