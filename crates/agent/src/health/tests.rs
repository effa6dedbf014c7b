use super::*;

async fn said(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

fn options(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(option, value)| ((*option).to_owned(), (*value).to_owned())).collect()
}

// R-LOOP-7.
#[tokio::test]
async fn answers_are_in_the_api_servers_words() {
    let well = || vec![("ping", Ok(())), ("syncloop", Ok(()))];
    let ill = || vec![("ping", Ok(())), ("syncloop", Err("it stands".to_owned()))];
    assert_eq!(said(all("livez", well(), &[])).await, (200, "ok".to_owned()), "R-LOOP-7");
    let verbose = options(&[("verbose", "")]);
    let expected = "[+]ping ok\n[+]syncloop ok\nlivez check passed\n".to_owned();
    assert_eq!(said(all("livez", well(), &verbose)).await, (200, expected), "R-LOOP-7");
    let expected = "[+]ping ok\n[-]syncloop failed: it stands\nhealthz check failed\n".to_owned();
    assert_eq!(said(all("healthz", ill(), &[])).await, (500, expected), "R-LOOP-7");
    let excluded = options(&[("verbose", "true"), ("exclude", "syncloop")]);
    let expected = "[+]ping ok\n[+]syncloop excluded: ok\nhealthz check passed\n".to_owned();
    assert_eq!(said(all("healthz", ill(), &excluded)).await, (200, expected));
    assert_eq!(said(one(ill(), "ping")).await, (200, "ok".to_owned()));
    assert_eq!(said(one(ill(), "syncloop")).await.0, 500, "R-LOOP-7");
    assert_eq!(said(one(ill(), "other")).await.0, 404);
}

// R-LOOP-7.
#[tokio::test(start_paused = true)]
async fn a_loop_that_stands_still_for_five_minutes_is_ill() {
    let heartbeat = Heartbeat::default();
    tokio::time::advance(Duration::from_secs(300)).await;
    assert_eq!(heartbeat.check(), Ok(()), "R-LOOP-7");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(heartbeat.check(), Err("the loop has stood still for 301s".to_owned()), "R-LOOP-7");
    heartbeat.beat();
    assert_eq!(heartbeat.check(), Ok(()), "R-LOOP-7");
}
