//! `rbuild images` (D-046).

use crate::args::{ImagesArgs, ListFormat};
use crate::command::image::Shown;
use crate::command::{created, now, open};
use crate::output::{ago, print, size, table};
use anyhow::Result;
use rbuild_oci::{Digest, Reference};
use std::path::Path;
use std::process::ExitCode;

struct Row {
    repository: String,
    tag: String,
    id: Digest,
    digest: Digest,
    created: i64,
    bytes: u64,
    /// Of an index.
    platforms: Option<Vec<String>>,
}

pub(crate) fn run(root: &Path, args: &ImagesArgs) -> Result<ExitCode> {
    let store = open(root)?;
    let mut rows = Vec::new();
    for image in store.images()? {
        // What no image could be made of any more (its blobs are gone) has no id to be listed by.
        let Ok(found) = Shown::read(&store, &image.descriptor) else { continue };
        let (repository, tag) = display_name(image.name.as_deref().unwrap_or("<none>"));
        let wanted = args.repository.as_deref().is_none_or(|wanted| matches(wanted, &repository, &tag));
        if wanted {
            rows.push(Row {
                repository,
                tag,
                id: found.id,
                digest: image.descriptor.digest,
                created: found.documents().map(|image| created(&image.config)).max().unwrap_or(0),
                bytes: found.bytes(),
                platforms: found.index.as_ref().map(|_| found.platforms()),
            });
        }
    }
    rows.sort_by(|a, b| {
        b.created.cmp(&a.created).then_with(|| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag)))
    });
    print(&render(&rows, args))?;
    Ok(ExitCode::SUCCESS)
}

/// Repository and tag in docker's short form.
fn display_name(name: &str) -> (String, String) {
    let Ok(reference) = name.parse::<Reference>() else { return (name.to_owned(), "<none>".to_owned()) };
    let tag = reference.tag().unwrap_or("<none>").to_owned();
    let familiar = reference.familiar();
    let repository = familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar).to_owned();
    (repository, tag)
}

fn matches(wanted: &str, repository: &str, tag: &str) -> bool {
    let full = |text: &str| text.parse::<Reference>().map(|reference| reference.name()).unwrap_or_default();
    match wanted.parse::<Reference>() {
        Ok(reference) => {
            reference.name() == full(repository) && reference.tag().is_none_or(|wanted| wanted == tag)
        }
        Err(_) => false,
    }
}

fn render(rows: &[Row], args: &ImagesArgs) -> String {
    let id = |row: &Row| if args.no_trunc { row.id.to_string() } else { row.id.short() };
    if args.quiet {
        return rows.iter().map(|row| id(row) + "\n").collect();
    }
    if args.format == ListFormat::Json {
        return rows.iter().map(|row| json(row, &id(row)).to_string() + "\n").collect();
    }
    let mut lines = vec![vec!["REPOSITORY".to_owned(), "TAG".to_owned()]];
    if args.digests {
        lines[0].push("DIGEST".into());
    }
    lines[0].extend(["IMAGE ID", "CREATED", "SIZE"].map(str::to_owned));
    if rows.iter().any(|row| row.platforms.is_some()) {
        lines[0].push("PLATFORMS".into());
    }
    for row in rows {
        let mut line = vec![row.repository.clone(), row.tag.clone()];
        if args.digests {
            line.push(row.digest.to_string());
        }
        let age = if row.created == 0 { "N/A".into() } else { ago(row.created, now()) };
        line.extend([id(row), age, size(row.bytes)]);
        line.extend(row.platforms.as_ref().map(|platforms| platforms.join(",")));
        lines.push(line);
    }
    table(&lines)
}

fn json(row: &Row, id: &str) -> serde_json::Value {
    let mut line = serde_json::json!({
        "Repository": row.repository,
        "Tag": row.tag,
        "ID": id,
        "Digest": row.digest,
        "CreatedAt": row.created,
        "Size": row.bytes,
    });
    if let Some(platforms) = &row.platforms {
        line["Platforms"] = serde_json::json!(platforms);
    }
    line
}
