//! Which objects a command is about, said alike by every command that reads or changes some.

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use crate::client::{Client, Resource};
use crate::output::Failures;

#[derive(Debug, Args)]
pub struct Selection {
    /// KIND (`pods`, `deploy,svc`, `all`, `boats.example.com`) and names, all objects if none is given; or KIND/NAME, repeatable
    #[arg(required = true, value_name = "KIND")]
    target: Vec<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with these labels (`app=hello,tier!=front`)
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
}

/// Objects of a kind: those named, or all.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub kind: String,
    pub names: Vec<String>,
}

/// What a command line names: `KIND[,KIND…] [NAME…]`, or `KIND/NAME…`. Neighbours of a kind are one target.
pub fn targets(words: &[String]) -> anyhow::Result<Vec<Target>> {
    let Some((first, names)) = words.split_first() else { return Ok(Vec::new()) };
    if !first.contains('/') {
        if let Some(word) = names.iter().find(|name| name.contains('/')) {
            bail!("{word:?} after {first:?}: give KIND and names, or each object as KIND/NAME");
        }
        let target = |kind: &str| Target { kind: kind.to_owned(), names: names.to_vec() };
        return Ok(first.split(',').filter(|kind| !kind.is_empty()).map(target).collect());
    }
    let mut targets: Vec<Target> = Vec::new();
    for word in words {
        let (kind, name) = match word.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => (kind, name),
            _ => bail!("{word:?} is not KIND/NAME"),
        };
        match targets.last_mut().filter(|last| last.kind == kind) {
            Some(last) => last.names.push(name.to_owned()),
            None => targets.push(Target { kind: kind.to_owned(), names: vec![name.to_owned()] }),
        }
    }
    Ok(targets)
}

impl Selection {
    /// What is selected. Error: names, and more namespaces than one.
    pub fn targets(&self) -> anyhow::Result<Vec<Target>> {
        let targets = targets(&self.target)?;
        if self.all_namespaces && targets.iter().any(|target| !target.names.is_empty()) {
            bail!("objects are named in one namespace: leave out --all-namespaces, or the names");
        }
        Ok(targets)
    }

    /// What there is of a target. What cannot be had is noted.
    pub async fn find(&self, client: &Client, target: &Target, accept: &str, failures: &mut Failures) -> Vec<Found> {
        find(client, target, self.namespace(client), self.selector.as_deref(), accept, failures).await
    }

    /// The client's namespace, unless all are meant.
    pub fn namespace<'a>(&self, client: &'a Client) -> Option<&'a str> {
        (!self.all_namespaces).then_some(client.namespace.as_str())
    }
}

/// What there is of one kind.
#[derive(Debug)]
pub struct Found {
    pub resource: Resource,
    /// Of the collection, or one for each name.
    pub answers: Vec<Value>,
    named: bool,
}

impl Found {
    /// The objects, or those in the list.
    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.answers.iter().flat_map(|answer| if self.named { std::slice::from_ref(answer) } else { items(answer) })
    }
}

fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Asks for what there is of a target, kind by kind. What cannot be had is noted.
pub async fn find(
    client: &Client,
    target: &Target,
    namespace: Option<&str>,
    selector: Option<&str>,
    accept: &str,
    failures: &mut Failures,
) -> Vec<Found> {
    let resources = client.resources(&target.kind).await.unwrap_or_else(|error| {
        failures.note(error);
        Vec::new()
    });
    let mut all = Vec::with_capacity(resources.len());
    for resource in resources {
        let mut answers = Vec::new();
        for path in resource.paths(namespace, &target.names, selector) {
            match client.read_as(&path, accept).await {
                Ok(answer) => answers.push(answer),
                Err(error) => failures.note(error),
            }
        }
        all.push(Found { resource, answers, named: !target.names.is_empty() });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Ok(targets(&words)?.into_iter().map(|target| (target.kind, target.names)).collect())
    }

    #[test]
    fn kinds_and_names_are_told_apart() {
        let some = |kind: &str, names: &[&str]| (kind.to_owned(), names.iter().map(|&n| n.to_owned()).collect());
        assert_eq!(of(&["pods"]).unwrap(), [some("pods", &[])]);
        assert_eq!(of(&["deploy,svc", "a"]).unwrap(), [some("deploy", &["a"]), some("svc", &["a"])]);
        assert_eq!(of(&["pod", "a", "b"]).unwrap(), [some("pod", &["a", "b"])]);
        assert_eq!(of(&["deploy/a", "deploy/b", "svc/a"]).unwrap(), [some("deploy", &["a", "b"]), some("svc", &["a"])]);
        for bad in [&["deploy/a", "b"][..], &["deploy", "svc/a"], &["deploy/"], &["/a"], &["a/b/c"]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
