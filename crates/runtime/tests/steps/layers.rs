use crate::common::Test;
pub(crate) const TESTS: &[Test] = &[];
