"""What programs do with the official Python client, claim by claim, against the cluster of $KUBECONFIG.

Started by tests/clients.rs with the image of a pod that logs in $IMAGE. A line on standard output per claim; the exit code
says whether all held. When it prints `restart the server`, the test does that, and creates the ConfigMap `after-restart`.
"""

import json
import os
import sys
import tempfile
import threading
import time
import traceback
from datetime import datetime, timedelta, timezone

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

NAMESPACE = "python"
GROUP = "clients.example.com"
PATIENCE = 50
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


def eventually(what, look):
    """Asks until the answer is truthy."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


def refused(code, reason, call):
    """The message of the Status that a call is refused with."""
    try:
        call()
    except ApiException as error:
        status = json.loads(error.body)
        assert (error.status, status["kind"], status["reason"]) == (code, "Status", reason), error
        return status["message"]
    raise AssertionError(f"should be refused with {code} {reason}")


def config_map(name, **data):
    return client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name=name, labels={"made-by": "python"}), data=data or {"a": "1"}
    )


def objects_are_created_read_replaced_and_deleted():
    core = client.CoreV1Api()
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    made = core.create_namespaced_config_map(NAMESPACE, config_map("first"))
    assert made.metadata.uid and made.metadata.resource_version
    age = datetime.now(timezone.utc) - made.metadata.creation_timestamp
    assert abs(age) < timedelta(minutes=1), age
    stale = core.read_namespaced_config_map("first", NAMESPACE)
    made.data["a"] = "2"
    assert core.replace_namespaced_config_map("first", NAMESPACE, made).data == {"a": "2"}
    said = refused(409, "Conflict", lambda: core.replace_namespaced_config_map("first", NAMESPACE, stale))
    assert "the object has been modified" in said, said
    refused(409, "AlreadyExists", lambda: core.create_namespaced_config_map(NAMESPACE, config_map("first")))
    said = refused(422, "Invalid", lambda: core.create_namespaced_config_map(NAMESPACE, config_map("Not_a_name")))
    assert "metadata.name" in said, said
    tried = core.create_namespaced_config_map(NAMESPACE, config_map("tried"), dry_run="All")
    assert tried.metadata.uid
    refused(404, "NotFound", lambda: core.read_namespaced_config_map("tried", NAMESPACE))
    gone = core.delete_namespaced_config_map("first", NAMESPACE)
    assert (gone["status"], gone["details"]["uid"]) == ("Success", made.metadata.uid), gone
    refused(404, "NotFound", lambda: core.delete_namespaced_config_map("first", NAMESPACE))


def lists_come_in_pages_and_by_selectors():
    core = client.CoreV1Api()
    for number in range(5):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{number}"))
    selector = {"label_selector": "made-by=python"}
    names, token, pages = [], None, 0
    while pages == 0 or token:
        page = core.list_namespaced_config_map(NAMESPACE, limit=2, _continue=token, **selector)
        names += [item.metadata.name for item in page.items]
        token, pages = page.metadata._continue, pages + 1
    assert (names, pages) == ([f"page-{n}" for n in range(5)], 3), (names, pages)
    one = core.list_config_map_for_all_namespaces(field_selector="metadata.name=page-3")
    assert [(item.metadata.namespace, item.metadata.name) for item in one.items] == [(NAMESPACE, "page-3")]
    core.delete_collection_namespaced_config_map(NAMESPACE, **selector)
    assert core.list_namespaced_config_map(NAMESPACE, **selector).items == []


def deployment(name, image):
    container = client.V1Container(
        name="main", image=image, ports=[client.V1ContainerPort(name="http", container_port=8080)]
    )
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": name}), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(
        replicas=0, selector=client.V1LabelSelector(match_labels={"app": name}), template=template
    )
    return client.V1Deployment(metadata=client.V1ObjectMeta(name=name), spec=spec)


def every_kind_of_patch_is_understood():
    apps = client.AppsV1Api()
    apps.create_namespaced_deployment(NAMESPACE, deployment("patched", "example.com/app:1"))

    def patch(body, kind, **more):
        return apps.patch_namespaced_deployment("patched", NAMESPACE, body, _content_type=kind, **more)

    containers = {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}
    strategic = patch({"spec": {"template": {"spec": containers}}}, STRATEGIC)
    main = strategic.spec.template.spec.containers[0]
    assert (main.image, main.env[0].value, main.ports[0].container_port) == ("example.com/app:1", "1", 8080), main
    merged = patch({"metadata": {"annotations": {"x": "y"}}, "spec": {"paused": True}}, MERGE)
    assert (merged.metadata.annotations["x"], merged.spec.paused) == ("y", True)
    operations = [
        {"op": "test", "path": "/spec/paused", "value": True},
        {"op": "remove", "path": "/spec/paused"},
        {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "B", "value": "2"}},
    ]
    done = patch(operations, JSON_PATCH)
    assert [env.name for env in done.spec.template.spec.containers[0].env] == ["A", "B"]
    assert done.spec.paused is None
    failing = [{"op": "test", "path": "/spec/replicas", "value": 7}]
    refused(422, "Invalid", lambda: patch(failing, JSON_PATCH))
    wanted = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "patched"}, "spec": {"replicas": 0}}
    applied = patch(wanted, APPLY, field_manager="python")
    entry = [e for e in applied.metadata.managed_fields if e.manager == "python"][0]
    assert (entry.operation, entry.fields_v1) == ("Apply", {"f:spec": {"f:replicas": {}}}), entry
    scaled = apps.patch_namespaced_deployment_scale(
        "patched", NAMESPACE, {"spec": {"replicas": 2}}, _content_type=MERGE, field_manager="scaler"
    )
    assert scaled.spec.replicas == 2 and scaled.status.selector == "app=patched", scaled
    said = refused(409, "Conflict", lambda: patch(wanted, APPLY, field_manager="python"))
    assert '"scaler"' in said and ".spec.replicas" in said, said
    forced = patch(wanted, APPLY, field_manager="python", force=True)
    assert forced.spec.replicas == 0
    apps.delete_namespaced_deployment("patched", NAMESPACE, propagation_policy="Foreground")
    eventually(
        "the deployment is gone",
        lambda: not apps.list_namespaced_deployment(NAMESPACE, field_selector="metadata.name=patched").items,
    )


def the_server_says_who_one_is_and_what_one_may():
    assert client.VersionApi().get_code().git_version.startswith("v1.36")
    me = client.AuthenticationV1Api().create_self_subject_review({}).status.user_info
    assert "system:masters" in me.groups, me
    attributes = client.V1ResourceAttributes(namespace=NAMESPACE, verb="create", resource="pods")
    spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
    review = client.V1SelfSubjectAccessReview(spec=spec)
    assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed
    account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="robot"))
    client.CoreV1Api().create_namespaced_service_account(NAMESPACE, account)
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = client.CoreV1Api().create_namespaced_service_account_token("robot", NAMESPACE, request).status.token
    robot = client.Configuration.get_default_copy()
    robot.cert_file = robot.key_file = None
    robot.api_key = {"authorization": f"Bearer {token}", "BearerToken": f"Bearer {token}"}
    pods = client.CoreV1Api(client.ApiClient(robot))
    said = refused(403, "Forbidden", lambda: pods.list_namespaced_pod(NAMESPACE))
    assert f'"system:serviceaccount:{NAMESPACE}:robot"' in said, said


def a_pod_runs_and_its_log_is_followed():
    core = client.CoreV1Api()
    environment = [client.V1EnvVar(name="LINES", value="3"), client.V1EnvVar(name="GREETING", value="ahoy")]
    container = client.V1Container(name="main", image=os.environ["IMAGE"], env=environment)
    spec = client.V1PodSpec(restart_policy="Never", containers=[container])
    metadata = client.V1ObjectMeta(name="logger")
    core.create_namespaced_pod(NAMESPACE, client.V1Pod(metadata=metadata, spec=spec))
    pods = watch.Watch()
    for event in pods.stream(core.list_namespaced_pod, NAMESPACE, timeout_seconds=PATIENCE):
        if event["object"].status.phase in ("Succeeded", "Failed"):
            pods.stop()
    ended = core.read_namespaced_pod_status("logger", NAMESPACE).status
    assert (ended.phase, ended.container_statuses[0].state.terminated.exit_code) == ("Succeeded", 0), ended
    lines = list(watch.Watch().stream(core.read_namespaced_pod_log, name="logger", namespace=NAMESPACE))
    assert len(lines) == 4 and "ahoy" in lines[0] and lines[3] == "done", lines
    assert core.read_namespaced_pod_log("logger", NAMESPACE, tail_lines=1) == "done\n"
    deleted = core.delete_namespaced_pod("logger", NAMESPACE, grace_period_seconds=0)
    assert deleted is not None


def definition():
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {
                "hull": {"type": "string", "default": "wood"},
                "masts": {"type": "integer", "minimum": 1},
                "crew": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                         "items": {"type": "object", "required": ["name"], "properties": {
                             "name": {"type": "string"}, "rank": {"type": "string"}}}},
            }},
            "status": {"type": "object", "properties": {"afloat": {"type": "boolean"}}},
        },
    }
    version = client.V1CustomResourceDefinitionVersion(
        name="v1", served=True, storage=True,
        schema=client.V1CustomResourceValidation(open_apiv3_schema=schema),
        subresources=client.V1CustomResourceSubresources(status={}),
    )
    names = client.V1CustomResourceDefinitionNames(plural="ships", singular="ship", kind="Ship", short_names=["sh"])
    spec = client.V1CustomResourceDefinitionSpec(group=GROUP, scope="Namespaced", names=names, versions=[version])
    metadata = client.V1ObjectMeta(name=f"ships.{GROUP}")
    return client.V1CustomResourceDefinition(metadata=metadata, spec=spec)


def a_kind_is_defined_and_its_objects_are_custom():
    definitions = client.ApiextensionsV1Api()
    definitions.create_custom_resource_definition(definition())
    established = watch.Watch()
    selector = f"metadata.name=ships.{GROUP}"
    for event in established.stream(
        definitions.list_custom_resource_definition, field_selector=selector, timeout_seconds=PATIENCE
    ):
        conditions = event["object"].status and event["object"].status.conditions or []
        if any(c.type == "Established" and c.status == "True" for c in conditions):
            established.stop()
    custom = client.CustomObjectsApi()
    where = (GROUP, "v1", NAMESPACE, "ships")
    ship = {"apiVersion": f"{GROUP}/v1", "kind": "Ship", "metadata": {"name": "dory"}, "spec": {"masts": 1}}
    made = custom.create_namespaced_custom_object(*where, ship)
    assert made["spec"] == {"masts": 1, "hull": "wood"}, made
    changed = custom.patch_namespaced_custom_object(*where, "dory", {"spec": {"masts": 2}}, _content_type=MERGE)
    assert changed["metadata"]["generation"] == 2
    afloat = {"status": {"afloat": True}, "spec": {"masts": 9}}
    status = custom.patch_namespaced_custom_object_status(*where, "dory", afloat, _content_type=MERGE)
    assert (status["status"], status["spec"]["masts"]) == ({"afloat": True}, 2), status
    bad = {**ship, "metadata": {"name": "bad"}, "spec": {"masts": 0}}
    said = refused(422, "Invalid", lambda: custom.create_namespaced_custom_object(*where, bad))
    assert "spec.masts" in said, said
    refused(
        415, "UnsupportedMediaType",
        lambda: custom.patch_namespaced_custom_object(*where, "dory", {"spec": {}}, _content_type=STRATEGIC),
    )
    assert [item["metadata"]["name"] for item in custom.list_namespaced_custom_object(*where)["items"]] == ["dory"]
    custom.delete_namespaced_custom_object(*where, "dory")
    refused(404, "NotFound", lambda: custom.get_namespaced_custom_object(*where, "dory"))


def the_dynamic_client_finds_kinds_and_applies():
    folder = tempfile.mkdtemp()
    found = dynamic.DynamicClient(client.ApiClient(), cache_file=os.path.join(folder, "discovery.json"))
    ships = found.resources.get(api_version=f"{GROUP}/v1", kind="Ship")
    assert ships.namespaced and "patch" in ships.verbs and ships.short_names == ["sh"], ships
    assert "status" in ships.subresources, ships.subresources
    every = found.resources.search(kind="Deployment")
    assert any(resource.group_version == "apps/v1" for resource in every), every

    def wanted(*crew):
        crew = [{"name": name, "rank": rank} for name, rank in crew]
        return {"apiVersion": f"{GROUP}/v1", "kind": "Ship", "metadata": {"name": "wherry"}, "spec": {"crew": crew}}

    def apply(manager, *crew, **more):
        body = wanted(*crew)
        return ships.server_side_apply(body=body, namespace=NAMESPACE, field_manager=manager, **more)

    apply("one", ("ann", "captain"), ("bob", "cook"))
    both = apply("two", ("cid", "mate"))
    assert sorted(member.name for member in both.spec.crew) == ["ann", "bob", "cid"], both
    less = apply("one", ("ann", "captain"))
    assert sorted(member.name for member in less.spec.crew) == ["ann", "cid"], less
    said = refused(409, "Conflict", lambda: apply("two", ("ann", "boy")))
    assert '"one"' in said and 'crew[name="ann"].rank' in said, said
    assert [m.rank for m in apply("two", ("ann", "boy"), force_conflicts=True).spec.crew if m.name == "ann"] == ["boy"]
    before = ships.get(name="wherry", namespace=NAMESPACE).metadata.resourceVersion
    patched = ships.patch(
        body={"spec": {"masts": 3}}, name="wherry", namespace=NAMESPACE, content_type=MERGE, field_manager="three"
    )
    assert patched.spec.masts == 3
    assert ships.get(name="wherry", namespace=NAMESPACE).metadata.uid == patched.metadata.uid
    assert [item.metadata.name for item in ships.get(namespace=NAMESPACE).items] == ["wherry"]
    seen = []
    for event in ships.watch(namespace=NAMESPACE, resource_version=before, timeout=PATIENCE):
        seen.append((event["type"], event["object"].spec.masts))
        if event["type"] == "DELETED":
            break
        ships.delete(name="wherry", namespace=NAMESPACE)
    assert seen == [("MODIFIED", 3), ("DELETED", 3)], seen


def manifests_are_applied_as_they_are():
    manifest = {"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "made"},
         "spec": {"selector": {"app": "made"}, "ports": [{"port": 80}]}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "made"},
         "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "made"},
         "spec": {"schedule": "0 0 31 2 *", "jobTemplate": {"spec": {"template": {"spec": {
             "restartPolicy": "Never", "containers": [{"name": "main", "image": "example.com/app:1"}]}}}}}},
    ]}
    for item in manifest["items"]:
        utils.create_from_dict(client.ApiClient(), item, namespace=NAMESPACE)
    service = client.CoreV1Api().read_namespaced_service("made", NAMESPACE)
    assert service.spec.cluster_ip and service.spec.type == "ClusterIP", service.spec
    assert client.BatchV1Api().read_namespaced_cron_job("made", NAMESPACE).spec.concurrency_policy == "Allow"


def one_of_two_candidates_leads():
    led, ended = [], threading.Event()

    def stand(name):
        lock = LeaseLock("leader", NAMESPACE, name)
        candidacy = electionconfig.Config(
            lock, lease_duration=15, renew_deadline=10, retry_period=1,
            onstarted_leading=lambda: led.append(name), onstopped_leading=ended.set,
        )
        threading.Thread(target=leaderelection.LeaderElection(candidacy).run, daemon=True).start()

    stand("ann")
    eventually("ann leads", lambda: led == ["ann"])
    stand("bob")
    leases = client.CoordinationV1Api()
    renewed = leases.read_namespaced_lease("leader", NAMESPACE).spec.renew_time
    eventually("the lease is renewed", lambda: leases.read_namespaced_lease("leader", NAMESPACE).spec.renew_time > renewed)
    assert led == ["ann"] and leases.read_namespaced_lease("leader", NAMESPACE).spec.holder_identity == "ann"


def a_watch_shows_every_change_in_order():
    core = client.CoreV1Api()
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.create_namespaced_config_map(NAMESPACE, config_map("watched"))
    core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"a": "2"}}, _content_type=MERGE)
    unseen = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="unseen"))
    core.create_namespaced_config_map(NAMESPACE, unseen)
    leaving = {"metadata": {"labels": {"made-by": None}}}
    core.patch_namespaced_config_map("watched", NAMESPACE, leaving, _content_type=MERGE)
    seen = []
    watching = watch.Watch()
    for event in watching.stream(
        core.list_namespaced_config_map, NAMESPACE, label_selector="made-by=python", resource_version=start,
        timeout_seconds=PATIENCE,
    ):
        seen.append((event["type"], event["object"].metadata.name, event["object"].data.get("a")))
        if len(seen) == 3:
            watching.stop()
    assert seen == [("ADDED", "watched", "1"), ("MODIFIED", "watched", "2"), ("DELETED", "watched", "2")], seen
    began = time.monotonic()
    quiet = watch.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, label_selector="none=such", resource_version=start,
        timeout_seconds=1,
    )
    assert list(quiet) == [] and 0.5 < time.monotonic() - began < PATIENCE / 2
    bookmarked = watch.Watch()
    kinds = []
    for event in bookmarked.stream(
        core.list_namespaced_config_map, NAMESPACE, allow_watch_bookmarks=True, send_initial_events=True,
        resource_version_match="NotOlderThan", timeout_seconds=PATIENCE,
    ):
        kinds.append(event["type"])
        if event["type"] == "BOOKMARK":
            annotations = event["raw_object"]["metadata"]["annotations"]
            assert annotations == {"k8s.io/initial-events-end": "true"}, annotations
            bookmarked.stop()
    assert kinds[-1] == "BOOKMARK" and set(kinds[:-1]) == {"ADDED"}, kinds
    said = refused(400, "BadRequest", lambda: core.list_namespaced_config_map(NAMESPACE, resource_version="x"))
    assert "x" in said, said


def a_watch_is_resumed_after_a_restart_of_the_server():
    """As the client's documentation has it: what is too old (410) is listed again."""
    core = client.CoreV1Api()
    core.create_namespaced_config_map(NAMESPACE, config_map("before-restart"))
    watching = watch.Watch()
    listed = core.list_namespaced_config_map(NAMESPACE)
    known, version = {item.metadata.name for item in listed.items}, listed.metadata.resource_version
    came = []
    print("restart the server", flush=True)
    deadline = time.monotonic() + PATIENCE
    while came != ["after-restart"] and time.monotonic() < deadline:
        try:
            for event in watching.stream(
                core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=PATIENCE
            ):
                came.append(event["object"].metadata.name)
                watching.stop()
        except ApiException as error:
            assert error.status == 410, error
            listed = core.list_namespaced_config_map(NAMESPACE)
            version = listed.metadata.resource_version
            came += [item.metadata.name for item in listed.items if item.metadata.name not in known]
        except Exception:  # The connection broke, or nobody listens yet.
            time.sleep(0.1)
    assert came == ["after-restart"], f"what was seen before comes once: {came}"


def main():
    config.load_kube_config()
    claims = [
        objects_are_created_read_replaced_and_deleted,
        lists_come_in_pages_and_by_selectors,
        every_kind_of_patch_is_understood,
        the_server_says_who_one_is_and_what_one_may,
        a_pod_runs_and_its_log_is_followed,
        a_kind_is_defined_and_its_objects_are_custom,
        the_dynamic_client_finds_kinds_and_applies,
        manifests_are_applied_as_they_are,
        one_of_two_candidates_leads,
        a_watch_shows_every_change_in_order,
        a_watch_is_resumed_after_a_restart_of_the_server,
    ]
    failed = []
    for claim in claims:
        try:
            claim()
            print("holds: ", claim.__name__, flush=True)
        except Exception:
            failed.append(claim.__name__)
            print("FAILED:", claim.__name__, flush=True)
            traceback.print_exc()
    sys.exit(f"claims that do not hold: {', '.join(failed)}" if failed else 0)


main()
