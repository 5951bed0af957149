//! What the stored FlowSchemas and PriorityLevelConfigurations say, ready to be asked.
//!
//! What must stay true: the mandatory objects count even where they are missing; a schema whose level is missing is
//! passed over; a level that stays keeps its queues, whatever else changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration, PriorityLevelConfigurationSpec};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::level::{Level, Queuing};
use super::metrics::{Labels, Metrics, Numbers};
use super::rules::{self, Asked};
use super::share::{self, Bounds};
use super::{Seat, defaults};

/// Who waits: where the seat is sent, and for which schema.
pub(super) type Waiter = (oneshot::Sender<Seat>, Arc<Schema>);

/// A priority level as it is used.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    /// `None`: everybody is served at once.
    pub(super) level: Option<Mutex<Level<Waiter>>>,
}

/// A flow schema as it is used.
#[derive(Debug)]
pub(super) struct Schema {
    object: FlowSchema,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) level_uid: String,
    pub(super) lane: Arc<Lane>,
    pub(super) numbers: Numbers,
}

impl Schema {
    pub(super) fn flow<'a>(&self, asked: &Asked<'a>) -> &'a str {
        rules::flow(&self.object, asked)
    }
}

/// All of them, as they are at one moment.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// In the order in which they are tried.
    schemas: Vec<Arc<Schema>>,
    lanes: Vec<(Arc<Lane>, Bounds)>,
}

/// The objects by their names.
pub(super) type Objects<K> = BTreeMap<String, K>;

impl Config {
    /// Makes one of the objects there are, with what stays of the one before.
    pub(super) fn new(
        total: u32,
        schemas: &Objects<FlowSchema>,
        levels: &Objects<PriorityLevelConfiguration>,
        before: &Self,
        metrics: &Metrics,
    ) -> Self {
        let (mandatory_schemas, mandatory_levels) = defaults::mandatory();
        let missing = mandatory_levels.iter().filter(|(name, _)| !levels.contains_key(*name));
        let levels: HashMap<&String, &PriorityLevelConfiguration> = levels.iter().chain(missing).collect();
        let specs = || levels.values().filter_map(|level| level.spec.as_ref());
        let all: u64 = specs().map(|spec| u64::from(shares(spec).0)).sum();
        let mut lanes = HashMap::new();
        for (name, level) in &levels {
            let Some(spec) = &level.spec else { continue };
            let (shares, lendable, borrowing) = shares(spec);
            let bounds = Bounds::new(total, shares, all, lendable, borrowing);
            lanes.insert(name.as_str(), (lane(name, spec, bounds, before), bounds));
        }
        let missing = mandatory_schemas.iter().filter(|(name, _)| !schemas.contains_key(*name));
        let mut ready: Vec<Arc<Schema>> = schemas
            .iter()
            .chain(missing)
            .filter_map(|(name, object)| {
                let level = rules::level_of(object);
                let (lane, _) = lanes.get(level)?;
                let labels = Labels { priority_level: level.to_owned(), flow_schema: name.clone() };
                let level = levels.get(&lane.name)?;
                Some(Arc::new(Schema {
                    name: name.clone(),
                    uid: object.metadata.uid.clone().unwrap_or_default(),
                    level_uid: level.metadata.uid.clone().unwrap_or_default(),
                    lane: Arc::clone(lane),
                    numbers: metrics.of(labels),
                    object: object.clone(),
                }))
            })
            .collect();
        ready.sort_by(|a, b| rules::order(&a.object).cmp(&rules::order(&b.object)));
        let config = Self { schemas: ready, lanes: lanes.into_values().collect() };
        config.divide(metrics);
        config
    }

    /// The first schema that is about a request.
    pub(super) fn schema_of(&self, asked: &Asked<'_>) -> Option<&Arc<Schema>> {
        self.schemas.iter().find(|schema| rules::matches(&schema.object, asked))
    }

    /// Divides the seats by what each level needs now. The answer is the lanes that may have got some.
    pub(super) fn divide(&self, metrics: &Metrics) -> Vec<Arc<Lane>> {
        let limited: Vec<_> =
            self.lanes.iter().filter_map(|(lane, bounds)| Some((lane, lane.level.as_ref()?, *bounds))).collect();
        let demands: Vec<_> = limited.iter().map(|(_, level, bounds)| (*bounds, level.lock().take_demand())).collect();
        let now = Instant::now();
        for ((lane, level, bounds), seats) in limited.iter().zip(share::divide(&demands)) {
            level.lock().set_seats(seats, now);
            metrics.limits(&lane.name, bounds.nominal, seats);
        }
        limited.into_iter().map(|(lane, ..)| Arc::clone(lane)).collect()
    }
}

/// The lane of a level: the one before if its queues are the same. One that is replaced serves out whom it has.
fn lane(name: &str, spec: &PriorityLevelConfigurationSpec, bounds: Bounds, before: &Config) -> Arc<Lane> {
    let (limited, queuing) = (spec.type_ != "Exempt", queuing(spec));
    let same = |lane: &Lane| {
        lane.name == name
            && lane.level.is_some() == limited
            && lane.level.as_ref().is_none_or(|level| level.lock().queuing() == queuing)
    };
    if let Some((lane, _)) = before.lanes.iter().find(|(lane, _)| same(lane)) {
        return Arc::clone(lane);
    }
    let level = limited.then(|| Mutex::new(Level::new(queuing, bounds.nominal, Instant::now())));
    Arc::new(Lane { name: name.to_owned(), level })
}

/// A level's shares, and how much of them it lends and borrows, in percent.
fn shares(spec: &PriorityLevelConfigurationSpec) -> (u32, u32, Option<u32>) {
    let number = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
    if let Some(limited) = &spec.limited {
        let shares = number(limited.nominal_concurrency_shares).unwrap_or(30);
        return (shares, number(limited.lendable_percent).unwrap_or_default(), number(limited.borrowing_limit_percent));
    }
    let exempt = spec.exempt.as_ref();
    let shares = exempt.and_then(|exempt| number(exempt.nominal_concurrency_shares)).unwrap_or_default();
    (shares, exempt.and_then(|exempt| number(exempt.lendable_percent)).unwrap_or_default(), None)
}

fn queuing(spec: &PriorityLevelConfigurationSpec) -> Option<Queuing> {
    let response = spec.limited.as_ref()?.limit_response.as_ref()?;
    let queuing = response.queuing.as_ref().filter(|_| response.type_ == "Queue")?;
    let number = |number: Option<i32>, default: u32| {
        number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0).unwrap_or(default)
    };
    Some(Queuing {
        queues: number(queuing.queues, 64).into(),
        hand: number(queuing.hand_size, 8).into(),
        length: usize::try_from(number(queuing.queue_length_limit, 50)).unwrap_or(50),
    })
}
