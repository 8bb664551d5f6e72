//! Splitting of an expansion at unquoted blanks.

/// Collects words.
#[derive(Default)]
pub(super) struct Words {
    words: Vec<String>,
    word: String,
}

impl Words {
    /// Adds a character that separates words when it is a blank.
    pub(super) fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    /// Adds an escaped character.
    pub(super) fn push_raw(&mut self, c: char) {
        self.word.push(c);
    }

    /// Adds the value of a variable: it is split.
    pub(super) fn push_value(&mut self, text: &str) {
        for c in text.chars() {
            self.push(c);
        }
    }

    /// Adds quoted text.
    pub(super) fn push_quoted(&mut self, text: &str) {
        self.word.push_str(text);
    }

    /// The words, the open one included.
    pub(super) fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}
