//! Which objects a command is about, said alike by every command that reads or changes some.

use anyhow::bail;
use clap::Args;

use crate::client::{Client, Resource};

#[derive(Debug, Args)]
pub struct Selection {
    /// KIND (`pods`, `deploy,svc`, `boats.example.com`) and names, all objects if none is given; or KIND/NAME, repeatable
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

    /// The client's namespace, unless all are meant.
    pub fn namespace<'a>(&self, client: &'a Client) -> Option<&'a str> {
        (!self.all_namespaces).then_some(client.namespace.as_str())
    }

    /// The paths to ask: the collection's, or one for each name.
    pub fn paths(&self, client: &Client, resource: &Resource, names: &[String]) -> Vec<String> {
        resource.paths(self.namespace(client), names, self.selector.as_deref())
    }
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
