//! Standard output of the listing commands. A closed pipe (`rbuild images | head -1`) ends quietly.

use anyhow::Result;
use std::io::{ErrorKind, Write};

/// Writes `text` to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Columns padded to their widest cell, three blanks apart; the last one is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Columns as Go's `text/tabwriter` aligns them: each padded to its widest cell and `padding` blanks, also where the rest of
/// the row is empty; the last one as it is.
pub(crate) fn tabbed(rows: &[Vec<String>], padding: usize) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default() + padding
    };
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = if column + 1 < row.len() { width(column) } else { 0 };
            out.push_str(&format!("{cell:<width$}"));
        }
        out.push('\n');
    }
    out
}

/// `3 hours ago`, from two times in seconds since the epoch.
pub(crate) fn ago(then: i64, now: i64) -> String {
    let seconds = (now - then).max(0);
    const UNITS: [(i64, &str); 5] =
        [(365 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute")];
    let (length, unit) = UNITS.into_iter().find(|(length, _)| seconds >= *length).unwrap_or((1, "second"));
    let count = seconds / length;
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `12.3MB` in powers of 1000, as docker shows image sizes.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.3}").trim_digits(3) + UNITS[unit] }
}

trait TrimDigits {
    /// Cuts a decimal number down to `digits` significant digits.
    fn trim_digits(&self, digits: usize) -> String;
}

impl TrimDigits for String {
    fn trim_digits(&self, digits: usize) -> String {
        let whole = self.find('.').unwrap_or(self.len());
        let keep = if whole >= digits { whole } else { (digits + 1).min(self.len()) };
        self[..keep].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_read_like_dockers() {
        let sizes: Vec<String> = [0, 999, 1_000, 12_345_678, 123_456_789, 1_500_000_000].map(size).to_vec();
        assert_eq!(sizes, ["0B", "999B", "1.00kB", "12.3MB", "123MB", "1.50GB"]);
        let ages: Vec<String> = [0, 61, 7_200, 90_000].map(|age| ago(0, age)).to_vec();
        assert_eq!(ages, ["0 seconds ago", "1 minute ago", "2 hours ago", "1 day ago"]);
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["A".into(), "B".into()], vec!["long".into(), "x".into()]];
        assert_eq!(table(&rows), "A      B\nlong   x\n");
        let rows = [vec!["A".into(), "B".into()], vec!["läng".into(), String::new()]];
        assert_eq!(tabbed(&rows, 1), "A    B\nläng \n");
    }
}
