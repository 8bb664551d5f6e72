//! An ordered environment.

use std::collections::HashMap;

/// Bytes of a variable besides its name and value.
const ENTRY: usize = size_of::<(String, String)>();

/// Looks variables up.
pub trait Lookup {
    /// The value of `name`; `None` when it is unset.
    fn get(&self, name: &str) -> Option<&str>;
}

/// Variables in the order in which they were first set; look-up takes constant time.
#[derive(Debug, Clone, Default)]
pub struct Env {
    list: Vec<(String, String)>,
    index: HashMap<String, usize>,
    bytes: usize,
}

impl Env {
    /// An empty environment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable; one that is set already keeps its place.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.index.get(name) {
            Some(&at) => {
                self.bytes = self.bytes - self.list[at].1.len() + value.len();
                self.list[at].1 = value.to_owned();
            }
            None => {
                self.bytes += ENTRY + name.len() + value.len();
                self.index.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// The variables in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name.as_str())
    }

    /// Roughly the bytes that a copy of the variables takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Lookup for Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|&at| self.list[at].1.as_str())
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Env {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(pairs: T) -> Self {
        let mut env = Self::new();
        for (name, value) in pairs {
            env.set(name, value);
        }
        env
    }
}

/// Splits `name=value`; without `=` the value is empty.
pub fn split_pair(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((text, ""))
}
