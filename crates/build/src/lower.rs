//! From the Dockerfile's text to a definition, with its reports.

mod merged;

use crate::build::Environment;
use crate::dockerfile::{Inputs, read_inputs};
use crate::epoch::Asking;
use crate::error::BuildError;
use crate::images::{Images, LAYOUT_SCHEME};
use crate::request::{BuildRequest, NamedContext};
use merged::Merged;
use rbuild_context::Ignore;
use rbuild_event::{Event, Reporter};
use rbuild_frontend::ast::Dockerfile;
use rbuild_frontend::{Diagnostic, IgnoreRule, IgnoreRules, LowerOptions, Outline};
use rbuild_ir::{Definition, Op};
use rbuild_oci::Platform;
use rbuild_op::Remote;
use rbuild_store::Store;
use rbuild_tree::TreePath;
use std::collections::HashSet;
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
    /// The operations that would make the target's image, for each platform; none when any diagnostic is an error.
    pub definitions: Vec<Definition>,
    /// Errors, then warnings; what is said of several platforms, once.
    pub diagnostics: Vec<Diagnostic>,
    /// The target's parameters, for the first platform; missing when lowering stopped at an error.
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
    inputs.epoch = crate::epoch::resolve(&asking, &self::options(&request, &inputs)[0], &inputs).await?;
    let images = Images::new(store, environment.registry.clone(), &request, resolving, reporter.clone());
    let images = Arc::new(images);
    let options =
        options(&request, &inputs).into_iter().map(|options| LowerOptions { all_stages, ..options });
    let (dockerfile, lowered) = lowered(options.collect(), &inputs, &images).await?;
    let registry_failed = images.registry_failed(&stage_names(&dockerfile));
    Ok(Examined {
        name: inputs.name.clone(),
        text: rbuild_frontend::decode(&inputs.text).into_owned(),
        dockerfile,
        definitions: lowered.definitions,
        diagnostics: lowered.diagnostics,
        outline: lowered.outline,
        registry_failed,
    })
}

/// Parses and lowers for each platform, resolving the base images on the way. Also gives the build arguments that the
/// target's stages declare, with their values for the first platform.
pub(crate) async fn definitions(
    request: &BuildRequest,
    inputs: &Inputs,
    images: &Arc<Images>,
    reporter: &Reporter,
) -> Result<(Vec<Definition>, Vec<(String, String)>), BuildError> {
    let (dockerfile, lowered) = lowered(options(request, inputs), inputs, images).await?;
    if let Some(message) = images.machine_failed() {
        return Err(BuildError::Environment(message));
    }
    for warning in lowered.diagnostics.iter().filter(|diagnostic| !diagnostic.is_error()) {
        reporter.report(Event::Warning { text: one_line(warning) });
    }
    let args = lowered.outline.into_iter().flat_map(|outline| outline.args);
    let args = args.map(|arg| (arg.name, arg.value)).collect();
    if lowered.definitions.is_empty() {
        let registry_failed = images.registry_failed(&stage_names(&dockerfile));
        return Err(refused(&lowered.diagnostics, inputs, registry_failed));
    }
    Ok((lowered.definitions, args))
}

/// Refuses a Dockerfile that another frontend should read, from what the file or the build arguments say.
pub(crate) fn other_frontend(build_args: &[(String, String)], text: &[u8]) -> Option<Diagnostic> {
    let given = build_args.iter().rev().find(|(name, _)| name == SYNTAX_ARG).map(|(_, value)| value.trim());
    rbuild_frontend::check_syntax(text, given.filter(|value| !value.is_empty()))
}

/// Lowers every stage; gives the files behind URLs and git trees that they add.
pub(crate) async fn all_stages(
    request: &BuildRequest,
    inputs: &Inputs,
    images: &Arc<Images>,
) -> Result<Vec<Op>, BuildError> {
    let options = options(request, inputs).into_iter();
    let options = options.map(|options| LowerOptions { all_stages: true, ..options });
    let (dockerfile, lowered) = lowered(options.collect(), inputs, images).await?;
    if lowered.diagnostics.iter().any(Diagnostic::is_error) {
        let registry_failed = images.registry_failed(&stage_names(&dockerfile));
        return Err(refused(&lowered.diagnostics, inputs, registry_failed));
    }
    Ok(lowered.remote_ops)
}

/// `options` are those of each platform.
async fn lowered(
    options: Vec<LowerOptions>,
    inputs: &Inputs,
    images: &Arc<Images>,
) -> Result<(Dockerfile, Merged), BuildError> {
    if let Some(refusal) = other_frontend(&options[0].build_args, &inputs.text) {
        return Ok((Dockerfile::default(), Merged { diagnostics: vec![refusal], ..Merged::default() }));
    }
    let (dockerfile, mut diagnostics) = rbuild_frontend::parse(&inputs.text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        diagnostics.extend(rbuild_frontend::syntax_warnings(&dockerfile, &diagnostics, &options[0]));
        return Ok((dockerfile, Merged { diagnostics, ..Merged::default() }));
    }
    let requests = options.iter().map(|options| rbuild_frontend::image_requests(&dockerfile, options));
    images.prefetch(&requests.flatten().collect::<HashSet<_>>().into_iter().collect::<Vec<_>>()).await;
    // Lowering may ask for images that only ONBUILD triggers name, and waits for them.
    let resolver = Arc::clone(images);
    let lowering = tokio::task::spawn_blocking(move || {
        let examine = |options| rbuild_frontend::examine(&dockerfile, options, &*resolver);
        let lowered = Merged::of(options.iter().map(examine).collect());
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

/// The options of each platform, at least of one.
pub(crate) fn options(request: &BuildRequest, inputs: &Inputs) -> Vec<LowerOptions> {
    let common = common_options(request, inputs);
    if request.platforms.is_empty() {
        return vec![common];
    }
    let platforms = request.platforms.iter();
    platforms
        .map(|platform| LowerOptions { target_platform: Some(platform.clone()), ..common.clone() })
        .collect()
}

fn common_options(request: &BuildRequest, inputs: &Inputs) -> LowerOptions {
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
        target_platform: None,
        multi_platform: request.makes_index(),
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
