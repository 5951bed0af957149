//! Bodies that are held for clients that are slow: those of requests that had not arrived when it was their turn, which are
//! awaited apart from the seats, so that who sends slowly keeps no place that others wait for; and answers that have not been
//! read ([`unsent`](super::unsent)).
//!
//! What must stay true: what is held here is bounded, for each user ([`OF_USER`]) and altogether ([`TOTAL`]); when all of it
//! is taken, the oldest body of the user who holds most gives way, so that many slow bodies, of however many users, keep
//! nobody out who holds less; nobody waits longer than for a seat.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::flow::WAIT;

/// Bytes of all bodies that are awaited, or wait for a seat.
const TOTAL: usize = 128 << 20;
/// Of one user's: ten of the largest, or two thousand small ones.
const OF_USER: usize = 32 << 20;
/// What a body counts for at least: its headers and what serves it.
const LEAST: usize = 16 << 10;
/// What is counted: a permit.
const UNIT: usize = 1 << 10;
/// Requests of one user that wait until more may be awaited.
const WAITING: usize = 256;

/// Bodies that are awaited. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Intake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: usize,
    of_user: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: usize,
    next: u64,
    /// Those who have bodies here, or wait to.
    users: HashMap<Arc<str>, User>,
    /// The same by what they hold.
    sizes: BTreeSet<(usize, Arc<str>)>,
}

#[derive(Debug)]
struct User {
    own: Arc<Semaphore>,
    /// Requests that are here, whether they hold or wait.
    requests: usize,
    held: usize,
    /// In the order in which they came.
    bodies: BTreeMap<u64, (usize, CancellationToken)>,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self::bounded(TOTAL, OF_USER)
    }

    pub(super) fn bounded(total: usize, of_user: usize) -> Self {
        Self(Arc::new(Inner { total, of_user, state: Mutex::default() }))
    }

    /// Makes room for a request's body of this many bytes. `patient`: waits for the user's other bodies, since nothing of this
    /// one has been read. `None`: there is no room.
    pub(super) async fn admit(&self, user: &str, bytes: usize, patient: bool) -> Option<Held> {
        let (bytes, lost) = (bytes.max(LEAST), CancellationToken::new());
        if patient {
            Request::of(self, user, true)?.wait(bytes).await?.hold(bytes, lost)
        } else {
            self.hold(user, bytes, lost)
        }
    }

    /// Makes room now, or not at all. Who is to drop the body hears so through `lost`.
    pub(super) fn hold(&self, user: &str, bytes: usize, lost: CancellationToken) -> Option<Held> {
        self.reserve(user, bytes)?.hold(bytes, lost)
    }

    /// Room among the user's own now, or not at all.
    pub(super) fn reserve(&self, user: &str, bytes: usize) -> Option<Reserved> {
        let request = Request::of(self, user, false)?;
        let own = Arc::clone(&request.own).try_acquire_many_owned(units(bytes)?).ok()?;
        Some(Reserved { own, request })
    }

    /// The same, if need be when the user's other bodies have gone. How many wait is the caller's to bound.
    pub(super) async fn wait(&self, user: &str, bytes: usize) -> Option<Reserved> {
        Request::of(self, user, false)?.wait(bytes).await
    }

    /// Counts what is there whether or not there is room. Nobody gives way for it, but for the user's own oldest beyond twice
    /// the room; others do for who comes next.
    pub(super) fn count(&self, user: &str, bytes: usize, lost: CancellationToken) -> Option<Held> {
        let request = Request::of(self, user, false)?;
        let own = units(bytes).and_then(|units| Arc::clone(&request.own).try_acquire_many_owned(units).ok());
        let number = self.0.state.lock().count(self.0.of_user, &request.user, bytes, &lost);
        Some(Held { number, lost, own, request })
    }

    /// Bytes that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.0.state.lock().held
    }
}

fn units(bytes: usize) -> Option<u32> {
    u32::try_from(bytes.div_ceil(UNIT)).ok()
}

impl State {
    /// Whether a body would be taken in.
    fn fits(&self, total: usize, user: &Arc<str>, bytes: usize) -> bool {
        let mine = self.users.get(user).map_or(0, |user| user.held).saturating_add(bytes);
        self.held.saturating_add(bytes) <= total || self.sizes.last().is_some_and(|(most, _)| *most >= mine)
    }

    /// Takes a body in, in the place of others' if need be. The answer is its number.
    fn hold(&mut self, total: usize, user: &Arc<str>, bytes: usize, lost: &CancellationToken) -> Option<u64> {
        let mine = self.users.get(user)?.held.saturating_add(bytes);
        while self.held.saturating_add(bytes) > total {
            let (most, greedy) = self.sizes.last().cloned()?;
            if most < mine || !self.drop_oldest(&greedy) {
                return None;
            }
        }
        Some(self.add(user, bytes, lost))
    }

    /// Takes a body in that is there.
    fn count(&mut self, of_user: usize, user: &Arc<str>, bytes: usize, lost: &CancellationToken) -> u64 {
        let own = |state: &Self| state.users.get(user).map_or(0, |user| user.held);
        while own(self).saturating_add(bytes) > 2 * of_user && self.drop_oldest(user) {}
        self.add(user, bytes, lost)
    }

    /// Has a user's oldest body dropped; `false`: there is none.
    fn drop_oldest(&mut self, user: &Arc<str>) -> bool {
        let oldest = self.users.get(user).and_then(|user| user.bodies.keys().next().copied());
        let dropped = oldest.and_then(|oldest| self.release(user, oldest));
        if let Some(body) = &dropped {
            body.cancel();
        }
        dropped.is_some()
    }

    fn add(&mut self, user: &Arc<str>, bytes: usize, lost: &CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(user) = self.users.get_mut(user) {
            user.bodies.insert(number, (bytes, lost.clone()));
        }
        self.resize(user, |held| held.saturating_add(bytes));
        number
    }

    /// A body is no longer held here; `None`: it was not.
    fn release(&mut self, user: &Arc<str>, number: u64) -> Option<CancellationToken> {
        let (bytes, lost) = self.users.get_mut(user)?.bodies.remove(&number)?;
        self.resize(user, |held| held.saturating_sub(bytes));
        Some(lost)
    }

    /// A body that is held has become smaller.
    fn shrink(&mut self, user: &Arc<str>, number: u64, bytes: usize) {
        let known = self.users.get_mut(user).and_then(|user| user.bodies.get_mut(&number));
        let Some((held, _)) = known else { return };
        let less = held.saturating_sub(bytes);
        *held -= less;
        self.resize(user, |held| held.saturating_sub(less));
    }

    fn resize(&mut self, name: &Arc<str>, change: impl Fn(usize) -> usize) {
        let Some(user) = self.users.get_mut(name) else { return };
        self.sizes.remove(&(user.held, Arc::clone(name)));
        user.held = change(user.held);
        self.held = change(self.held);
        if user.held > 0 {
            self.sizes.insert((user.held, Arc::clone(name)));
        }
    }
}

/// A request of a user that is known while there is one.
#[derive(Debug)]
struct Request {
    intake: Intake,
    user: Arc<str>,
    own: Arc<Semaphore>,
}

impl Request {
    /// `None`: `few` may wait, and as many of the user's do.
    fn of(intake: &Intake, user: &str, few: bool) -> Option<Self> {
        let mut state = intake.0.state.lock();
        let name = state.users.get_key_value(user).map_or_else(|| Arc::from(user), |(name, _)| Arc::clone(name));
        let known = state.users.entry(Arc::clone(&name)).or_insert_with(|| User {
            own: Arc::new(Semaphore::new(intake.0.of_user / UNIT)),
            requests: 0,
            held: 0,
            bodies: BTreeMap::new(),
        });
        if few && known.requests.saturating_sub(known.bodies.len()) >= WAITING {
            return None;
        }
        known.requests += 1;
        Some(Self { intake: intake.clone(), user: name, own: Arc::clone(&known.own) })
    }

    /// Room among the user's, when there is some.
    async fn wait(self, bytes: usize) -> Option<Reserved> {
        let own = Arc::clone(&self.own).acquire_many_owned(units(bytes)?);
        let own = timeout(WAIT, own).await.ok()?.ok()?;
        Some(Reserved { own, request: self })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.intake.0.state.lock();
        let Some(known) = state.users.get_mut(&self.user) else { return };
        known.requests = known.requests.saturating_sub(1);
        if known.requests == 0 {
            state.users.remove(&self.user);
        }
    }
}

/// Room for a body among the user's own, before it is held: nobody has given way for it.
#[derive(Debug)]
pub(super) struct Reserved {
    // Given back before the user may be forgotten.
    own: OwnedSemaphorePermit,
    request: Request,
}

impl Reserved {
    /// Whether the body could be held now, if need be in the place of others'.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        let Inner { total, state, .. } = &*self.request.intake.0;
        state.lock().fits(*total, &self.request.user, bytes)
    }

    /// Has the body held, in the place of others' if need be.
    fn hold(self, bytes: usize, lost: CancellationToken) -> Option<Held> {
        let Inner { total, state, .. } = &*self.request.intake.0;
        let number = state.lock().hold(*total, &self.request.user, bytes, &lost)?;
        Some(Held { number, lost, own: Some(self.own), request: self.request })
    }

    /// The same of one that is there: if nobody gives way, it is counted.
    pub(super) fn keep(self, bytes: usize, lost: CancellationToken) -> Held {
        let Inner { total, of_user, state } = &*self.request.intake.0;
        let (mut state, user) = (state.lock(), &self.request.user);
        let held = state.hold(*total, user, bytes, &lost);
        let number = held.unwrap_or_else(|| state.count(*of_user, user, bytes, &lost));
        drop(state);
        Held { number, lost, own: Some(self.own), request: self.request }
    }
}

/// Room for a body; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    number: u64,
    lost: CancellationToken,
    // Given back before the user may be forgotten.
    own: Option<OwnedSemaphorePermit>,
    request: Request,
}

impl Held {
    /// Until somebody else needs the room: the body is to be dropped at once.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// What is held is no more than this.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.request.intake.0.state.lock().shrink(&self.request.user, self.number, bytes);
        let more = |own: &OwnedSemaphorePermit| own.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        drop(self.own.as_mut().and_then(|own| own.split(more(own))));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.request.intake.0.state.lock().release(&self.request.user, self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const BODY: usize = 4 * LEAST;

    #[tokio::test(start_paused = true)]
    async fn one_users_bodies_are_bounded_and_delay_nobody_elses() {
        let intake = Intake::bounded(100 * BODY, 2 * BODY);
        let first = intake.admit("slow", BODY, true).await.unwrap();
        let second = intake.admit("slow", BODY, true).await.unwrap();
        assert!(intake.admit("slow", 1, false).await.is_none(), "one that cannot wait is refused");
        assert!(intake.admit("other", BODY, false).await.is_some());
        let mut third = Box::pin(intake.admit("slow", BODY, true));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        let third = third.await.unwrap();
        assert!(intake.admit("slow", BODY, true).await.is_none(), "nobody waits longer than for a seat");
        drop((second, third));
        let state = intake.0.state.lock();
        assert!(state.users.is_empty() && state.sizes.is_empty() && state.held == 0, "{state:?}");
    }

    #[tokio::test]
    async fn who_holds_most_gives_way_when_all_room_is_taken() {
        let intake = Intake::bounded(8 * BODY, 5 * BODY);
        let mut greedy = Vec::new();
        for user in ["one", "two"] {
            for _ in 0..4 {
                greedy.push(intake.admit(user, BODY, false).await.unwrap());
            }
        }
        let modest = intake.admit("modest", BODY, false).await.unwrap();
        let lost: Vec<usize> = greedy
            .iter()
            .enumerate()
            .filter(|(_, held)| held.lost().now_or_never().is_some())
            .map(|(at, _)| at)
            .collect();
        // The oldest body of the last of those who hold most.
        assert_eq!(lost, [4]);
        assert!(modest.lost().now_or_never().is_none());
        assert!(intake.admit("one", BODY, false).await.is_none(), "nobody gives way to who holds more");
        assert_eq!(intake.0.state.lock().held, 8 * BODY);
    }

    #[tokio::test]
    async fn what_becomes_smaller_makes_room_and_what_is_only_counted_takes_it_from_nobody() {
        let intake = Intake::bounded(4 * BODY, 2 * BODY);
        let lost = CancellationToken::new;
        let mut first = intake.hold("one", 2 * BODY, lost()).unwrap();
        assert!(intake.hold("one", BODY, lost()).is_none());
        first.shrink(BODY);
        let second = intake.hold("one", BODY, lost()).unwrap();
        let told = intake.count("one", 2 * BODY, lost()).unwrap();
        assert_eq!(intake.held(), 4 * BODY);
        let given_way = |held: &[&Held]| held.iter().filter(|held| held.lost().now_or_never().is_some()).count();
        assert_eq!(given_way(&[&first, &second, &told]), 0);
        let other = intake.hold("other", BODY, lost()).unwrap();
        assert_eq!(given_way(&[&first]), 1, "who holds most gives way to who comes next");
        assert_eq!(given_way(&[&second, &told, &other]), 0);
        let more = intake.count("one", 2 * BODY, lost()).unwrap();
        assert_eq!(given_way(&[&second]), 1, "twice the room is all that is counted");
        assert_eq!(given_way(&[&told, &other, &more]), 0);
        drop((first, second, told, other, more));
        let state = intake.0.state.lock();
        assert!(state.users.is_empty() && state.sizes.is_empty() && state.held == 0, "{state:?}");
    }

    #[tokio::test]
    async fn those_who_wait_are_bounded() {
        let intake = Intake::bounded(100 * BODY, BODY);
        let _held = intake.admit("slow", BODY, true).await.unwrap();
        let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(intake.admit("slow", BODY, true))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(intake.admit("slow", BODY, true).now_or_never().unwrap().is_none());
        drop(waiting);
        assert!(intake.admit("slow", BODY, true).now_or_never().is_none(), "those who left are forgotten");
    }
}
