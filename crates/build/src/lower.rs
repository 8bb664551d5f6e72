//! From the Dockerfile's text to a definition, with its reports.

use crate::build::Environment;
use crate::dockerfile::{Inputs, read_inputs};
use crate::epoch::Asking;
use crate::error::BuildError;
use crate::images::{Images, LAYOUT_SCHEME};
use crate::request::{BuildRequest, NamedContext};
use rbuild_context::Ignore;
use rbuild_event::{Event, Reporter};
use rbuild_frontend::ast::Dockerfile;
use rbuild_frontend::{Diagnostic, IgnoreRule, IgnoreRules, LowerOptions, Lowered, Outline};
use rbuild_ir::Definition;
use rbuild_oci::Platform;
use rbuild_op::Remote;
use rbuild_store::Store;
use rbuild_tree::TreePath;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Magic build argument: the frontend, whatever the Dockerfile says.
const SYNTAX_ARG: &str = "BUILDKIT_SYNTAX";

/// A Dockerfile as a build would see it, without anything done.
#[derive(Debug)]
pub struct Examined {
    /// The Dockerfile's name in messages.
    pub name: String,
    /// Its text; what was not UTF-8 is U+FFFD, as the places in `diagnostics` count it.
    pub text: String,
    /// Its tree.
    pub dockerfile: Dockerfile,
    /// The operations that would make the target's image; missing when any diagnostic is an error.
    pub definition: Option<Definition>,
    /// Errors, then warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// The target's parameters; missing when lowering stopped at an error.
    pub outline: Option<Outline>,
    /// Whether an image was not found because of a registry.
    pub registry_failed: bool,
}

/// Reads, parses and lowers what a request names; base images are resolved as for a build, nothing is executed. With
/// `all_stages` every stage is looked at, not only those that the target needs.
///
/// Must run on a multi-threaded tokio runtime.
///
/// # Errors
/// When there is nothing to look at (no Dockerfile, no store). Whatever is wrong with the file is in
/// [`Examined::diagnostics`].
pub async fn examine(
    environment: &Environment,
    request: &BuildRequest,
    all_stages: bool,
    reporter: &Reporter,
) -> Result<Examined, BuildError> {
    let store = Store::open(&environment.store_root)?;
    let _lease = store.lease()?;
    let mut request = request.clone();
    let remote = Remote::new(store.clone(), environment.registry.clone(), request.confidential.clone());
    let remote = remote.resolving(crate::remote::resolving(&request));
    let cancel = CancellationToken::new();
    let fetched = crate::remote::fetch(&mut request, &remote, &store, reporter, &cancel).await?;
    let mut inputs = read_inputs(&request, fetched.main, &store)?;
    let resolving = crate::lockfile::resolving(&request, &inputs)?;
    let remote = remote.resolving(resolving.clone());
    let asking = Asking {
        request: &request,
        fetched: &fetched,
        remote: &remote,
        store: &store,
        reporter,
        cancel: &cancel,
    };
    inputs.epoch = crate::epoch::resolve(&asking, &self::options(&request, &inputs), &inputs).await?;
    let images = Images::new(store, environment.registry.clone(), &request, resolving, reporter.clone());
    let images = Arc::new(images);
    let options = LowerOptions { all_stages, ..options(&request, &inputs) };
    let (dockerfile, lowered) = lowered(options, &inputs, &images).await?;
    let registry_failed = images.registry_failed(&stage_names(&dockerfile));
    Ok(Examined {
        name: inputs.name.clone(),
        text: rbuild_frontend::decode(&inputs.text).into_owned(),
        dockerfile,
        definition: lowered.definition,
        diagnostics: lowered.diagnostics,
        outline: lowered.outline,
        registry_failed,
    })
}

/// Parses and lowers, resolving the base images on the way. Also gives the build arguments that the target's stages
/// declare, with their values.
pub(crate) async fn definition(
    request: &BuildRequest,
    inputs: &Inputs,
    images: &Arc<Images>,
    reporter: &Reporter,
) -> Result<(Definition, Vec<(String, String)>), BuildError> {
    let (dockerfile, lowered) = lowered(options(request, inputs), inputs, images).await?;
    if let Some(message) = images.machine_failed() {
        return Err(BuildError::Environment(message));
    }
    for warning in lowered.diagnostics.iter().filter(|diagnostic| !diagnostic.is_error()) {
        reporter.report(Event::Warning { text: one_line(warning) });
    }
    let args = lowered.outline.into_iter().flat_map(|outline| outline.args);
    let args = args.map(|arg| (arg.name, arg.value)).collect();
    let definition = lowered.definition.ok_or_else(|| {
        refused(&lowered.diagnostics, inputs, images.registry_failed(&stage_names(&dockerfile)))
    })?;
    Ok((definition, args))
}

/// Refuses a Dockerfile that another frontend should read, from what the file or the build arguments say.
pub(crate) fn other_frontend(build_args: &[(String, String)], text: &[u8]) -> Option<Diagnostic> {
    let given = build_args.iter().rev().find(|(name, _)| name == SYNTAX_ARG).map(|(_, value)| value.trim());
    rbuild_frontend::check_syntax(text, given.filter(|value| !value.is_empty()))
}

/// Lowers every stage.
pub(crate) async fn all_stages(
    request: &BuildRequest,
    inputs: &Inputs,
    images: &Arc<Images>,
) -> Result<Lowered, BuildError> {
    let options = LowerOptions { all_stages: true, ..options(request, inputs) };
    let (dockerfile, lowered) = lowered(options, inputs, images).await?;
    if lowered.diagnostics.iter().any(Diagnostic::is_error) {
        let registry_failed = images.registry_failed(&stage_names(&dockerfile));
        return Err(refused(&lowered.diagnostics, inputs, registry_failed));
    }
    Ok(lowered)
}

async fn lowered(
    options: LowerOptions,
    inputs: &Inputs,
    images: &Arc<Images>,
) -> Result<(Dockerfile, Lowered), BuildError> {
    if let Some(refusal) = other_frontend(&options.build_args, &inputs.text) {
        return Ok((Dockerfile::default(), Lowered { diagnostics: vec![refusal], ..Lowered::default() }));
    }
    let (dockerfile, mut diagnostics) = rbuild_frontend::parse(&inputs.text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        diagnostics.extend(rbuild_frontend::syntax_warnings(&dockerfile, &diagnostics, &options));
        return Ok((dockerfile, Lowered { diagnostics, ..Lowered::default() }));
    }
    images.prefetch(&rbuild_frontend::image_requests(&dockerfile, &options)).await;
    // Lowering may ask for images that only ONBUILD triggers name, and waits for them.
    let resolver = Arc::clone(images);
    let lowering = tokio::task::spawn_blocking(move || {
        let lowered = rbuild_frontend::examine(&dockerfile, &options, &*resolver);
        (dockerfile, lowered)
    });
    let joined = lowering.await;
    let (dockerfile, mut lowered) =
        joined.map_err(|error| BuildError::Internal(format!("lowering failed: {error}")))?;
    lowered.diagnostics.extend(diagnostics);
    Ok((dockerfile, lowered))
}

fn stage_names(dockerfile: &Dockerfile) -> Vec<&str> {
    dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref()).collect()
}

/// The ignore file for the check CopyIgnoredFile.
fn ignore_rules(ignore: &Ignore) -> IgnoreRules {
    let rules = ignore.rules().iter();
    let rules = rules.map(|rule| IgnoreRule { line: rule.line, pattern: rule.pattern.clone() }).collect();
    let (file, ignore) = (ignore.file().to_owned(), ignore.clone());
    let excluded_by = move |path: &str| {
        let rule = ignore.rule(&TreePath::clamped(path.as_bytes()).ok()?)?;
        ignore.rules().iter().position(|known| known == rule)
    };
    IgnoreRules { file, rules, excluded_by: Arc::new(excluded_by) }
}

pub(crate) fn options(request: &BuildRequest, inputs: &Inputs) -> LowerOptions {
    let contexts = request.named_contexts.iter().map(|(name, context)| {
        let context = match context {
            NamedContext::Directory(_) | NamedContext::Remote(_) => rbuild_frontend::NamedContext::Local,
            NamedContext::OciLayout { .. } => {
                rbuild_frontend::NamedContext::Image(format!("{LAYOUT_SCHEME}{name}"))
            }
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
        epoch: inputs.epoch,
        ignore: inputs.ignore.as_ref().map(ignore_rules),
        all_stages: false,
    }
}

/// All errors of the file, rendered one below the other.
fn refused(diagnostics: &[Diagnostic], inputs: &Inputs, registry_failed: bool) -> BuildError {
    let text = rbuild_frontend::decode(&inputs.text);
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    let rendered: Vec<String> =
        errors.map(|error| rbuild_frontend::render(error, &inputs.name, &text)).collect();
    let message = rendered.join("\n");
    if registry_failed {
        return BuildError::Image { message, registry: true };
    }
    BuildError::Dockerfile(message)
}

fn one_line(warning: &Diagnostic) -> String {
    let rule = warning.rule.map(|rule| format!("{rule}: ")).unwrap_or_default();
    let line =
        if warning.lines.start > 0 { format!(" (line {})", warning.lines.start) } else { String::new() };
    format!("{rule}{}{line}", warning.message)
}
