use super::*;

fn pod(name: &str, requests: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: a, resources: \
         {requests}}}]}}\n"
    );
    stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
}

fn allocations() -> Allocations {
    Allocations {
        pods: 3,
        cpu: 2000,
        memory: 1 << 30,
        hugepages: BTreeMap::from([(2 << 20, 8 << 20)]),
        ..Allocations::default()
    }
}

#[test]
fn what_does_not_fit_is_named_with_numbers() {
    let mut allocations = allocations();
    allocations.admit(&pod("a", "{requests: {cpu: 1500m}}")).expect("it fits");
    let table = [
        ("{requests: {cpu: 501m}}", "OutOfcpu", "cpu, requested: 501, used: 1500, capacity: 2000"),
        ("{requests: {memory: 2Gi}}", "OutOfmemory", "memory, requested: 2147483648, used: 0, capacity: 1073741824"),
        (
            "{limits: {hugepages-2Mi: 10Mi, memory: 1Mi}}",
            "OutOfhugepages-2Mi",
            "hugepages-2Mi, requested: 10485760, used: 0, capacity: 8388608",
        ),
    ];
    for (requests, reason, message) in table {
        let refused = allocations.admit(&pod("b", requests)).expect_err("R-ADM-3");
        let message = format!("Node didn't have enough resource: {message}");
        assert_eq!((refused.reason.as_str(), &*refused.message), (reason, &*message), "R-ADM-3");
    }
    allocations.admit(&pod("b", "{requests: {cpu: 500m}}")).expect("it fits exactly");
    allocations.admit(&pod("c", "{}")).expect("it asks for nothing");
    let refused = allocations.admit(&pod("d", "{}")).expect_err("R-ADM-3");
    assert_eq!(refused.reason.as_str(), "OutOfpods", "R-ADM-3");
}

#[test]
fn what_there_is_is_shown_as_kubernetes_writes_it() {
    let capacity = Allocations { disk: "/".into(), ..allocations() }.capacity();
    let shown = ["cpu", "memory", "pods", "hugepages-2Mi"].map(|name| capacity[name].as_str());
    assert_eq!(shown, ["2", "1048576Ki", "3", "8192Ki"], "R-RES-21");
    assert!(capacity["ephemeral-storage"].ends_with("Ki"), "R-RES-21: {capacity:?}");
}

#[test]
fn requests_for_storage_fit_on_the_disk() {
    let disk = PathBuf::from("/");
    let size = files::disk_size(&disk).expect("it has a size");
    let mut allocations = Allocations { disk, ..allocations() };
    let asking = |name, bytes: u64| pod(name, &format!("{{requests: {{ephemeral-storage: {bytes}}}}}"));
    allocations.admit(&asking("a", 1 << 20)).expect("it fits");
    let refused = allocations.admit(&asking("b", size)).expect_err("R-ADM-3");
    let message = format!(
        "Node didn't have enough resource: ephemeral-storage, requested: {size}, used: 1048576, capacity: {size}"
    );
    assert_eq!(
        (refused.reason.as_str(), &*refused.message),
        ("OutOfephemeral-storage", &*message),
        "R-ADM-3, R-RES-21"
    );
    allocations.admit(&asking("b", size - (1 << 20))).expect("it fits exactly");
    allocations.admit(&pod("c", "{}")).expect("it asks for nothing");
}

#[test]
fn an_edit_takes_over_its_pods_requests_and_a_removed_pod_frees_its_own() {
    let mut allocations = allocations();
    let before = pod("a", "{requests: {cpu: 1500m}}");
    allocations.admit(&before).expect("it fits");
    assert!(
        allocations.admit(&pod("a", "{requests: {cpu: 2001m}}")).is_err() && allocations.has(&before),
        "it keeps what it has"
    );
    let after = pod("a", "{requests: {cpu: 2}}");
    allocations.admit(&after).expect("R-ADM-3: its own are not in its way");
    assert!(allocations.has(&after) && !allocations.has(&before));
    let other = pod("b", "{requests: {cpu: 1m}}");
    assert!(allocations.admit(&other).is_err());
    allocations.count(&other);
    assert!(allocations.has(&other), "R-ADM-2: what runs goes on");
    allocations.retain(|key| *key == other.key);
    allocations.admit(&before).expect("there is capacity again");
}

fn with_port(name: &str, network: &str, port: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: {network}\n  containers: [{{name: c, image: \
         a, ports: [{port}]}}]\n"
    );
    stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
}

#[test]
fn a_port_of_the_node_goes_to_one_pod() {
    let table = [
        (("false", "{containerPort: 80, hostPort: 8080}"), Some("8080/TCP")),
        (("false", "{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.2}"), Some("8080/TCP")),
        (("false", "{containerPort: 80, hostPort: 8080, hostIP: 0.0.0.0}"), Some("8080/TCP")),
        (("true", "{containerPort: 8080}"), Some("8080/TCP")),
        (("false", "{containerPort: 80, hostPort: 8080, protocol: UDP}"), None),
        (("false", "{containerPort: 8080}"), None),
        (("false", "{containerPort: 80, hostPort: 9090, hostIP: 127.0.0.1}"), Some("9090/TCP of 127.0.0.1")),
        (("false", "{containerPort: 80, hostPort: 9090, hostIP: 127.0.0.2}"), None),
        (("false", "{containerPort: 80, hostPort: 9090}"), Some("9090/TCP of 127.0.0.1")),
    ];
    for ((network, port), conflict) in table {
        let mut allocations = allocations();
        let two = "{containerPort: 1, hostPort: 8080}, {containerPort: 2, hostPort: 9090, hostIP: 127.0.0.1}";
        allocations.admit(&with_port("a", "false", two)).expect("they are free");
        let other = with_port("b", network, port);
        let refused = allocations.admit(&other).err();
        let message = conflict.map(|port| {
            format!(
                "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: host port {port} \
                 is in use by pod default/a-n"
            )
        });
        assert_eq!(refused, message.map(|message| Explanation::new(Reason::NodePorts, message)), "R-ADM-5: {port}");
        allocations.retain(|key| key.name != "a-n");
        allocations.admit(&other).expect("R-ADM-5: nobody has it any more");
    }
}

#[test]
fn an_edit_keeps_the_ports_that_its_pod_has_and_gives_the_others_back() {
    let mut allocations = allocations();
    allocations.admit(&with_port("a", "false", "{containerPort: 80, hostPort: 8080}")).expect("it is free");
    let edited = with_port("a", "false", "{containerPort: 81, hostPort: 8080}, {containerPort: 82, hostPort: 8081}");
    allocations.admit(&edited).expect("R-ADM-5: its own are not in its way");
    allocations.admit(&with_port("a", "false", "{containerPort: 81, hostPort: 8081}")).expect("R-ADM-5");
    allocations
        .admit(&with_port("b", "false", "{containerPort: 81, hostPort: 8080}"))
        .expect("R-ADM-5: it was given back");
    assert!(allocations.admit(&with_port("c", "false", "{containerPort: 81, hostPort: 8081}")).is_err());
}
