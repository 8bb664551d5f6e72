//! `rbuild rmi` (D-049): removes names; blobs that nothing names any more go with the next prune.

use crate::args::RmiArgs;
use crate::command::{names_of, open};
use crate::exit::Usage;
use crate::output::print;
use anyhow::Result;
use rbuild_store::{MatchedBy, Store};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(root: &Path, args: &RmiArgs) -> Result<ExitCode> {
    let store = open(root)?;
    let mut first_failure = None;
    for text in &args.image {
        match remove(&store, text, args.force) {
            Ok(lines) => print(&lines)?,
            Err(error) => {
                crate::report::error(&error);
                first_failure.get_or_insert(crate::exit::code(&error));
            }
        }
    }
    Ok(first_failure.unwrap_or(ExitCode::SUCCESS))
}

fn remove(store: &Store, text: &str, force: bool) -> Result<String> {
    let Some(found) = store.find_image(text)? else {
        return if force {
            Ok(String::new())
        } else {
            Err(Usage::new(format!("No such image: {text}")).into())
        };
    };
    let all = names_of(store, &found.image.descriptor.digest)?;
    let names: Vec<String> = match found.by {
        MatchedBy::Name => found.image.name.clone().into_iter().collect(),
        MatchedBy::Id => all.clone(),
    };
    if names.len() > 1 && !force {
        let problem = format!(
            "conflict: unable to remove {text}: it has several names ({}); remove them by name, or use -f",
            names.join(", ")
        );
        return Err(Usage::new(problem).into());
    }
    let mut lines = String::new();
    for name in &names {
        if store.untag_name(name)? {
            lines.push_str(&format!("Untagged: {name}\n"));
        }
    }
    if names.len() == all.len() {
        store.remove_unnamed(&found.image.descriptor.digest)?;
        lines.push_str(&format!("Deleted: {}\n", found.image.descriptor.digest));
    }
    Ok(lines)
}
