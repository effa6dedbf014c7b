//! The agent's health endpoints, and its notifications to systemd.

use std::{net::TcpListener, os::unix::net::UnixDatagram, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use stanchion_tests::{
    Backend, Node, http,
    pods::{IDLE, shell},
};

stanchion_tests::on_each_runtime! {
    the_agent_says_over_http_how_it_is,
    the_service_manager_is_told,
}

// R-LOOP-7.
fn the_agent_says_over_http_how_it_is(on: Backend) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    Node::builder().on(on).agent(&format!("health_address = \"{address}\"\n")).run(|node| {
        println!("an address that is taken keeps no pod from running");
        node.write("pod.yaml", shell("pod", IDLE, ""))?;
        node.await_running("pod")?;
        drop(taken);
        let get = |path: &str| http::get(&format!("http://{address}/{path}"));
        node.until("the agent to listen", || get("healthz").map(drop))?;
        for path in ["healthz", "livez", "readyz", "healthz/syncloop"] {
            let answer = get(path)?;
            ensure!(answer == (200, "ok".to_owned()), "R-LOOP-7: /{path} says {answer:?}");
        }
        let lines = "[+]ping ok\n[+]syncloop ok\n";
        let answer = get("livez?verbose")?;
        ensure!(answer == (200, format!("{lines}livez check passed\n")), "R-LOOP-7: {answer:?}");
        ensure!(get("v1/pods")?.0 == 404 && get("metrics")?.0 == 404, "nothing else is told there");

        println!("without its runtime it lives and is not ready");
        node.end_runtime(Signal::KILL)?;
        let expected =
            format!("{lines}[+]sources ok\n[-]backends failed: none of 1 can be reached\nreadyz check failed\n");
        node.until("it not to be ready", || {
            let answer = get("readyz")?;
            ensure!(answer == (500, expected.clone()), "R-LOOP-7: {answer:?}");
            Ok(())
        })?;
        ensure!(get("livez")? == (200, "ok".to_owned()) && get("readyz?exclude=backends")?.0 == 200, "R-LOOP-7");
        node.resume_runtime()?;
        node.until("it to be ready", || {
            let answer = get("readyz")?;
            ensure!(answer.0 == 200, "{answer:?}");
            Ok(())
        })
    })
}

// R-LOOP-7: sd_notify(3).
fn the_service_manager_is_told(on: Backend) -> Result<()> {
    let mut node = Node::builder().on(on).without_agent()?;
    let path = node.path("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(Duration::from_secs(30)))?;
    let environment = [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "400000".to_owned())];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
    node.agent.configure(&node.path("stanchion.toml"), environment);
    node.agent.start()?;
    let told = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).context("nothing is told")?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    for expected in ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"] {
        let told = told()?;
        ensure!(told == expected, "R-LOOP-7: told {told:?} and not {expected:?}");
    }
    node.agent.stop()?;
    while told()? != "STOPPING=1" {}
    Ok(())
}
