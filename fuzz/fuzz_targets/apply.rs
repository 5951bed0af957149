//! Server-side apply of Pods by several managers, with updates between that may claim any `managedFields`: what was applied is
//! in the object, the same again changes nothing, and a conflict gives way to force.
#![no_main]

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use wherry_api::kinds::core::pod;
use wherry_api::patch::apply::{Writer, apply, record};
use wherry_api::resource::Descriptor;
use wherry_api::strategy::Part;
use wherry_fuzz::value;

/// Writes of one history.
const WRITES: usize = 6;
/// Labels, arguments.
const WIDTH: usize = 3;

static POD: LazyLock<Descriptor> = LazyLock::new(pod::descriptor);

fn writer(manager: &str, second: usize) -> Writer<'_> {
    let now = Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
    Writer { resource: &POD, manager, subresource: "", part: Part::Main, now }
}

fn never(_: &Value, _: &str) -> Option<Value> {
    None
}

fn text(u: &mut Unstructured<'_>) -> Result<&'static str> {
    u.choose(&["a", "b", "c"]).copied()
}

/// Puts what is not empty: Kubernetes' types do not keep the rest apart from what is absent.
fn put(object: &mut Value, field: &str, value: Value) {
    let empty = value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
    if !empty {
        object[field] = value;
    }
}

/// Items under different keys: twice the same is refused.
fn items(u: &mut Unstructured<'_>, item: fn(&mut Unstructured<'_>, &str) -> Result<Value>) -> Result<Value> {
    let mut items = Vec::new();
    for key in ["a", "b", "c"] {
        if u.arbitrary()? {
            items.push(item(u, key)?);
        }
    }
    if u.arbitrary()? {
        items.reverse();
    }
    Ok(items.into())
}

fn environment(u: &mut Unstructured<'_>, name: &str) -> Result<Value> {
    Ok(json!({"name": name, "value": text(u)?}))
}

fn port(u: &mut Unstructured<'_>, name: &str) -> Result<Value> {
    let number = name.bytes().map(u16::from).sum::<u16>();
    Ok(match u.int_in_range(0..=2)? {
        // The key's default is the protocol's.
        0 => json!({"containerPort": number}),
        1 => json!({"containerPort": number, "protocol": "TCP", "name": text(u)?}),
        _ => json!({"containerPort": number, "protocol": "UDP"}),
    })
}

fn container(u: &mut Unstructured<'_>, name: &str) -> Result<Value> {
    let mut container = json!({"name": name, "image": text(u)?});
    put(&mut container, "env", items(u, environment)?);
    put(&mut container, "ports", items(u, port)?);
    let arguments = (0..u.int_in_range(0..=WIDTH)?).map(|_| Ok(text(u)?.into())).collect::<Result<Vec<Value>>>()?;
    put(&mut container, "args", arguments.into());
    Ok(container)
}

fn pod(u: &mut Unstructured<'_>) -> Result<Value> {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
    let mut labels = Map::new();
    for _ in 0..u.int_in_range(0..=WIDTH)? {
        labels.insert(text(u)?.to_owned(), text(u)?.into());
    }
    put(&mut pod["metadata"], "labels", labels.into());
    put(&mut pod["metadata"], "finalizers", items(u, |_, name| Ok(name.into()))?);
    let mut spec = json!({});
    put(&mut spec, "containers", items(u, container)?);
    put(&mut pod, "spec", spec);
    Ok(pod)
}

/// Whether an object has what a configuration says.
fn has(object: &Value, config: &Value) -> bool {
    match (object, config) {
        (Value::Object(object), Value::Object(config)) => {
            config.iter().all(|(key, value)| object.get(key).is_some_and(|own| has(own, value)))
        }
        (Value::Array(object), Value::Array(config)) => {
            config.iter().all(|item| object.iter().any(|own| has(own, item)))
        }
        (object, config) => object == config,
    }
}

fn history(u: &mut Unstructured<'_>) -> Result<()> {
    let mut live: Option<Value> = None;
    for second in 0..u.int_in_range(1..=WRITES)? {
        let (manager, mut config) = (text(u)?, pod(u)?);
        if u.ratio(1, 3)? {
            let asked = if u.arbitrary()? { Some(value(u)?) } else { None };
            record(writer(manager, second), live.as_ref(), &mut config, asked.as_ref(), &never);
            live = Some(config);
            continue;
        }
        let applied = match apply(writer(manager, second), live.as_ref(), &config, false, &never) {
            Err(error) => {
                assert_eq!(error.code, 409, "{error:?}");
                apply(writer(manager, second), live.as_ref(), &config, true, &never).unwrap()
            }
            Ok(applied) => applied,
        };
        assert!(has(&applied, &config), "{config} is not in {applied}");
        let again = apply(writer(manager, second + WRITES), Some(&applied), &config, false, &never).unwrap();
        assert_eq!(again, applied, "the second apply of {config}");
        live = Some(applied);
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // What is too short for a history is none.
    let _ = history(&mut Unstructured::new(bytes));
});
