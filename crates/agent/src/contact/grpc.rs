//! Calls `grpc.health.v1.Health/Check` without TLS (R-PRB-31). One call with two fields does not need a whole gRPC
//! client.

use std::{net::IpAddr, time::Duration};

use hyper::{
    HeaderMap, Request,
    body::{Buf, Bytes},
};
use tokio::time::sleep;

use super::{tcp, user_agent};
use crate::{clock::timeout_at, limits::GRPC_HEADERS, url::join};

/// Names of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// Names of gRPC's status codes.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNIMPLEMENTED: usize = 12;
/// Pause before the next attempt after a refused connection.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Maximum length of an answer, bytes.
const MAX_ANSWER: usize = 4096;

/// Checks that the service reports `SERVING`.
pub(crate) async fn check(pod: IpAddr, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let to = join(&pod.to_string(), port);
    let deadline = crate::clock::instant() + timeout;
    let connected = timeout_at(deadline, async {
        loop {
            match tcp::open(&pod.to_string(), port, deadline).await {
                Ok(stream) => return stream,
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    });
    let Ok(stream) = connected.await else {
        return Err(format!(
            "timeout: failed to connect service \"{to}\" within {timeout:?}: context deadline exceeded"
        ));
    };
    let failed = |error: String| format!("error: health rpc probe failed: {error}");
    let called = timeout_at(deadline, async {
        let (send, connection) = h2::client::Builder::new()
            .max_header_list_size(u32::try_from(GRPC_HEADERS.most).unwrap_or(u32::MAX))
            .handshake(stream)
            .await
            .map_err(|error| error.to_string())?;
        // *Cancel-safe:* the connection is of no use once there is an answer.
        tokio::select! {
            answer = call(send, &to, service) => answer,
            ended = connection => Err(ended.err().map_or("the connection ended".to_owned(), |error| error.to_string())),
        }
    });
    match called.await {
        Err(_) => Err(format!("timeout: health rpc did not complete within {timeout:?}")),
        Ok(Err(error)) => Err(failed(format!("rpc error: code = Unavailable desc = {error}"))),
        Ok(Ok(HealthResponse { code: 0, status, .. })) => match STATUSES.get(status).copied() {
            Some("SERVING") => Ok(()),
            name => {
                let name = name.map_or_else(|| status.to_string(), str::to_owned);
                Err(format!("service unhealthy (responded with \"{name}\")"))
            }
        },
        Ok(Ok(HealthResponse { code: UNIMPLEMENTED, message, .. })) => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Ok(HealthResponse { code, message, .. })) => {
            let name = CODES.get(code).copied().unwrap_or("Unknown");
            Err(failed(format!("rpc error: code = {name} desc = {message}")))
        }
    }
}

struct HealthResponse {
    code: usize,
    message: String,
    status: usize,
}

async fn call(send: h2::client::SendRequest<Bytes>, to: &str, service: &str) -> Result<HealthResponse, String> {
    let text = |error: h2::Error| error.to_string();
    let request = Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("user-agent", user_agent("probe"))
        .header("te", "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    let mut send = send.ready().await.map_err(text)?;
    let (response, mut body) = send.send_request(request, false).map_err(text)?;
    body.send_data(framed(service), true).map_err(text)?;
    let (head, mut body) = response.await.map_err(text)?.into_parts();
    // A failed call may have its status among the headers and no body.
    if head.headers.contains_key("grpc-status") {
        return Ok(answer(&head.headers, &[]));
    }
    if !head.status.is_success() {
        return Err(format!("unexpected HTTP status code received from server: {}", head.status));
    }
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(text)?;
        body.flow_control().release_capacity(data.len()).map_err(text)?;
        if bytes.len() + data.len() > MAX_ANSWER {
            return Err("the answer is too long".to_owned());
        }
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.map_err(text)?.unwrap_or_default();
    Ok(answer(&trailers, &bytes))
}

/// Returns the framed request: not compressed, its length, and the message with the service in field 1.
fn framed(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        varint(service.len(), &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).expect("validation: names of services are short");
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

fn varint(mut number: usize, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    to.push(u8::try_from(number).expect("seven bits"));
}

fn answer(trailers: &HeaderMap, body: &[u8]) -> HealthResponse {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status").and_then(|code| code.parse().ok()).unwrap_or(2);
    let message = text("grpc-message").unwrap_or_default().replace("%20", " ");
    // Field 1, a number that fits one byte; left out where it is zero.
    let mut message_body = body.get(5..).unwrap_or_default();
    let status = match message_body.first() {
        Some(0x08) if message_body.len() > 1 => {
            message_body.advance(1);
            usize::from(message_body[0])
        }
        _ => 0,
    };
    HealthResponse { code, message, status }
}
