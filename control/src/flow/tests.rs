//! Seats over the real cache and store: what the objects say holds for the next request.

use std::collections::BTreeMap;

use futures::FutureExt;
use wherry_api::registry::Registry;

use super::*;
use crate::auth::UserInfo;
use crate::store::Store;
use crate::store::redb::RedbStore;

async fn flow(total: u32) -> Flow {
    let store: Arc<dyn Store> = Arc::new(RedbStore::in_memory().unwrap());
    let cache = Cache::start(store, &Registry::builtin()).await.unwrap();
    Flow::new(cache, total, Metrics::default())
}

fn pods(user: &UserInfo) -> Asked<'_> {
    let target = Target::Resource { group: "", resource: "pods", subresource: "", namespace: "default" };
    Asked { user, verb: "list", target }
}

#[tokio::test]
async fn without_any_object_the_mandatory_ones_hold() {
    let flow = flow(2).await;
    let (admin, jane) = (UserInfo::admin(), UserInfo::authenticated("jane", &[]));
    let exempt = flow.classify(&pods(&admin)).unwrap();
    assert_eq!(exempt.0.name, "exempt");
    let mut seats = Vec::new();
    for _ in 0..10 {
        seats.push(flow.enter(&exempt, 1).await.unwrap());
    }
    let class = flow.classify(&pods(&jane)).unwrap();
    assert_eq!(class.0.name, "catch-all");
    let first = flow.enter(&class, 1).await.unwrap();
    let second = flow.enter(&class, 1).await.unwrap();
    assert!(flow.enter(&class, 1).await.is_none());
    drop(first);
    let third = flow.enter(&class, 1).await;
    assert!(third.is_some());
    drop((second, third));
}

/// The defaults without a store.
fn configured(flow: &Flow) {
    let mut sources = flow.0.sources.lock();
    for object in defaults::all() {
        let name = wherry_api::object::name(&object).to_owned();
        if wherry_api::object::kind(&object) == defaults::SCHEMA {
            sources.schemas.insert(name, serde_json::from_value(object).unwrap());
        } else {
            sources.levels.insert(name, serde_json::from_value(object).unwrap());
        }
    }
    let Sources { schemas, levels, follow_schemas, follow_levels } = &mut *sources;
    // The empty store has been looked at.
    flow.0.cache.since(follow_schemas);
    flow.0.cache.since(follow_levels);
    let config = Config::new(flow.0.total, schemas, levels, &Config::default(), &flow.0.metrics);
    *flow.0.config.write() = Arc::new(config);
    flow.0.shown.store(flow.0.cache.revision(), Ordering::Release);
}

#[tokio::test]
async fn the_defaults_put_everybody_into_kubernetes_levels() {
    let flow = flow(100).await;
    configured(&flow);
    let lease = Target::Resource {
        group: "coordination.k8s.io",
        resource: "leases",
        subresource: "",
        namespace: "kube-node-lease",
    };
    let pods = Target::Resource { group: "", resource: "pods", subresource: "", namespace: "default" };
    let robot = |namespace: &str| {
        UserInfo::authenticated(format!("system:serviceaccount:{namespace}:robot"), &["system:serviceaccounts"])
    };
    for (user, verb, target, schema, level) in [
        (UserInfo::admin(), "list", pods, "exempt", "exempt"),
        (UserInfo::anonymous(), "get", Target::Path("/livez"), "probes", "exempt"),
        (UserInfo::anonymous(), "get", Target::Path("/version"), "global-default", "global-default"),
        (UserInfo::controller_manager(), "update", lease, "system-leader-election", "leader-election"),
        (UserInfo::controller_manager(), "list", pods, "kube-controller-manager", "workload-high"),
        (UserInfo::scheduler(), "list", pods, "kube-scheduler", "workload-high"),
        (UserInfo::node("n"), "update", lease, "system-node-high", "node-high"),
        (UserInfo::node("n"), "list", pods, "system-nodes", "system"),
        (robot("kube-system"), "list", pods, "kube-system-service-accounts", "workload-high"),
        (robot("web"), "list", pods, "service-accounts", "workload-low"),
        (UserInfo::authenticated("jane", &[]), "list", pods, "global-default", "global-default"),
    ] {
        let class = flow.classify(&Asked { user: &user, verb, target }).unwrap();
        assert_eq!((class.0.name.as_str(), class.0.lane.name.as_str()), (schema, level), "{user:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_greedy_user_does_not_starve_another() {
    let flow = flow(20).await;
    configured(&flow);
    let (greedy, modest) = (UserInfo::authenticated("greedy", &[]), UserInfo::authenticated("modest", &[]));
    let class = flow.classify(&pods(&greedy)).unwrap();
    assert_eq!(class.0.name, "global-default");
    let served = Arc::new(Mutex::new(BTreeMap::<&str, usize>::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let work = |user: &'static str, info: UserInfo| {
        let (flow, class, served) = (flow.clone(), flow.classify(&pods(&info)).unwrap(), Arc::clone(&served));
        async move {
            let seat = flow.enter(&class, 1).await;
            if seat.is_some() {
                sleep(Duration::from_millis(50)).await;
                *served.lock().entry(user).or_default() += 1;
            }
            seat.is_some()
        }
    };
    for _ in 0..250 {
        tasks.spawn(work("greedy", greedy.clone()));
    }
    tokio::task::yield_now().await;
    for _ in 0..5 {
        let began = Instant::now();
        assert!(work("modest", modest.clone()).await, "the modest one is always served");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    let done = served.lock().clone();
    assert!(done["greedy"] < 250, "{done:?}");
    while tasks.join_next().await.is_some() {}
    let level = class.0.lane.level.as_ref().unwrap().lock().waiting();
    assert_eq!(level, 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_or_goes_away_leaves_no_trace() {
    let flow = flow(20).await;
    configured(&flow);
    let jane = UserInfo::authenticated("jane", &[]);
    let class = flow.classify(&pods(&jane)).unwrap();
    let mut seats = Vec::new();
    // As many as can be had, with what others lend: the last one waits until it is told to go.
    while let Some(seat) = flow.enter(&class, 1).await {
        seats.push(seat);
    }
    assert_eq!(class.0.lane.level.as_ref().unwrap().lock().waiting(), 0);
    let mut gone = Box::pin(flow.enter(&class, 1));
    assert!(gone.as_mut().now_or_never().is_none());
    drop(gone);
    assert_eq!(class.0.lane.level.as_ref().unwrap().lock().waiting(), 0);
    drop(seats);
    assert!(flow.enter(&class, 1).await.is_some());
}

#[tokio::test]
async fn a_level_borrows_what_others_do_not_use_and_gives_it_back() {
    let flow = flow(245).await;
    configured(&flow);
    let jane = UserInfo::authenticated("jane", &[]);
    let class = flow.classify(&pods(&jane)).unwrap();
    let nominal = class.0.lane.level.as_ref().unwrap().lock().seats();
    let mut seats = Vec::new();
    for _ in 0..nominal * 2 {
        let seat = tokio::time::timeout(Duration::from_secs(5), flow.enter(&class, 1)).await.unwrap();
        seats.push(seat.unwrap());
    }
    let robot = UserInfo::authenticated("system:serviceaccount:web:robot", &["system:serviceaccounts"]);
    let other = flow.classify(&pods(&robot)).unwrap();
    let mut others = Vec::new();
    for _ in 0..90 {
        let entered = flow.enter(&other, 1);
        others.push(tokio::time::timeout(Duration::from_secs(5), entered).await.unwrap().unwrap());
    }
}
