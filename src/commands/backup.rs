//! `wherry backup`: a consistent copy of the cluster's database, taken by the running server.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use futures::TryStreamExt;
use http_body_util::BodyExt;

use crate::client::Server;
use crate::output;

/// Write a consistent copy of the running server's database.
///
/// To restore it: stop Wherry, put the copy in place of DATA-DIR/state/state.redb, start again.
#[derive(Debug, Args)]
pub struct Backup {
    #[command(flatten)]
    server: Server,
    /// The file to write; it must not exist
    file: PathBuf,
}

impl Backup {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.server.open().await?;
        let response = client.open(http::Method::GET, "/backup", "application/octet-stream", None).await?;
        let failed = || format!("{} cannot be written", self.file.display());
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)
            .with_context(failed)?;
        let mut body = response.into_body().into_data_stream();
        let mut size = 0;
        while let Some(bytes) = body.try_next().await.context("the backup broke off")? {
            file.write_all(&bytes).with_context(failed)?;
            size += bytes.len();
        }
        file.sync_all().with_context(failed)?;
        output::line(format!("{} ({})", self.file.display(), output::counted(size, "byte")));
        Ok(())
    }
}
