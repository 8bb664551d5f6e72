//! Word expansion as BuildKit's builder does it: quotes, escapes, `$name` and `${name…}`.
//!
//! The expander keeps its own stack of open constructs, so nesting takes memory and no call depth; time is linear
//! in the input and the output.

mod expand;
mod name;
mod pattern;
mod words;

use crate::env::Lookup;
use crate::quote::go_quote;
use std::collections::BTreeSet;

/// Most bytes that one expansion may produce beyond its input: values that refer to each other could double with
/// every line of a file.
pub const MAX_EXPANSION: usize = 4 << 20;

/// How words are read.
#[derive(Debug, Clone, Copy)]
pub struct Lex {
    /// The escape character, `\` or a backtick.
    pub escape: char,
    /// Keep quotes in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters (heredoc bodies).
    pub skip_process_quotes: bool,
    /// Leave references to unset variables as they are (step names).
    pub skip_unset_env: bool,
}

/// What an expansion gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The word as a whole.
    pub result: String,
    /// The words it splits into at unquoted blanks, those of values included.
    pub words: Vec<String>,
    /// Names referred to that are set.
    pub matched: BTreeSet<String>,
    /// Names referred to that are not set.
    pub unmatched: BTreeSet<String>,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", go_quote(word))]
pub struct ShellError {
    /// The word as written.
    pub word: String,
    /// What is wrong with it.
    pub reason: String,
    /// Names referred to before the fault that are not set.
    pub unmatched: BTreeSet<String>,
}

impl Lex {
    /// Ordinary processing with this escape character.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            skip_process_quotes: false,
            skip_unset_env: false,
        }
    }

    /// Expands `word`, also split into words.
    pub fn process(&self, word: &str, env: &dyn Lookup) -> Result<Expansion, ShellError> {
        expand::Expander::new(self, word, env).run().map_err(|(reason, unmatched)| ShellError {
            word: word.to_owned(),
            reason,
            unmatched,
        })
    }

    /// Expands `word` as one word.
    pub fn word(&self, word: &str, env: &dyn Lookup) -> Result<String, ShellError> {
        Ok(self.process(word, env)?.result)
    }

    /// Expands `word` and splits the result at unquoted blanks.
    pub fn words(&self, word: &str, env: &dyn Lookup) -> Result<Vec<String>, ShellError> {
        Ok(self.process(word, env)?.words)
    }
}

#[cfg(test)]
mod tests;
