//! `wherry scale`: sets the number of replicas through the scale subresource.

use anyhow::{anyhow, bail};
use clap::Args;
use serde_json::json;

use super::apply::MANAGER;
use crate::client::{Client, Connection, JSON, Resource, is_code};
use crate::output::{self, Failures};
use crate::selection::targets;

/// Set the number of replicas.
#[derive(Debug, Args)]
pub struct Scale {
    #[command(flatten)]
    connection: Connection,
    /// KIND/NAME (`deployment/hello`), repeatable, or KIND and names
    #[arg(required = true)]
    target: Vec<String>,
    #[arg(long, allow_hyphen_values = true, value_parser = replicas)]
    replicas: i32,
}

/// A number of replicas, which the API has as an int32.
fn replicas(text: &str) -> Result<i32, String> {
    if text.is_empty() || !text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it is not a number".to_owned());
    }
    match text.parse::<i32>() {
        Ok(number) if number >= 0 => Ok(number),
        _ if text.starts_with('-') => Err("the number of replicas cannot be negative".to_owned()),
        _ => Err(format!("the number of replicas is an int32, which is at most {}", i32::MAX)),
    }
}

impl Scale {
    pub async fn run(self) -> anyhow::Result<()> {
        let targets = targets(&self.target)?;
        if let Some(target) = targets.iter().find(|target| target.names.is_empty()) {
            bail!("name what to scale as KIND/NAME, such as deployment/{}", target.kind);
        }
        let client = self.connection.open().await?;
        let mut failures = Failures::default();
        for target in targets {
            let resource = client.resource(&target.kind).await?;
            for name in &target.names {
                match self.scale(&client, &resource, name).await {
                    Ok(()) => output::line(format!("{} scaled", resource.named(name))),
                    Err(error) => failures.note(error),
                }
            }
        }
        failures.finish()
    }

    async fn scale(&self, client: &Client, resource: &Resource, name: &str) -> anyhow::Result<()> {
        let path = format!("{}/scale?fieldManager={MANAGER}", resource.path(Some(&client.namespace), Some(name)));
        let patch = serde_json::to_vec(&json!({"spec": {"replicas": self.replicas}}))?;
        let body = Some(("application/merge-patch+json", patch));
        client
            .request(http::Method::PATCH, &path, JSON, body)
            .await
            .map_err(|error| explained(error, resource, name))?;
        Ok(())
    }
}

/// What is said of a kind that has no such path.
fn explained(error: anyhow::Error, resource: &Resource, name: &str) -> anyhow::Error {
    const NO_PATH: &str = "the server could not find the requested resource";
    if is_code(&error, 404) && error.to_string() == NO_PATH {
        return anyhow!(
            "{} cannot be scaled: {} have no number of replicas; scale what makes them",
            resource.named(name),
            resource.api.plural
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_replicas_is_an_int32_that_is_not_negative() {
        assert_eq!((replicas("0"), replicas("2147483647")), (Ok(0), Ok(i32::MAX)));
        assert!(replicas("2147483648").unwrap_err().contains("at most 2147483647"));
        assert!(replicas("99999999999999999999").unwrap_err().contains("int32"));
        assert!(replicas("-1").unwrap_err().contains("negative"));
        for bad in ["", "two", "1.5", "+1"] {
            assert!(replicas(bad).unwrap_err().contains("not a number"), "{bad}");
        }
    }
}
