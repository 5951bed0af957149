//! Frees the node's disk of images that none of its pods needs, with the kubelet's thresholds.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::machine;
use crate::image::{Images, Unused};
use crate::pod::events::Recorder;
use crate::pod::manager::Manager;
use crate::pod::setup::containers;

/// How often the disk is looked at; the first time, all pods of the node are known.
const EVERY: Duration = Duration::from_mins(5);
/// An image that was used since stays.
const IDLE: Duration = Duration::from_mins(2);
/// Percent of the disk that are used when images begin to go, and when that is enough.
const HIGH: u64 = 85;
const LOW: u64 = 80;

/// Goes on until it is dropped.
pub async fn run(manager: Manager, images: Arc<dyn Images>, data_dir: PathBuf, events: Recorder) {
    let mut failed = false;
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(bytes) = machine::disk(&data_dir).and_then(|(total, left)| surplus(total, left)) else {
            failed = false;
            continue;
        };
        let freed = images.remove_unused(Unused { wanted: wanted(&manager), bytes, idle: IDLE }).await;
        if freed < bytes {
            tracing::warn!(wanted = bytes, freed, "the disk is nearly full, and no more images can be removed");
            let message = too_little(bytes, freed);
            // Once may be a matter of the moment.
            if std::mem::replace(&mut failed, true) {
                events.record_node(true, "ImageGCFailed", message.clone());
            }
            events.record_node(true, "FreeDiskSpaceFailed", message);
        } else {
            failed = false;
            tracing::info!(freed, "images that no pod uses were removed, since the disk was nearly full");
        }
    }
}

/// The kubelet's words for it.
fn too_little(wanted: u64, freed: u64) -> String {
    format!(
        "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes \
         eligible to free."
    )
}

/// The images that pods of this node name.
fn wanted(manager: &Manager) -> HashSet<String> {
    let mut wanted = HashSet::new();
    for shared in manager.pods() {
        wanted.extend(containers(&shared.pod()).iter().filter_map(|container| container.image.clone()));
    }
    wanted
}

/// How many bytes are to go.
fn surplus(total: u64, left: u64) -> Option<u64> {
    let used = total.saturating_sub(left);
    (used > total / 100 * HIGH).then(|| used - total / 100 * LOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_go_above_85_percent_until_80_are_used() {
        assert_eq!(surplus(1000, 150), None);
        assert_eq!(surplus(1000, 140), Some(60));
        assert_eq!(surplus(1000, 0), Some(200));
        assert_eq!(surplus(0, 0), None);
    }
}
