//! What a build knows of its steps when it is over: roots and records, to be written elsewhere.

use rbuild_cache::{Importer, RemoteRecord};
use rbuild_graph::Plan;
use rbuild_oci::Digest;
use rbuild_op::{Engine, Root};
use rbuild_solver::{OpError, Solved};
use rbuild_store::Store;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest preimage of a key that is exported, in bytes: one of a large COPY names every file.
const MAX_PREIMAGE: usize = 8 << 10;

/// What an operation said of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepKind {
    /// See [`rbuild_solver::Op::reads_parent`].
    pub(crate) reads_parent: bool,
    /// See [`rbuild_solver::Op::cacheable`].
    pub(crate) cacheable: bool,
}

/// The steps of a build, in the plan's order.
pub(crate) struct Steps {
    pub(crate) plan: Arc<Plan>,
    pub(crate) kinds: Vec<StepKind>,
    /// For each of the plan's targets, the steps that make its image's layers.
    pub(crate) lines: Vec<BTreeSet<usize>>,
    /// Results that were at hand.
    outputs: Mutex<Vec<Option<Root>>>,
    keys: Mutex<Vec<Digest>>,
}

/// A step that can be exported.
pub(crate) struct Described {
    /// The step's record, with an empty chain.
    pub(crate) record: RemoteRecord,
    /// Its result: the layers are the chain.
    pub(crate) root: Root,
}

impl Steps {
    pub(crate) fn new(plan: Arc<Plan>, kinds: Vec<StepKind>) -> Self {
        let targets = 0..plan.targets().len();
        let lines = targets.map(|target| plan.layer_line(target).into_iter().collect()).collect();
        let count = kinds.len();
        Self { plan, kinds, lines, outputs: Mutex::new(vec![None; count]), keys: Mutex::default() }
    }

    /// Whether a step makes a layer of an image.
    pub(crate) fn is_on_line(&self, step: usize) -> bool {
        self.lines.iter().any(|line| line.contains(&step))
    }

    /// A result is at hand.
    pub(crate) fn made(&self, step: usize, root: &Root) {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)[step] = Some(root.clone());
    }

    /// The build is over.
    pub(crate) fn solved(&self, solved: &Solved<Root>) {
        let keys = solved.steps.iter().map(|step| step.key).collect();
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// What a record of this step has of a result: without its own parent's layers if it does not read them.
    pub(crate) fn own(&self, step: usize, root: &Root) -> Root {
        if self.kinds[step].reads_parent { root.clone() } else { root.top() }
    }

    /// Everything that is known of these steps, which may be found here or in an imported cache.
    pub(crate) async fn describe(
        &self,
        wanted: impl Fn(usize) -> bool,
        engine: &Engine,
        store: &Store,
        importer: &Importer,
    ) -> Result<Vec<Described>, OpError> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let steps: Vec<usize> =
            (0..keys.len()).filter(|step| self.kinds[*step].cacheable && wanted(*step)).collect();
        let asked: Vec<Digest> = steps.iter().map(|step| keys[*step]).collect();
        let records = store.records(&asked)?;
        if records.iter().any(Option::is_none) {
            importer.load().await;
        }
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found = Vec::new();
        for (step, record) in steps.into_iter().zip(records) {
            let mut described = match record {
                Some(record) => self.of_store(step, record, outputs[step].as_ref(), engine, store)?,
                None => None,
            };
            if described.is_none() {
                described = importer.records(&keys[step]).find_map(|cached| {
                    let root = engine.root_of_imported(&cached)?;
                    Some(Described { record: cached.record.clone(), root })
                });
            }
            let Some(mut described) = described else { continue };
            let needs = self.plan.needs(step);
            let parent = usize::from(self.plan.parent(step).is_some() && !self.kinds[step].reads_parent);
            described.record.needs = needs.iter().skip(parent).map(|need| keys[*need]).collect();
            described.record.name = self.plan.vertices()[step].name.clone();
            described.record.reads_parent = self.kinds[step].reads_parent;
            described.record.chain = Vec::new();
            found.push(described);
        }
        Ok(found)
    }

    fn of_store(
        &self,
        step: usize,
        record: rbuild_store::Record,
        output: Option<&Root>,
        engine: &Engine,
        store: &Store,
    ) -> Result<Option<Described>, OpError> {
        let root = match output {
            Some(root) => Some(self.own(step, root)),
            None => engine.root_of_record(&record)?,
        };
        let Some(root) = root else { return Ok(None) };
        let preimage = store.preimage(&record.key)?.filter(|text| text.len() <= MAX_PREIMAGE);
        let record = RemoteRecord {
            key: record.key,
            operation: record.op_digest,
            content_key: record.content_key,
            reads_parent: self.kinds[step].reads_parent,
            needs: Vec::new(),
            name: String::new(),
            chain: Vec::new(),
            created: record.created,
            cost_ms: record.cost_ms,
            config: record.config,
            preimage,
        };
        Ok(Some(Described { record, root }))
    }
}
