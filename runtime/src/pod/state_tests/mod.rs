//! Stories of pods, told to the state machine and read from its actions and the status.

mod story;

use self::story::{Story, after_restart, without_events};
use super::super::container::Step;
use super::super::status::Transitions;
use super::*;

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_succeeds() {
    let mut story = Story::new(RestartPolicy::Never, &["a"]);
    assert_eq!(story.tell(Input::Begin), ["attach"]);
    assert_eq!(story.phase(), "Pending");
    assert_eq!(story.condition("PodReadyToStartContainers"), "False::");
    assert_eq!(story.tell(Input::Attached([127, 1, 0, 1].into())), ["pull 0"]);
    assert_eq!(story.shown(0), "waiting:ContainerCreating:");
    assert_eq!(story.image(0), ["start 0 #0"]);
    assert_eq!(story.started(0), ["event Started: Container started"]);
    assert_eq!(story.phase(), "Running");
    assert_eq!(story.condition("Ready"), "True");
    let running = story.container(0);
    assert_eq!((running.ready, running.started, running.restart_count), (true, Some(true), 0));
    assert_eq!((running.container_id.as_deref(), running.image_id.as_str()), (Some("wasm://0"), "img@sha256:1"));
    assert_eq!(story.exit(0, 0), ["release"]);
    assert_eq!(story.phase(), "Succeeded");
    assert_eq!(story.shown(0), "terminated:0:Completed");
    assert_eq!(story.condition("Ready"), "False:PodCompleted:");
    let status = story.status();
    assert_eq!(status.pod_ip.as_deref(), Some("127.1.0.1"));
    assert_eq!(status.qos_class.as_deref(), Some("Burstable"));
    assert_eq!(story.delete(30), ["delete"]);
    assert_eq!(story.tell(Input::Removed), ["finish"]);
}

#[tokio::test(start_paused = true)]
async fn containers_are_pulled_at_once_and_started_in_order() {
    let mut story = Story::new(RestartPolicy::Always, &["a", "b"]);
    story.tell(Input::Begin);
    assert_eq!(story.tell(Input::Attached([127, 1, 0, 1].into())), ["pull 0", "pull 1"]);
    assert_eq!(story.image(1), Vec::<String>::new());
    assert_eq!(story.image(0), ["start 0 #0"]);
    assert_eq!(without_events(story.started(0)), ["start 1 #0"]);
    assert_eq!(story.condition("ContainersReady"), "False:ContainersNotReady:containers with unready status: [b]");
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_image_fails_does_not_hold_up_the_next() {
    let mut story = Story::new(RestartPolicy::Always, &["a", "b"]);
    story.tell(Input::Begin);
    story.tell(Input::Attached([127, 1, 0, 1].into()));
    story.image(1);
    let failed = Input::ImageFailed { container: 0, reason: "ErrImagePull", message: "no".to_owned() };
    assert_eq!(without_events(story.tell(failed)), ["start 1 #0"]);
}

/// Policy, exit code, what becomes of the pod, and whether it is started again.
#[tokio::test(start_paused = true)]
async fn the_restart_policy_decides_what_an_end_means() {
    for (policy, code, phase, again) in [
        (RestartPolicy::Always, 0, "Running", true),
        (RestartPolicy::Always, 1, "Running", true),
        (RestartPolicy::OnFailure, 0, "Succeeded", false),
        (RestartPolicy::OnFailure, 1, "Running", true),
        (RestartPolicy::Never, 0, "Succeeded", false),
        (RestartPolicy::Never, 1, "Failed", false),
    ] {
        let mut story = Story::new(policy, &["a"]);
        story.run();
        let actions = story.exit(0, code);
        assert_eq!(actions.contains(&"pull 0".to_owned()), again, "{policy:?} {code}");
        assert_eq!(story.phase(), phase, "{policy:?} {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_over_when_its_last_container_ends_and_fails_if_one_did() {
    let mut story = Story::new(RestartPolicy::Never, &["a", "b"]);
    story.run();
    assert_eq!(story.exit(0, 3), Vec::<String>::new());
    assert_eq!(story.phase(), "Running");
    assert_eq!(story.exit(1, 0), ["release"]);
    assert_eq!(story.phase(), "Failed");
    assert_eq!(story.condition("ContainersReady"), "False:PodFailed:");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_ten_seconds_then_twice_as_long() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    assert_eq!(story.exit(0, 1), ["pull 0"], "the first restart is not delayed");
    story.restarted(0);
    assert_eq!(story.container(0).restart_count, 1);
    let back_off = "event BackOff: Back-off restarting failed container a in pod web_default(u1)";
    assert_eq!(story.exit(0, 1), [back_off]);
    let message = "back-off 10s restarting failed container=a pod=web_default(u1)";
    assert_eq!(story.shown(0), format!("waiting:CrashLoopBackOff:{message}"));
    assert_eq!(story.phase(), "Running");
    let last = story.container(0).last_state.and_then(|s| s.terminated).map(|t| t.exit_code);
    assert_eq!(last, Some(1));
    assert_eq!(story.pass(9), Vec::<String>::new());
    assert_eq!(story.pass(1), ["pull 0"]);
    story.restarted(0);
    story.exit(0, 1);
    assert!(story.shown(0).contains("back-off 20s"));
    for _ in 0..5 {
        story.pass(300);
        story.restarted(0);
        story.exit(0, 1);
    }
    assert!(story.shown(0).contains("back-off 5m0s"), "{}", story.shown(0));
    assert_eq!(story.container(0).restart_count, 7);
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_running_end_a_crash_loop() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    for _ in 0..3 {
        story.exit(0, 1);
        story.pass(60);
        story.restarted(0);
    }
    story.pass(601);
    assert_eq!(story.exit(0, 1), ["pull 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_pull_is_shown_backed_off_and_tried_again() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.tell(Input::Begin);
    story.tell(Input::Attached([127, 1, 0, 1].into()));
    let failed = || Input::ImageFailed {
        container: 0,
        reason: "ErrImagePull",
        message: "failed to pull image \"img:1\": not found".to_owned(),
    };
    assert_eq!(
        story.tell(failed()),
        ["event Failed: Failed to pull image \"img:1\": not found", "event Failed: Error: ErrImagePull"]
    );
    assert_eq!(story.shown(0), "waiting:ErrImagePull:failed to pull image \"img:1\": not found");
    assert_eq!(
        story.pass(2),
        ["event BackOff: Back-off pulling image \"img:1\"", "event Failed: Error: ImagePullBackOff"]
    );
    assert!(story.shown(0).starts_with("waiting:ImagePullBackOff:Back-off pulling image \"img:1\": ErrImagePull:"));
    assert_eq!(story.pass(8), ["pull 0"]);
    assert!(story.shown(0).starts_with("waiting:ImagePullBackOff"), "shown while it is tried again");
    story.tell(failed());
    assert_eq!(without_events(story.pass(19)), Vec::<String>::new());
    assert_eq!(story.pass(1), ["pull 0"]);
    assert_eq!(story.image(0), ["start 0 #0"]);
    story.started(0);
    assert_eq!(story.shown(0), "running");
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_keeps_the_container_waiting_until_it_is_there() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.tell(Input::Begin);
    story.tell(Input::Attached([127, 1, 0, 1].into()));
    story.image(0);
    let message = "configmap \"settings\" not found".to_owned();
    let failed = Input::CreateFailed { container: 0, reason: "CreateContainerConfigError", message };
    assert_eq!(story.tell(failed), ["event Failed: Error: configmap \"settings\" not found"]);
    assert_eq!(story.shown(0), "waiting:CreateContainerConfigError:configmap \"settings\" not found");
    assert_eq!(story.pass(10), ["pull 0"]);
    assert_eq!(story.image(0), ["start 0 #0"]);
    assert_eq!(story.shown(0), "waiting:CreateContainerConfigError:configmap \"settings\" not found");
    story.started(0);
    assert_eq!(story.container(0).restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_component_that_cannot_run_ends_its_pod_or_loops() {
    for (policy, phase, shown) in [
        (RestartPolicy::Never, "Failed", "terminated:128:ContainerCannotRun"),
        (RestartPolicy::Always, "Running", "waiting:ContainerCreating:"),
    ] {
        let mut story = Story::new(policy, &["a"]);
        story.tell(Input::Begin);
        story.tell(Input::Attached([127, 1, 0, 1].into()));
        story.image(0);
        let exit = Exit {
            code: 128,
            reason: "ContainerCannotRun".to_owned(),
            message: "imports a:b/c".to_owned(),
            finished_at: story.now().wall,
        };
        let actions = story.tell(Input::Exited { container: 0, exit });
        assert_eq!(actions.first().map(String::as_str), Some("event Failed: Error: imports a:b/c"));
        assert_eq!((story.phase().as_str(), story.shown(0).as_str()), (phase, shown));
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_stopped_within_its_grace_and_then_removed() {
    let mut story = Story::new(RestartPolicy::Always, &["a", "b"]);
    story.run();
    assert_eq!(without_events(story.delete(30)), ["stop 0 30s", "stop 1 30s"]);
    assert_eq!(story.exit(0, 0), Vec::<String>::new(), "not started again");
    assert_eq!(story.exit(1, 143), ["release", "delete"]);
    assert_eq!(story.phase(), "Failed");
    assert_eq!(story.tell(Input::Removed), ["finish"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_deletion_can_only_shorten_the_grace() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    assert_eq!(story.delete(30), ["event Killing: Stopping container a", "stop 0 30s"]);
    assert_eq!(story.delete(30), Vec::<String>::new(), "the same again");
    story.pass(5);
    assert_eq!(story.delete(60), Vec::<String>::new(), "longer");
    assert_eq!(story.delete(1), ["stop 0 1s"]);
    assert_eq!(story.delete(0), ["stop 0 0s"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_its_image_is_pulled_gives_up_the_pull() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.tell(Input::Begin);
    story.tell(Input::Attached([127, 1, 0, 1].into()));
    assert_eq!(story.delete(30), ["cancel pull 0", "release", "delete"]);
    assert_eq!(story.image(0), Vec::<String>::new(), "a late answer changes nothing");
    assert_eq!(story.phase(), "Failed");
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_it_gets_its_address_is_never_started() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.tell(Input::Begin);
    assert_eq!(story.delete(30), ["release", "delete"]);
    assert_eq!(story.tell(Input::Attached([127, 1, 0, 1].into())), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_it_starts_is_stopped_whether_it_started_or_not() {
    for started in [false, true] {
        let mut story = Story::new(RestartPolicy::Always, &["a"]);
        story.tell(Input::Begin);
        story.tell(Input::Attached([127, 1, 0, 1].into()));
        story.image(0);
        assert_eq!(without_events(story.delete(30)), ["stop 0 30s"]);
        if started {
            assert_eq!(without_events(story.started(0)), ["stop 0 30s"]);
            assert_eq!(story.exit(0, 0), ["release", "delete"]);
        } else {
            assert_eq!(story.tell(Input::Cancelled { container: 0 }), ["release", "delete"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_in_its_back_off_goes_at_once() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    story.exit(0, 1);
    story.restarted(0);
    story.exit(0, 1);
    assert_eq!(story.delete(30), ["release", "delete"]);
    assert_eq!(story.shown(0), "terminated:1:Error");
}

#[tokio::test(start_paused = true)]
async fn a_pod_removed_from_the_api_is_stopped_without_a_trace() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    assert_eq!(without_events(story.tell(Input::Removed)), ["stop 0 1s"]);
    assert_eq!(story.exit(0, 137), ["release", "finish"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_image_and_a_deletion_in_one_tick_only_delete() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    let update = |deletion| Update { images: vec!["img:2".to_owned()], deletion, ..Update::default() };
    assert_eq!(
        story.tell(Input::Updated(update(None))),
        ["event Killing: Container a definition changed, will be restarted", "stop 0 30s"]
    );
    assert_eq!(story.tell(Input::Updated(update(Some(Duration::from_secs(5))))), ["stop 0 5s"]);
    assert_eq!(story.exit(0, 0), ["release", "delete"]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_image_is_pulled_whatever_the_container_did() {
    let update = || Input::Updated(Update { images: vec!["img:2".to_owned()], ..Update::default() });
    let mut running = Story::new(RestartPolicy::Never, &["a"]);
    running.run();
    running.tell(update());
    assert_eq!(running.exit(0, 137), ["pull 0"], "also with restartPolicy Never");
    assert_eq!(running.image(0), ["start 0 #1"]);

    let mut failing = Story::new(RestartPolicy::Always, &["a"]);
    failing.tell(Input::Begin);
    failing.tell(Input::Attached([127, 1, 0, 1].into()));
    failing.tell(Input::ImageFailed { container: 0, reason: "InvalidImageName", message: "x".to_owned() });
    assert_eq!(failing.tell(update()), ["pull 0"]);

    let mut pulling = Story::new(RestartPolicy::Always, &["a"]);
    pulling.tell(Input::Begin);
    pulling.tell(Input::Attached([127, 1, 0, 1].into()));
    assert_eq!(pulling.tell(update()), ["cancel pull 0", "pull 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_fails_is_tried_again() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.tell(Input::Begin);
    assert_eq!(
        story.tell(Input::AttachFailed("no address".to_owned())),
        ["event FailedCreatePodSandBox: Failed to create pod sandbox: no address"]
    );
    assert_eq!(story.pass(5), ["attach"]);
}

#[tokio::test(start_paused = true)]
async fn the_active_deadline_fails_the_pod() {
    let mut story = Story::with(RestartPolicy::Always, &["a"], |setup| setup.deadline = Some(Duration::from_mins(1)));
    story.run();
    assert_eq!(without_events(story.pass(60)), ["stop 0 30s"]);
    assert_eq!(story.exit(0, 0), ["release"]);
    let status = story.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    assert_eq!(story.delete(0), ["delete"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_for_the_impossible_is_not_started_and_says_why() {
    let mut story = Story::with(RestartPolicy::Always, &["a"], |setup| {
        setup.blocked = Some("this node does not support spec.hostNetwork".to_owned());
    });
    let actions = story.tell(Input::Begin);
    assert_eq!(actions, ["event Failed: Error: this node does not support spec.hostNetwork"]);
    assert!(story.shown(0).starts_with("waiting:CreateContainerConfigError:this node does not support"));
    assert_eq!(story.pass(3600), Vec::<String>::new());
    assert_eq!(story.delete(30), ["release", "delete"]);
}

#[tokio::test(start_paused = true)]
async fn readiness_gates_hold_ready_back() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    let gate = "corresponding condition of pod readiness gate \"x\" does not exist.".to_owned();
    story.tell(Input::Updated(Update { gates: vec![gate.clone()], ..Update::default() }));
    assert_eq!(story.condition("Ready"), format!("False:ReadinessGatesNotReady:{gate}"));
    assert_eq!(story.condition("ContainersReady"), "True");
}

#[tokio::test(start_paused = true)]
async fn a_condition_keeps_its_time_while_it_does_not_change() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    let since = |story: &mut Story| {
        let conditions = story.status().conditions.unwrap_or_default();
        conditions.into_iter().find(|c| c.type_ == "Ready").and_then(|c| c.last_transition_time)
    };
    let first = since(&mut story);
    story.pass(100);
    assert_eq!(since(&mut story), first);
    let mut later = after_restart(&mut story);
    let recovered = Transitions::recover(&story.status());
    later.transitions = recovered;
    later.run();
    assert_eq!(since(&mut later), first, "also over a restart of the node");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_restarts_its_containers() {
    let mut story = Story::new(RestartPolicy::Always, &["a", "b"]);
    story.run();
    story.exit(0, 7);
    story.restarted(0);
    let mut next = after_restart(&mut story);
    next.tell(Input::Begin);
    assert_eq!(next.tell(Input::Attached([127, 1, 0, 1].into())), ["pull 0", "pull 1"]);
    assert_eq!(next.image(0), ["start 0 #2"]);
    next.started(0);
    let (status, before) = (next.container(0), story.container(0));
    assert_eq!(status.restart_count, 2);
    let last = status.last_state.and_then(|s| s.terminated).unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (255, Some("Unknown")));
    assert_eq!((last.container_id, last.started_at.is_some()), (before.container_id, true));
    assert_eq!(next.pod.containers()[0].instances().previous, Some(1), "its log is kept");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_goes_on_with_a_crash_loop() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    story.exit(0, 7);
    story.restarted(0);
    story.exit(0, 8);
    assert!(story.shown(0).starts_with("waiting:CrashLoopBackOff"));
    let mut next = after_restart(&mut story);
    next.tell(Input::Begin);
    next.tell(Input::Attached([127, 1, 0, 1].into()));
    assert_eq!(next.image(0), ["start 0 #2"]);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_run_twice_fails_when_its_node_was_lost() {
    let mut story = Story::new(RestartPolicy::Never, &["a"]);
    story.run();
    let mut next = after_restart(&mut story);
    assert_eq!(next.tell(Input::Begin), ["release"]);
    assert_eq!(next.phase(), "Failed");
    assert_eq!(next.shown(0), "terminated:137:ContainerStatusUnknown");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_the_end_of_what_is_not_started_again_and_of_nothing_else() {
    for (policy, told) in
        [(RestartPolicy::Never, true), (RestartPolicy::OnFailure, false), (RestartPolicy::Always, false)]
    {
        let mut story = Story::new(policy, &["a"]);
        story.run();
        let now = story.now();
        let exit = Exit { code: 143, reason: "Error".to_owned(), message: String::new(), finished_at: now.wall };
        assert_eq!(story.pod.shut_down(vec![(0, exit)], now), told, "{policy:?}");
        assert_eq!(story.shown(0), if told { "terminated:143:Error" } else { "running" });
        assert_eq!(story.phase(), if told { "Failed" } else { "Running" });
        assert_eq!(story.status().reason.as_deref(), told.then_some("Terminated"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_stays_ended_over_a_restart() {
    for (code, phase) in [(0, "Succeeded"), (1, "Failed")] {
        let mut story = Story::new(RestartPolicy::Never, &["a"]);
        story.run();
        story.exit(0, code);
        let mut next = after_restart(&mut story);
        assert_eq!(next.tell(Input::Begin), ["release"]);
        assert_eq!(next.phase(), phase);
        assert!(next.pod.containers().iter().all(|c| c.step == Step::Ended));
        assert_eq!(next.delete(30), ["delete"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_the_node_was_away_is_removed() {
    let mut story = Story::new(RestartPolicy::Always, &["a"]);
    story.run();
    let mut next = after_restart(&mut story);
    assert_eq!(next.delete(30), ["release", "delete"]);
}
