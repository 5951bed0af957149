//! The machine under the node: what it has and what is left of it, read from the kernel.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that the node keeps for itself.
const OWN_DESCRIPTORS: u64 = 1024;
/// Descriptors of an idle pod: its listener, and one to spare.
const DESCRIPTORS_PER_POD: u64 = 2;
/// Memory of an idle Wasm pod, all copies of its objects counted, with room to work.
const MEMORY_PER_POD: u64 = 64 * 1024;
/// Pods on one node, whatever its size.
const MOST_PODS: u64 = 10_000;
/// Below it the node is under memory pressure, as for the kubelet.
const LITTLE_MEMORY: u64 = 100 * 1024 * 1024;

/// What does not change while the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub cpus: u64,
    pub memory: u64,
    pub disk: u64,
    pub descriptors: u64,
    pub machine_id: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    pub architecture: &'static str,
}

/// What is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

impl Machine {
    /// Reads the machine; raises this process' limit of descriptors to what it may have.
    pub fn read(data_dir: &Path) -> Self {
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory: memory(),
            disk: disk(data_dir).map_or(0, |(total, _)| total),
            descriptors: raise_descriptors(),
            machine_id: first_line("/etc/machine-id"),
            boot_id: first_line("/proc/sys/kernel/random/boot_id"),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            os_image: os_image(),
            architecture: architecture(),
        }
    }

    /// How many Wasm pods fit, by memory and by descriptors.
    pub fn pods(&self) -> u64 {
        let by_memory = self.memory / 2 / MEMORY_PER_POD;
        let by_descriptors = self.descriptors.saturating_sub(OWN_DESCRIPTORS) / DESCRIPTORS_PER_POD;
        MOST_PODS.min(by_memory).min(by_descriptors).max(1)
    }
}

impl Pressure {
    /// Reads what is left now.
    pub fn read(data_dir: &Path) -> Self {
        Self {
            memory: meminfo("MemAvailable").is_some_and(|left| left < LITTLE_MEMORY),
            // The kubelet's nodefs threshold: less than a tenth is left.
            disk: disk(data_dir).is_some_and(|(total, left)| total > 0 && left < total / 10),
            pids: pids_short(),
        }
    }
}

/// Kubernetes' names of architectures are Go's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        other => other,
    }
}

fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum;
    if limit.current != hard
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The machine's memory, or this control group's share of it.
fn memory() -> u64 {
    let total = meminfo("MemTotal").unwrap_or(0);
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = group.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    total.min(limit)
}

fn meminfo(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Total and free bytes of the file system that holds `dir`.
pub(super) fn disk(dir: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

fn pids_short() -> bool {
    let limit = first_line("/proc/sys/kernel/pid_max").parse::<u64>().unwrap_or(u64::MAX);
    let load = first_line("/proc/loadavg");
    let used = load.split_whitespace().nth(3).and_then(|tasks| tasks.split_once('/')?.1.parse::<u64>().ok());
    used.is_some_and(|used| used > limit / 10 * 9)
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
}

fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(memory: u64, descriptors: u64) -> Machine {
        Machine {
            cpus: 2,
            memory,
            disk: 0,
            descriptors,
            machine_id: String::new(),
            boot_id: String::new(),
            kernel: String::new(),
            os_image: String::new(),
            architecture: "amd64",
        }
    }

    #[test]
    fn pods_are_bounded_by_memory_and_by_descriptors() {
        assert_eq!(machine(8 << 30, 1 << 20).pods(), 10_000);
        assert_eq!(machine(512 << 20, 1 << 20).pods(), 4096);
        assert_eq!(machine(8 << 30, 4096).pods(), 1536);
        assert_eq!(machine(0, 0).pods(), 1);
    }

    #[test]
    fn this_machine_has_cpus_memory_and_a_kernel() {
        let here = Machine::read(Path::new("/"));
        assert!(here.cpus > 0 && here.memory > 0 && here.disk > 0 && here.descriptors > 0);
        assert!(!here.kernel.is_empty() && !here.os_image.is_empty());
    }
}
