//! ADD of a URL: a root that holds the file.

use crate::engine::Engine;
use crate::layer::{Layer, Root};
use crate::remote::HttpFile;
use async_trait::async_trait;
use rbuild_ir::HttpOp;
use rbuild_oci::Digest;
use rbuild_snapshot::Recipe;
use rbuild_solver::{Inputs, Op, OpError, OperationKey, StepContext};
use rbuild_tree::{DataRef, DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, Timestamp, TreePath};
use serde_json::json;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::OnceCell;

pub(crate) struct HttpStep {
    engine: Arc<Engine>,
    op: HttpOp,
    file: OnceCell<HttpFile>,
}

impl HttpStep {
    pub(crate) fn new(engine: Arc<Engine>, op: HttpOp) -> Self {
        Self { engine, op, file: OnceCell::new() }
    }

    async fn file(&self, step: &StepContext) -> Result<&HttpFile, OpError> {
        self.file.get_or_try_init(|| self.engine.settings.remote.file(&self.op, step)).await
    }
}

#[async_trait]
impl Op for HttpStep {
    type Output = Root;

    /// The content decides: the file is fetched, or the server asked whether it changed, unless its digest is given.
    async fn operation_key(&self, step: &StepContext) -> Result<OperationKey, OpError> {
        let HttpOp { url: _, checksum, filename, mode, uid, gid } = &self.op;
        let (digest, modified) = match checksum {
            Some(checksum) => (*checksum, None),
            None => {
                let file = self.file(step).await?;
                (file.digest, file.modified)
            }
        };
        let secret = self.engine.settings.remote.secret_name(&self.op)?;
        Ok(OperationKey::of(json!({
            "op": "http",
            "digest": digest,
            "filename": filename,
            "mode": mode,
            "uid": uid,
            "gid": gid,
            "modified": modified,
            "secret": secret,
        })))
    }

    /// The file is a blob of the store; there is nothing else to keep.
    fn cacheable(&self) -> bool {
        false
    }

    async fn inputs_digest(&self, _: &Inputs<Root>) -> Result<Option<Digest>, OpError> {
        Ok(None)
    }

    async fn execute(&self, step: &StepContext, _: &Inputs<Root>) -> Result<Root, OpError> {
        let file = self.file(step).await?;
        let mtime = Timestamp { seconds: file.modified.unwrap_or(0), nanos: 0 };
        let HttpOp { mode, uid, gid, .. } = self.op;
        let meta = Metadata {
            kind: FileKind::Regular,
            mode,
            uid,
            gid,
            size: file.size,
            ..Metadata::directory(mtime)
        };
        let source = DataSource::Owned(self.engine.store.blob_path(&file.digest));
        let data = Some(DataRef { size: file.size, digest: Some(file.digest), source });
        let entry = LayerEntry {
            path: TreePath::strict(&self.op.filename)?,
            kind: LayerEntryKind::Node { meta, data, hard_link_to: None },
        };
        let recipe = Recipe::new(vec![entry])?;
        let layer = Layer::described(self.engine.new_layer_id(), SystemTime::now(), recipe);
        Ok(Root::new(vec![self.engine.intern(layer)]))
    }
}
