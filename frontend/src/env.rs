//! An ordered environment.

use std::collections::HashMap;

/// Bytes of a variable besides its name and value.
const ENTRY: usize = size_of::<(String, String)>();

/// Looks variables up.
pub trait Lookup {
    /// The value of `name`; `None` when it is unset.
    fn get(&self, name: &str) -> Option<&str>;
}

/// Variables in the order in which they were first set, or [moved to the end](Env::set_last); look-up takes constant time.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `None` where a variable was that has moved.
    list: Vec<Option<(String, String)>>,
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
        match self.index.get(name).and_then(|&at| self.list[at].as_mut()) {
            Some((_, own)) => {
                self.bytes = self.bytes - own.len() + value.len();
                value.clone_into(own);
            }
            None => self.push(name, value),
        }
    }

    /// Sets a variable, which becomes the last one, as in the environment of a step.
    pub fn set_last(&mut self, name: &str, value: &str) {
        if let Some((name, value)) = self.index.remove(name).and_then(|at| self.list[at].take()) {
            self.bytes -= ENTRY + name.len() + value.len();
        }
        // Gaps are closed when they are the most.
        if self.list.len() > 2 * self.index.len() + 16 {
            self.list.retain(Option::is_some);
            self.index = self.iter().enumerate().map(|(at, (name, _))| (name.to_owned(), at)).collect();
        }
        self.push(name, value);
    }

    fn push(&mut self, name: &str, value: &str) {
        self.bytes += ENTRY + name.len() + value.len();
        self.index.insert(name.to_owned(), self.list.len());
        self.list.push(Some((name.to_owned(), value.to_owned())));
    }

    /// The variables in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// Roughly the bytes that a copy of the variables takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Lookup for Env {
    fn get(&self, name: &str) -> Option<&str> {
        let &at = self.index.get(name)?;
        self.list[at].as_ref().map(|(_, value)| value.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_their_place_or_move() {
        let mut env: Env = [("a", "1"), ("b", "2")].into_iter().collect();
        env.set("a", "3");
        assert_eq!(env.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
        env.set_last("a", "4");
        assert_eq!(env.iter().collect::<Vec<_>>(), [("b", "2"), ("a", "4")]);
        let bytes = env.bytes();
        for _ in 0..1_000 {
            env.set_last("b", "2");
            env.set_last("a", "4");
        }
        assert!(env.list.len() < 50, "{}", env.list.len());
        assert_eq!(env.bytes(), bytes);
        assert_eq!(env.names().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!((env.get("a"), env.get("b"), env.get("c")), (Some("4"), Some("2"), None));
    }
}
