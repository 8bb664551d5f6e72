//! The tests, by subject.

mod add;
mod bases;
mod config;
mod context;
mod copy;
mod images;
mod links;
mod merged;
mod mounts;
mod resources;
mod run;
mod sandbox;
mod stages;
mod text;
mod upstream;

/// The site of this process, or the end of the test with a `skipped` line.
macro_rules! site {
    ($test:expr) => {
        match crate::support::site($test) {
            Some(site) => site,
            None => return,
        }
    };
}
pub(crate) use site;
