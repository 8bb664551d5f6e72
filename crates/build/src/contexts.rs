//! Local build contexts as the operations see them.

use crate::dockerfile::{Inputs, named_context_rules};
use crate::error::BuildError;
use crate::remote::FetchedContexts;
use crate::request::{BuildRequest, ContextSource, NamedContext};
use rbuild_context::{Filter, Ignore, LocalContext, StatCache};
use rbuild_op::LocalSource;
use rbuild_store::Store;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The main context's name.
pub(crate) const MAIN: &str = "context";

/// The local contexts of a build.
#[derive(Default)]
pub(crate) struct Contexts {
    /// As the operations see them, by name.
    pub(crate) sources: BTreeMap<String, LocalSource>,
    opened: Vec<Arc<LocalContext>>,
}

impl Contexts {
    /// Opens the main context and all named ones that are directories.
    pub(crate) fn open(
        request: &BuildRequest,
        inputs: &mut Inputs,
        fetched: &FetchedContexts,
        store: &Store,
    ) -> Result<Self, BuildError> {
        let mut contexts = Self::default();
        match &inputs.context {
            Some(dir) => contexts.add(MAIN, dir, inputs.ignore.take(), request, store)?,
            None => {
                let tree = Arc::new(rbuild_snapshot::ChainView::new(Vec::new()));
                contexts.sources.insert(MAIN.to_owned(), LocalSource { tree, ignore: None, archive: false });
            }
        }
        // None takes the place of the main context.
        for (name, context) in request.named_contexts.iter().filter(|(name, _)| name != MAIN) {
            if let NamedContext::Directory(dir) = context {
                contexts.add(name, dir, named_context_rules(dir)?, request, store)?;
            }
        }
        for (name, dir) in &fetched.named {
            contexts.add(name, dir, None, request, store)?;
        }
        Ok(contexts)
    }

    fn add(
        &mut self,
        name: &str,
        dir: &Path,
        ignore: Option<Ignore>,
        request: &BuildRequest,
        store: &Store,
    ) -> Result<(), BuildError> {
        let ignore = ignore.map(Arc::new);
        let filter = ignore.clone().map(|ignore| ignore as Arc<dyn Filter>);
        // What was unpacked for this build only has a path that no later build asks for.
        let passing = name == MAIN && matches!(request.context, ContextSource::Archive(_));
        let cached = request.stat_cache && !passing;
        let cache = cached.then(|| StatCache::open(store.stat_cache_dir(), dir));
        let opened = LocalContext::open(dir, filter, cache).map_err(|source| BuildError::Io {
            action: "cannot open the build context",
            path: dir.display().to_string(),
            source,
        })?;
        let opened = Arc::new(opened.reset_owner(!passing).modes(request.context_modes));
        let tree = Arc::clone(&opened) as Arc<dyn rbuild_tree::Tree>;
        self.sources.insert(name.to_owned(), LocalSource { tree, ignore, archive: passing });
        self.opened.push(opened);
        Ok(())
    }

    /// Remembers the digests that were found. A failure costs the next build some time and nothing else.
    pub(crate) fn remember(&self) {
        for context in &self.opened {
            drop(context.save_stat_cache());
        }
    }
}
