//! An ordered environment.

use std::collections::HashMap;

/// Bytes of a variable besides its name and value.
const ENTRY: usize = size_of::<(String, String)>();

/// Looks variables up.
pub trait Lookup {
    /// The value of `name`; `None` when it is unset.
    fn get(&self, name: &str) -> Option<&str>;
}

/// Variables in the order in which they were last set, as BuildKit hands them to a process; look-up takes constant
/// time.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// A variable that was set again leaves a hole at its old place.
    list: Vec<Option<(String, String)>>,
    index: HashMap<String, usize>,
    bytes: usize,
}

impl Env {
    /// An empty environment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable; one that is set already moves to the end.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.index.insert(name.to_owned(), self.list.len()) {
            Some(at) => {
                let old = self.list[at].take();
                self.bytes -= old.map_or(0, |(_, value)| value.len());
                self.bytes += value.len();
            }
            None => self.bytes += ENTRY + name.len() + value.len(),
        }
        self.list.push(Some((name.to_owned(), value.to_owned())));
        // Half holes at most, so that setting stays constant on average and the list does not grow for ever.
        if self.list.len() > 2 * self.index.len() + 8 {
            self.list.retain(Option::is_some);
            for (at, (name, _)) in self.list.iter().flatten().enumerate() {
                self.index.insert(name.clone(), at);
            }
        }
    }

    /// Unsets a variable.
    pub fn remove(&mut self, name: &str) {
        if let Some(old) = self.index.remove(name).and_then(|at| self.list[at].take()) {
            self.bytes -= ENTRY + old.0.len() + old.1.len();
        }
    }

    /// The variables in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().flatten().map(|(name, _)| name.as_str())
    }

    /// Roughly the bytes that a copy of the variables takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Lookup for Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).and_then(|&at| self.list[at].as_ref()).map(|(_, value)| value.as_str())
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

    /// what is set again stands last, however often.
    #[test]
    fn the_last_setting_counts_for_the_order() {
        let mut env: Env = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(env.iter().collect::<Vec<_>>(), [("b", "2"), ("a", "3")]);
        let bytes = env.bytes();
        for round in 0..100 {
            env.set("b", &(round % 10).to_string());
            env.set("c", "x");
            assert_eq!(env.names().collect::<Vec<_>>(), ["a", "b", "c"]);
            assert_eq!((env.get("a"), env.get("c"), env.get("d")), (Some("3"), Some("x"), None));
        }
        assert_eq!(env.get("b"), Some("9"));
        assert_eq!(env.bytes(), bytes + ENTRY + 2);
        assert!(env.list.len() < 16, "{}", env.list.len());
        env.remove("b");
        env.remove("none");
        assert_eq!(env.names().collect::<Vec<_>>(), ["a", "c"]);
        env.remove("c");
        env.set("b", "2");
        assert_eq!((env.bytes(), env.get("b"), env.get("c")), (bytes, Some("2"), None));
    }
}
