//! `wherry scale`: sets the number of replicas through the scale subresource.

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::client::{Connection, JSON};
use crate::output;

/// Set the number of replicas.
#[derive(Debug, Args)]
pub struct Scale {
    #[command(flatten)]
    connection: Connection,
    /// KIND/NAME (`deployment/hello`), or KIND and NAME
    #[arg(required = true, num_args = 1..=2)]
    target: Vec<String>,
    #[arg(long)]
    replicas: u32,
}

impl Scale {
    pub async fn run(self) -> anyhow::Result<()> {
        let (kind, name) = match self.target.as_slice() {
            [kind, name] => (kind.as_str(), name.as_str()),
            [both] => match both.split_once('/') {
                Some(parts) => parts,
                None => bail!("{both:?} is not KIND/NAME"),
            },
            _ => bail!("give KIND/NAME"),
        };
        let client = self.connection.open().await?;
        let resource = client.resource(kind).await?;
        let path = format!("{}/scale", resource.path(Some(&client.namespace), Some(name)));
        let patch = serde_json::to_vec(&json!({"spec": {"replicas": self.replicas}}))?;
        client.request(http::Method::PATCH, &path, JSON, Some(("application/merge-patch+json", patch))).await?;
        output::line(format!("{} scaled", resource.named(name)));
        Ok(())
    }
}
