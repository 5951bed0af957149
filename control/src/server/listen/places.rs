//! Who has a connection. When there are no more places, the oldest on which nobody has authenticated gives way, and without
//! one the oldest of whoever has most, so that nobody keeps the others out by opening connections.
//!
//! What must stay true: a connection that is told to give way before somebody authenticates on it is not known afterwards; what
//! connections share is locked when one comes, is known or goes, and not for each request.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::auth::accounts;
use crate::server::guard::Activity;
use crate::server::unsent::FREE;

/// Requests over HTTP/2 that are answered on a connection on which nobody has authenticated: those that may be on their way when
/// their client hears that the connection ends with the first.
const OF_NOBODY: u32 = 16;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u64,
    /// Who has authenticated on it first.
    owner: OnceLock<Box<str>>,
    /// Requests over HTTP/2 of those who had not.
    of_nobody: AtomicU32,
    /// Room for its answers, in bytes ([`unsent`](crate::server::unsent)).
    room: Arc<Semaphore>,
    close: CancellationToken,
    pub(super) activity: Activity,
}

impl Connection {
    pub(super) fn is_known(&self) -> bool {
        self.owner.get().is_some()
    }

    /// Somebody who has not authenticated asks over HTTP/2; `false`: that is once too often.
    pub(super) fn serves_nobody(&self) -> bool {
        self.is_known() || self.of_nobody.fetch_add(1, Ordering::Relaxed) < OF_NOBODY
    }

    /// Whether it is to end with the requests that it has, as Kubernetes' `UnauthenticatedHTTP2DOSMitigation` says.
    pub(super) fn ends(&self) -> bool {
        self.of_nobody.load(Ordering::Relaxed) > 0
    }

    /// Room for answers that its client has not read, which no other connection takes.
    pub(crate) fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    /// Closes it when it is cancelled.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.close.clone()
    }

    /// Returns when the connection is to give way.
    pub(super) async fn closed(&self) {
        self.close.cancelled().await;
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Places {
    /// Who has more connections than this gives way with one that is being used.
    many: usize,
    all: Mutex<All>,
}

/// By their numbers: the oldest first.
type Numbered = BTreeMap<u64, Arc<Connection>>;

#[derive(Debug, Default)]
struct All {
    next: u64,
    strangers: Numbered,
    known: HashMap<Box<str>, Numbered>,
}

impl Places {
    pub(super) fn new(many: usize) -> Self {
        Self { many, all: Mutex::default() }
    }

    pub(super) fn meet(self: &Arc<Self>) -> Open {
        let mut all = self.all.lock();
        let connection = Arc::new(Connection {
            number: all.next,
            owner: OnceLock::new(),
            of_nobody: AtomicU32::default(),
            room: Arc::new(Semaphore::new(FREE)),
            close: CancellationToken::new(),
            activity: Activity::default(),
        });
        all.next += 1;
        all.strangers.insert(connection.number, Arc::clone(&connection));
        Open { places: Arc::clone(self), connection }
    }

    /// A user has authenticated on a connection.
    pub(super) fn known(&self, connection: &Connection, user: &str) {
        if connection.is_known() {
            return;
        }
        let mut all = self.all.lock();
        // Else somebody else has been as fast, or it has ended or been told to.
        if let Some(connection) = all.strangers.remove(&connection.number) {
            let owner = connection.owner.get_or_init(|| owner(user).into()).clone();
            all.known.entry(owner).or_default().insert(connection.number, connection);
        }
    }

    /// Closes a connection so that the next one finds a place; `false` if none gives way. The oldest stranger does, but for whoever
    /// has many connections while there are few strangers: these may be about to say who they are.
    pub(super) fn close_early(&self) -> bool {
        let mut all = self.all.lock();
        let crowded = all.strangers.len() < self.many && all.known.values().any(|open| open.len() > self.many);
        (crowded && all.close_known(self.many)) || all.close_stranger()
    }

    /// Closes a connection for one that waits, also that of somebody who has few; `false` if none gives way.
    pub(super) fn close_one(&self) -> bool {
        self.close_early() || self.all.lock().close_known(self.many)
    }
}

impl All {
    /// Closes the oldest connection that nobody has authenticated on; `false` if there is none.
    fn close_stranger(&mut self) -> bool {
        self.strangers.pop_first().inspect(|(_, connection)| connection.close.cancel()).is_some()
    }

    /// The oldest idle connection of whoever has most; if all of these are used, the oldest if they are many, and else the
    /// oldest idle one of the next.
    fn close_known(&mut self, many: usize) -> bool {
        let mut users: Vec<&Numbered> = self.known.values().collect();
        users.sort_by_key(|open| std::cmp::Reverse(open.len()));
        let gives_way = users.into_iter().find_map(|open| {
            let mut open_still = open.values().filter(|connection| !connection.close.is_cancelled());
            let oldest = open_still.clone().next().filter(|_| open.len() > many);
            open_still.find(|connection| connection.activity.is_idle()).or(oldest)
        });
        gives_way.inspect(|connection| connection.close.cancel()).is_some()
    }
}

/// A connection that is open: with this it has ended, also if its task panics. Requests of it may still hold the [`Connection`].
#[derive(Debug)]
pub(super) struct Open {
    places: Arc<Places>,
    connection: Arc<Connection>,
}

impl Open {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut all = self.places.all.lock();
        all.strangers.remove(&self.connection.number);
        let Some(owner) = self.connection.owner.get() else { return };
        if let Some(open) = all.known.get_mut(owner) {
            open.remove(&self.connection.number);
            if open.is_empty() {
                all.known.remove(owner);
            }
        }
    }
}

/// Who is counted as one user: who may make one service account in a namespace may make hundreds.
pub(crate) fn owner(user: &str) -> &str {
    let account = accounts::parts(user);
    account.and_then(|(_, name)| user.strip_suffix(name)?.strip_suffix(':')).unwrap_or(user)
}

/// A connection, and whether it has been told to close.
#[cfg(test)]
pub(crate) fn a_connection() -> (Arc<Connection>, CancellationToken) {
    let places = Arc::new(Places::new(1));
    let connection = Arc::clone(places.meet().connection());
    let closing = connection.closing();
    (connection, closing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gave_way(open: &Open) -> bool {
        open.connection.close.is_cancelled()
    }

    #[test]
    fn the_oldest_that_is_still_a_stranger_gives_way() {
        let places = Arc::new(Places::new(1));
        let [first, second, third] = std::array::from_fn(|_| places.meet());
        places.known(&first.connection, "somebody");
        drop(second);
        assert!(places.close_early());
        assert!(gave_way(&third) && !gave_way(&first));
        assert!(!places.close_early());
        places.known(&third.connection, "somebody");
        assert!(first.connection.is_known() && !third.connection.is_known());
    }

    #[test]
    fn the_oldest_idle_connection_of_whoever_has_most_gives_way_and_a_used_one_if_they_are_many() {
        let places = Arc::new(Places::new(3));
        let of = |user: &str| {
            let open = places.meet();
            places.known(&open.connection, user);
            open
        };
        let modest = of("modest");
        // Service accounts of one namespace are one.
        let accounts = ["system:serviceaccount:eve:a", "system:serviceaccount:eve:b"];
        let [used, idle, last] = [accounts[0], accounts[1], accounts[1]].map(of);
        let busy = [&used, &last].map(|open| open.connection.activity.begin());
        assert!(places.close_one());
        assert!(gave_way(&idle) && !gave_way(&used) && !gave_way(&modest));
        // All of theirs are used, and not many.
        drop(idle);
        assert!(places.close_one());
        assert!(gave_way(&modest), "the oldest idle one of the next");
        drop(modest);
        assert!(!places.close_one(), "nobody is disturbed");
        let more = [accounts[0], accounts[0]].map(of);
        let busy_too = more.each_ref().map(|open| open.connection.activity.begin());
        assert!(places.close_one());
        assert!(gave_way(&used), "they are many");
        drop((busy, busy_too, used, last, more));
        let all = places.all.lock();
        assert!(all.known.is_empty() && all.strangers.is_empty(), "{all:?}");
    }

    #[test]
    fn whoever_has_many_gives_way_before_a_few_who_have_not_said_who_they_are() {
        let places = Arc::new(Places::new(2));
        let hog: Vec<Open> = (0..3).map(|_| places.meet()).collect();
        for open in &hog {
            places.known(&open.connection, "hog");
        }
        let newcomer = places.meet();
        assert!(places.close_early());
        assert!(gave_way(&hog[0]) && !gave_way(&newcomer));
        let another = places.meet();
        assert!(places.close_one());
        assert!(gave_way(&newcomer) && !gave_way(&another), "so many strangers are a flood");
    }

    #[test]
    fn a_connection_whose_task_panics_has_ended_though_requests_hold_it() {
        let places = Arc::new(Places::new(1));
        let open = places.meet();
        let held = Arc::clone(&open.connection);
        let task = std::thread::spawn(move || {
            let _open = open;
            std::panic::resume_unwind(Box::new("as a task that fails"));
        });
        assert!(task.join().is_err());
        assert!(!places.close_one() && !held.close.is_cancelled(), "there is nobody who could give way");
    }

    #[test]
    fn a_connection_that_is_known_in_time_stays() {
        for _ in 0..2_000 {
            let places = Arc::new(Places::new(1));
            let open = places.meet();
            let barrier = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    barrier.wait();
                    places.known(&open.connection, "somebody");
                });
                barrier.wait();
                places.close_early();
            });
            assert_ne!(open.connection.is_known(), gave_way(&open));
        }
    }
}
