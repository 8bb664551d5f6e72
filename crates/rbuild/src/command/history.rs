//! `rbuild history` (D-048): the newest instruction first.

use crate::args::{HistoryArgs, ListFormat};
use crate::command::image::Shown;
use crate::command::{find, now, open};
use crate::output::{ago, print, size, table};
use anyhow::Result;
use std::path::Path;
use std::process::ExitCode;

/// How much of an instruction is shown without --no-trunc.
const SHOWN: usize = 45;

pub(crate) fn run(root: &Path, args: &HistoryArgs) -> Result<ExitCode> {
    let store = open(root)?;
    let found = find(&store, &args.image)?;
    let image = Shown::read(&store, &found.image.descriptor)?;
    let documents = image.choose(args.platform.as_deref())?;
    let mut sizes = documents.manifest.layers.iter().map(|layer| layer.size);
    let mut rows = Vec::new();
    for entry in &documents.config.history {
        let bytes = if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
        let created = entry.created.as_deref().and_then(rbuild_build::time::parse_rfc3339);
        rows.push((
            created,
            entry.created_by.clone().unwrap_or_default(),
            bytes,
            entry.comment.clone().unwrap_or_default(),
        ));
    }
    rows.reverse();
    let id = image.id;
    let text = match args.format {
        ListFormat::Json => (rows.iter())
            .map(|(created, by, bytes, comment)| {
                let line = serde_json::json!({ "CreatedAt": created, "CreatedBy": by, "Size": bytes, "Comment": comment });
                line.to_string() + "\n"
            })
            .collect(),
        ListFormat::Table => {
            let mut lines = vec![["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec()];
            for (place, (created, by, bytes, comment)) in rows.into_iter().enumerate() {
                let image = if place == 0 { id.short() } else { "<missing>".to_owned() };
                let by = if args.no_trunc { by } else { truncated(&by) };
                let age = created.map_or_else(|| "N/A".to_owned(), |created| ago(created, now()));
                lines.push(vec![image, age, by, size(bytes), comment]);
            }
            table(&lines)
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn truncated(text: &str) -> String {
    let text = text.replace(['\n', '\t'], " ");
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN - 1).chain(['…']).collect()
}
