//! `wherry delete`: deletes objects and waits until they are gone.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use kube::discovery::Discovery;
use serde_json::{Value, json};

use crate::client::{Client, Connection, JSON, Resource, is_code, resource_of};
use crate::{manifest, output};

/// How often it is asked whether an object is gone.
const POLL: Duration = Duration::from_millis(200);

/// Delete objects, by name or from manifests.
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    connection: Connection,
    /// KIND and names, or KIND/NAME
    #[arg(required_unless_present = "filename")]
    target: Vec<String>,
    /// A file, a folder, an http(s) URL, or `-` for standard input; repeatable
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
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
        let mut deleted = Vec::new();
        for (resource, namespace, name) in self.targets(&client).await? {
            let path = resource.path(Some(&namespace), Some(&name));
            match self.delete(&client, &path).await {
                Ok(uid) => {
                    output::line(format!("{} deleted", resource.named(&name)));
                    deleted.push((path, uid));
                }
                Err(error) if is_code(&error, 404) && self.ignore_not_found => {}
                Err(error) => return Err(error),
            }
        }
        if !self.no_wait {
            for (path, uid) in deleted {
                gone(&client, &path, &uid).await?;
            }
        }
        Ok(())
    }

    async fn targets(&self, client: &Client) -> anyhow::Result<Vec<(Resource, String, String)>> {
        let mut targets = Vec::new();
        if !self.filename.is_empty() {
            let discovery =
                Discovery::new(client.kube.clone()).run().await.context("the server's kinds cannot be listed")?;
            for document in manifest::read(&self.filename).await? {
                let resource = resource_of(&discovery, document.api_version(), document.kind())?;
                let namespace = document.namespace().unwrap_or(&client.namespace).to_owned();
                targets.push((resource, namespace, document.name().to_owned()));
            }
        }
        match self.target.as_slice() {
            [] => {}
            [both] => {
                let (kind, name) = both.split_once('/').with_context(|| format!("name what to delete: {both}/NAME"))?;
                targets.push((client.resource(kind).await?, client.namespace.clone(), name.to_owned()));
            }
            [kind, names @ ..] => {
                let resource = client.resource(kind).await?;
                targets.extend(names.iter().map(|name| (resource.clone(), client.namespace.clone(), name.clone())));
            }
        }
        Ok(targets)
    }

    /// Asks for the deletion; returns the object's uid.
    async fn delete(&self, client: &Client, path: &str) -> anyhow::Result<String> {
        let live: Value = serde_json::from_slice(&client.request(http::Method::GET, path, JSON, None).await?)?;
        let uid = live.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
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
        match client.request(http::Method::GET, path, JSON, None).await {
            Ok(bytes) => {
                let live: Value = serde_json::from_slice(&bytes)?;
                if live.pointer("/metadata/uid").and_then(Value::as_str) != Some(uid) {
                    return Ok(());
                }
            }
            Err(error) if is_code(&error, 404) => return Ok(()),
            Err(error) => bail!(error.context("waiting for the deletion")),
        }
        tokio::time::sleep(POLL).await;
    }
}
