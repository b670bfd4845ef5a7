//! Bodies on their way: frame by frame as they come, and never gathered.

use crate::inside::Link;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

/// How long a client that waits for a word of the server's before it sends its body is made to wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    /// A text of the proxy's own, or nothing.
    Text(Option<Bytes>),
    /// The server's. The connection to it ends with it, so that a client that is gone is gone for the server, too.
    Inside { body: Incoming, _link: Arc<Link> },
}

impl Body {
    pub(crate) fn text(text: String) -> Self {
        Self::Text(Some(text.into()))
    }

    pub(crate) fn empty() -> Self {
        Self::Text(None)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Inside { body, .. } => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Inside { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Inside { body, .. } => body.size_hint(),
        }
    }
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct RequestBody {
    body: Incoming,
    gate: Option<Gate>,
}

/// What holds a body back.
#[derive(Debug)]
struct Gate {
    opened: oneshot::Receiver<()>,
    patience: Pin<Box<Sleep>>,
}

impl RequestBody {
    /// A body that is sent as it comes.
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, gate: None }
    }

    /// Holds the body back until the server wants it, for a moment: the client is told to send it when it is first read.
    pub(crate) fn when(mut self, opened: oneshot::Receiver<()>) -> Self {
        let patience = Box::pin(sleep(PATIENCE));
        self.gate = Some(Gate { opened, patience });
        self
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(gate) = &mut self.gate {
            let opened = Pin::new(&mut gate.opened).poll(cx).is_ready();
            if !opened && gate.patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.gate = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
