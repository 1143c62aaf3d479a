//! The plain engine: rows in ordinary maps, a batch on a copy. The twin that other engines are compared
//! with, and the fastest store for simulations.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    clock::{Clock, Timestamp},
    store::{
        Domain, Fault, Observer, Store,
        audit::Row,
        writer::{Command, Engine, Step, Writer},
    },
};

/// What a service brings to this engine.
pub trait ModelDomain: Domain {
    /// All rows.
    type Model: Clone + Default + Send + 'static;

    /// Hands `work` the rows of `model`.
    fn model_rows(model: &mut Self::Model, work: &mut dyn FnMut(&mut Self::Rows<'_>));

    /// Applies one planned change.
    ///
    /// # Errors
    /// [`Fault::Broken`] where it does not meet exactly the rows that it was planned on.
    fn model_apply(
        model: &mut Self::Model,
        change: Self::Change,
        now: Timestamp,
        signals: &mut Vec<Self::Signal>,
    ) -> Result<(), Fault>;
}

/// Everything that a plain store holds, for tests to look at.
#[derive(Debug)]
pub struct Plain<D: ModelDomain> {
    /// The service's rows.
    pub model: D::Model,
    /// All audit rows, in order.
    pub audit: Vec<Row>,
    moment: Timestamp,
}

/// Opens an empty plain store that runs each verb on its caller's thread; the second part shows its
/// rows.
pub fn open<D: ModelDomain>(
    clock: Clock,
    observer: Arc<dyn Observer<D>>,
) -> (Store<D>, Arc<Mutex<Plain<D>>>) {
    let plain = Plain { model: D::Model::default(), audit: Vec::new(), moment: Timestamp::default() };
    let plain = Arc::new(Mutex::new(plain));
    let engine = ModelEngine { clock, plain: Arc::clone(&plain) };
    (Store::new(Writer::inline(Box::new(engine), observer), None), plain)
}

struct ModelEngine<D: ModelDomain> {
    clock: Clock,
    plain: Arc<Mutex<Plain<D>>>,
}

impl<D: ModelDomain> Engine<D> for ModelEngine<D> {
    fn batch(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<Vec<D::Signal>, Fault> {
        let mut plain = self.plain.lock();
        let now = self.clock.now().max(plain.moment);
        let mut model = plain.model.clone();
        let (mut audit, mut signals) = (Vec::new(), Vec::new());
        for command in commands {
            let mut step = None;
            D::model_rows(&mut model, &mut |rows| step = Some(command.run(rows, now)));
            match step.ok_or_else(|| Fault::Broken("rows were never handed over".to_owned()))? {
                Step::Write(changes, entries) => {
                    for change in changes {
                        D::model_apply(&mut model, change, now, &mut signals)?;
                    }
                    audit.extend(entries);
                }
                Step::Miss(keys) => {
                    return Err(Fault::Broken(format!("a plain store misses nothing: {keys:?}")));
                }
                Step::Fault(fault) => return Err(fault),
            }
        }
        plain.model = model;
        plain.moment = now;
        for entry in &audit {
            let id = i64::try_from(plain.audit.len()).unwrap_or(i64::MAX) + 1;
            plain.audit.push(Row::of(id, now, entry));
        }
        Ok(signals)
    }
}
