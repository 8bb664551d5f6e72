//! Dockerfile text to operations: parsing, word expansion, stages, lowering. Pure functions, no I/O.

pub mod env;
pub mod quote;
pub mod shell;
