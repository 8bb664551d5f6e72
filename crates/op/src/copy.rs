//! COPY and ADD: select the source entries, then place them in the parent's root.

use crate::bridge::blocking;
use crate::engine::Engine;
use crate::error::OpFailure;
use crate::layer::{Layer, Root, since_epoch};
use async_trait::async_trait;
use rbuild_copy::{Chmod, CopyError, OwnerSpec, Ownership, PlaceOptions, SelectOptions, Selection};
use rbuild_ir::{CopyOp, CopySource, Source};
use rbuild_oci::Digest;
use rbuild_snapshot::{ChainView, Recipe};
use rbuild_solver::{Inputs, KeyDetail, Op, OpError, OperationKey, StepContext};
use rbuild_tree::{Timestamp, Tree, TreePath};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::OnceCell;

/// What some of an instruction's sources mean.
#[derive(Debug, Default)]
struct Selections {
    /// Places of the sources among all of the instruction.
    places: Vec<usize>,
    /// What each of them means.
    selections: Vec<Selection>,
}

impl Selections {
    fn push(&mut self, place: usize, selection: Selection) {
        self.places.push(place);
        self.selections.push(selection);
    }

    fn get(&self, place: usize) -> Option<&Selection> {
        let found = self.places.iter().position(|candidate| *candidate == place)?;
        self.selections.get(found)
    }
}

pub(crate) struct CopyStep {
    engine: Arc<Engine>,
    op: Arc<CopyOp>,
    /// What the sources in local contexts mean, by place among the sources.
    from_contexts: OnceCell<Arc<Selections>>,
    /// What the sources in other roots mean.
    from_inputs: OnceCell<Arc<Selections>>,
}

impl CopyStep {
    pub(crate) fn new(engine: Arc<Engine>, op: CopyOp) -> Self {
        Self { engine, op: Arc::new(op), from_contexts: OnceCell::new(), from_inputs: OnceCell::new() }
    }

    async fn select_from_contexts(&self) -> Result<&Arc<Selections>, OpError> {
        let select = || async {
            let (engine, op) = (Arc::clone(&self.engine), Arc::clone(&self.op));
            let selected = blocking(move || -> Result<_, OpError> {
                let mut found = Selections::default();
                for (place, source) in op.sources.iter().enumerate() {
                    let CopySource::Path { from: Source::Context(name), path } = source else { continue };
                    let context = engine.settings.contexts.get(name);
                    let context =
                        context.ok_or_else(|| format!("internal error: no build context `{name}`"))?;
                    let excluded_by = |path: &TreePath| context.excluded_by(path);
                    let options = Selecting::new(&op, !context.archive)?;
                    let options = SelectOptions {
                        local: !context.archive,
                        excluded_by: Some(&excluded_by),
                        ..options.options(&op)
                    };
                    found.push(place, rbuild_copy::select(&*context.tree, path, &options)?);
                }
                Ok(Arc::new(found))
            });
            selected.await
        };
        self.from_contexts.get_or_try_init(select).await
    }

    async fn select_from_inputs(
        &self,
        inputs: &Inputs<Root>,
        step: &StepContext,
    ) -> Result<&Arc<Selections>, OpError> {
        let select = || async {
            let mut views: BTreeMap<usize, Arc<ChainView>> = BTreeMap::new();
            for source in &self.op.sources {
                if let CopySource::Path { from: Source::Input(input), .. } = source {
                    views.insert(*input, self.engine.view(inputs.inputs.get(*input), step).await?);
                }
            }
            let op = Arc::clone(&self.op);
            let selected = blocking(move || -> Result<_, OpError> {
                let selecting = Selecting::new(&op, false)?;
                let nothing = ChainView::new(Vec::new());
                let mut found = Selections::default();
                for (place, source) in op.sources.iter().enumerate() {
                    let CopySource::Path { from, path } = source else { continue };
                    let tree: &ChainView = match from {
                        Source::Context(_) => continue,
                        Source::Input(input) => &views[input],
                        Source::Empty => &nothing,
                    };
                    found.push(place, rbuild_copy::select(tree, path, &selecting.options(&op))?);
                }
                Ok(Arc::new(found))
            });
            selected.await
        };
        self.from_inputs.get_or_try_init(select).await
    }

    /// What decides the output besides the selected entries.
    fn preimage(&self, context_digest: Digest) -> Value {
        let op = &self.op;
        let sources: Vec<Value> = (op.sources.iter())
            .map(|source| match source {
                // What a context's path means is in `context`; the path itself does not matter.
                CopySource::Path { from: Source::Context(_), .. } => json!("context"),
                CopySource::Path { from, path } => json!({ "from": from, "path": path }),
                CopySource::Inline { name, data, raw } => {
                    json!({ "name": name, "data": Digest::of(bytes_of(data, raw)) })
                }
            })
            .collect();
        json!({
            "op": "copy",
            "sources": sources,
            "context": context_digest,
            "dest": op.dest,
            "chown": op.chown,
            "chmod": op.chmod,
            "link": op.link,
            "parents": op.parents,
            "exclude": op.exclude,
            "unpack": op.unpack,
        })
    }

    /// The selections of all sources, in their order.
    async fn selections(&self, inputs: &Inputs<Root>, step: &StepContext) -> Result<Vec<Selection>, OpError> {
        let from_contexts = Arc::clone(self.select_from_contexts().await?);
        let from_inputs = Arc::clone(self.select_from_inputs(inputs, step).await?);
        let (op, engine) = (Arc::clone(&self.op), Arc::clone(&self.engine));
        blocking(move || -> Result<Vec<Selection>, OpError> {
            let mut selections = Vec::with_capacity(op.sources.len());
            for (place, source) in op.sources.iter().enumerate() {
                selections.push(match source {
                    CopySource::Inline { name, data, raw } => inline(&op, name, bytes_of(data, raw))?,
                    CopySource::Path { from, .. } => {
                        let selection = from_contexts.get(place).or_else(|| from_inputs.get(place));
                        let selection = selection.expect("every path is selected from a context or an input");
                        crate::archive::unpacked(&engine, &op, from, selection)?
                    }
                });
            }
            Ok(selections)
        })
        .await
    }
}

/// A heredoc's content.
fn bytes_of<'a>(data: &'a str, raw: &'a Option<Vec<u8>>) -> &'a [u8] {
    raw.as_deref().unwrap_or(data.as_bytes())
}

fn inline(op: &CopyOp, name: &str, data: &[u8]) -> Result<Selection, OpError> {
    let selecting = Selecting::new(op, true)?;
    let (seconds, nanos) = since_epoch(SystemTime::now());
    let bytes: Arc<[u8]> = data.into();
    Ok(rbuild_copy::select_inline(name, bytes, Timestamp { seconds, nanos }, &selecting.options(op))?)
}

/// Parsed options of a selection.
struct Selecting {
    chmod: Option<Chmod>,
    exclude: Option<rbuild_context::Matcher>,
    ownership: Ownership,
}

impl Selecting {
    fn new(op: &CopyOp, own: bool) -> Result<Self, CopyError> {
        Ok(Self {
            chmod: op.chmod.as_deref().map(Chmod::parse).transpose()?,
            exclude: if op.exclude.is_empty() {
                None
            } else {
                Some(rbuild_copy::exclude_matcher(&op.exclude)?)
            },
            ownership: ownership(op, own),
        })
    }

    fn options(&self, op: &CopyOp) -> SelectOptions<'_> {
        SelectOptions {
            ownership: self.ownership,
            chmod: self.chmod.as_ref(),
            exclude: self.exclude.as_ref(),
            parents: op.parents,
            local: false,
            excluded_by: None,
        }
    }
}

/// files of directories here are root's, those of archives and other roots keep their owners; a --chown with
/// names is looked up when placing.
fn ownership(op: &CopyOp, own: bool) -> Ownership {
    match &op.chown {
        Some(chown) => {
            let (uid, gid) = OwnerSpec::parse(chown).numeric().unwrap_or((0, 0));
            Ownership::Set(uid, gid)
        }
        None if own => Ownership::Set(0, 0),
        None => Ownership::Keep,
    }
}

/// A --chown with a name needs a root to look it up in (BuildKit: `invalid user index: -1`).
fn names_can_be_looked_up(op: &CopyOp, parent: Option<&Root>) -> Result<(), OpFailure> {
    let Some(chown) = op.chown.as_deref().filter(|chown| OwnerSpec::parse(chown).has_names()) else {
        return Ok(());
    };
    match parent {
        _ if op.link => Err(OpFailure::LinkedName(chown.to_owned())),
        None => Err(OpFailure::NameInEmptyRoot(format!("--chown={chown}"))),
        Some(_) => Ok(()),
    }
}

#[async_trait]
impl Op for CopyStep {
    type Output = Root;

    async fn operation_key(&self, _: &StepContext) -> Result<OperationKey, OpError> {
        let selected = Arc::clone(self.select_from_contexts().await?);
        let listed = Arc::clone(&selected);
        let digest = blocking(move || -> Result<Digest, OpError> {
            Ok(rbuild_copy::selection_digest(&selected.selections))
        });
        let digest = digest.await?;
        let files = (!listed.selections.is_empty()).then(|| KeyDetail {
            digest,
            write: Arc::new(move |out| rbuild_copy::write_listing(&listed.selections, out)),
        });
        Ok(OperationKey::of(self.preimage(digest)).with_details(files))
    }

    fn reads_parent(&self) -> bool {
        !self.op.link
    }

    async fn inputs_digest(&self, inputs: &Inputs<Root>) -> Result<Option<Digest>, OpError> {
        let step = self.engine.quiet_step();
        let selected = Arc::clone(self.select_from_inputs(inputs, &step).await?);
        let digest = blocking(move || -> Result<Digest, OpError> {
            Ok(rbuild_copy::selection_digest(&selected.selections))
        });
        Ok(Some(digest.await?))
    }

    async fn execute(&self, step: &StepContext, inputs: &Inputs<Root>) -> Result<Root, OpError> {
        names_can_be_looked_up(&self.op, inputs.parent.as_ref())?;
        let now = SystemTime::now();
        let selections = self.selections(inputs, step).await?;
        let parent = inputs.parent.as_ref().filter(|_| self.reads_parent());
        let view = self.engine.view(parent, step).await?;
        let op = Arc::clone(&self.op);
        let recipe = blocking(move || -> Result<Recipe, OpError> {
            let owner =
                op.chown.as_deref().map(|chown| rbuild_copy::resolve_owner(&*view, chown)).transpose()?;
            let chmod = op.chmod.as_deref().map(Chmod::parse).transpose()?;
            let (seconds, nanos) = since_epoch(now);
            let options = PlaceOptions {
                chown: owner,
                chmod,
                link: op.link,
                created_time: Timestamp { seconds, nanos },
            };
            let tree: &dyn Tree = &*view;
            Ok(Recipe::new(rbuild_copy::place(&selections, &op.dest, tree, &options)?)?)
        });
        let layer = self.engine.intern(Layer::described(self.engine.new_layer_id(), now, recipe.await?));
        Ok(parent.cloned().unwrap_or_default().with(layer))
    }

    fn stack(&self, parent: Option<&Root>, own: Root) -> Root {
        if self.reads_parent() {
            return own;
        }
        let own = own.layers.last().expect("a copy makes one layer");
        parent.cloned().unwrap_or_default().with(Arc::clone(own))
    }
}
