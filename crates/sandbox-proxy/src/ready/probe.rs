//! Asks a server again and again whether it is there.

use super::{Http, Seen};
use crate::{body::Body, forward::connect, inside};
use hyper::{
    Method, Request, Uri,
    header::{CONNECTION, HOST, HeaderValue},
};
use sandbox_core::{Error, ErrorKind, PortStream, Result, Sandbox};
use std::time::Duration;

/// The first pause between two attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Tries until it works. `attempt` gives `None` if it may work later.
async fn again<F: Future<Output = Result<Option<()>>>>(attempt: impl Fn() -> F) -> Result<()> {
    let (mut pause, longest) = PAUSES;
    while attempt().await?.is_none() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
    Ok(())
}

/// Somebody listens there.
pub(super) async fn port(sandbox: &dyn Sandbox, port: u16, seen: &Seen) -> Result<()> {
    again(|| async { Ok(listening(sandbox, port, seen).await?.map(drop)) }).await
}

/// The answer has the status.
pub(super) async fn http(sandbox: &dyn Sandbox, http: &Http, seen: &Seen) -> Result<()> {
    let uri: Uri = http.path.parse().map_err(|_| not_a_path())?;
    if !http.path.starts_with('/') {
        return Err(not_a_path());
    }
    again(|| async {
        let Some(stream) = listening(sandbox, http.port, seen).await? else {
            return Ok(None);
        };
        let answer = tokio::time::timeout(ANSWER, inside::ask_http1(stream, get(http.port, &uri)));
        let status = match answer.await {
            Ok(Ok((response, _))) => response.status().as_u16(),
            Ok(Err(error)) => {
                seen.set(format!("no answer in HTTP: {error}"));
                return Ok(None);
            }
            Err(_) => {
                seen.set("a connection without an answer");
                return Ok(None);
            }
        };
        seen.set(format!("status {status}"));
        let wanted = match http.status {
            Some(wanted) => status == wanted,
            None => (200..400).contains(&status),
        };
        Ok(wanted.then_some(()))
    })
    .await
}

fn not_a_path() -> Error {
    Error::invalid("what is asked for must be a path, such as /health")
}

fn get(port: u16, uri: &Uri) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&format!("localhost:{port}")) {
        headers.insert(HOST, host);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    request
}

/// A connection, if somebody listens by now.
async fn listening(sandbox: &dyn Sandbox, port: u16, seen: &Seen) -> Result<Option<PortStream>> {
    match connect(sandbox, port).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if [ErrorKind::NotFound, ErrorKind::Timeout].contains(&error.kind()) => {
            seen.set(error.message());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
