//! `wherry get`: tables from the server, or objects as YAML or JSON.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use futures::{AsyncBufReadExt, TryStreamExt};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use wherry_api::object;

use crate::client::{Client, Connection, JSON, Resource};
use crate::output::{self, Failures};
use crate::selection::{Found, Selection};
use crate::table::Table;
use crate::yaml;

/// What asks for a table.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// What is said of a watch of more than there is a watch for.
const WATCH: &str = "--watch follows the objects of one kind, or one object";

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Yaml,
    Json,
    Name,
}

/// Show objects.
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

fn show_name(resource: &Resource, object: &Value) {
    output::line(resource.named(object::name(object)));
}

/// A list of objects, and of the objects of lists.
fn list(answers: Vec<Value>) -> Value {
    let mut items = Vec::new();
    for mut answer in answers {
        match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(of_kind)) => items.extend(of_kind),
            _ => items.push(answer),
        }
    }
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}

impl Get {
    pub async fn run(self) -> anyhow::Result<()> {
        let targets = self.selection.targets()?;
        if self.watch && (targets.len() > 1 || targets.iter().any(|target| target.names.len() > 1)) {
            bail!(WATCH);
        }
        let client = self.connection.open().await?;
        let mut failures = Failures::default();
        let (mut shown, mut anywhere, mut objects) = (false, self.selection.all_namespaces, Vec::new());
        for target in &targets {
            let kinds = self.selection.find(&client, target, self.accept(), &mut failures).await;
            let several = targets.len() > 1 || kinds.len() > 1;
            if self.watch && several {
                bail!(WATCH);
            }
            for mut found in kinds {
                anywhere |= !found.resource.namespaced;
                let version = found.answers.last().map(|answer| object::text_at(answer, "metadata.resourceVersion"));
                if self.is_table() {
                    shown |= self.show_table(&found, shown, several);
                } else if self.output == Some(Output::Name) {
                    found.objects().for_each(|object| show_name(&found.resource, object));
                } else {
                    objects.append(&mut found.answers);
                }
                if self.watch && failures.is_empty() {
                    self.print(&mut objects)?;
                    let version = version.unwrap_or_default();
                    return self.follow(&client, &found, &version, target.names.first()).await;
                }
            }
        }
        self.print(&mut objects)?;
        if self.is_table() && !shown && failures.is_empty() {
            output::note(client.nothing_found(anywhere));
        }
        failures.finish()
    }

    fn is_table(&self) -> bool {
        self.output.is_none_or(|output| output == Output::Wide)
    }

    /// What is asked for.
    fn accept(&self) -> &'static str {
        if self.is_table() { TABLE } else { JSON }
    }

    /// One table of a kind's answers; `prefixed`: names have the kind before them.
    fn show_table(&self, found: &Found, gap: bool, prefixed: bool) -> bool {
        let mut all = self.joined(found);
        if all.is_empty() {
            return false;
        }
        if prefixed {
            all.map_column("NAME", |name| found.resource.named(name));
        }
        if gap {
            output::line("");
        }
        all.lines(!self.no_headers).iter().for_each(output::line);
        true
    }

    /// A kind's answers as one table.
    fn joined(&self, found: &Found) -> Table {
        let mut all = Table::default();
        for answer in &found.answers {
            all.append(Table::from_server(answer, self.is_wide(), self.shows_namespaces(&found.resource)));
        }
        all
    }

    fn is_wide(&self) -> bool {
        self.output == Some(Output::Wide)
    }

    fn shows_namespaces(&self, resource: &Resource) -> bool {
        self.selection.all_namespaces && resource.namespaced
    }

    /// Prints objects, several as a list.
    fn print(&self, objects: &mut Vec<Value>) -> anyhow::Result<()> {
        let mut whole = match objects.len() {
            0 => return Ok(()),
            1 => objects.remove(0),
            _ => list(std::mem::take(objects)),
        };
        if !self.show_managed_fields {
            hide_managed_fields(&mut whole);
        }
        match self.output {
            Some(Output::Yaml) => output::raw(yaml::text(&whole)?.as_bytes()),
            _ => output::line(serde_json::to_string_pretty(&whole)?),
        }
        Ok(())
    }

    /// Prints changes until the server or the person ends it.
    async fn follow(&self, client: &Client, found: &Found, version: &str, name: Option<&String>) -> anyhow::Result<()> {
        let resource = &found.resource;
        let listed = self.joined(found);
        let first = found.answers.first().cloned().unwrap_or_default();
        let mut header = listed.is_empty() && !self.no_headers;
        let namespace = self.selection.namespace(client);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("watch", "true").append_pair("resourceVersion", version);
        if let Some(name) = name {
            query.append_pair("fieldSelector", &format!("metadata.name={name}"));
        }
        if let Some(selector) = &self.selection.selector {
            query.append_pair("labelSelector", selector);
        }
        let path = format!("{}?{}", resource.path(namespace, None), query.finish());
        let response = client.open(http::Method::GET, &path, self.accept(), None).await?;
        let stream = response.into_body().into_data_stream().map_err(std::io::Error::other);
        let mut lines = stream.into_async_read().lines();
        while let Some(line) = lines.try_next().await.context("the watch broke off")? {
            let event: Value = serde_json::from_str(&line).context("the watch sent what is not JSON")?;
            let object = event.get("object").cloned().unwrap_or_default();
            if event.get("type").and_then(Value::as_str) == Some("ERROR") {
                bail!("{}", object.get("message").and_then(Value::as_str).unwrap_or("the watch failed"));
            }
            if self.is_table() {
                listed
                    .later(&first, object, self.is_wide(), self.shows_namespaces(resource))
                    .lines(std::mem::take(&mut header))
                    .iter()
                    .for_each(output::line);
            } else if self.output == Some(Output::Name) {
                show_name(resource, &object);
            } else {
                self.print(&mut vec![object])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_answers_are_one_list() {
        let answers =
            vec![json!({"kind": "Pod", "metadata": {"name": "a"}}), json!({"kind": "PodList", "items": [1, 2]})];
        let whole = list(answers);
        assert_eq!(whole["kind"], "List");
        assert_eq!(whole["items"], json!([{"kind": "Pod", "metadata": {"name": "a"}}, 1, 2]));
    }
}
