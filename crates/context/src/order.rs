//! The order of paths, on bytes.

use std::cmp::Ordering;

/// The order of `TreePath`: bytewise, with `/` before every other byte.
pub(crate) fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    let key = |c: &u8| if *c == b'/' { 0 } else { u16::from(*c) + 1 };
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => key(&a[at]).cmp(&key(&b[at])),
        None => a.len().cmp(&b.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rbuild_tree::TreePath;

    proptest! {
        #[test]
        fn it_is_the_order_of_tree_paths(a in "[ab/!]{0,6}", b in "[ab/!]{0,6}") {
            let (a, b) = (TreePath::clamped(a).unwrap(), TreePath::clamped(b).unwrap());
            prop_assert_eq!(path_order(a.as_bytes(), b.as_bytes()), a.cmp(&b));
        }
    }
}
