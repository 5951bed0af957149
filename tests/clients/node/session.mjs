// What programs do with the official JavaScript client, claim by claim, against the cluster of $KUBECONFIG.
//
// Started by tests/clients.rs with the image of a pod that logs in $IMAGE. A line on standard output per claim; the exit code
// says whether all held. When it prints `restart the server`, the test does that, and creates the ConfigMap `after-restart`.

import assert from 'node:assert/strict';
import { Writable } from 'node:stream';

import * as k8s from '@kubernetes/client-node';

const NAMESPACE = 'node';
const GROUP = 'js.example.com';
const PATIENCE = 50_000;

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function eventually(what, look) {
    const deadline = Date.now() + PATIENCE;
    while (Date.now() < deadline) {
        const found = await look();
        if (found) {
            return found;
        }
        await pause(50);
    }
    throw new Error(`${what}: not within ${PATIENCE} ms`);
}

// The message of the Status that a call is refused with.
async function refused(code, reason, call) {
    try {
        await call();
    } catch (error) {
        assert.ok(error instanceof k8s.ApiException, error.stack);
        const status = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
        assert.deepEqual([error.code, status.kind, status.reason], [code, 'Status', reason], error.message);
        return status.message;
    }
    throw new Error(`should be refused with ${code} ${reason}`);
}

const configMap = (name, data = { a: '1' }) => ({ metadata: { name, labels: { 'made-by': 'node' } }, data });
const as = (kind) => k8s.setHeaderOptions('Content-Type', kind);

async function objectsAreCreatedReadReplacedAndDeleted() {
    await core.createNamespace({ body: { metadata: { name: NAMESPACE } } });
    const namespace = NAMESPACE;
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('first') });
    assert.ok(made.metadata.creationTimestamp instanceof Date && made.metadata.uid);
    const stale = await core.readNamespacedConfigMap({ namespace, name: 'first' });
    made.data.a = '2';
    const replaced = await core.replaceNamespacedConfigMap({ namespace, name: 'first', body: made });
    assert.deepEqual(replaced.data, { a: '2' });
    const replace = () => core.replaceNamespacedConfigMap({ namespace, name: 'first', body: stale });
    assert.match(await refused(409, 'Conflict', replace), /the object has been modified/);
    const again = () => core.createNamespacedConfigMap({ namespace, body: configMap('first') });
    assert.match(await refused(409, 'AlreadyExists', again), /already exists/);
    for (let n = 0; n < 3; n++) {
        await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${n}`) });
    }
    const page = await core.listNamespacedConfigMap({ namespace, limit: 2, labelSelector: 'made-by=node' });
    assert.deepEqual(page.items.map((item) => item.metadata.name), ['first', 'page-0']);
    const rest = await core.listNamespacedConfigMap({
        namespace, limit: 2, labelSelector: 'made-by=node', _continue: page.metadata._continue,
    });
    assert.deepEqual([rest.items.length, rest.metadata._continue], [2, undefined]);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'made-by=node' });
    const read = () => core.readNamespacedConfigMap({ namespace, name: 'first' });
    assert.match(await refused(404, 'NotFound', read), /configmaps "first" not found/);
}

async function everyKindOfPatchIsUnderstood() {
    const template = {
        metadata: { labels: { app: 'patched' } },
        spec: { containers: [{ name: 'main', image: 'example.com/app:1', ports: [{ containerPort: 8080 }] }] },
    };
    const spec = { replicas: 0, selector: { matchLabels: { app: 'patched' } }, template };
    const target = { namespace: NAMESPACE, name: 'patched' };
    await apps.createNamespacedDeployment({ namespace: NAMESPACE, body: { metadata: { name: 'patched' }, spec } });
    const patch = (body, kind, more = {}) => apps.patchNamespacedDeployment({ ...target, body, ...more }, as(kind));
    const containers = [{ name: 'main', env: [{ name: 'A', value: '1' }] }];
    const strategic = await patch({ spec: { template: { spec: { containers } } } }, k8s.PatchStrategy.StrategicMergePatch);
    assert.equal(strategic.spec.template.spec.containers[0].image, 'example.com/app:1');
    const merged = await patch({ metadata: { annotations: { x: 'y' } } }, k8s.PatchStrategy.MergePatch);
    assert.equal(merged.metadata.annotations.x, 'y');
    const operations = [{ op: 'replace', path: '/spec/revisionHistoryLimit', value: 3 }];
    assert.equal((await patch(operations, k8s.PatchStrategy.JsonPatch)).spec.revisionHistoryLimit, 3);
    const wanted = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'patched' }, spec: { replicas: 1 } };
    const apply = (manager, force) =>
        patch(wanted, k8s.PatchStrategy.ServerSideApply, { fieldManager: manager, force });
    await apply('one', true);
    wanted.spec.replicas = 0;
    assert.match(await refused(409, 'Conflict', () => apply('two', false)), /conflict with "one": \.spec\.replicas/);
    const forced = await apply('two', true);
    assert.equal(forced.spec.replicas, 0);
    const managers = forced.metadata.managedFields.map((entry) => `${entry.manager} ${entry.operation}`);
    assert.ok(managers.includes('two Apply') && !managers.includes('one Apply'), managers.join());
    const scale = await apps.replaceNamespacedDeploymentScale({
        ...target, body: { metadata: { name: 'patched', namespace: NAMESPACE }, spec: { replicas: 0 } },
    });
    assert.equal(scale.status.selector, 'app=patched');
    await apps.deleteNamespacedDeployment(target);
}

async function anyObjectIsManagedByItsKind() {
    const version = {
        name: 'v1', served: true, storage: true, subresources: { status: {} },
        schema: { openAPIV3Schema: { type: 'object', properties: {
            spec: { type: 'object', x_kubernetes_preserve_unknown_fields: true },
            status: { type: 'object', properties: { afloat: { type: 'boolean' } } } } } },
    };
    const names = { plural: 'ships', singular: 'ship', kind: 'Ship' };
    const definition = {
        apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name: `ships.${GROUP}` },
        spec: { group: GROUP, scope: 'Namespaced', names, versions: [version] },
    };
    await objects.create(definition);
    await eventually('the definition is established', async () => {
        const read = await objects.read(definition);
        return read.status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True');
    });
    const ship = { apiVersion: `${GROUP}/v1`, kind: 'Ship', metadata: { name: 'dory', namespace: NAMESPACE }, spec: { a: 1 } };
    const made = await objects.create(ship);
    assert.equal(made.spec.a, 1);
    const patched = await objects.patch(
        { ...ship, spec: { b: 2 } }, undefined, undefined, 'node', undefined, k8s.PatchStrategy.MergePatch);
    assert.deepEqual(patched.spec, { a: 1, b: 2 });
    const applied = await objects.patch(
        { ...ship, spec: { c: 3 } }, undefined, undefined, 'applier', true, k8s.PatchStrategy.ServerSideApply);
    assert.deepEqual(applied.spec, { a: 1, b: 2, c: 3 });
    const list = await objects.list(`${GROUP}/v1`, 'Ship', NAMESPACE);
    assert.deepEqual(list.items.map((item) => item.metadata.name), ['dory']);
    const custom = config.makeApiClient(k8s.CustomObjectsApi);
    const where = { group: GROUP, version: 'v1', namespace: NAMESPACE, plural: 'ships', name: 'dory' };
    const status = await custom.patchNamespacedCustomObjectStatus(
        { ...where, body: [{ op: 'add', path: '/status', value: { afloat: true } }] });
    assert.deepEqual(status.status, { afloat: true });
    await objects.delete(ship);
    await refused(404, 'NotFound', () => custom.getNamespacedCustomObject(where));
}

async function aPodRunsAndItsLogIsStreamed() {
    const env = [{ name: 'LINES', value: '3' }, { name: 'GREETING', value: 'ahoy' }];
    const spec = { restartPolicy: 'Never', containers: [{ name: 'main', image: process.env.IMAGE, env }] };
    await core.createNamespacedPod({ namespace: NAMESPACE, body: { metadata: { name: 'logger' }, spec } });
    const seen = [];
    const ended = new Promise((done, fail) => {
        const watch = new k8s.Watch(config);
        const path = `/api/v1/namespaces/${NAMESPACE}/pods`;
        const query = { fieldSelector: 'metadata.name=logger', timeoutSeconds: PATIENCE / 1000 };
        watch.watch(path, query, (type, pod) => {
            seen.push(`${type} ${pod.status.phase}`);
            if (['Succeeded', 'Failed'].includes(pod.status.phase)) {
                done(pod);
            }
        }, (error) => fail(error ?? new Error(`the watch ended: ${seen}`)));
    });
    const pod = await ended;
    assert.equal(pod.status.containerStatuses[0].state.terminated.exitCode, 0);
    assert.ok(seen[0].startsWith('ADDED'), seen.join());
    let text = '';
    const sink = new Writable({
        write(chunk, _, done) {
            text += chunk;
            done();
        },
    });
    await new k8s.Log(config).log(NAMESPACE, 'logger', 'main', sink, { follow: true });
    await eventually('the whole log came', () => text.endsWith('done\n'));
    assert.match(text.split('\n')[0], /ahoy/);
}

// Adds, updates and deletes are told, also those that happen around a restart of the server: the watch breaks, the
// program starts the informer again on `error`, and it goes on from where it was.
async function anInformerFollowsAcrossARestart() {
    const namespace = NAMESPACE;
    await core.createNamespacedConfigMap({ namespace, body: configMap('there') });
    const told = [];
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'made-by=node' });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, 'made-by=node');
    for (const verb of ['add', 'update', 'delete']) {
        informer.on(verb, (object) => told.push(`${verb} ${object.metadata.name}`));
    }
    let broken = 0;
    informer.on('error', () => {
        broken += 1;
        setTimeout(() => informer.start(), 100);
    });
    await informer.start();
    const tells = (what) => eventually(`the informer tells: ${what}; told: ${told}`, () => told.includes(what));
    await tells('add there');
    await core.createNamespacedConfigMap({ namespace, body: configMap('came') });
    await tells('add came');
    const body = { data: { a: '2' } };
    await core.patchNamespacedConfigMap({ namespace, name: 'came', body }, as(k8s.PatchStrategy.MergePatch));
    await tells('update came');
    await core.patchNamespacedConfigMap(
        { namespace, name: 'there', body: { metadata: { labels: { 'made-by': null } } } }, as(k8s.PatchStrategy.MergePatch));
    await tells('delete there');
    console.log('restart the server');
    await tells('add after-restart');
    await core.deleteNamespacedConfigMap({ namespace, name: 'came' });
    await tells('delete came');
    await informer.stop();
    const twice = told.filter((line, index) => told.indexOf(line) !== index);
    assert.deepEqual([twice, informer.list(namespace).map((o) => o.metadata.name)], [[], ['after-restart']], `${told}`);
    assert.ok(broken > 0, 'the connection broke');
}

const claims = [
    objectsAreCreatedReadReplacedAndDeleted,
    everyKindOfPatchIsUnderstood,
    anyObjectIsManagedByItsKind,
    aPodRunsAndItsLogIsStreamed,
    anInformerFollowsAcrossARestart,
];
const failed = [];
for (const claim of claims) {
    try {
        await claim();
        console.log(`holds:  ${claim.name}`);
    } catch (error) {
        failed.push(claim.name);
        console.log(`FAILED: ${claim.name}`);
        console.error(error);
    }
}
if (failed.length > 0) {
    console.error(`claims that do not hold: ${failed.join(', ')}`);
}
process.exit(failed.length > 0 ? 1 : 0);
