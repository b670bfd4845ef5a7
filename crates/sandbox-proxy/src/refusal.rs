//! Answers of the proxy's own: why a request did not reach a server, and what to do.

use crate::{
    body::Body,
    host::{Target, Unknown},
};
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use sandbox_core::{Error, ErrorKind};
use std::error::Error as StdError;

/// Tells a program that the answer is not the server's, and why.
const REASON: HeaderName = HeaderName::from_static("sandbox-proxy-error");

/// A request that did not reach a server.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    reason: &'static str,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            status,
            reason,
            text,
        }
    }

    /// The request names no host, or more than one.
    pub(crate) fn no_host() -> Self {
        let text = "The request names no host, or more than one.";
        Self::new(StatusCode::BAD_REQUEST, "host", text)
    }

    /// The host is not one that is served.
    pub(crate) fn host(unknown: Unknown, domain: &str) -> Self {
        let cure =
            format!("Ask for http://<port>-<sandbox>.{domain}, by the sandbox's id or name.");
        match unknown {
            Unknown::Foreign => {
                let text = format!("This host is not served here. {cure}");
                Self::new(StatusCode::MISDIRECTED_REQUEST, "host", text)
            }
            Unknown::Malformed => {
                let text = format!("This host names no port of a sandbox. {cure}");
                Self::new(StatusCode::BAD_REQUEST, "host", text)
            }
        }
    }

    /// It is asked to be a proxy for other hosts.
    pub(crate) fn tunnel() -> Self {
        let text = "CONNECT is not served: ask for the server itself.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", text)
    }

    /// There is no connection to the server.
    pub(crate) fn unreached(target: &Target, error: &Error) -> Self {
        let Target { port, sandbox } = target;
        match error.kind() {
            ErrorKind::SandboxNotFound => {
                let text = format!(
                    "There is no sandbox {sandbox}, or it has ended. `sandbox ls` lists those that live."
                );
                Self::new(StatusCode::NOT_FOUND, "sandbox_not_found", text)
            }
            ErrorKind::NotFound => {
                let text = format!(
                    "Nobody listens on port {port} of sandbox {sandbox}. Start the server, or wait until it has started."
                );
                Self::new(StatusCode::BAD_GATEWAY, "nobody_listens", text)
            }
            ErrorKind::InvalidState => {
                let text = format!(
                    "Sandbox {sandbox} is paused. `sandbox resume {sandbox}` lets it go on."
                );
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "paused", text)
            }
            ErrorKind::Unsupported => {
                let text = "This provider gives no connections to servers in its sandboxes.";
                Self::new(StatusCode::NOT_IMPLEMENTED, "unsupported", text)
            }
            ErrorKind::PermissionDenied | ErrorKind::PolicyDenied => {
                let text = format!("It is not allowed to reach port {port} of sandbox {sandbox}.");
                Self::new(StatusCode::FORBIDDEN, "denied", text)
            }
            ErrorKind::Timeout => {
                let text = format!(
                    "Port {port} of sandbox {sandbox} took no connection in time. Its server may have too many, or hang."
                );
                Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", text)
            }
            _ => {
                let text = format!("Sandbox {sandbox} could not be reached: {error}.");
                Self::new(StatusCode::BAD_GATEWAY, "unreachable", text)
            }
        }
    }

    /// Several sandboxes have names that differ in nothing but case.
    pub(crate) fn ambiguous(target: &Target) -> Self {
        let text = format!(
            "Several sandboxes are called {}, in upper or lower case. Ask by the id.",
            target.sandbox
        );
        Self::new(StatusCode::NOT_FOUND, "ambiguous", text)
    }

    /// The server was reached, and has not answered as HTTP wants it.
    pub(crate) fn broken(target: &Target, http2: bool, error: &hyper::Error) -> Self {
        let Target { port, sandbox } = target;
        let cure = if http2 {
            " It was asked in HTTP/2, as the request came; a server that speaks HTTP/1.1 alone must be asked in that."
        } else {
            ""
        };
        let why = with_causes(error);
        let text =
            format!("The server on port {port} of sandbox {sandbox} gave no answer: {why}.{cure}");
        Self::new(StatusCode::BAD_GATEWAY, "no_answer", text)
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::text(self.text + "\n"));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(CONTENT_TYPE, text);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REASON, HeaderValue::from_static(self.reason));
        response
    }
}

/// An error says what could not be done, and only its causes why.
fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
