//! What BuildKit's cases (tests/conformance_lint.rs) do not show.

use super::*;
use crate::lower::{ImageRequest, ResolveError, ResolvedImage, Resolver};

struct NoImages;

impl Resolver for NoImages {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError { message: format!("{}: not found", request.reference) })
    }
}

/// `line Rule help` of all warnings.
fn warnings(text: &str, options: &LowerOptions) -> Vec<String> {
    let (file, errors) = crate::parse(text.as_bytes());
    let found = match errors.iter().any(Diagnostic::is_error) {
        true => syntax_warnings(&file, &errors, options),
        false => crate::lower(&file, options, &NoImages).1,
    };
    let warnings = found.into_iter().filter(|diagnostic| !diagnostic.is_error());
    warnings
        .map(|warning| {
            let help = warning.help.unwrap_or_default();
            format!("{} {} {help}", warning.lines.start, warning.rule.unwrap_or_default())
        })
        .collect()
}

#[test]
fn rules_have_names_of_their_own_and_pages() {
    let names: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), RULES.len());
    for wanted in RULES {
        assert!(rule(wanted.name) == Some(wanted) && !wanted.description.is_empty());
        // The page's name is the rule's name in kebab case; runs of capitals are one word.
        let squeezed = wanted.slug.replace('-', "");
        assert!(wanted.slug.is_empty() || squeezed == wanted.name.to_lowercase(), "{}", wanted.name);
    }
    assert_eq!(RULES.iter().filter(|rule| rule.url().is_none()).count(), 1);
    assert_eq!(RULES.iter().filter(|rule| rule.experimental).count(), 1);
}

/// E-011: the help names the cause.
#[test]
fn undefined_variables_and_why() {
    let text = "ARG VERSION=1\nFROM scratch\nENV A=$VERSION B=$TARGETARCH C=$VERSIOM D=$X\n";
    let found = warnings(text, &LowerOptions::default());
    let helps = [
        "ARG VERSION is declared before FROM and not in this stage: put `ARG VERSION` below FROM to use it here",
        "put `ARG TARGETARCH` below FROM: it is predefined, but not in a stage",
        "set it with ENV VERSIOM=… or declare it with ARG VERSIOM before this line",
        "set it with ENV X=… or declare it with ARG X before this line",
    ];
    assert_eq!(found, helps.map(|help| format!("3 UndefinedVar {help}")));
}

/// E-013: a second pair that is swallowed by the first.
#[test]
fn legacy_pairs_and_what_they_swallow() {
    let found = warnings("FROM scratch\nENV a b c=d\nENV x two words\n", &LowerOptions::default());
    assert_eq!(
        found,
        [
            "2 LegacyKeyValueFormat this sets a to everything behind it, `c=d` included: write ENV a=… c=d",
            "3 LegacyKeyValueFormat write ENV x=\"two words\"",
        ]
    );
}

/// E-023: what the comment above an instruction may say, and what the build argument replaces.
#[test]
fn controls() {
    let text = "#check=skip=MaintainerDeprecated\nFROM scratch\n# check=experimental=all\nARG a\nMAINTAINER x\n\
                # check=skip=JSONArgsRecommended\nCMD a\nCMD b\n";
    let rules = |options: &LowerOptions| {
        let found = warnings(text, options);
        found.iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let from_file = rules(&LowerOptions::default());
    let wanted =
        ["4 InvalidDefinitionDescription", "7 MultipleInstructionsDisallowed", "8 JSONArgsRecommended"];
    assert_eq!(from_file, wanted);
    let build_args =
        vec![(CHECK_ARG.to_owned(), "skip=JSONArgsRecommended,MultipleInstructionsDisallowed".to_owned())];
    let given = rules(&LowerOptions { build_args, ..LowerOptions::default() });
    assert_eq!(given, ["4 InvalidDefinitionDescription", "5 MaintainerDeprecated"]);
}

/// E-003: heredoc bodies are not counted.
#[test]
fn empty_continuations_before_a_heredoc() {
    let text = "FROM scratch\nCOPY \\\n\n <<A <<B \\\n /\na\n\nA\nB\n";
    let found = warnings(text, &LowerOptions::default());
    assert_eq!(found, ["5 NoEmptyContinuation remove the blank line 3, or put `#` in it"]);
}

/// A hostile file gives no more warnings than anyone reads.
#[test]
fn warnings_are_bounded() {
    let mut text = String::from("FROM scratch\n");
    for i in 0..20_000 {
        text.push_str(&format!("ENV v{i} $u{i}\nEXPOSE {i}/TCP\nMAINTAINER x\n"));
    }
    let found = warnings(&text, &LowerOptions::default());
    assert!(found.len() <= crate::source::MAX_DIAGNOSTICS, "{}", found.len());
}
