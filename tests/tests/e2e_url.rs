//! Pods with manifests from a URL, on a real runtime.

use std::time::Duration;

use anyhow::{Result, ensure};
use stanchion_tests::{
    Backend, Node,
    ctr::Running,
    pods::{idle, on_node},
    site::Site,
    wait::throughout,
};

/// Bearer token, which no output may contain.
const TOKEN: &str = "hush-hush";

fn assert_same(node: &Node, before: &Running) -> Result<()> {
    let now = node.container("web")?;
    ensure!(now.identity() == before.identity(), "{:?} became {:?}", before.identity(), now.identity());
    Ok(())
}

fn untouched(node: &Node, before: &Running) -> Result<()> {
    throughout(Duration::from_secs(3), || assert_same(node, before))
}

/// Waits until `get pods` reports no problem with the URL.
fn await_fine(node: &Node, url: &str) -> Result<()> {
    node.until("the server to be believed again", || {
        let said = node.said(&["get", "pods"])?;
        ensure!(!said.contains(url), "get pods still says: {said}");
        Ok(())
    })
}

fn served(node: &Node, site: &Site) -> Result<Running> {
    println!("two pods are served");
    node.await_running("web")?;
    node.await_running("other")?;
    let annotations = &node.pod("web")?.0["metadata"]["annotations"];
    ensure!(annotations["kubernetes.io/config.source"] == "http", "R-ID-8: {annotations}");
    let wide = node.agent.text(&["get", "pods", "-o", "wide"])?;
    ensure!(wide.contains(&site.url()), "get pods -o wide says:\n{wide}");
    let requests = site.requests();
    let sent = format!("authorization: Bearer {TOKEN}\r\n");
    ensure!(requests.iter().all(|it| it.contains(&sent)), "R-HTTP-2: {requests:?}");
    node.container("web")
}

fn server_gone(node: &mut Node, site: &mut Site, web: &Running) -> Result<()> {
    println!("the server goes");
    site.stop();
    node.await_said(&["get", "pods"], &[&site.url(), "connection refused", "its pods keep running unchanged"])?;
    node.await_said(&["describe", "pod", &on_node("web")], &["connection refused"])?;
    untouched(node, web)?;
    println!("... which keeps nothing from files waiting");
    node.write("file.yaml", idle("file", "1"))?;
    node.await_running("file")?;
    node.remove("file.yaml")?;
    node.await_gone("file")?;

    println!("... and the agent restarts; meanwhile a container has ended, as all do in a reboot");
    node.agent.stop()?;
    let other = node.container("other")?;
    other.kill()?;
    node.agent.start()?;
    node.await_said(&["get", "pods"], &[&site.url(), "connection refused"])?;
    node.until("the other pod to run again", || {
        let now = node.container("other")?;
        ensure!(now.identity() != other.identity(), "still {:?}", other.identity());
        Ok(())
    })?;
    node.await_running("other")?;
    untouched(node, web)
}

fn nothing_good(node: &Node, site: &mut Site, good: &str, web: &Running) -> Result<()> {
    println!("the server is back, and has nothing good");
    site.resume()?;
    await_fine(node, &site.url())?;
    let half = &good[..good.rfind("image:").unwrap_or_default()];
    for (status, body, said) in [
        (404, good, "404 Not Found"),
        (200, "", "the answer is empty"),
        (200, "<html>garbage</html>", "not a Pod"),
        (200, &good.replace("kind: Pod", "kind: Deployment"), "Deployment needs a controller"),
        (200, half, "image: Required value"),
    ] {
        site.says(status, body);
        node.await_said(&["get", "pods"], &[&site.url(), said])?;
        untouched(node, web)?;
    }
    site.says(200, good);
    await_fine(node, &site.url())?;
    untouched(node, web)
}

fn edited(node: &Node, site: &Site, web: &Running) -> Result<()> {
    println!("the body is edited");
    let other = node.container("other")?;
    site.says(200, &format!("{}---\n{}", idle("web", "2"), idle("other", "1")));
    node.until("the edit to take effect", || {
        let now = node.container("web")?;
        ensure!(now.identity() != web.identity(), "still {:?}", web.identity());
        let environment = stanchion_tests::proc::environment(now.pid)?;
        ensure!(environment.contains(&"REVISION=2".to_owned()), "{environment:?}");
        Ok(())
    })?;
    node.await_running("web")?;
    ensure!(node.container("other")?.identity() == other.identity(), "R-MRG-3: nobody edited the other");

    println!("one document goes, then all");
    site.says(200, &idle("other", "1"));
    node.await_gone("web")?;
    node.await_running("other")?;
    site.says(200, "apiVersion: v1\nkind: PodList\nitems: []\n");
    node.await_gone("other")?;
    node.await_nothing_left()
}

// R-HTTP-1, R-HTTP-3, R-HTTP-4, R-HTTP-6, R-GAP-33, R-SRC-1, R-SRC-3.
#[test]
fn pods_of_a_url_outlive_its_server() -> Result<()> {
    let good = format!("{}---\n{}", idle("web", "1"), idle("other", "1"));
    let mut site = Site::start(&good)?;
    let source = format!(
        "[[source]]\nurl = \"{}\"\ninterval = \"1s\"\nheaders = {{ Authorization = \"Bearer {TOKEN}\" }}\n",
        site.url()
    );
    Node::builder().on(Backend::Containerd).tables(&source).run(|node| {
        let web = served(node, &site)?;
        server_gone(node, &mut site, &web)?;
        nothing_good(node, &mut site, &good, &web)?;
        edited(node, &site, &web)?;
        let said = node.dump();
        ensure!(!said.contains(TOKEN), "I10: the token is shown");
        Ok(())
    })
}
