//! "did you mean": the known word nearest to a mistyped one.

/// Words this far apart, or farther, are not suggested.
const MAX_DISTANCE: usize = 3;

/// Longest word that is compared at all; names of the language are far shorter.
const MAX_LENGTH: usize = 256;

/// The first of the nearest options with a Levenshtein distance below 3. Without case sensitivity the answer
/// takes the case of `value` (all lower, all upper, else lower), and a value that only differs in case has none.
pub fn suggest<'a>(
    value: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
) -> Option<String> {
    let fold = |word: &str| if case_sensitive { word.to_owned() } else { word.to_lowercase() };
    let wanted = fold(value);
    if wanted.len() > MAX_LENGTH {
        return None;
    }
    let mut best: Option<(usize, String)> = None;
    for option in options {
        let option = fold(option);
        let distance = levenshtein(&wanted, &option);
        if distance == 0 {
            return None;
        }
        if distance < best.as_ref().map_or(MAX_DISTANCE, |(least, _)| *least) {
            best = Some((distance, option));
        }
    }
    let (_, word) = best?;
    let upper = !case_sensitive && value.to_uppercase() == value && value.to_lowercase() != value;
    Some(if upper { word.to_uppercase() } else { word })
}

/// Adds ` (did you mean x?)` to a message if there is something to suggest.
pub fn with_suggestion<'a>(
    message: String,
    value: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
) -> String {
    match suggest(value, options, case_sensitive) {
        Some(word) => format!("{message} (did you mean {word}?)"),
        None => message,
    }
}

/// Insertions, deletions and replacements of characters that turn one word into the other.
fn levenshtein(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
