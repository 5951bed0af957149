//! Follows the APIServices, and asks the servers behind them what they serve: at once when one becomes available or is
//! changed, every minute else, and sooner while one does not answer.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use wherry_api::kinds::apiregistration::priorities::{self, Priority};
use wherry_api::object;
use wherry_api::resource::Descriptor;

use super::ask::Question;
use super::{Remote, Remotes, Said};
use crate::cache::{At, Entry, Filter};
use crate::outbound::{ClientConfig, Outbound};
use crate::server::error::ServerError;
use crate::server::{Inner, Server, answer};
use crate::store::Revision;

/// After a failure of this server's own.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a server is asked.
const EVERY: Duration = Duration::from_secs(60);
/// After its first failure; each further one doubles it, up to [`EVERY`].
const RETRY: Duration = Duration::from_secs(1);

/// Follows the APIServices until the server stops.
pub(in crate::server) fn keep(server: &Server) {
    let (weak, stopping) = (Arc::downgrade(&server.inner), server.stopping().clone());
    let mut follower =
        Follower { server: weak, outbound: server.outbound().clone(), known: HashMap::new(), asked: JoinSet::new() };
    server.tasks().spawn(async move { stopping.run_until_cancelled(follower.run()).await });
}

struct Follower {
    server: Weak<Inner>,
    outbound: Outbound,
    /// By name. Bound: the APIServices that are stored.
    known: HashMap<Box<str>, Known>,
    /// At most one question per APIService.
    asked: JoinSet<Answer>,
}

/// An APIService that was read; without `place` it is one of this server's own.
struct Known {
    revision: Revision,
    place: Option<Place>,
}

/// A server behind an APIService, and when it is asked.
struct Place {
    remote: Remote,
    asking: bool,
    due: Instant,
    failures: u32,
}

/// What came of a question to `config`, by the APIService's name.
struct Answer {
    name: Box<str>,
    config: ClientConfig,
    said: Result<Said, String>,
}

impl Follower {
    async fn run(&mut self) {
        loop {
            let Some(inner) = self.server.upgrade() else { return };
            let server = Server { inner };
            let events = match self.read(&server).await {
                Ok(Some((kind, revision))) => server.cache().watch(&kind, Filter::default(), Some(revision)).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "APIServices cannot be read");
                    drop(server);
                    sleep(PAUSE).await;
                    continue;
                }
            };
            drop(server);
            let Ok(mut events) = events else {
                sleep(PAUSE).await;
                continue;
            };
            self.ask();
            loop {
                let due = self.due();
                tokio::select! {
                    event = events.next() => {
                        if event.is_none() {
                            sleep(PAUSE).await;
                        }
                        // Those that came with it are read with it.
                        while events.next().now_or_never().flatten().is_some() {}
                        break;
                    }
                    Some(answer) = self.asked.join_next() => {
                        let Some(inner) = self.server.upgrade() else { return };
                        let new = match answer {
                            Ok(answer) => self.take(answer),
                            Err(error) => {
                                tracing::error!(%error, "a question to another API server failed");
                                self.places().for_each(|(_, place)| place.asking = false);
                                false
                            }
                        };
                        if new {
                            self.show(&Server { inner }).await;
                        }
                    }
                    () = sleep_until(due) => {}
                }
                self.ask();
            }
        }
    }

    /// Reads what is stored; returns the APIServices' own descriptor and the revision that was read.
    async fn read(&mut self, server: &Server) -> Result<Option<(Arc<Descriptor>, Revision)>, ServerError> {
        let registry = server.registry();
        let Some(kind) = registry.by_group_resource(priorities::GROUP, "apiservices").cloned() else { return Ok(None) };
        let list = server.cache().list(&kind, &Filter::default(), At::Latest, None, 0).await?;
        let mut before = std::mem::take(&mut self.known);
        let places = |known: &HashMap<Box<str>, Known>| known.values().filter(|known| known.place.is_some()).count();
        let (had, mut changed) = (places(&before), false);
        for entry in &list.entries {
            let name = entry.meta.name.clone();
            let known = match before.remove(&name) {
                Some(known) if known.revision == entry.revision => known,
                known => {
                    let known = Known { revision: entry.revision, place: place(entry, known.and_then(|k| k.place))? };
                    changed |= known.place.is_some();
                    known
                }
            };
            self.known.insert(name, known);
        }
        if changed || had != places(&self.known) {
            self.show(server).await;
        }
        Ok(Some((kind, list.revision)))
    }

    async fn show(&self, server: &Server) {
        let places = self.known.values().filter_map(|known| known.place.as_ref());
        server.serve_remotes(Remotes::new(places.map(|place| place.remote.clone()))).await;
    }

    fn places(&mut self) -> impl Iterator<Item = (&Box<str>, &mut Place)> {
        self.known.iter_mut().filter_map(|(name, known)| Some((name, known.place.as_mut()?)))
    }

    /// When the next server is to be asked.
    fn due(&mut self) -> Instant {
        let waiting = self.places().filter(|(_, place)| place.waits());
        waiting.map(|(_, place)| place.due).min().unwrap_or_else(|| Instant::now() + EVERY)
    }

    /// Asks those whose time has come.
    fn ask(&mut self) {
        let (now, outbound) = (Instant::now(), self.outbound.clone());
        let mut questions = Vec::new();
        for (name, place) in self.places() {
            if !place.waits() || place.due > now {
                continue;
            }
            let Remote { group, version, config: Ok(config), said, .. } = place.remote.clone() else { continue };
            questions.push((name.clone(), Question { outbound: outbound.clone(), config, group, version }, said));
            place.asking = true;
        }
        for (name, question, before) in questions {
            self.asked.spawn(async move {
                let said = question.ask(&before).await;
                Answer { name, config: question.config, said }
            });
        }
    }

    /// Takes an answer over; whether it says something new.
    fn take(&mut self, answer: Answer) -> bool {
        let place = self.known.get_mut(&answer.name).and_then(|known| known.place.as_mut());
        let Some(place) = place else { return false };
        place.asking = false;
        if place.remote.config.as_ref() != Ok(&answer.config) {
            // It was asked of another server.
            place.due = Instant::now();
            return false;
        }
        let said = match answer.said {
            Ok(said) => {
                (place.failures, place.due) = (0, Instant::now() + EVERY);
                said
            }
            Err(why) => {
                tracing::debug!(name = answer.name, why, "the server behind an APIService did not say what it serves");
                let wait = RETRY.saturating_mul(1 << place.failures.min(10)).min(EVERY);
                (place.failures, place.due) = (place.failures.saturating_add(1), Instant::now() + wait);
                place.remote.said.outdated()
            }
        };
        // An answer that came after it was found to be unavailable is not the newest word.
        let said = Said { current: said.current && place.remote.available, ..said };
        let changed = !place.remote.said.same(&said);
        place.remote.said = Arc::new(said);
        changed
    }
}

impl Place {
    /// Whether it is to be asked when its time comes.
    fn waits(&self) -> bool {
        self.remote.available && !self.asking && self.remote.config.is_ok()
    }
}

impl Said {
    fn outdated(&self) -> Self {
        Self { current: false, ..self.clone() }
    }

    fn same(&self, other: &Self) -> bool {
        let etag = |said: &Self| said.openapi.as_ref().map(|(_, document)| document.etag.clone());
        self.current == other.current && self.resources == other.resources && etag(self) == etag(other)
    }
}

/// What an APIService says; `before` is what is known of it.
fn place(entry: &Entry, before: Option<Place>) -> Result<Option<Place>, ServerError> {
    let service = answer::parse(&entry.bytes)?;
    let Some(spec) = service.get("spec").filter(|spec| spec.get("service").is_some_and(Value::is_object)) else {
        return Ok(None);
    };
    let (group, version) = (object::text_at(spec, "group"), object::text_at(spec, "version"));
    if group == priorities::GROUP {
        return Ok(None);
    }
    let rank = |field: &str| spec.get(field).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    let priority = Priority { group: rank("groupPriorityMinimum"), version: rank("versionPriority") };
    let config = ClientConfig::of_api_service(spec).map_err(|error| error.to_string());
    let available = is_available(&service);
    let remote = Remote { group, version, priority, config, available, said: Arc::default() };
    let mut place = match before.filter(|before| before.remote.config == remote.config) {
        Some(before) => {
            let due = if available && !before.remote.available { Instant::now() } else { before.due };
            Place { remote: Remote { said: before.remote.said, ..remote }, due, ..before }
        }
        None => Place { remote, asking: false, due: Instant::now(), failures: 0 },
    };
    if !available {
        place.remote.said = Arc::new(place.remote.said.outdated());
    }
    Ok(Some(place))
}

fn is_available(service: &Value) -> bool {
    let conditions = service.pointer("/status/conditions").and_then(Value::as_array);
    let text = |condition: &Value, field: &str| object::text_at(condition, field);
    conditions.into_iter().flatten().any(|c| text(c, "type") == "Available" && text(c, "status") == "True")
}
