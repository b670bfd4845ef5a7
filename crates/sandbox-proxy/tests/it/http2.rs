//! HTTP/2 without TLS, from the first byte on.

use crate::stage::{Stage, soon};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    HeaderMap, Request, Response, Version,
    body::{Bytes, Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
    header::HeaderValue,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::mpsc;

async fn client(stage: &Stage) -> SendRequest<Full<Bytes>> {
    let io = TokioIo::new(stage.connect().await);
    let (sender, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn post(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("http://8000-box.localhost:7000/service?x=1")
        .header("te", "trailers")
        .body(Full::new(body.into()))
        .unwrap()
}

/// Sends the body back, with its length as a trailer, and what it was asked as a field.
async fn echo(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let asked = format!(
        "{:?} {} {}",
        request.version(),
        request.method(),
        request.uri()
    );
    let host = request.headers().get("x-forwarded-host").cloned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-length", HeaderValue::from(body.len()));
    let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let response = Response::builder().header("x-asked", asked);
    Ok(response.header("x-host", host.unwrap()).body(body).unwrap())
}

#[tokio::test]
async fn it_reaches_the_server_as_it_is_with_trailers() {
    let stage = Stage::new().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    stage.serve(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {
            let served = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(echo));
            let _ended = served.await;
        }
    });
    let client = client(&stage).await;
    let ask = |size: usize| {
        let mut client = client.clone();
        async move { client.send_request(post(vec![7; size])).await.unwrap() }
    };
    let first = soon(ask(5)).await;
    assert_eq!(first.version(), Version::HTTP_2);
    let asked = first.headers()["x-asked"].to_str().unwrap();
    assert_eq!(
        asked,
        "HTTP/2.0 POST http://8000-box.localhost:7000/service?x=1"
    );
    assert_eq!(first.headers()["x-host"], "8000-box.localhost:7000");
    // Many at a time, over one connection.
    let many = soon(futures_util::future::join_all(
        (1..50).map(|size| ask(size * 1000)),
    ))
    .await;
    for (response, size) in many.into_iter().zip(1..) {
        let body = soon(response.into_body().collect()).await.unwrap();
        assert_eq!(
            body.trailers().unwrap()["x-length"],
            (size * 1000).to_string()
        );
        assert_eq!(body.to_bytes().len(), size * 1000);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_of_http1_alone_is_named() {
    let stage = Stage::new().await;
    stage.serve(|stream| async {
        let service = service_fn(|_| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("one"))))
        });
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let _ended = served.await;
    });
    let response = soon(client(&stage).await.send_request(post("")))
        .await
        .unwrap();
    assert_eq!(response.status(), 502);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("asked in HTTP/2"), "{text}");
}

#[tokio::test]
async fn refusals_are_told_in_it_too() {
    let stage = Stage::new().await;
    let foreign = Request::get("http://example.com/").body(Full::default());
    let mut client = client(&stage).await;
    let response = soon(client.send_request(foreign.unwrap())).await.unwrap();
    assert_eq!(response.status(), 421);
    let response = soon(client.send_request(post(""))).await.unwrap();
    assert_eq!(response.status(), 502);
}

/// Tells when it is dropped.
struct Ends(mpsc::UnboundedSender<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_client_that_is_gone_is_gone_for_the_server() {
    let stage = Stage::new().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    stage.serve(move |stream| {
        let tell = tell.clone();
        async move {
            let service = service_fn(move |_| {
                let _unused = tell.send(());
                let ends = Ends(tell.clone());
                async move {
                    let _ends = ends;
                    std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>().await
                }
            });
            let builder = http2::Builder::new(TokioExecutor::new());
            let _ended = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    let mut sender = client(&stage).await;
    let asked = tokio::spawn(async move { sender.send_request(post("")).await });
    soon(told.recv()).await.unwrap();
    asked.abort();
    soon(told.recv()).await.unwrap();
}
