//! `wherry get`: tables from the server, or objects as YAML or JSON.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use futures::{AsyncBufReadExt, TryStreamExt};
use http_body_util::BodyExt;
use serde_json::Value;
use wherry_api::object;

use crate::client::{Client, Connection, JSON, Resource};
use crate::output;
use crate::selection::Selection;
use crate::table::Table;

/// What asks for a table.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Yaml,
    Json,
    Name,
}

/// Show objects; several kinds are separated by commas (`deploy,svc`).
#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    selection: Selection,
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Go on with changes as they happen
    #[arg(short, long)]
    watch: bool,
    /// Without the header line
    #[arg(long)]
    no_headers: bool,
    /// With who wrote which field, in YAML and JSON
    #[arg(long)]
    show_managed_fields: bool,
}

/// Takes `metadata.managedFields` out of an object, or of a list's objects.
fn hide_managed_fields(answer: &mut Value) {
    for item in answer.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        object::remove_meta(item, "managedFields");
    }
    object::remove_meta(answer, "managedFields");
}

impl Get {
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.selection = self.selection.settled()?;
        let client = self.connection.open().await?;
        let kinds: Vec<&str> = self.selection.kind.split(',').collect();
        if kinds.len() > 1 && (self.watch || !self.selection.names.is_empty()) {
            bail!("names and --watch need a single kind, not {}", self.selection.kind);
        }
        let mut shown = false;
        for kind in &kinds {
            let resource = client.resource(kind).await?;
            shown |= self.show(&client, &resource, kinds.len() > 1 && shown).await?;
        }
        if !shown && self.output.is_none_or(|output| output == Output::Wide) && !self.watch {
            output::note(client.nothing_found(self.selection.all_namespaces));
        }
        Ok(())
    }

    async fn show(&self, client: &Client, resource: &Resource, gap: bool) -> anyhow::Result<bool> {
        let wants_table = self.output.is_none_or(|output| output == Output::Wide);
        let mut shown = false;
        let mut version = String::new();
        for path in self.selection.paths(client, resource) {
            let accept = if wants_table { TABLE } else { JSON };
            let answer = client.request(http::Method::GET, &path, accept, None).await?;
            let mut answer: Value = serde_json::from_slice(&answer)?;
            answer
                .pointer("/metadata/resourceVersion")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .clone_into(&mut version);
            if wants_table {
                let table = self.table(&answer, resource);
                if gap && !table.is_empty() {
                    output::line("");
                }
                if !table.is_empty() {
                    table.lines(!self.no_headers && !shown).iter().for_each(output::line);
                    shown = true;
                }
            } else {
                self.print(resource, &mut answer)?;
                shown = true;
            }
        }
        if self.watch {
            self.follow(client, resource, &version).await?;
        }
        Ok(shown)
    }

    fn table(&self, answer: &Value, resource: &Resource) -> Table {
        Table::from_server(
            answer,
            self.output == Some(Output::Wide),
            self.selection.all_namespaces && resource.namespaced,
        )
    }

    fn print(&self, resource: &Resource, answer: &mut Value) -> anyhow::Result<()> {
        if !self.show_managed_fields {
            hide_managed_fields(answer);
        }
        match self.output {
            Some(Output::Yaml) => output::raw(serde_yaml::to_string(answer)?.as_bytes()),
            Some(Output::Name) => {
                let one = [answer.clone()];
                let items = answer.get("items").and_then(Value::as_array).map_or(&one[..], Vec::as_slice);
                for item in items {
                    output::line(
                        resource.named(item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()),
                    );
                }
            }
            _ => output::line(serde_json::to_string_pretty(answer)?),
        }
        Ok(())
    }

    /// Prints changes until the server or the person ends it.
    async fn follow(&self, client: &Client, resource: &Resource, version: &str) -> anyhow::Result<()> {
        let namespace = self.selection.namespace(client);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("watch", "true").append_pair("resourceVersion", version);
        if let [name] = self.selection.names.as_slice() {
            query.append_pair("fieldSelector", &format!("metadata.name={name}"));
        }
        if let Some(selector) = &self.selection.selector {
            query.append_pair("labelSelector", selector);
        }
        let path = format!("{}?{}", resource.path(namespace, None), query.finish());
        let accept = if self.output.is_none_or(|output| output == Output::Wide) { TABLE } else { JSON };
        let response = client.open(http::Method::GET, &path, accept, None).await?;
        let stream = response.into_body().into_data_stream().map_err(std::io::Error::other);
        let mut lines = stream.into_async_read().lines();
        while let Some(line) = lines.try_next().await.context("the watch broke off")? {
            let event: Value = serde_json::from_str(&line).context("the watch sent what is not JSON")?;
            let mut object = event.get("object").cloned().unwrap_or_default();
            if event.get("type").and_then(Value::as_str) == Some("ERROR") {
                bail!("{}", object.get("message").and_then(Value::as_str).unwrap_or("the watch failed"));
            }
            if accept == TABLE {
                self.table(&object, resource).lines(false).iter().for_each(output::line);
            } else {
                self.print(resource, &mut object)?;
            }
        }
        Ok(())
    }
}
