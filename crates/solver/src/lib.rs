//! Cache keys, scheduling, single-flight and cancellation.
//!
//! # What decides whether a step runs
//!
//! Every step has a *definition key*: the digest of its operation key and of the definition keys of what it stands on
//! and reads. It is known before anything runs. A record under it is a hit, and nothing that only this step needed is
//! looked at any further: the cache is searched from the result backwards.
//!
//! A step whose definition key is unknown waits for its inputs. If the cache has ever seen the same operation, a second
//! lookup compares *contents*: the digest of the parts of the inputs that this operation reads, and the content of the
//! root it stands on. So a rebuilt stage whose copied files came out the same does not rebuild what copied them.
//!
//! Caches elsewhere (a registry) are asked only if something that is needed is not here. A result of theirs may turn out
//! to be gone when its files are wanted: that ends the attempt with [`SolveError::Lost`], and whoever called solves again,
//! with a cache that knows better.
//!
//! Under `--no-cache` a step's cache is not read; what stands on it can still hit, but by content only.
//!
//! # What this room does not know
//!
//! What an operation is, where results are kept, what time it is. It is tested with operations in memory.

mod cache;
mod error;
mod key;
mod observe;
mod op;
mod schedule;

pub use cache::{Beneath, CacheEntry, CacheStore, Elsewhere, KeyGuard};
pub use error::{OpError, ResultLost, SolveError};
pub use key::{KeyDetail, OperationKey, WriteDetail, definition_key};
pub use observe::{Explanation, Keyed, Observer};
pub use op::{Inputs, Op, Output, StepContext};
pub use schedule::{NoCache, OnOutput, Outcome, SolveOptions, Solved, Solver, StepReport};

#[cfg(test)]
mod tests;
