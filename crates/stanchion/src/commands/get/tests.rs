use clap::{Args as _, Command, FromArgMatches as _};
use jiff::Timestamp;
use stanchion_board::view::{EventType, ManifestView};

use super::*;

fn parsed(words: &[&str]) -> Result<Options> {
    let command = Options::augment_args(Command::new("get").no_binary_name(true));
    Ok(Options::from_arg_matches(&command.try_get_matches_from(words)?)?)
}

fn event(object: &str) -> EventView {
    let at = Timestamp::UNIX_EPOCH;
    EventView {
        id: 1,
        first: at,
        last: at,
        count: 1,
        kind: EventType::Normal,
        reason: "Started".to_owned(),
        object: object.to_owned(),
        field: "spec.containers{c}".to_owned(),
        message: "it runs".to_owned(),
    }
}

/// Returns the output for two objects of the kind; for pods only their number and the options.
fn shown_of(kind: Kind, options: &Options) -> Result<String> {
    match kind {
        Kind::Pods => {
            let mut pods = Vec::new();
            for namespace in ["default", "other"] {
                let view =
                    json!({ "pod": { "metadata": { "namespace": namespace } }, "backend": "b", "manifest": "m" });
                pods.push(serde_json::from_value(view).expect("it is a pod"));
            }
            // The remaining output of pods needs an agent.
            let left = wanted(pods, options).len();
            Ok(format!("{left} {:?} {:?} {}", options.name, options.output, options.show_removed))
        }
        Kind::Nodes => nodes(&NodeView { name: "one".to_owned(), ..NodeView::default() }, &[], options),
        Kind::Events => {
            let events = vec![event("Pod/default/pod"), event("Pod/other/pod"), event("Backend/docker")];
            event_list(&wanted_events(events, options), options.output.as_deref())
        }
        Kind::Manifests => {
            let manifest = |path: &str| ManifestView { path: path.to_owned(), ..ManifestView::default() };
            let source = SourceView { manifests: vec![manifest("one"), manifest("two")], ..SourceView::default() };
            manifests(&[source], options)
        }
        Kind::Backends => {
            let backend = |name: &str| BackendView { name: name.to_owned(), ..BackendView::default() };
            let backends = vec![backend("one"), backend("two")];
            super::super::backends::text(backends, options.name.as_deref(), options.output.as_deref())
        }
    }
}

/// Checks that each flag has an effect on the kind, or that an error refuses it by name.
#[test]
fn each_argument_is_heeded_or_refused_by_name() {
    let command = Options::augment_args(Command::new("get"));
    for kind in Kind::ALL {
        let plain = parsed(&kind.names()[..1]).and_then(|options| shown_of(kind, &options)).expect("it is shown");
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "kind") {
            let name = match argument.get_long() {
                Some(long) => format!("--{long}"),
                None => argument.get_id().as_str().to_uppercase(),
            };
            let values: Vec<Vec<&str>> = match name.as_str() {
                "NAME" => vec![vec!["one"], vec!["none"]],
                "--namespace" => vec![vec!["--namespace", "other"], vec!["-n", "other"]],
                // It is the default without --namespace too, so it has no visible effect.
                "--all-namespaces" => vec![vec!["-A"]],
                "--output" => ["wide", "json", "yaml", "name"].map(|form| vec!["--output", form]).to_vec(),
                "--watch" => vec![vec!["-w"]],
                "--show-removed" => vec![vec!["--show-removed"]],
                other => panic!("say here how {other} is tried"),
            };
            for value in values {
                let options = parsed(&[&kind.names()[..1], &value].concat()).expect("clap takes it");
                match Kind::of(&options) {
                    Err(error) => assert!(error.to_string().contains(&name), "{kind:?} {value:?}: {error}"),
                    Ok(_) if name == "--watch" => {
                        assert!(matches!(kind, Kind::Pods | Kind::Events), "{kind:?} cannot be watched");
                    }
                    Ok(_) if name == "--all-namespaces" => {
                        let other = Options { namespace: Some("other".to_owned()), ..Options::default() };
                        let all = Options { all_namespaces: true, ..other };
                        let all = shown_of(kind, &all).expect("it is shown");
                        assert_eq!(all, plain, "{kind:?}");
                    }
                    Ok(_) => match shown_of(kind, &options) {
                        Err(error) => assert!(error.to_string().contains("none"), "{kind:?} {value:?}: {error}"),
                        // There is one node.
                        Ok(_) if kind == Kind::Nodes && value == ["one"] => {}
                        Ok(text) => assert_ne!(text, plain, "{kind:?} {value:?} is taken and ignored"),
                    },
                }
            }
        }
    }
    let both = parsed(&["pods", "one", "-A"]).expect("clap takes it");
    assert!(Kind::of(&both).is_err_and(|error| error.to_string().contains("across all namespaces")));
}
