//! Names of builds: short, and in the order of their beginning.

use crate::record::Millis;

/// Digits of the time: enough until the year 3084.
const TIME: usize = 9;
/// Digits by chance.
const CHANCE: usize = 3;
/// Crockford's base 32: no letters that look like digits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A name for a build that begins now.
pub(crate) fn new(now: Millis) -> String {
    let mut chance = [0; CHANCE];
    // Without chance two builds of one millisecond collide, and the second tries again.
    let _ = rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty());
    let chance = chance.into_iter().map(|byte| digit(u64::from(byte)));
    time_of(now).chars().chain(chance).collect()
}

/// The beginning of the names of builds that began then; earlier ones come before it.
pub(crate) fn time_of(now: Millis) -> String {
    (0..TIME).rev().map(|place| digit(now >> (5 * place))).collect()
}

fn digit(value: u64) -> char {
    DIGITS[(value & 31) as usize] as char
}

/// Whether a file name could be one.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == TIME + CHANCE && text.bytes().all(|byte| DIGITS.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_time() {
        let times = [0, 1, 31, 32, 1_700_000_000_000, 1_700_000_000_001, 1_800_000_000_000];
        let ids: Vec<String> = times.into_iter().map(new).collect();
        assert!(ids.iter().all(|id| is_id(id)), "{ids:?}");
        assert!(ids.windows(2).all(|pair| pair[0][..TIME] < pair[1][..TIME]), "{ids:?}");
        assert_ne!(new(5), new(5));
        for no in ["", "../../etc/pw", "0123456789ABC", "ilou00000000"] {
            assert!(!is_id(no), "{no}");
        }
    }
}
