//! Variables of `COPY --from` and `--mount=from=…`, which BuildKit refuses.
//!
//! An extension: where BuildKit refuses a name with a variable, the ARGs in scope are put in. These are the ARGs of the
//! stage above the instruction and those of the stages it stands on. Stages depend on each other before any of them is
//! looked at, so nothing else can be known: a variable that ENV sets, or one that is unset, is refused as in BuildKit.

use crate::ast::{ArgInstruction, InstructionKind};
use crate::env::{Env, Lookup};
use crate::lower::LowerOptions;
use crate::shell::Lex;
use std::collections::HashMap;

/// Most work of all look-ups of one file, in instructions and bytes of values.
const MAX_WORK: usize = 4 << 20;

/// What is refused, in BuildKit's words.
pub(crate) const COPY_REFUSAL: &str = "variable expansion is not supported for --from, define a new stage with FROM \
                                       using ARG from global scope as a workaround";

/// ARGs with values that are known for sure.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    args: HashMap<String, String>,
}

impl Lookup for Scope {
    fn get(&self, name: &str) -> Option<&str> {
        self.args.get(name).map(String::as_str)
    }
}

/// Work left.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_WORK)
    }
}

impl Scope {
    /// The scope behind some instructions. `None` when there was too much to look at.
    pub(crate) fn after<'i>(
        instructions: impl Iterator<Item = &'i InstructionKind>,
        options: &LowerOptions,
        globals: &Env,
        lex: &Lex,
        budget: &mut Budget,
    ) -> Option<Self> {
        let mut scope = Self::default();
        for kind in instructions {
            let spent = match kind {
                InstructionKind::Arg(arg) => scope.declare(arg, options, globals, lex),
                InstructionKind::Env(pairs) => {
                    match pairs.iter().any(|pair| pair.key.value.contains('$')) {
                        true => scope.args.clear(),
                        false => pairs.iter().for_each(|pair| drop(scope.args.remove(pair.key.as_str()))),
                    }
                    0
                }
                _ => 0,
            };
            budget.0 = budget.0.checked_sub(spent + 1)?;
        }
        Some(scope)
    }

    /// Gives the bytes of the values.
    fn declare(&mut self, arg: &ArgInstruction, options: &LowerOptions, globals: &Env, lex: &Lex) -> usize {
        let mut spent = 0;
        for pair in &arg.pairs {
            let name = pair.name.as_str();
            let value = match (options.build_arg(name), &pair.default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => self.expand(default.as_str(), lex),
                (None, None) => match globals.get(name) {
                    Some(value) => Some(value.to_owned()),
                    None => continue,
                },
            };
            match value {
                Some(value) => {
                    spent += value.len();
                    self.args.insert(name.to_owned(), value);
                }
                None => drop(self.args.remove(name)),
            }
        }
        spent
    }

    /// `None` when a variable is not known or the text cannot be expanded.
    pub(crate) fn expand(&self, text: &str, lex: &Lex) -> Option<String> {
        let expansion = lex.process(text, self).ok()?;
        expansion.unmatched.is_empty().then_some(expansion.result)
    }
}
