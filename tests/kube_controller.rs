//! A controller written with the crate `kube`, as a user of Wherry would write one: a derived definition, a finalizer,
//! server-side apply, owned objects, status, events. What it leaves in the cluster is what is asserted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event as ClusterEvent;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{self, Event as Finalized, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, Client, CustomResource, CustomResourceExt, KubeSchema, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{Wherry, eventually};

const FINALIZER: &str = "harbour.example.com/logbook";
const MANAGER: &str = "harbour";

/// When boats go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum Tide {
    #[default]
    High,
    Low,
}

/// What is wanted of a berth.
#[derive(Clone, Debug, Default, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "harbour.example.com",
    version = "v1",
    kind = "Berth",
    namespaced,
    status = "BerthStatus",
    shortname = "be",
    scale(spec_replicas_path = ".spec.boats", status_replicas_path = ".status.boats"),
    printcolumn(name = "Boats", type_ = "integer", json_path = ".spec.boats"),
    printcolumn(name = "Moored", type_ = "integer", json_path = ".status.boats"),
    selectable = ".spec.tide",
    validation = Rule::new("!has(oldSelf.spec.owner) || self.spec.owner == oldSelf.spec.owner").message("a berth is not sold")
)]
#[serde(rename_all = "camelCase")]
struct BerthSpec {
    #[x_kube(validation = Rule::new("self <= 5").message("a berth has five rings"))]
    boats: u32,
    #[serde(default)]
    tide: Tide,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_tide: Option<Tide>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct BerthStatus {
    boats: u32,
    observed_generation: i64,
}

/// What the controller works with.
struct Harbour {
    client: Client,
    recorder: Recorder,
}

async fn reconcile(berth: Arc<Berth>, harbour: Arc<Harbour>) -> Result<Action, finalizer::Error<kube::Error>> {
    let berths = Api::<Berth>::namespaced(harbour.client.clone(), &berth.namespace().unwrap());
    finalizer(&berths, FINALIZER, berth, |event| async {
        match event {
            Finalized::Apply(berth) => moor(&berth, &harbour).await?,
            Finalized::Cleanup(berth) => write_logbook(&berth, &harbour).await?,
        }
        Ok(Action::await_change())
    })
    .await
}

/// A ConfigMap per boat, and a status that says so.
async fn moor(berth: &Berth, harbour: &Harbour) -> Result<(), kube::Error> {
    let (namespace, name) = (berth.namespace().unwrap(), berth.name_any());
    let boats = Api::<ConfigMap>::namespaced(harbour.client.clone(), &namespace);
    let apply = PatchParams::apply(MANAGER).force();
    for number in 0..berth.spec.boats {
        let boat = ConfigMap {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{number}")),
                labels: Some([("berth".to_owned(), name.clone())].into()),
                owner_references: Some(vec![berth.controller_owner_ref(&()).unwrap()]),
                ..ObjectMeta::default()
            },
            data: Some([("tide".to_owned(), format!("{:?}", berth.spec.tide))].into()),
            ..ConfigMap::default()
        };
        boats.patch(&boat.name_any(), &apply, &Patch::Apply(&boat)).await?;
    }
    for boat in boats.list_metadata(&ListParams::default().labels(&format!("berth={name}"))).await? {
        let number = boat.name_any().rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
        if number.is_none_or(|number| number >= berth.spec.boats) {
            boats.delete(&boat.name_any(), &DeleteParams::default()).await?;
        }
    }
    let status = BerthStatus { boats: berth.spec.boats, observed_generation: berth.metadata.generation.unwrap() };
    if berth.status.as_ref() != Some(&status) {
        let note = Some(format!("{} boats are moored", status.boats));
        let moored = Event {
            type_: EventType::Normal,
            reason: "Moored".into(),
            note,
            action: "Mooring".into(),
            secondary: None,
        };
        harbour.recorder.publish(&moored, &berth.object_ref(&())).await?;
        let berths = Api::<Berth>::namespaced(harbour.client.clone(), &namespace);
        let patch = json!({"apiVersion": Berth::api_version(&()), "kind": Berth::kind(&()), "status": status});
        berths.patch_status(&name, &apply, &Patch::Apply(&patch)).await?;
    }
    Ok(())
}

/// What is left of a berth: a ConfigMap that nobody owns.
async fn write_logbook(berth: &Berth, harbour: &Harbour) -> Result<(), kube::Error> {
    let books = Api::<ConfigMap>::namespaced(harbour.client.clone(), &berth.namespace().unwrap());
    let metadata = ObjectMeta { name: Some(format!("{}-logbook", berth.name_any())), ..ObjectMeta::default() };
    match books.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

/// Runs until it is aborted.
async fn run(client: Client) {
    let recorder =
        Recorder::new(client.clone(), Reporter { controller: "harbour.example.com/master".into(), instance: None });
    let context = Arc::new(Harbour { client: client.clone(), recorder });
    Controller::new(Api::<Berth>::all(client.clone()), watcher::Config::default().streaming_lists())
        .owns(Api::<ConfigMap>::all(client), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(500)), context)
        .for_each(async |outcome| {
            if let Err(error) = outcome {
                eprintln!("the controller says: {error:?}");
            }
        })
        .await;
}

struct World {
    server: Wherry,
    api: support::Api,
    berths: Api<Berth>,
    boats: Api<ConfigMap>,
}

impl World {
    /// The names of a berth's boats, when there are so many and the status says so.
    #[track_caller]
    fn moored(&self, berth: &str, boats: u32) -> Vec<String> {
        eventually(&format!("{boats} boats of {berth} are moored"), || {
            let look = async {
                let berth = self.berths.get(berth).await.map_err(|e| e.to_string())?;
                let selector = ListParams::default().labels(&format!("berth={}", berth.name_any()));
                let found = self.boats.list(&selector).await.map_err(|e| e.to_string())?;
                let names: Vec<String> = found.items.iter().map(ResourceExt::name_any).collect();
                let wanted = BerthStatus { boats, observed_generation: berth.metadata.generation.unwrap() };
                let done = names.len() == boats as usize && berth.status.as_ref() == Some(&wanted);
                if done { Ok(names) } else { Err(format!("{names:?} {:?}", berth.status)) }
            };
            self.api.block_on(look)
        })
    }

    fn boat(&self, name: &str) -> ConfigMap {
        self.api.block_on(self.boats.get(name)).unwrap()
    }

    fn patch(&self, berth: &str, patch: &Value) -> Result<Berth, kube::Error> {
        let parameters = PatchParams { field_manager: Some("owner".into()), ..PatchParams::default() };
        self.api.block_on(self.berths.patch(berth, &parameters, &Patch::Merge(patch)))
    }
}

#[test]
fn a_controller_made_with_kube_keeps_the_cluster_as_its_objects_say() {
    let server = Wherry::start("harbour");
    let api = server.api();
    let client = api.client.clone();
    let (berths, boats) = (Api::default_namespaced(client.clone()), Api::default_namespaced(client.clone()));
    let mut world = World { server, api, berths, boats };
    the_derived_definition_is_accepted(&world);
    #[expect(clippy::async_yields_async, reason = "the controller goes on while the test looks")]
    let controller = world.api.block_on(async { tokio::spawn(run(client)) });
    claims!(&world;
        what_an_object_wants_is_made_and_owned,
        what_is_taken_away_comes_back_and_what_others_add_stays,
        a_change_is_followed_and_nothing_is_written_without_one,
        rules_of_the_derived_schema_are_kept,
        the_derived_kind_scales_and_is_selected,
        events_say_what_was_done,
        an_object_is_cleaned_up_before_it_goes,
    );
    world.server.restart();
    assert!(!controller.is_finished(), "the controller goes on");
    world.patch("lower", &json!({"spec": {"boats": 3}})).unwrap();
    world.moored("lower", 3);
    controller.abort();
}

fn the_derived_definition_is_accepted(world: &World) {
    world.api.block_on(async {
        let definitions = Api::<CustomResourceDefinition>::all(world.api.client.clone());
        let name = Berth::crd_name();
        definitions.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(Berth::crd())).await.unwrap();
        let established = await_condition(definitions, name, conditions::is_crd_established());
        tokio::time::timeout(support::PATIENCE, established).await.unwrap().unwrap();
    });
}

fn what_an_object_wants_is_made_and_owned(world: &World) {
    for (name, boats) in [("upper", 2), ("lower", 1)] {
        let berth = Berth::new(name, BerthSpec { boats, owner: Some("ann".into()), ..BerthSpec::default() });
        world.api.block_on(world.berths.create(&PostParams::default(), &berth)).unwrap();
    }
    assert_eq!(world.moored("upper", 2), ["upper-0", "upper-1"]);
    let berth = world.api.block_on(world.berths.get("upper")).unwrap();
    assert_eq!(berth.finalizers(), [FINALIZER]);
    let boat = world.boat("upper-1");
    let owner = &boat.owner_references()[0];
    assert_eq!((Some(&owner.uid), owner.kind.as_str(), owner.controller), (berth.uid().as_ref(), "Berth", Some(true)));
    let entry = &boat.managed_fields()[0];
    assert_eq!((entry.manager.as_deref(), entry.operation.as_deref()), (Some(MANAGER), Some("Apply")));
    assert_eq!(boat.data.unwrap()["tide"], "High", "the schema's default is applied");
    let status = berth.managed_fields().iter().find(|entry| entry.subresource.as_deref() == Some("status")).unwrap();
    assert_eq!(status.manager.as_deref(), Some(MANAGER));
}

fn what_is_taken_away_comes_back_and_what_others_add_stays(world: &World) {
    let before = world.boat("upper-0").uid();
    world.api.block_on(world.boats.delete("upper-0", &DeleteParams::default())).unwrap();
    eventually("the boat is back", || match world.api.block_on(world.boats.get_opt("upper-0")).unwrap() {
        Some(boat) if boat.uid() != before => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let other = json!({"data": {"tide": "Ebb", "cargo": "rope"}});
    let parameters = PatchParams { field_manager: Some("stevedore".into()), ..PatchParams::default() };
    world.api.block_on(world.boats.patch("upper-0", &parameters, &Patch::Merge(other))).unwrap();
    eventually("the controller's own field is as it wants, the other stays", || {
        let data = world.boat("upper-0").data.unwrap();
        if data["tide"] == "High" && data["cargo"] == "rope" { Ok(()) } else { Err(format!("{data:?}")) }
    });
}

fn a_change_is_followed_and_nothing_is_written_without_one(world: &World) {
    world.patch("upper", &json!({"spec": {"boats": 4, "tide": "Low"}})).unwrap();
    assert_eq!(world.moored("upper", 4).len(), 4);
    eventually("all boats know the tide", || {
        let boats = world.api.block_on(world.boats.list(&ListParams::default().labels("berth=upper"))).unwrap();
        let tides: Vec<String> = boats.iter().map(|boat| boat.data.clone().unwrap()["tide"].clone()).collect();
        if tides.iter().all(|tide| tide == "Low") { Ok(()) } else { Err(format!("{tides:?}")) }
    });
    world.patch("upper", &json!({"spec": {"boats": 1}})).unwrap();
    assert_eq!(world.moored("upper", 1), ["upper-0"]);
    let before = world.boat("upper-0").resource_version();
    // A reconciliation that finds everything as it should be.
    world.patch("upper", &json!({"metadata": {"annotations": {"seen": "yes"}}})).unwrap();
    world.patch("lower", &json!({"spec": {"boats": 2}})).unwrap();
    world.moored("lower", 2);
    assert_eq!(world.boat("upper-0").resource_version(), before);
}

fn rules_of_the_derived_schema_are_kept(world: &World) {
    for (patch, said) in [
        (json!({"spec": {"boats": 6}}), "a berth has five rings"),
        (json!({"spec": {"owner": "bob"}}), "a berth is not sold"),
        (json!({"spec": {"boats": -1}}), "spec.boats in body should be greater than or equal to 0"),
        (json!({"spec": {"tide": "Spring"}}), r#"supported values: "High", "Low""#),
    ] {
        match world.patch("upper", &patch) {
            Err(kube::Error::Api(status)) => {
                assert!(status.is_invalid() && status.message.contains(said), "{said}: {status:?}");
            }
            other => panic!("{patch} should be refused: {other:?}"),
        }
    }
}

fn the_derived_kind_scales_and_is_selected(world: &World) {
    let scale = json!({"spec": {"replicas": 2}});
    let scaled = world.api.block_on(world.berths.patch_scale("upper", &PatchParams::default(), &Patch::Merge(scale)));
    assert_eq!(scaled.unwrap().spec.unwrap().replicas, Some(2));
    world.moored("upper", 2);
    let low = ListParams::default().fields("spec.tide=Low");
    let names: Vec<String> =
        world.api.block_on(world.berths.list(&low)).unwrap().iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["upper"]);
    let resource = ApiResource::erase::<Berth>(&());
    let untyped = Api::<DynamicObject>::default_namespaced_with(world.api.client.clone(), &resource);
    assert_eq!(world.api.block_on(untyped.get("upper")).unwrap().data["spec"]["boats"], 2);
}

fn events_say_what_was_done(world: &World) {
    let events = Api::<ClusterEvent>::default_namespaced(world.api.client.clone());
    let found = world.api.block_on(events.list(&ListParams::default().fields("reason=Moored"))).unwrap();
    let uid = world.api.block_on(world.berths.get("upper")).unwrap().uid();
    let about: Vec<&ClusterEvent> =
        found.iter().filter(|e| e.regarding.as_ref().is_some_and(|r| r.uid == uid)).collect();
    assert!(about.iter().any(|event| event.note.as_deref() == Some("2 boats are moored")), "{about:#?}");
    assert!(about.iter().any(|event| event.series.as_ref().is_some_and(|series| series.count > 1)), "{about:#?}");
}

fn an_object_is_cleaned_up_before_it_goes(world: &World) {
    let uid = world.api.block_on(world.berths.get("upper")).unwrap().uid().unwrap();
    world.api.block_on(async {
        world.berths.delete("upper", &DeleteParams::default()).await.unwrap();
        let gone = await_condition(world.berths.clone(), "upper", conditions::is_deleted(&uid));
        tokio::time::timeout(support::PATIENCE, gone).await.unwrap().unwrap();
    });
    world.boat("upper-logbook");
    eventually("its boats are collected", || {
        let left = world.api.block_on(world.boats.list(&ListParams::default().labels("berth=upper"))).unwrap();
        if left.items.is_empty() { Ok(()) } else { Err(format!("{} are left", left.items.len())) }
    });
    world.moored("lower", 2);
}
