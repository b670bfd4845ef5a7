//! One request and its answer.

use crate::{
    body::{Body, RequestBody},
    client::Client,
    forward::tunnel,
    headers,
    host::Target,
    inside,
    refusal::Refusal,
    serving::Place,
};
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    ext::on_informational,
    header::{EXPECT, HOST, HeaderValue},
    http::uri::{PathAndQuery, Scheme},
    upgrade::{OnUpgrade, on},
};
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Passes a request to the server that its host names, and its answer back.
pub(crate) async fn pass(
    client: &Client,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (target, host) = target(client, &request)?;
    let version = request.version();
    let protocol = headers::upgrade(request.headers()).filter(|_| version != Version::HTTP_2);
    let outside = protocol.is_some().then(|| on(&mut request));

    headers::strip(request.headers_mut());
    headers::forwarded(request.headers_mut(), client.peer, &host, version);
    let asked = if version == Version::HTTP_2 {
        ask_http2(client, &target, request).await?
    } else {
        let request = as_http1(request, host, protocol);
        let stream = client.names().connect(&target).await?;
        let answer = inside::ask_http1(stream, request).await;
        answer.map_err(|error| Refusal::broken(&target, false, &error))?
    };

    let (mut response, link) = asked;
    let agreed = headers::upgrade(response.headers());
    headers::strip(response.headers_mut());
    *response.version_mut() = version;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let inside = on(&mut response);
        if let (Some(outside), Some(protocol)) = (outside, agreed) {
            headers::set_upgrade(response.headers_mut(), protocol);
            let place = client.place.clone();
            tokio::spawn(async move {
                join(outside, inside, place).await;
                drop(link);
            });
            return Ok(response.map(|_| Body::empty()));
        }
    }
    Ok(response.map(|body| Body::Inside { body, _link: link }))
}

/// Which server is asked, and under which name.
fn target(client: &Client, request: &Request<Incoming>) -> Result<(Target, HeaderValue), Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::tunnel());
    }
    // A host in the request's line is what counts (RFC 9112, 3.2.2), and HTTP/2 has it nowhere else.
    let host = match request.uri().authority() {
        Some(authority) if authority.as_str().contains('@') => return Err(Refusal::no_host()),
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => headers::only_host(request.headers()).cloned(),
    };
    let host = host.ok_or_else(Refusal::no_host)?;
    let text = host.to_str().map_err(|_| Refusal::no_host())?;
    let target = Target::parse(text, client.domains());
    let target = target.map_err(|unknown| Refusal::host(unknown, &client.domains()[0]))?;
    Ok((target, host))
}

/// The request as the server is asked it: by its path, and under the name that the client knows it by, so that redirects,
/// cookies and checks of an origin are right.
fn as_http1(
    request: Request<Incoming>,
    host: HeaderValue,
    protocol: Option<HeaderValue>,
) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    parts.version = Version::HTTP_11;
    parts.headers.insert(HOST, host);
    headers::strip_length(&mut parts.headers, body.size_hint().exact());
    if let Some(protocol) = protocol {
        headers::set_upgrade(&mut parts.headers, protocol);
    }
    let waits = parts.headers.get(EXPECT);
    let waits =
        waits.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let body = RequestBody::new(body);
    if !waits {
        return Request::from_parts(parts, body);
    }
    let (open, opened) = oneshot::channel();
    let mut request = Request::from_parts(parts, body.when(opened));
    let open = Mutex::new(Some(open));
    on_informational(&mut request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            let open = open.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Without a reader nobody waits any more.
            let _unread = open.map(|open| open.send(()));
        }
    });
    request
}

/// Asks in HTTP/2, as the client does: it would not have begun with that if the server spoke HTTP/1.1 alone.
async fn ask_http2(
    client: &Client,
    target: &Target,
    mut request: Request<Incoming>,
) -> Result<(Response<Incoming>, Arc<inside::Link>), Refusal> {
    let uri = request.uri_mut();
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    if let Ok(whole) = Uri::from_parts(parts) {
        *uri = whole;
    }
    request.headers_mut().remove(HOST);
    let connect = client.names().connect(target);
    let connection = client.kept.get(target, connect).await?;
    let answer = connection.ask(request.map(RequestBody::new)).await;
    answer.map_err(|error| {
        client.kept.forget(target);
        Refusal::broken(target, true, &error)
    })
}

/// Passes the bytes of another protocol both ways, once both sides have turned to it.
async fn join(outside: OnUpgrade, inside: OnUpgrade, place: Place) {
    if let Ok((outside, inside)) = tokio::try_join!(outside, inside) {
        tunnel(TokioIo::new(outside), TokioIo::new(inside), place).await;
    }
}
