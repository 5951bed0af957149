//! `wherry version`: this binary's version, and the server's if one answers.

use clap::Args;
use serde_json::Value;

use crate::client::{JSON, Server};
use crate::output;

/// Print the version.
#[derive(Debug, Args)]
pub struct Version {
    #[command(flatten)]
    server: Server,
    /// Only this binary's
    #[arg(long)]
    client: bool,
}

impl Version {
    pub async fn run(self) -> anyhow::Result<()> {
        output::line(format!("wherry {}", env!("CARGO_PKG_VERSION")));
        if self.client {
            return Ok(());
        }
        let asked = async { self.server.open().await?.request(http::Method::GET, "/version", JSON, None).await };
        match asked.await {
            Ok(answer) => {
                let version: Value = serde_json::from_slice(&answer)?;
                output::line(format!(
                    "server {}",
                    version.get("gitVersion").and_then(Value::as_str).unwrap_or("of unknown version")
                ));
            }
            Err(error) => output::note(format!("no server: {error}")),
        }
        Ok(())
    }
}
