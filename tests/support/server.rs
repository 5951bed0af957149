//! `wherry up` as a child process.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::api::Api;
use super::run::{Following, Output, eventually, run, within};
use super::{PATIENCE, missing, prebuilt};

/// The user and group without rights.
const NOBODY: u32 = 65534;
/// Lines of a server's log that a failed test shows.
const SHOWN: usize = 150;

/// A data directory and the server that runs in it.
pub struct Wherry {
    folder: tempfile::TempDir,
    binary: PathBuf,
    node: String,
    /// Runs as nobody, if this test may become nobody.
    unprivileged: bool,
    child: Option<Child>,
}

impl Wherry {
    /// A folder for a server that is not started yet.
    pub fn prepare(node: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("wherry-test-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "data"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let binary = super::binary();
        Self { folder, binary, node: node.to_owned(), unprivileged: false, child: None }
    }

    /// A server that is ready.
    pub fn start(node: &str) -> Self {
        let mut server = Self::prepare(node);
        server.up(&["--quiet"]);
        server
    }

    /// From now on it runs as nobody, if this process is root.
    #[must_use]
    pub fn without_rights(mut self) -> Self {
        if !rustix::process::geteuid().is_root() || missing("setpriv") {
            return self;
        }
        chown(self.data_dir(), Some(NOBODY), Some(NOBODY)).unwrap();
        chown(self.home(), Some(NOBODY), Some(NOBODY)).unwrap();
        self.unprivileged = true;
        // The build's folder may be closed to others.
        if run(self.as_nobody("test").args(["-x"]).arg(&self.binary), "").code != 0 {
            let copy = self.folder.path().join("wherry");
            fs::copy(&self.binary, &copy).unwrap();
            self.binary = copy;
        }
        self
    }

    #[allow(clippy::unused_self)]
    fn as_nobody(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", program]);
        command
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A file for the test's own use beside the data directory.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command =
            if self.unprivileged { self.as_nobody(&program.display().to_string()) } else { Command::new(program) };
        command
            .env("HOME", self.home())
            .env_remove("XDG_DATA_HOME")
            .env_remove("KUBECONFIG")
            .env_remove("DOCKER_CONFIG");
        command.env_remove("WHERRY_LOG").env("RUST_BACKTRACE", "1").current_dir(self.folder.path());
        command
    }

    /// `wherry up` on this data directory, not started.
    pub fn up_command(&self, more: &[&str]) -> Command {
        let mut command = self.command(&self.binary.clone());
        command.arg("up").arg("--data-dir").arg(self.data_dir()).args(["--node-name", &self.node]).args(more);
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command
    }

    /// Starts `wherry up` and waits until it serves.
    #[track_caller]
    pub fn up(&mut self, more: &[&str]) -> Duration {
        let began = Instant::now();
        self.launch(more);
        within(PATIENCE, "the server is ready", || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("`wherry up` ended with {status}:\n{}", self.log());
            }
            let text = fs::read_to_string(self.kubeconfig()).map_err(|e| e.to_string())?;
            let api = Api::new(&text, |_| ());
            let answer = api.block_on(async {
                let asked = api.ask("GET", "/readyz", "", Vec::new());
                tokio::time::timeout(Duration::from_secs(2), asked).await.map_err(|_| "no answer".to_owned())
            })??;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        });
        began.elapsed()
    }

    /// Starts `wherry up` and does not wait.
    pub fn launch(&mut self, more: &[&str]) {
        let output = |name: &str| {
            let path = self.folder.path().join(name);
            Stdio::from(File::options().create(true).append(true).open(path).unwrap())
        };
        let mut command = self.up_command(more);
        command.stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr"));
        self.child = Some(command.spawn().unwrap());
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).unwrap_or_default()
    }

    /// Standard error: progress and log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    pub fn forget_output(&self) {
        for name in ["stdout", "stderr"] {
            let _ = File::options().write(true).truncate(true).open(self.folder.path().join(name));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map(Child::id).unwrap()
    }

    /// Ctrl-C; returns how it ended and how long that took.
    #[track_caller]
    pub fn interrupt(&mut self) -> (ExitStatus, Duration) {
        self.signal(Signal::INT);
        let (began, mut child) = (Instant::now(), self.child.take().unwrap());
        let status = within(PATIENCE, "the server drains and ends", || match child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err("it still runs".to_owned()),
        });
        (status, began.elapsed())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills it and starts it again at the same address, where clients that go on look for it.
    #[track_caller]
    pub fn restart(&mut self) {
        let kubeconfig = fs::read_to_string(self.kubeconfig()).unwrap();
        let address = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("server: https://")).unwrap();
        self.kill();
        self.up(&["--quiet", "--listen", address]);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn api(&self) -> Api {
        Api::new(&fs::read_to_string(self.kubeconfig()).unwrap(), |_| ())
    }

    /// A `kubectl` of this cluster's administrator, not started.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        self.with_kubeconfig(Path::new("kubectl"), args)
    }

    /// A program that is given this cluster's kubeconfig, not started.
    pub fn with_kubeconfig(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.home())
            .current_dir(self.folder.path());
        command
    }

    /// Runs `kubectl`.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> Output {
        run(&mut self.kubectl_command(args), "")
    }

    /// Runs `kubectl` with a manifest on its standard input (`-f -`).
    #[track_caller]
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Output {
        run(&mut self.kubectl_command(args), stdin)
    }

    #[track_caller]
    pub fn follow(&self, args: &[&str]) -> Following {
        Following::start(&mut self.kubectl_command(args))
    }

    /// A client command of the built binary, not started.
    pub fn client_command(&self, args: &[&str]) -> Command {
        let mut command = self.with_kubeconfig(&super::binary(), args);
        command.env_remove("DOCKER_CONFIG").env_remove("WHERRY_LOG").env_remove("XDG_DATA_HOME");
        command
    }

    /// Runs a client command of the built binary.
    #[track_caller]
    pub fn wherry(&self, args: &[&str]) -> Output {
        run(&mut self.client_command(args), "")
    }

    #[track_caller]
    pub fn wherry_with(&self, args: &[&str], stdin: &str) -> Output {
        run(&mut self.client_command(args), stdin)
    }

    /// Stores a prebuilt component in the cluster's registry; returns its name by digest.
    #[track_caller]
    pub fn image(&self, name: &str) -> String {
        let path = prebuilt(name).display().to_string();
        self.wherry(&["image", "import", &path, &format!("default/{name}:test")]).ok().trim().to_owned()
    }

    /// Applies JSON objects with the administrator's client.
    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl_with(&["apply", "-f", "-"], &list.to_string()).ok();
    }

    /// A pod as it is now.
    #[track_caller]
    pub fn pod(&self, name: &str) -> Value {
        self.api().get(&format!("/api/v1/namespaces/default/pods/{name}")).ok()
    }

    /// Waits until a pod satisfies; the failure shows the pod's status and events.
    #[track_caller]
    pub fn pod_until(&self, name: &str, what: &str, found: impl Fn(&Value) -> bool) -> Value {
        let api = self.api();
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        eventually(&format!("pod {name} {what}"), || {
            let pod = api.get(&path).json();
            if found(&pod) { Ok(pod) } else { Err(format!("{:#}\n{}", pod["status"], self.events(name))) }
        })
    }

    #[track_caller]
    pub fn pod_ready(&self, name: &str) -> Value {
        self.pod_until(name, "is ready", is_ready)
    }

    /// The messages of an object's events, with type, reason and source.
    pub fn events(&self, name: &str) -> String {
        let path = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={name}");
        let list = self.api().get(&path).json();
        let events = list["items"].as_array().cloned().unwrap_or_default();
        let line = |e: &Value| format!("{} {}: {}\n", text(e, "/type"), text(e, "/reason"), text(e, "/message"));
        events.iter().map(line).collect()
    }

    /// Waits until one of an object's events has all these words; returns the events.
    #[track_caller]
    pub fn event_until(&self, name: &str, words: &[&str]) -> String {
        eventually(&format!("an event of {name} says {words:?}"), || {
            let events = self.events(name);
            let found = events.lines().any(|line| words.iter().all(|word| line.contains(word)));
            if found { Ok(events) } else { Err(events) }
        })
    }

    /// The URL of a Service's first node port.
    #[track_caller]
    pub fn url(&self, service: &str) -> String {
        let service = self.api().get(&format!("/api/v1/namespaces/default/services/{service}")).ok();
        format!("http://127.0.0.1:{}", service.pointer("/spec/ports/0/nodePort").and_then(Value::as_u64).unwrap())
    }
}

impl Drop for Wherry {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default();
            eprintln!("--- the server of this test said:\n{}{}\n---", self.stdout(), tail.join("\n"));
        }
    }
}

/// The text at a JSON pointer; empty if there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// A pod of one container `main`.
pub fn pod(name: &str, image: &str, container: Value, spec: Value) -> Value {
    let mut main = json!({"name": "main", "image": image});
    merge(&mut main, container);
    let mut all = json!({"containers": [main], "terminationGracePeriodSeconds": 2});
    merge(&mut all, spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": all})
}

/// A Deployment of one container `main` with a port 8080, and a NodePort Service of the same name.
pub fn served(name: &str, image: &str, replicas: u32) -> Vec<Value> {
    let template = json!({
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}],
                 "terminationGracePeriodSeconds": 2},
    });
    vec![
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
               "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}}),
        node_port(name),
    ]
}

/// A NodePort Service of the pods with `app` of this name.
pub fn node_port(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
           "spec": {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}})
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}
