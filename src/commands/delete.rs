//! `wherry delete`: deletes objects and waits until they are gone.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::json;
use wherry_api::object;

use crate::client::{Client, Connection, JSON, Resource, is_code, resource_of};
use crate::manifest;
use crate::output::{self, Failures};
use crate::selection::{Target, find, targets};

/// How often it is asked whether an object is gone.
const POLL: Duration = Duration::from_millis(200);

/// Delete objects, by name, by label or from manifests.
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    connection: Connection,
    /// KIND and names, or KIND/NAME, repeatable
    #[arg(required_unless_present = "filename")]
    target: Vec<String>,
    /// A file, a folder, an http(s) URL, or `-` for standard input; repeatable
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Objects with these labels (`app=hello,tier!=front`)
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "filename")]
    selector: Option<String>,
    /// All objects of the kinds
    #[arg(long, conflicts_with_all = ["filename", "selector"])]
    all: bool,
    /// Seconds that pods have to end [default: what they say]
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
    /// Do not fail for what is not there
    #[arg(long)]
    ignore_not_found: bool,
}

impl Delete {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.open().await?;
        let (mut failures, mut deleted) = (Failures::default(), Vec::new());
        let targets = self.targets(&client, &mut failures).await?;
        if targets.is_empty() && failures.is_empty() {
            output::note(client.nothing_found(true));
        }
        for (resource, namespace, name) in targets {
            let path = resource.path(Some(&namespace), Some(&name));
            match self.delete(&client, &path).await {
                Ok(uid) => {
                    output::line(format!("{} deleted", resource.named(&name)));
                    deleted.push((path, uid));
                }
                Err(error)
                    if is_code(&error, 404) && (self.ignore_not_found || self.selector.is_some() || self.all) => {}
                Err(error) => failures.note(error),
            }
        }
        if !self.no_wait {
            for (path, uid) in deleted {
                gone(&client, &path, &uid).await?;
            }
        }
        failures.finish()
    }

    /// What is to go. What cannot be told of a manifest's objects is noted; the others go.
    async fn targets(
        &self,
        client: &Client,
        failures: &mut Failures,
    ) -> anyhow::Result<Vec<(Resource, String, String)>> {
        let mut found = Vec::new();
        if !self.filename.is_empty() {
            let documents = manifest::read(&self.filename).await?;
            let discovery = client.discovery().await?;
            for document in documents {
                let target = resource_of(&discovery, document.api_version(), document.kind())
                    .and_then(|resource| Ok((resource, document.needed_name("delete")?)));
                match target {
                    Ok((resource, name)) => {
                        let namespace = document.namespace().unwrap_or(&client.namespace).to_owned();
                        found.push((resource, namespace, name.to_owned()));
                    }
                    Err(error) => failures.note(error.context(document.described())),
                }
            }
        }
        for target in self.named_or_selected()? {
            if target.names.is_empty() {
                let selector = self.selector.as_deref();
                for kind in find(client, &target, Some(&client.namespace), selector, JSON, failures).await {
                    let one =
                        |object| (kind.resource.clone(), client.namespace.clone(), object::name(object).to_owned());
                    found.extend(kind.objects().map(one));
                }
                continue;
            }
            match client.resource(&target.kind).await {
                Ok(resource) => {
                    let one = |name| (resource.clone(), client.namespace.clone(), name);
                    found.extend(target.names.into_iter().map(one));
                }
                Err(error) => failures.note(error),
            }
        }
        Ok(found)
    }

    /// The kinds on the command line: each with names, or all of them with a selector.
    fn named_or_selected(&self) -> anyhow::Result<Vec<Target>> {
        let targets = targets(&self.target)?;
        let named = targets.iter().find(|target| !target.names.is_empty());
        if let Some(target) = named.filter(|_| self.selector.is_some()) {
            bail!("-l selects among all {}: leave out the names, or the selector", target.kind);
        }
        if let Some(target) = named.filter(|_| self.all) {
            bail!("--all is about all {}: leave out the names, or --all", target.kind);
        }
        let unnamed = targets.iter().find(|target| target.names.is_empty());
        if let Some(target) = unnamed.filter(|_| self.selector.is_none() && !self.all) {
            bail!("name what to delete: {}/NAME, or select it with -l, or give --all", target.kind);
        }
        Ok(targets)
    }

    /// Asks for the deletion; returns the object's uid.
    async fn delete(&self, client: &Client, path: &str) -> anyhow::Result<String> {
        let uid = object::uid(&client.read(path).await?).to_owned();
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid}});
        if let (Some(grace), Some(options)) = (self.grace_period, options.as_object_mut()) {
            options.insert("gracePeriodSeconds".into(), grace.into());
        }
        client.request(http::Method::DELETE, path, JSON, Some((JSON, serde_json::to_vec(&options)?))).await?;
        Ok(uid)
    }
}

/// Returns when the object with this uid is no more.
async fn gone(client: &Client, path: &str, uid: &str) -> anyhow::Result<()> {
    loop {
        match client.read(path).await {
            Ok(live) if object::uid(&live) != uid => return Ok(()),
            Ok(_) => {}
            Err(error) if is_code(&error, 404) => return Ok(()),
            Err(error) => bail!(error.context("waiting for the deletion")),
        }
        tokio::time::sleep(POLL).await;
    }
}
