//! The place of a pod, case by case.

use super::*;

const TWO: [&str; 2] = ["first", "second"];

fn pod(spec: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{{spec}containers: [{{name: app, image: a}}]}}\n"
    );
    stanchion_pod::decode(text.as_bytes(), "node").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
}

fn here(name: &str) -> ObservedBackend<'_> {
    ObservedBackend {
        name,
        was_observed: true,
        error: None,
        is_absent: false,
        since: Timestamp::UNIX_EPOCH,
        lasts: Duration::from_secs(3600),
        has_pod: false,
        failover: Some(Failover::default()),
    }
}

fn away(name: &str, seconds: u64) -> ObservedBackend<'_> {
    let error = Some("no socket".to_owned());
    ObservedBackend { error, is_absent: true, lasts: Duration::from_secs(seconds), ..here(name) }
}

/// A worker's side of the story, with `first` as the default.
struct Story {
    pod: Pod,
    default_backend: DefaultBackend,
    placement: Placement,
    now: Instant,
}

impl Story {
    fn new(pod: Pod, default_backend: DefaultBackend) -> Self {
        let mut placement = Placement::default();
        placement.put_on("first");
        Self { pod, default_backend, placement, now: Instant::now() }
    }

    fn place(&mut self, backends: &[ObservedBackend<'_>]) -> Place {
        let classes = BTreeMap::from([("special".to_owned(), "second".to_owned())]);
        let rules = Rules { runtime_classes: &classes, default_backend: &self.default_backend };
        self.placement.update(Some(&self.pod), rules, backends);
        place(Some(&self.pod), rules, backends, &self.placement, self.now)
    }

    /// Makes the step that the place asks for, on a node where the pod's processes are `alive`.
    fn go(&mut self, backends: &[ObservedBackend<'_>], alive: bool) -> Option<Step> {
        let step = self.place(backends).step?;
        match &step {
            Step::Search { backend } => {
                self.placement.searched(backend, alive.then(|| "they run".to_owned()), self.now);
            }
            Step::FailOver { from, to } => self.placement.fall_back(&self.pod.revision, from, to),
            Step::Return { .. } | Step::LeaveFallback => self.placement.leave_fallback(),
        }
        Some(step)
    }
}

fn named() -> DefaultBackend {
    DefaultBackend::Named("first".to_owned())
}

fn search() -> Option<Step> {
    Some(Step::Search { backend: "first".to_owned() })
}

fn fail_over() -> Option<Step> {
    Some(Step::FailOver { from: "first".to_owned(), to: "second".to_owned() })
}

#[test]
fn a_pod_runs_on_the_backend_of_its_class_or_on_the_default() {
    let both = TWO.map(here);
    for (spec, default_backend, expected) in [
        ("", named(), "first"),
        ("runtimeClassName: special, ", named(), "second"),
        ("runtimeClassName: unknown, ", named(), ""),
        ("", DefaultBackend::Auto, "first"),
        ("runtimeClassName: special, ", DefaultBackend::Auto, "second"),
    ] {
        let mut story = Story::new(pod(spec), default_backend);
        let place = story.place(&both);
        assert_eq!((&*place.backend, &place.step), (expected, &None), "{spec}");
    }
}

#[test]
fn the_first_healthy_backend_is_chosen_once() {
    let mut story = Story { placement: Placement::default(), ..Story::new(pod(""), DefaultBackend::Auto) };
    assert_eq!(story.place(&[away("first", 1), away("second", 1)]).backend, "");
    assert_eq!(story.place(&[away("first", 1), here("second")]).backend, "second");
    assert_eq!(story.place(&TWO.map(here)).backend, "second", "it stays there");
    // The next agent finds it where it runs.
    let mut story = Story { placement: Placement::default(), ..Story::new(pod(""), DefaultBackend::Auto) };
    assert_eq!(story.place(&[here("first"), ObservedBackend { has_pod: true, ..here("second") }]).backend, "second");
}

#[test]
fn a_pod_moves_only_when_none_of_its_processes_is_left() {
    let mut story = Story::new(pod(""), named());
    let early = story.place(&[away("first", 4), here("second")]);
    assert_eq!((early.step, early.wake_at), (None, Some(story.now + Duration::from_secs(6))));
    let late = [away("first", 10), here("second")];
    assert_eq!(story.go(&late, true), search());
    let waiting = story.place(&late);
    assert_eq!((waiting.step, waiting.wake_at), (None, Some(story.now + SEARCH_AGAIN)), "they run");
    assert!(story.placement.obstacle("first", &late).is_some_and(|why| why.ends_with("another backend: they run")));
    story.now += SEARCH_AGAIN;
    assert_eq!((story.go(&late, false), story.go(&late, false), story.go(&late, false)), (search(), fail_over(), None));
    assert_eq!(story.place(&late).backend, "second");
    assert_eq!(story.placement.instead_of(&story.pod.revision, "second"), Some("first"));
}

#[test]
fn some_pods_wait_for_their_backend() {
    let hangs = ObservedBackend { is_absent: false, ..away("first", 3600) };
    let stays = ObservedBackend { failover: None, ..away("first", 3600) };
    for (spec, default_backend, first, expected) in [
        ("", named(), hangs, None),
        ("", named(), stays, None),
        ("restartPolicy: OnFailure, ", named(), away("first", 3600), search()),
        ("restartPolicy: Never, ", DefaultBackend::Auto, away("first", 3600), search()),
    ] {
        let backends = [first, here("second")];
        let mut story = Story::new(pod(spec), default_backend);
        assert_eq!((story.go(&backends, false), story.go(&backends, false)), (expected, None), "{spec}");
        assert_eq!(story.place(&backends).backend, "first", "{spec}");
    }
}

#[test]
fn a_pod_returns_if_that_is_configured() {
    for (on_return, default_backend, is_restarted, expected) in [
        (OnReturn::Stay, named(), false, "second"),
        (OnReturn::Migrate, named(), false, "first"),
        (OnReturn::Migrate, DefaultBackend::Auto, false, "first"),
        // The agent was restarted meanwhile, and finds the pod on the fallback.
        (OnReturn::Migrate, named(), true, "first"),
        (OnReturn::Migrate, DefaultBackend::Auto, true, "first"),
        (OnReturn::Stay, DefaultBackend::Auto, true, "second"),
    ] {
        let failover = Some(Failover { on_return, ..Failover::default() });
        let mut story = Story::new(pod(""), default_backend);
        let gone = [ObservedBackend { failover, ..away("first", 3600) }, here("second")];
        assert_eq!((story.go(&gone, false), story.go(&gone, false)), (search(), fail_over()));
        if is_restarted {
            let revision = story.pod.revision.clone();
            let records = [("second", revision.as_str(), Some("first"))];
            story.placement = Placement::recorded(records.into_iter());
        }
        let back = [ObservedBackend { failover, ..here("first") }, ObservedBackend { has_pod: true, ..here("second") }];
        let step = story.go(&back, false);
        assert_eq!(step.is_some(), on_return == OnReturn::Migrate, "{on_return:?}");
        assert_eq!(story.place(&back).backend, expected, "{on_return:?}, restarted: {is_restarted}");
    }
}

#[test]
fn a_fallback_that_is_lost_too_is_left() {
    let mut story = Story::new(pod(""), named());
    let gone = [away("first", 3600), here("second")];
    assert_eq!((story.go(&gone, false), story.go(&gone, false)), (search(), fail_over()));
    story.placement.put_on("second");
    let both = TWO.map(|name| away(name, 3600));
    assert_eq!(story.go(&both, false), Some(Step::Search { backend: "second".to_owned() }));
    assert_eq!((story.go(&both, false), story.go(&both, false)), (Some(Step::LeaveFallback), None));
    assert_eq!(story.place(&both).backend, "first");
    // The first that comes back has it.
    let again = [here("first"), away("second", 3600)];
    assert_eq!((story.go(&again, false), story.place(&again).backend.as_str()), (None, "first"));
}

#[test]
fn a_backend_that_was_not_observed_yet_is_waited_for() {
    let unobserved = ObservedBackend { was_observed: false, ..here("second") };
    let mut story = Story::new(pod(""), named());
    assert!(story.placement.is_visible("first", &[here("first"), unobserved.clone()]));
    story.placement.put_on("second");
    let backends = [here("first"), unobserved];
    assert!(!story.placement.is_visible("first", &backends) && !story.placement.is_all_observed(&backends));
    let why = story.placement.obstacle("first", &backends);
    assert_eq!(why.as_deref(), Some("backend second, where the pod may still run has not answered yet"));
    story.placement.forget_if_gone(&here("second"));
    assert!(story.placement.is_visible("first", &backends) && story.placement.obstacle("first", &backends).is_none());
}

#[test]
fn a_pod_is_gone_when_every_backend_that_may_have_it_says_so() {
    let classes = BTreeMap::new();
    let default_backend = named();
    let rules = Rules { runtime_classes: &classes, default_backend: &default_backend };
    let (plain, unknown) = (pod(""), pod("runtimeClassName: unknown, "));
    let placed = Story::new(pod(""), named()).placement;
    for (placement, pod, backends, expected) in [
        (&placed, Some(&plain), [here("first"), here("second")], true),
        (&placed, Some(&plain), [away("first", 1), here("second")], false),
        (&placed, None, [here("first"), away("second", 1)], true),
        (&placed, None, [here("first"), ObservedBackend { has_pod: true, ..away("second", 1) }], false),
        (&Placement::default(), Some(&unknown), [away("first", 1), away("second", 1)], true),
    ] {
        assert_eq!(placement.is_gone(pod, rules, &backends), expected, "{backends:?}");
    }
}
