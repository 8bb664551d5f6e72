//! Which step was which.

use super::*;
use crate::align;

fn texts(stages: &[(&str, &[&str])]) -> Vec<StepKey> {
    let steps = stages.iter().flat_map(|(stage, texts)| texts.iter().map(|text| in_stage(stage, exec(text))));
    steps.collect()
}

/// Pairs as `old>new` texts, unmatched new ones as `+new`.
fn aligned(old: &[(&str, &[&str])], new: &[(&str, &[&str])]) -> String {
    let (old, new) = (texts(old), texts(new));
    let found = align(&old, &new, false);
    let pair = |(place, from): (usize, &Option<usize>)| {
        let to = &new[place].text;
        match from {
            None => format!("+{to}"),
            Some(from) if old[*from].text == *to => to.clone(),
            Some(from) => format!("{}>{to}", old[*from].text),
        }
    };
    found.iter().enumerate().map(pair).collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_put_in_or_taken_out_does_not_shift_the_rest() {
    let one =
        |steps: &'static [&'static str]| -> [(&'static str, &'static [&'static str]); 1] { [("0", steps)] };
    for (old, new, expected) in [
        (&["a", "b", "c"][..], &["a", "x", "b", "c"][..], "a, +x, b, c"),
        (&["a", "b", "c"], &["a", "c"], "a, c"),
        (&["a", "b"], &["x", "a", "b"], "+x, a, b"),
        (&["a", "b"], &["a", "b", "x"], "a, b, +x"),
        (&["a", "make one", "c"], &["a", "make two", "c"], "a, make one>make two, c"),
        (&["a", "make one", "c"], &["a", "y", "make two", "c"], "a, +y, make one>make two, c"),
        (&[], &["a"], "+a"),
        (&["a"], &[], ""),
        (&["a", "a", "b"], &["a", "b"], "a, b"),
    ] {
        assert_eq!(aligned(&one(old), &one(new)), expected, "{old:?} {new:?}");
    }
}

#[test]
fn stages_are_found_by_name_then_by_what_they_do() {
    let (build, test) = (&["a", "b"][..], &["c", "d"][..]);
    for (old, new, expected) in [
        (vec![("build", build)], vec![("builder", build)], "a, b"),
        (
            vec![("0", build), ("1", test)],
            vec![("0", &["x"][..]), ("1", build), ("2", test)],
            "+x, a, b, c, d",
        ),
        (vec![("build", build), ("1", test)], vec![("1", test), ("build", build)], "c, d, a, b"),
    ] {
        assert_eq!(aligned(&old, &new), expected, "{new:?}");
    }
}

#[test]
fn in_the_same_file_a_stage_of_another_name_is_another() {
    let (old, new) = (texts(&[("one", &["a"])]), texts(&[("two", &["b"])]));
    assert_eq!(align(&old, &new, true), [None]);
    assert_eq!(align(&old, &new, false), [Some(0)]);
}

#[test]
fn another_kind_of_instruction_is_no_counterpart() {
    assert_eq!(align(&[exec("RUN a")], &[copy("COPY a", "1")], false), [None]);
}
