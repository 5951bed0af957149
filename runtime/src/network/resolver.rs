//! The host's resolver, for names outside the cluster.
//!
//! A lookup takes as long as name servers take, and nobody can end it. So each has a thread to itself, apart from those that
//! read guests' files; a pod has few at once, and a lookup counts until it ends, whatever became of the guest that asked. A
//! few threads that are done wait for the next name.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns_lookup::LookupErrorKind as Failure;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::Denied;
use crate::shares::Shares;

/// Lookups of one pod at once, of a namespace's pods, and of all; others wait.
const PER_POD: usize = 4;
const PER_NAMESPACE: usize = TOGETHER / 2;
const TOGETHER: usize = 256;

/// How long a guest waits for an answer: longer than resolvers commonly do, who try twice for 5 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Threads that wait for the next name, and for how long.
const WAITING: usize = 8;
const LINGER: Duration = Duration::from_secs(10);

type Found = Result<Vec<IpAddr>, Failure>;
type LookUp = dyn Fn(&str) -> Found + Send + Sync;

/// Looks names up. Dropping it ends the threads that look nothing up.
pub(super) struct Resolver {
    look_up: Arc<LookUp>,
    together: Arc<Semaphore>,
    /// Of the namespaces that have a pod.
    namespaces: Shares,
    threads: Arc<Threads>,
}

/// The lookups that a pod may begin now, and those that its namespace may.
#[derive(Clone, Debug)]
pub(super) struct Lookups {
    pod: Arc<Semaphore>,
    namespace: Arc<Semaphore>,
}

type Job = Box<dyn FnOnce() + Send>;

/// As many as there are lookups, and [`WAITING`] more.
#[derive(Default)]
struct Threads {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// For the threads that wait, which are no fewer.
    jobs: VecDeque<Job>,
    waiting: usize,
    closed: bool,
}

impl Threads {
    /// Does it at once, on a thread that waits or on a new one.
    fn run(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.waiting > state.jobs.len() {
            state.jobs.push_back(job);
            self.changed.notify_one();
            return Ok(());
        }
        drop(state);
        let threads = Arc::clone(self);
        std::thread::Builder::new().name("names".into()).spawn(move || threads.work(job)).map(drop)
    }

    fn work(&self, mut job: Job) {
        loop {
            job();
            let Some(next) = self.next() else { return };
            job = next;
        }
    }

    fn next(&self) -> Option<Job> {
        let (mut state, end) = (self.state.lock(), Instant::now() + LINGER);
        if state.waiting >= WAITING {
            return None;
        }
        state.waiting += 1;
        let nothing = |state: &mut State| state.jobs.is_empty() && !state.closed;
        self.changed.wait_while_until(&mut state, nothing, end);
        state.waiting -= 1;
        state.jobs.pop_front()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.threads.state.lock().closed = true;
        self.threads.changed.notify_all();
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("free", &self.together.available_permits()).finish_non_exhaustive()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::with(|name| dns_lookup::lookup_host(name).map(Iterator::collect).map_err(|error| error.kind()))
    }
}

impl Resolver {
    pub(super) fn with(look_up: impl Fn(&str) -> Found + Send + Sync + 'static) -> Self {
        let together = Arc::new(Semaphore::new(TOGETHER));
        Self { look_up: Arc::new(look_up), together, namespaces: Shares::default(), threads: Arc::default() }
    }

    /// For a pod of this namespace.
    pub(super) fn lookups(&self, namespace: &str) -> Lookups {
        Lookups { pod: Arc::new(Semaphore::new(PER_POD)), namespace: self.namespaces.of(namespace, PER_NAMESPACE) }
    }

    /// The addresses of a name, in one of the pod's places.
    pub(super) async fn addresses(&self, lookups: &Lookups, name: &str) -> Result<Vec<IpAddr>, Denied> {
        let (look_up, lookups, together) = (Arc::clone(&self.look_up), lookups.clone(), Arc::clone(&self.together));
        let (threads, asked) = (Arc::clone(&self.threads), name.to_owned());
        // A task: a guest that does not poll keeps nobody from a place that it was given.
        let answer = AbortOnDropHandle::new(tokio::spawn(tokio::time::timeout(PATIENCE, async move {
            let Lookups { pod, namespace } = lookups;
            let own = (pod.acquire_owned().await.ok()?, namespace.acquire_owned().await.ok()?);
            let places = (own, together.acquire_owned().await.ok()?);
            let (tell, answer) = oneshot::channel();
            let begun = threads.run(Box::new(move || {
                let found = look_up(&asked);
                drop(places);
                let _ = tell.send(found);
            }));
            begun.ok()?;
            answer.await.ok()
        })));
        let found = match answer.await {
            Ok(Ok(Some(found))) => found,
            _ => Err(Failure::Again),
        };
        found.map_err(|failure| match failure {
            // Nobody could be asked, or nobody could say: the name may exist.
            Failure::Again | Failure::Fail | Failure::Memory | Failure::System => {
                Denied::NoAnswer(format!("no name server answered for {name}"))
            }
            _ => Denied::NoSuchName(format!("{name} cannot be resolved")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::network::local::testing::Lone;

    /// A name server that answers for "slow" when it is told to.
    #[derive(Default)]
    struct Server {
        answers: Mutex<bool>,
        told: Condvar,
        asked: AtomicUsize,
    }

    impl Server {
        fn answer(&self, name: &str) -> Found {
            assert_eq!(std::thread::current().name(), Some("names"));
            self.asked.fetch_add(1, Ordering::SeqCst);
            if name.starts_with("slow") {
                self.told.wait_while(&mut self.answers.lock(), |answers| !*answers);
            }
            match name {
                "busy.example" => Err(Failure::Again),
                "none.example" => Err(Failure::NoName),
                _ => Ok(vec!["192.0.2.1".parse().unwrap()]),
            }
        }

        fn begin(&self) {
            *self.answers.lock() = true;
            self.told.notify_all();
        }
    }

    fn network() -> (Arc<Server>, Lone) {
        let server = Arc::new(Server::default());
        let asked = Arc::clone(&server);
        (server, Lone::with_resolver(Resolver::with(move |name| asked.answer(name))))
    }

    #[tokio::test]
    async fn slow_lookups_hold_up_their_own_pod_alone_also_when_nobody_waits_for_them() {
        let (server, network) = network();
        let (pod, other) = (network.pod("slow"), network.pod("other"));
        let ask = |name: &'static str| {
            let pod = Arc::clone(&pod);
            tokio::spawn(async move { pod.resolve(name).await })
        };
        let slow: Vec<_> = (0..PER_POD * 3).map(|_| ask("slow.example")).collect();
        let all = async {
            while server.asked.load(Ordering::SeqCst) < PER_POD {
                tokio::task::yield_now().await;
            }
            slow.iter().for_each(tokio::task::JoinHandle::abort);
            for one in slow {
                assert!(one.await.unwrap_err().is_cancelled());
            }
            let waits = ask("quick.example");
            assert_eq!(other.resolve("quick.example").await.unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
            assert!(!waits.is_finished());
            server.begin();
            assert_eq!(waits.await.unwrap().unwrap().len(), 1);
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        assert_eq!(server.asked.load(Ordering::SeqCst), PER_POD + 2, "nobody is asked for whom nobody waits");
    }

    #[tokio::test]
    async fn a_namespace_whose_names_are_never_answered_leaves_others_half_of_the_lookups() {
        let (server, network) = network();
        let pods: Vec<_> = (0..TOGETHER / PER_POD).map(|at| network.pod(&format!("slow-{at}"))).collect();
        let other = network.pod_in("other", "asks");
        let slow: Vec<_> = pods
            .iter()
            .cycle()
            .take(TOGETHER)
            .map(|pod| {
                let pod = Arc::clone(pod);
                tokio::spawn(async move { pod.resolve("slow.example").await })
            })
            .collect();
        let all = async {
            while server.asked.load(Ordering::SeqCst) < PER_NAMESPACE {
                tokio::task::yield_now().await;
            }
            assert_eq!(other.resolve("quick.example").await.unwrap().len(), 1);
            assert_eq!(server.asked.load(Ordering::SeqCst), PER_NAMESPACE + 1);
            server.begin();
            for one in slow {
                one.await.unwrap().unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_is_told_when_no_name_server_answers() {
        let (server, network) = network();
        let pod = network.pod("waits");
        assert!(matches!(pod.resolve("slow.example").await, Err(Denied::NoAnswer(_))));
        server.begin();
    }

    #[tokio::test]
    async fn a_guest_is_told_whether_a_name_does_not_exist_or_nobody_could_say() {
        let (_server, network) = network();
        let pod = network.pod("asks");
        assert!(matches!(pod.resolve("busy.example").await, Err(Denied::NoAnswer(_))));
        assert!(matches!(pod.resolve("none.example").await, Err(Denied::NoSuchName(_))));
    }

    #[tokio::test]
    async fn the_next_name_is_looked_up_by_a_thread_that_is_there_and_which_ends_with_the_resolver() {
        let (told, asked) = std::sync::mpsc::channel();
        let told = Mutex::new(told);
        let resolver = Resolver::with(move |_| {
            told.lock().send(std::thread::current().id()).unwrap();
            Ok(Vec::new())
        });
        let (pod, threads) = (resolver.lookups("default"), Arc::downgrade(&resolver.threads));
        let all = async {
            for _ in 0..3 {
                resolver.addresses(&pod, "name.example").await.unwrap();
                while resolver.threads.state.lock().waiting == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let by: Vec<_> = asked.try_iter().collect();
            assert_eq!(by, [by[0]; 3]);
            drop(resolver);
            while threads.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    }

    #[tokio::test]
    async fn the_host_is_asked() {
        let resolver = Resolver::default();
        let pod = resolver.lookups("default");
        assert_eq!(resolver.addresses(&pod, "192.0.2.7").await.unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(matches!(resolver.addresses(&pod, "no\0name").await, Err(Denied::NoSuchName(_))));
    }
}
