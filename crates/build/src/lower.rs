//! From the Dockerfile's text to a definition, with its reports.

use crate::dockerfile::Inputs;
use crate::error::BuildError;
use crate::images::{Images, LAYOUT_SCHEME};
use crate::request::{BuildRequest, NamedContext};
use rbuild_event::{Event, Reporter};
use rbuild_frontend::{Diagnostic, LowerOptions};
use rbuild_ir::Definition;
use rbuild_oci::Platform;
use std::sync::Arc;

/// Parses and lowers, resolving the base images on the way.
pub(crate) async fn definition(
    request: &BuildRequest,
    inputs: &Inputs,
    images: &Arc<Images>,
    reporter: &Reporter,
) -> Result<Definition, BuildError> {
    let (dockerfile, mut diagnostics) = rbuild_frontend::parse(&inputs.text);
    let options = options(request);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(refused(&diagnostics, inputs, images));
    }
    images.prefetch(&rbuild_frontend::image_requests(&dockerfile, &options)).await;
    // Lowering may ask for images that only ONBUILD triggers name, and waits for them.
    let resolver = Arc::clone(images);
    let lowered =
        tokio::task::spawn_blocking(move || rbuild_frontend::lower(&dockerfile, &options, &*resolver)).await;
    let (definition, more) = lowered.map_err(|error| BuildError::Internal(format!("lowering failed: {error}")))?;
    diagnostics.extend(more);
    let Some(definition) = definition else { return Err(refused(&diagnostics, inputs, images)) };
    for warning in &diagnostics {
        reporter.report(Event::Warning { text: one_line(warning) });
    }
    Ok(definition)
}

fn options(request: &BuildRequest) -> LowerOptions {
    let contexts = request.named_contexts.iter().map(|(name, context)| {
        let context = match context {
            NamedContext::Directory(_) | NamedContext::Remote(_) => rbuild_frontend::NamedContext::Local,
            NamedContext::OciLayout { .. } => rbuild_frontend::NamedContext::Image(format!("{LAYOUT_SCHEME}{name}")),
            NamedContext::Image(reference) => rbuild_frontend::NamedContext::Image(reference.to_string()),
        };
        (name.clone(), context)
    });
    LowerOptions {
        build_args: request.build_args.clone(),
        target: request.target.clone(),
        build_platform: Platform::host(),
        target_platform: request.platform.clone(),
        multi_platform: false,
        labels: request.labels.clone(),
        network: request.network,
        extra_hosts: request.extra_hosts.clone(),
        ulimits: request.ulimits.clone(),
        contexts: contexts.collect(),
        hostname: None,
    }
}

/// All errors of the file, rendered one below the other.
fn refused(diagnostics: &[Diagnostic], inputs: &Inputs, images: &Images) -> BuildError {
    let text = String::from_utf8_lossy(&inputs.text);
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    let rendered: Vec<String> = errors.map(|error| rbuild_frontend::render(error, &inputs.name, &text)).collect();
    let message = rendered.join("\n");
    if images.registry_failed() {
        return BuildError::Image { message, registry: true };
    }
    BuildError::Dockerfile(message)
}

fn one_line(warning: &Diagnostic) -> String {
    let rule = warning.rule.map(|rule| format!("{rule}: ")).unwrap_or_default();
    let line = if warning.lines.start > 0 { format!(" (line {})", warning.lines.start) } else { String::new() };
    format!("{rule}{}{line}", warning.message)
}
