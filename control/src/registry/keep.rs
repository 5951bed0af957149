//! Removing what nothing refers to, while the registry serves.

use std::io;
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};

use super::Images;
use super::disk::GRACE;

/// What nothing refers to is looked for this often, and this long after something was deleted: who deletes much is waited for.
const DAILY: Duration = Duration::from_hours(24);
const SOON: Duration = Duration::from_secs(30);

impl Images {
    /// Removes what nothing refers to; whether there is more that may not go yet. Blocks.
    pub(super) fn collect(&self) -> io::Result<bool> {
        let open = self.uploads.repositories();
        let collected = self.disk.collect(SystemTime::now(), &open, &|work| self.homes.alone(work))?;
        if collected.freed > 0 {
            tracing::info!(bytes = collected.freed, "removed images' contents that nothing refers to");
        }
        Ok(collected.later)
    }

    /// Does so after deletions, and daily, without end.
    pub(crate) async fn keep(self) {
        self.keep_after(SOON).await;
    }

    pub(super) async fn keep_after(self, soon: Duration) {
        let mut wait = DAILY;
        loop {
            if timeout(wait, self.deleted.notified()).await.is_ok() {
                sleep(soon).await;
            }
            let images = self.clone();
            let collected = tokio::task::spawn_blocking(move || images.collect()).await;
            wait = match collected.unwrap_or_else(|failed| Err(io::Error::other(failed))) {
                Ok(false) => DAILY,
                Ok(true) => GRACE,
                Err(error) => {
                    tracing::warn!(%error, "images' contents that nothing refers to could not be removed");
                    GRACE
                }
            };
        }
    }
}
