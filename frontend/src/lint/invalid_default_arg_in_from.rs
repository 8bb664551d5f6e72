//! InvalidDefaultArgInFrom (E-017).

use super::{Finding, Rule};
use crate::ast::Word;
use rbuild_oci::Reference;

/// Without build arguments the file cannot be built.
pub(crate) static RULE: Rule = Rule::new(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
);

/// `image`: the name after expansion with nothing but default values.
pub(crate) fn check(word: &Word, image: &str) -> Option<Finding> {
    image.parse::<Reference>().is_err().then(|| {
        let message =
            format!("Default value for ARG {} results in empty or invalid base image name", word.as_str());
        let help = match word.value.contains('$') {
            true => "give the ARG before FROM a default that makes this a valid name".to_owned(),
            false => "write a valid image name: lower case, name[:tag][@digest]".to_owned(),
        };
        Finding::new(&RULE, message).at(word.span).help(help)
    })
}
