use crate::common::Test;
pub(crate) const TESTS: &[Test] = &[];
pub(crate) const VICTIM: &str = "x";
pub(crate) fn victim(_: &str) -> ! {
    panic!()
}
