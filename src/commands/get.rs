//! `wherry get`: tables from the server, or objects as YAML, JSON, or what a template makes of them.

use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Args;
use futures::{AsyncBufReadExt, TryStreamExt};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use wherry_api::object;

use crate::client::{Client, Connection, JSON, Resource, TABLE};
use crate::jsonpath::{Template, TemplateError};
use crate::output::{self, Failures};
use crate::selection::{Found, Selection};
use crate::table::Table;
use crate::yaml;

/// What is said of a watch of more than there is a watch for.
const WATCH: &str = "--watch follows the objects of one kind, or one object";

/// How objects are shown.
#[derive(Clone, Debug, PartialEq)]
enum Output {
    Wide,
    Yaml,
    Json,
    Name,
    Template(Template),
    /// Headers and paths.
    Columns(Vec<(String, Template)>),
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (form, rest) = text.split_once('=').map_or((text, None), |(form, rest)| (form, Some(rest)));
        let template = |text: &str| Template::parse(text).map(Self::Template).map_err(|error| error.to_string());
        match (form, rest) {
            ("wide", None) => Ok(Self::Wide),
            ("yaml", None) => Ok(Self::Yaml),
            ("json", None) => Ok(Self::Json),
            ("name", None) => Ok(Self::Name),
            ("jsonpath", Some(text)) => template(text),
            ("jsonpath-file", Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
                template(&text)
            }
            ("custom-columns", Some(columns)) => {
                columns.split(',').map(column).collect::<Result<_, _>>().map(Self::Columns)
            }
            _ => Err(format!("it is none of {FORMS}; kubectl knows more")),
        }
    }
}

const FORMS: &str = "wide, yaml, json, name, jsonpath=TEMPLATE, jsonpath-file=FILE, custom-columns=HEADER:PATH,…";

/// `HEADER:PATH`
fn column(text: &str) -> Result<(String, Template), String> {
    let (header, path) = text.split_once(':').ok_or_else(|| format!("{text:?} is not HEADER:PATH"))?;
    Ok((header.to_owned(), Template::column(path).map_err(|error| error.to_string())?))
}

/// Show objects.
#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    selection: Selection,
    /// `wide`, `yaml`, `json`, `name`, `jsonpath=TEMPLATE` (as kubectl's: `{.items[*].metadata.name}`), `jsonpath-file=FILE`
    /// or `custom-columns=HEADER:PATH,…`
    #[arg(short, long, value_name = "FORM")]
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

/// A table of an object, or of a list's objects.
fn table(columns: &[(String, Template)], whole: &Value) -> anyhow::Result<Table> {
    let items = whole.get("items").and_then(Value::as_array).map_or(std::slice::from_ref(whole), Vec::as_slice);
    let cell = |template: &Template, object: &Value| {
        let values = template.values(object)?;
        Ok(if values.is_empty() { "<none>".to_owned() } else { values.join(",") })
    };
    let row = |object| columns.iter().map(|(_, template)| cell(template, object)).collect::<Result<_, TemplateError>>();
    let headers: Vec<&str> = columns.iter().map(|(header, _)| header.as_str()).collect();
    Ok(Table::new(&headers, items.iter().map(row).collect::<Result<_, _>>()?))
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
        matches!(self.output, None | Some(Output::Wide))
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
        match &self.output {
            Some(Output::Yaml) => output::raw(yaml::text(&whole)?.as_bytes()),
            Some(Output::Template(template)) => output::raw(template.fill(&whole)?.as_bytes()),
            Some(Output::Columns(columns)) => {
                table(columns, &whole)?.lines(!self.no_headers).iter().for_each(output::line);
            }
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
