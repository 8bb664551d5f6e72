//! Colours of the live view, as BUILDKIT_COLORS names them (D-008).

/// What a terminal is told to write in a colour: the numbers of a "select graphic rendition" sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// One of the terminal's own: 30 to 39, 90 to 97.
    Own(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

/// Names as BuildKit has them.
const NAMES: [(&str, u8); 17] = [
    ("default", 39),
    ("black", 30),
    ("blue", 34),
    ("cyan", 36),
    ("green", 32),
    ("magenta", 35),
    ("red", 31),
    ("white", 37),
    ("yellow", 33),
    ("light-black", 90),
    ("light-blue", 94),
    ("light-cyan", 96),
    ("light-green", 92),
    ("light-magenta", 95),
    ("light-red", 91),
    ("light-white", 97),
    ("light-yellow", 93),
];

/// Which lines have which colour; `None` is the terminal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colors {
    /// Steps that have ended well.
    pub run: Option<Color>,
    /// Steps that were stopped.
    pub cancel: Option<Color>,
    /// Steps that failed.
    pub error: Option<Color>,
    /// Warnings.
    pub warning: Option<Color>,
}

impl Default for Colors {
    /// BuildKit's.
    fn default() -> Self {
        Colors {
            run: Some(Color::Own(34)),
            cancel: Some(Color::Own(33)),
            error: Some(Color::Own(31)),
            warning: Some(Color::Own(33)),
        }
    }
}

impl Colors {
    /// No colour at all.
    pub const NONE: Self = Colors { run: None, cancel: None, error: None, warning: None };

    /// Takes `run=green:error=255,0,0`; gives what of it cannot be understood, which changes nothing.
    pub fn set(&mut self, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for part in text.split(':').filter(|part| !part.is_empty()) {
            let problem = match part.split_once('=') {
                None => Some("expected NAME=COLOR"),
                Some((name, value)) => self.set_one(&name.to_lowercase(), &value.to_lowercase()).err(),
            };
            problems.extend(problem.map(|problem| format!("BUILDKIT_COLORS: `{part}`: {problem}")));
        }
        problems
    }

    fn set_one(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let color = color(value).ok_or("the colour is neither a known name nor three numbers up to 255")?;
        let place = match name {
            "run" => &mut self.run,
            "cancel" => &mut self.cancel,
            "error" => &mut self.error,
            "warning" => &mut self.warning,
            _ => return Err("use run, cancel, error or warning"),
        };
        *place = Some(color);
        Ok(())
    }
}

fn color(value: &str) -> Option<Color> {
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == value) {
        return Some(Color::Own(*number));
    }
    let parts: Option<Vec<u8>> = value.split(',').map(|part| part.parse().ok()).collect();
    match parts?[..] {
        [red, green, blue] => Some(Color::Rgb(red, green, blue)),
        _ => None,
    }
}

/// `text` in a colour.
pub(crate) fn painted(text: &str, color: Option<Color>) -> String {
    match color {
        None => text.to_owned(),
        Some(Color::Own(number)) => format!("\x1b[{number}m{text}\x1b[0m"),
        Some(Color::Rgb(red, green, blue)) => format!("\x1b[38;2;{red};{green};{blue}m{text}\x1b[0m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D-008
    #[test]
    fn colors_are_named() {
        let mut colors = Colors::default();
        assert!(colors.set("run=123,20,245:ERROR=Yellow:cancel=light-blue").is_empty());
        let own = |number| Some(Color::Own(number));
        let expected = Colors {
            run: Some(Color::Rgb(123, 20, 245)),
            error: own(33),
            cancel: own(94),
            warning: Colors::default().warning,
        };
        assert_eq!(colors, expected);
        let problems = colors.set("run:err=red:run=pink:error=1,2:warning=1,2,256::cancel=red");
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert_eq!(colors, Colors { cancel: own(31), ..expected });
        let mut none = Colors::NONE;
        none.set("error=red");
        assert_eq!(none, Colors { error: own(31), ..Colors::NONE });
    }

    #[test]
    fn text_is_painted() {
        assert_eq!(painted("x", None), "x");
        assert_eq!(painted("x", Some(Color::Own(31))), "\x1b[31mx\x1b[0m");
        assert_eq!(painted("x", Some(Color::Rgb(1, 2, 3))), "\x1b[38;2;1;2;3mx\x1b[0m");
    }
}
